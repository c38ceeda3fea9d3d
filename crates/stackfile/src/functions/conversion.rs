//! Functions of types, of attempts, and of what is sensitive.

use hcl_edit::expr::FuncCall;

use super::{Call, Function, Run, parts, sets, whole};
use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault, Faults, all};
use crate::source::At;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    Function {
        usage: "can(value)",
        about: "Whether the expression has a value: false if it can't be evaluated.",
        example: (r#"can(tonumber("a"))"#, "false"),
        run: Run::Lazy(can),
    },
    Function {
        usage: "issensitive(value)",
        about: "Whether anything in the value is sensitive.",
        example: (r#"issensitive(sensitive("a"))"#, "true"),
        run: Run::Own(|c| Ok(c.value(Data::Bool(c.args[0].is_sensitive())))),
    },
    Function {
        usage: "nonsensitive(value)",
        about: "The value as one that may be shown.",
        example: (r#"nonsensitive(sensitive("a"))"#, r#""a""#),
        run: Run::Own(|c| Ok(plain(c.args[0].clone()))),
    },
    Function {
        usage: "sensitive(value)",
        about: "The value as one that is never shown.",
        example: (r#"issensitive(upper(sensitive("a")))"#, "true"),
        run: Run::Own(|c| Ok(c.args[0].clone().marked(true))),
    },
    whole(
        "tobool(value)",
        "The value as a bool: `true`, `\"true\"` and the like.",
        (r#"tobool("true")"#, "true"),
        |c| unless_null(c, |c| c.arg(0, Value::to_bool).map(Data::Bool)),
    ),
    parts(
        "tolist(value)",
        "The value as a list; elements of different simple types become strings.",
        (r#"tolist(["a", 1])"#, r#"["a","1"]"#),
        |c| parts_unless_null(c, |c| Ok(Data::List(c.arg(0, |_| unify(c.list(0)?.to_vec()))?))),
    ),
    parts(
        "tomap(value)",
        "The value as a map; elements of different simple types become strings.",
        ("tomap({ a = 1, b = true })", r#"{"a":"1","b":"true"}"#),
        |c| {
            parts_unless_null(c, |c| {
                let (keys, values): (Vec<String>, Vec<Value>) = c.map(0)?.clone().into_iter().unzip();
                Ok(Data::Map(keys.into_iter().zip(c.arg(0, |_| unify(values))?).collect()))
            })
        },
    ),
    whole("tonumber(value)", "The value as a number.", (r#"tonumber("1.50")"#, "1.5"), |c| {
        unless_null(c, |c| c.number(0).map(Data::Number))
    }),
    whole(
        "toset(value)",
        "The list with each element once; strings, numbers and bools are sorted.",
        (r#"toset(["b", "a", "b"])"#, r#"["a","b"]"#),
        |c| unless_null(c, |c| Ok(Data::List(c.arg(0, |_| sets::set(c.list(0)?.to_vec()))?))),
    ),
    whole("tostring(value)", "The string, number or bool as a string.", ("tostring(1.50)", r#""1.5""#), |c| {
        unless_null(c, |c| c.text(0).map(Data::Text))
    }),
    Function {
        usage: "try(value, values...)",
        about: "The first of the expressions that has a value.",
        example: (r#"try({ a = 1 }.b, "none")"#, r#""none""#),
        run: Run::Lazy(first_that_works),
    },
    Function {
        usage: "type(value)",
        about: "The type of the value as a string.",
        example: (r#"type({ a = [1, 2] })"#, r#""map(list(number))""#),
        run: Run::Own(|c| Ok(c.value(Data::Text(type_of(&c.args[0]))))),
    },
];

fn unless_null(call: &Call, run: fn(&Call) -> Eval<Data>) -> Eval<Data> {
    if call.args[0].is_null() { Ok(Data::Null) } else { run(call) }
}

fn parts_unless_null(call: &Call, run: fn(&Call) -> Eval<Data>) -> Eval<Value> {
    unless_null(call, run).map(|data| call.value(data))
}

/// Returns the values as one type: strings, numbers and bools together become strings.
pub(super) fn unify(values: Vec<Value>) -> Eval<Vec<Value>> {
    let rank = |value: &Value| match value.data {
        Data::Text(_) => Some(0),
        Data::Number(_) => Some(1),
        Data::Bool(_) => Some(2),
        _ => None,
    };
    let mut ranks: Vec<u8> = values.iter().filter_map(rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    if ranks.len() < 2 || values.iter().any(|value| rank(value).is_none() && !value.is_null()) {
        return Ok(values);
    }
    all(values.into_iter().map(|value| match value.data {
        Data::Null => Ok(value),
        _ => Ok(Value { data: Data::Text(value.to_text()?), ..value }),
    }))
}

/// Returns the value without any mark.
fn plain(value: Value) -> Value {
    let data = match value.data {
        Data::List(items) => Data::List(items.into_iter().map(plain).collect()),
        Data::Map(map) => Data::Map(map.into_iter().map(|(key, value)| (key, plain(value))).collect()),
        data => data,
    };
    Value { data, sensitive: false, ..value }
}

/// Returns the type as a variable would declare it.
fn type_of(value: &Value) -> String {
    match &value.data {
        Data::Null => "null".to_owned(),
        Data::Bool(_) => "bool".to_owned(),
        Data::Number(_) => "number".to_owned(),
        Data::Text(_) => "string".to_owned(),
        Data::Reference(kind, _) => kind.to_string(),
        Data::List(items) => {
            let types: Vec<String> = items.iter().map(type_of).collect();
            match types.split_first() {
                None => "list(any)".to_owned(),
                Some((first, rest)) if rest.iter().all(|other| other == first) => format!("list({first})"),
                Some(_) => format!("tuple([{}])", types.join(", ")),
            }
        }
        Data::Map(map) => {
            let types: Vec<String> = map.values().map(type_of).collect();
            match types.split_first() {
                None => "map(any)".to_owned(),
                Some((first, rest)) if rest.iter().all(|other| other == first) => format!("map({first})"),
                Some(_) => {
                    let fields: Vec<String> = map.keys().zip(&types).map(|(key, of)| format!("{key} = {of}")).collect();
                    format!("object({{ {} }})", fields.join(", "))
                }
            }
        }
    }
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
