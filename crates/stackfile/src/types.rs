//! Type constraints of variables: `string`, `number`, `bool`, `any`, `list(T)`, `set(T)`, `map(T)`, `object({ k = T })`.

use std::collections::BTreeMap;
use std::fmt;

use hcl_edit::expr::{Expression, ObjectKey};

use crate::eval::Evaluator;
use crate::fault::{Eval, Fault, all};
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::value::{Data, Value};

/// What a variable may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    String,
    Number,
    Bool,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Object(BTreeMap<String, Type>),
}

const NAMES: [&str; 8] = ["any", "bool", "list", "map", "number", "object", "set", "string"];

impl Type {
    /// Reads a type constraint.
    pub(crate) fn parse(ev: &Evaluator, expr: &Expression, around: At) -> Eval<Self> {
        let at = ev.at(expr, around);
        let (name, args): (&str, Vec<&Expression>) = match expr {
            Expression::Variable(name) => (name.as_str(), Vec::new()),
            Expression::FuncCall(call) => (call.name.name.as_str(), call.args.iter().collect()),
            _ => return Err(Fault::at(at, "not a type").help("write for example `string` or `list(string)`").into()),
        };
        let of = || match args.as_slice() {
            [] => Ok(Box::new(Self::Any)),
            [of] => Self::parse(ev, of, at).map(Box::new),
            _ => Err(Fault::at(at, format!("`{name}` takes one type")).into()),
        };
        match name {
            "any" => Ok(Self::Any),
            "string" => Ok(Self::String),
            "number" => Ok(Self::Number),
            "bool" => Ok(Self::Bool),
            "list" => of().map(Self::List),
            "set" => of().map(Self::Set),
            "map" => of().map(Self::Map),
            "object" => {
                let [Expression::Object(fields)] = args.as_slice() else {
                    return Err(Fault::at(at, "`object` takes its keys")
                        .help("write `object({ host = string })`")
                        .into());
                };
                let fields = all(fields.iter().map(|(key, of)| match key {
                    ObjectKey::Ident(name) => Ok((name.as_str().to_owned(), Self::parse(ev, of.expr(), at)?)),
                    ObjectKey::Expression(_) => Err(Fault::at(ev.at(key, at), "expected a plain key").into()),
                }))?;
                Ok(Self::Object(fields.into_iter().collect()))
            }
            _ => Err(Fault::at(at, format!("unknown type `{name}`")).maybe_help(did_you_mean(name, NAMES)).into()),
        }
    }

    /// Returns the value as this type, converted where nothing is lost (`"8"` and `8`).
    pub(crate) fn convert(&self, value: Value) -> Eval<Value> {
        let (at, sensitive) = (value.at, value.sensitive);
        let data = match (self, value.data) {
            (Self::Any, data) | (_, data @ Data::Null) => data,
            (Self::List(of), Data::List(items)) => Data::List(of.convert_all(items)?),
            (Self::Set(of), Data::List(items)) => Data::List(distinct(of.convert_all(items)?)),
            (Self::Map(of), Data::Map(map)) => {
                Data::Map(all(map.into_iter().map(|(k, v)| Ok((k, of.convert(v)?))))?.into_iter().collect())
            }
            (Self::Object(fields), Data::Map(map)) => Data::Map(convert_object(fields, map, at)?),
            (_, data) => {
                let value = Value { data, at, sensitive };
                match self {
                    Self::String => Data::Text(value.to_text()?),
                    Self::Number => Data::Number(value.to_number()?),
                    Self::Bool => Data::Bool(value.to_bool()?),
                    _ => return Err(value.wrong_type(&format!("`{self}`")).into()),
                }
            }
        };
        Ok(Value { data, at, sensitive })
    }

    fn convert_all(&self, items: Vec<Value>) -> Eval<Vec<Value>> {
        all(items.into_iter().map(|item| self.convert(item)))
    }
}

/// Returns the map with each value as its key's type.
fn convert_object(
    fields: &BTreeMap<String, Type>,
    map: BTreeMap<String, Value>,
    at: At,
) -> Eval<BTreeMap<String, Value>> {
    if let Some(missing) = fields.keys().find(|key| !map.contains_key(*key)) {
        return Err(Fault::at(at, format!("the key `{missing}` is missing")).into());
    }
    let entries = all(map.into_iter().map(|(key, value)| match fields.get(&key) {
        Some(of) => Ok((key, of.convert(value)?)),
        None => {
            let help = did_you_mean(&key, fields.keys().map(String::as_str));
            Err(Fault::at(value.at, format!("unknown key `{key}`")).maybe_help(help).into())
        }
    }))?;
    Ok(entries.into_iter().collect())
}

/// Returns the list with each value once, in the order of first appearance.
pub(crate) fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if !kept.iter().any(|k| k.equals(&item)) {
            kept.push(item);
        }
    }
    kept
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::String => f.write_str("string"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("bool"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Set(of) => write!(f, "set({of})"),
            Self::Map(of) => write!(f, "map({of})"),
            Self::Object(fields) => {
                let fields: Vec<String> = fields.iter().map(|(k, of)| format!("{k} = {of}")).collect();
                write!(f, "object({{ {} }})", fields.join(", "))
            }
        }
    }
}
