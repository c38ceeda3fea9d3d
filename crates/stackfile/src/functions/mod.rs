//! Functions of the stack language: one table, by name. They are those of Terraform's language, and behave as it documents them.
//!
//! What a function takes is written once, in [`Function::usage`]; how many arguments there may be, what messages call them, and
//! `docs/functions.md` follow from it.

mod collections;
mod conversion;
mod dates;
mod encoding;
mod files;
mod format;
mod hashes;
mod network;
mod numbers;
mod patterns;
mod sets;
mod strings;
mod yaml;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use hcl_edit::expr::FuncCall;

pub(crate) use encoding::{json, plain_json};

use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault, Faults, all};
use crate::number::Number;
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::template::LONGEST_TEXT;
use crate::value::{Data, Value};

/// A function: how it is written, what it is for, and what it does.
pub(crate) struct Function {
    /// Name and parameters as shown to people: `lookup(map, key, default?)`, `max(number, numbers...)`.
    usage: &'static str,
    /// What it returns, in one line of Markdown.
    about: &'static str,
    /// An expression that calls it, and its value as JSON: what `docs/functions.md` shows and the tests evaluate.
    #[cfg_attr(not(test), expect(dead_code, reason = "the page of functions is written by a test"))]
    example: Example,
    run: Run,
}

/// How a function is run, and what is sensitive of its result.
#[derive(Clone, Copy)]
enum Run {
    /// All of the result, if anything in an argument is.
    Whole(fn(&Call) -> Eval<Data>),
    /// What of an argument was; all of it, if an argument as a whole was. For functions that pass elements on as they are.
    Parts(fn(&Call) -> Eval<Value>),
    /// What the function says.
    Own(fn(&Call) -> Eval<Value>),
    /// What the function says, which evaluates its arguments itself, for they may fail.
    Lazy(fn(&Evaluator, &FuncCall, &Scope, At) -> Eval<Value>),
}

type Example = (&'static str, &'static str);

const fn whole(usage: &'static str, about: &'static str, example: Example, run: fn(&Call) -> Eval<Data>) -> Function {
    Function { usage, about, example, run: Run::Whole(run) }
}

const fn parts(usage: &'static str, about: &'static str, example: Example, run: fn(&Call) -> Eval<Value>) -> Function {
    Function { usage, about, example, run: Run::Parts(run) }
}

impl Function {
    fn name(&self) -> &'static str {
        self.usage.split('(').next().unwrap_or(self.usage)
    }

    /// Returns the parameters as written: `key`, `default?`, `lists...`.
    fn params(&self) -> impl Iterator<Item = &'static str> {
        let inner = self.usage.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        inner.split(", ").filter(|param| !param.is_empty())
    }

    /// Returns the name of the parameter that takes the `i`th argument.
    fn param(&self, i: usize) -> &'static str {
        self.params().nth(i).or(self.params().last()).unwrap_or("").trim_end_matches(['?', '.'])
    }

    /// Returns the least and the most arguments; the most is `None` if there is no such number.
    fn arity(&self) -> (usize, Option<usize>) {
        let least = self.params().filter(|param| !param.ends_with(['?', '.'])).count();
        let any = self.params().any(|param| param.ends_with("..."));
        (least, (!any).then(|| self.params().count()))
    }
}

/// All tables, each with its heading in the docs.
const TABLES: [(&str, &[Function]); 11] = [
    ("Strings", strings::TABLE),
    ("Formats", format::TABLE),
    ("Patterns", patterns::TABLE),
    ("Numbers and bools", numbers::TABLE),
    ("Lists and maps", collections::TABLE),
    ("Sets", sets::TABLE),
    ("Types", conversion::TABLE),
    ("Encodings", encoding::TABLE),
    ("Hashes", hashes::TABLE),
    ("Dates and networks", DATES_AND_NETWORKS),
    ("Files", files::TABLE),
];

const DATES_AND_NETWORKS: &[Function] = &[
    dates::FORMATDATE,
    dates::TIMEADD,
    dates::TIMECMP,
    dates::TIMESTAMP,
    dates::PLANTIMESTAMP,
    network::CIDRHOST,
    network::CIDRNETMASK,
    network::CIDRSUBNET,
    network::CIDRSUBNETS,
];

/// Functions of Terraform that are left out, and why.
const LEFT_OUT: [(&str, &str); 7] = [
    ("bcrypt", "its result is random: the same stack would never give the same release"),
    ("uuid", "its result is random: the same stack would never give the same release; `uuidv5` is not"),
    ("rsadecrypt", "what is secret belongs into `secret.NAME`, not into an expression"),
    ("list", "write the list in square brackets, or `tolist(…)`"),
    ("map", "write the map in braces, or `tomap(…)`"),
    ("ephemeralasnull", "no value is ephemeral here"),
    ("base64gunzip", "nothing in a stack is read compressed"),
];

