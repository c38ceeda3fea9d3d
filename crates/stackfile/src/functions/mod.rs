//! Functions of the stack language: one table, by name.

mod collections;
mod encoding;
mod files;
mod numbers;
mod strings;

use hcl_edit::expr::FuncCall;

use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault, Faults, all};
use crate::number::Number;
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::template::LONGEST_TEXT;
use crate::value::{Data, Value};

/// A function: how it is written, how many arguments it takes, and what it does.
pub(crate) struct Function {
    /// Name and parameters as shown to people: `join(separator, list)`. The name ends at the parenthesis.
    usage: &'static str,
    least: usize,
    most: usize,
    run: fn(&Call) -> Eval<Data>,
}

impl Function {
    fn name(&self) -> &'static str {
        self.usage.split('(').next().unwrap_or(self.usage)
    }
}

/// A call: the arguments, evaluated.
pub(crate) struct Call<'c> {
    ev: &'c Evaluator<'c>,
    at: At,
    args: Vec<Value>,
}

/// Any number of arguments.
const ANY: usize = usize::MAX;

/// Returns a row of the table.
const fn row(usage: &'static str, least: usize, most: usize, run: fn(&Call) -> Eval<Data>) -> Function {
    Function { usage, least, most, run }
}

/// All tables; `try` and `can` stand apart, because their arguments may fail.
fn tables() -> impl Iterator<Item = &'static Function> {
    [strings::TABLE, collections::TABLE, numbers::TABLE, encoding::TABLE, files::TABLE].into_iter().flatten()
}

/// Returns the value of a call.
pub(crate) fn call(ev: &Evaluator, call: &FuncCall, scope: &Scope, at: At) -> Eval<Value> {
    let name = call.name.name.as_str();
    let name_at = ev.at(&call.name.name, at);
    if call.name.is_namespaced() {
        return Err(Fault::at(at, "functions with `::` in their name are not supported yet").into());
    }
    match name {
        "try" => return first_that_works(ev, call, scope, at),
        "can" => return can(ev, call, scope, at),
        _ => {}
    }
    let Some(function) = tables().find(|function| function.name() == name) else {
        let names = tables().map(Function::name).chain(["try", "can"]);
        let fault = Fault::at(name_at, format!("there is no function `{name}`")).label("not known");
        return Err(fault.maybe_help(did_you_mean(name, names)).into());
    };
    let mut args = all(call.args.iter().map(|arg| ev.eval(arg, scope, at)))?;
    if call.args.expand_final()
        && let Some(last) = args.pop()
    {
        match last.data {
            Data::List(items) => args.extend(items),
            _ => return Err(last.wrong_type("a list before `...`").into()),
        }
    }
    if args.len() < function.least || args.len() > function.most {
        let wanted = match (function.least, function.most) {
            (1, 1) => "1 argument".to_owned(),
            (1, ANY) => "at least 1 argument".to_owned(),
            (least, ANY) => format!("at least {least} arguments"),
            (least, most) if least == most => format!("{least} arguments"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        let message = format!("`{name}` takes {wanted}, not {}", args.len());
        return Err(Fault::at(at, message).help(format!("write {}", function.usage)).into());
    }
    let sensitive = args.iter().any(Value::is_sensitive);
    let data = (function.run)(&Call { ev, at, args })?;
    let value = Value::new(data, at).marked(sensitive);
    ev.cx.spend(value.size(), at)?;
    Ok(value)
}

/// Returns the first argument that has a value.
fn first_that_works(ev: &Evaluator, call: &FuncCall, scope: &Scope, at: At) -> Eval<Value> {
    let mut last = Faults::from(Fault::at(at, "`try` takes at least 1 argument"));
    for arg in call.args.iter() {
        match ev.eval(arg, scope, at) {
            Ok(value) => return Ok(value),
            Err(faults) => last = faults,
        }
    }
    Err(last)
}

/// Returns whether the argument has a value.
fn can(ev: &Evaluator, call: &FuncCall, scope: &Scope, at: At) -> Eval<Value> {
    match call.args.iter().collect::<Vec<_>>().as_slice() {
        [arg] => Ok(Value::new(Data::Bool(ev.eval(arg, scope, at).is_ok()), at)),
        args => Err(Fault::at(at, format!("`can` takes 1 argument, not {}", args.len())).into()),
    }
}

impl Call<'_> {
    /// Returns the string in the `i`th place.
    fn text(&self, i: usize) -> Eval<String> {
        self.args[i].to_text()
    }

    /// Returns the number in the `i`th place.
    fn number(&self, i: usize) -> Eval<Number> {
        self.args[i].to_number()
    }

    /// Returns the list in the `i`th place.
    fn list(&self, i: usize) -> Eval<&[Value]> {
        match &self.args[i].data {
            Data::List(items) => Ok(items),
            _ => Err(self.args[i].wrong_type("a list").into()),
        }
    }

    /// Returns a fault of the whole call.
    fn fault(&self, message: impl Into<String>) -> Faults {
        Fault::at(self.at, message).into()
    }

    /// Refuses a text of more than the longest length before it is made.
    fn fits(&self, length: Option<usize>) -> Eval<()> {
        match length {
            Some(length) if length <= LONGEST_TEXT => self.ev.cx.spend(length, self.at),
            _ => Err(self.fault("text longer than 16 MiB")),
        }
    }
}

/// Returns a list of strings.
fn texts(items: impl IntoIterator<Item = String>, at: At) -> Data {
    Data::List(items.into_iter().map(|text| Value::text(text, at)).collect())
}

#[cfg(test)]
mod tests;