/// Returns the function of this name.
fn find(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<BTreeMap<&str, &Function>> = OnceLock::new();
    let functions = TABLES.iter().flat_map(|(_, table)| *table);
    BY_NAME.get_or_init(|| functions.map(|function| (function.name(), function)).collect()).get(name).copied()
}

/// Returns the value of a call.
pub(crate) fn call(ev: &Evaluator, call: &FuncCall, scope: &Scope, at: At) -> Eval<Value> {
    let function = named(ev, call, at)?;
    if let Run::Lazy(run) = function.run {
        return run(ev, call, scope, at);
    }
    let args = arguments(ev, call, scope, at)?;
    let (least, most) = function.arity();
    if args.len() < least || most.is_some_and(|most| args.len() > most) {
        let name = function.name();
        return Err(Fault::at(at, format!("`{name}` takes {}, not {}", expected(least, most), args.len()))
            .help(format!("write {}: {}", function.usage, function.about))
            .into());
    }
    let call = Call { ev, at, function, args };
    let result = match function.run {
        Run::Whole(run) => {
            let sensitive = call.args.iter().any(Value::is_sensitive);
            run(&call).map(|data| Value::new(data, at).marked(sensitive))
        }
        Run::Parts(run) => {
            let sensitive = call.args.iter().any(|arg| arg.sensitive);
            run(&call).map(|value| value.marked(sensitive))
        }
        Run::Own(run) => run(&call),
        // Has returned above.
        Run::Lazy(_) => Err(Faults::default()),
    };
    let value = result.map_err(|faults| call.discreet(faults))?;
    ev.cx.spend(value.size(), at)?;
    Ok(Value { at, ..value })
}

/// Returns the function that a call names, which may stand in Terraform's namespace `core::`.
fn named(ev: &Evaluator, call: &FuncCall, at: At) -> Eval<&'static Function> {
    let name = call.name.name.as_str();
    let namespace: Vec<&str> = call.name.namespace.iter().map(|part| part.as_str()).collect();
    if !matches!(namespace.as_slice(), [] | ["core"]) {
        let fault = Fault::at(at, format!("there are no functions `{}::…`", namespace.join("::")));
        return Err(fault.help("functions of providers are not called in a stack").into());
    }
    if let Some(function) = find(name) {
        return Ok(function);
    }
    let fault = Fault::at(ev.at(&call.name.name, at), format!("there is no function `{name}`")).label("not known");
    let left_out = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name);
    let help = match left_out {
        Some((_, why)) => Some((*why).to_owned()),
        None => did_you_mean(name, TABLES.iter().flat_map(|(_, table)| *table).map(Function::name)),
    };
    Err(fault.maybe_help(help).into())
}

/// Returns the arguments, evaluated.
fn arguments(ev: &Evaluator, call: &FuncCall, scope: &Scope, at: At) -> Eval<Vec<Value>> {
    let mut args = all(call.args.iter().map(|arg| ev.eval(arg, scope, at)))?;
    if call.args.expand_final()
        && let Some(last) = args.pop()
    {
        match last.data {
            // A list that is sensitive as a whole hands its mark on.
            Data::List(items) => args.extend(items.into_iter().map(|item| item.marked(last.sensitive))),
            _ => return Err(last.wrong_type("a list before `...`").into()),
        }
    }
    Ok(args)
}

/// Returns how many arguments are expected, in words.
fn expected(least: usize, most: Option<usize>) -> String {
    let arguments = |n: usize| if n == 1 { "1 argument".to_owned() } else { format!("{n} arguments") };
    match most {
        None => format!("at least {}", arguments(least)),
        Some(most) if least == most => arguments(least),
        Some(most) => format!("{least} to {}", arguments(most)),
    }
}

/// A call: the arguments, evaluated.
pub(crate) struct Call<'c> {
    ev: &'c Evaluator<'c>,
    at: At,
    function: &'static Function,
    args: Vec<Value>,
}

impl Call<'_> {
    /// Returns what `read` makes of the `i`th argument; its faults name function and parameter.
    fn arg<'a, T>(&'a self, i: usize, read: impl FnOnce(&'a Value) -> Eval<T>) -> Eval<T> {
        read(&self.args[i]).map_err(|mut faults| {
            let prefix = self.argument(i);
            for fault in &mut faults.0 {
                fault.message = format!("{prefix}: {}", fault.message);
            }
            faults
        })
    }

    fn argument(&self, i: usize) -> String {
        format!("argument `{}` of `{}`", self.function.param(i), self.function.name())
    }

    /// Returns the string in the `i`th place.
    fn text(&self, i: usize) -> Eval<String> {
        self.arg(i, Value::to_text)
    }

    /// Returns the number in the `i`th place.
    fn number(&self, i: usize) -> Eval<Number> {
        self.arg(i, Value::to_number)
    }

    /// Returns the whole number in the `i`th place.
    fn integer(&self, i: usize) -> Eval<i128> {
        self.arg(i, |value| value.to_number()?.as_integer().ok_or_else(|| value.wrong_type("a whole number").into()))
    }

    /// Returns the whole number from 0 in the `i`th place.
    fn size(&self, i: usize) -> Eval<usize> {
        self.arg(i, |value| {
            let size = value.to_number()?.as_integer().and_then(|n| usize::try_from(n).ok());
            size.ok_or_else(|| value.wrong_type("a whole number from 0").into())
        })
    }

    /// Returns the list in the `i`th place.
    fn list(&self, i: usize) -> Eval<&[Value]> {
        self.arg(i, |value| match &value.data {
            Data::List(items) => Ok(items.as_slice()),
            _ => Err(value.wrong_type("a list").into()),
        })
    }

    /// Returns the list of strings in the `i`th place.
    fn texts(&self, i: usize) -> Eval<Vec<String>> {
        let items = self.list(i)?;
        self.arg(i, |_| all(items.iter().map(Value::to_text)))
    }

    /// Returns the map in the `i`th place.
    fn map(&self, i: usize) -> Eval<&BTreeMap<String, Value>> {
        self.arg(i, |value| match &value.data {
            Data::Map(map) => Ok(map),
            _ => Err(value.wrong_type("a map").into()),
        })
    }

    /// Returns a value that stands where the call does.
    fn value(&self, data: Data) -> Value {
        Value::new(data, self.at)
    }

    /// Returns a fault of the whole call.
    fn fault(&self, reason: impl AsRef<str>) -> Faults {
        Fault::at(self.at, format!("`{}`: {}", self.function.name(), reason.as_ref())).into()
    }

    /// Returns a fault of the `i`th argument.
    fn wrong(&self, i: usize, reason: impl AsRef<str>) -> Faults {
        self.wrong_fault(i, reason).into()
    }

    /// Returns a fault of the `i`th argument, to add help to.
    fn wrong_fault(&self, i: usize, reason: impl AsRef<str>) -> Fault {
        Fault::at(self.args[i].at, format!("{}: {}", self.argument(i), reason.as_ref()))
    }

    /// Returns the faults, without those that quote a sensitive argument.
    fn discreet(&self, faults: Faults) -> Faults {
        let mut secrets = Vec::new();
        self.args.iter().for_each(|arg| arg.sensitive_texts(false, &mut secrets));
        let quotes = |fault: &Fault| {
            let texts = [Some(&fault.message), fault.label.as_ref(), fault.help.as_ref()];
            texts.into_iter().flatten().any(|text| secrets.iter().any(|secret| text.contains(secret.as_str())))
        };
        if !faults.0.iter().any(quotes) {
            return faults;
        }
        self.unsaid().into()
    }

    /// Returns a fault that says nothing of the sensitive argument that it is about.
    fn unsaid(&self) -> Fault {
        let message = format!("`{}` has no result for this sensitive value", self.function.name());
        Fault::at(self.at, message).help("why is not said, for that would show the value")
    }

    /// Returns `detail` unless the `i`th argument is sensitive, for messages that would quote it.
    fn unless_sensitive(&self, i: usize, detail: String) -> String {
        if self.args[i].is_sensitive() { String::new() } else { detail }
    }

    /// Refuses a text of more than the longest length before it is made.
    fn fits(&self, length: Option<usize>) -> Eval<()> {
        match length {
            Some(length) if length <= LONGEST_TEXT => self.ev.cx.spend(length, self.at),
            _ => Err(self.fault("text longer than 16 MiB")),
        }
    }

    /// Returns a text that was made, charged for.
    fn made(&self, text: String) -> Eval<Data> {
        self.fits(Some(text.len()))?;
        Ok(Data::Text(text))
    }
}

/// Returns a list of strings.
fn texts(items: impl IntoIterator<Item = String>, at: At) -> Data {
    Data::List(items.into_iter().map(|text| Value::text(text, at)).collect())
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
