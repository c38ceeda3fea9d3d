//! Type constraints of variables: `string`, `number`, `bool`, `any`, `list(T)`, `set(T)`, `map(T)`, `object({ k = T })`.

use std::collections::BTreeMap;
use std::fmt;

use hcl_edit::expr::{Expression, ObjectKey};

use crate::eval::{Evaluator, Scope};
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
    Object(BTreeMap<String, Field>),
    Tuple(Vec<Type>),
}

/// A key of an object.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    of: Type,
    /// Whether it may be missing.
    optional: bool,
    /// What it is then; null if nothing is said.
    default: Option<Value>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.of == other.of && self.optional == other.optional
    }
}

impl Eq for Field {}

const NAMES: [&str; 9] = ["any", "bool", "list", "map", "number", "object", "set", "string", "tuple"];

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
                    ObjectKey::Ident(name) => Ok((name.as_str().to_owned(), Field::parse(ev, of.expr(), at)?)),
                    ObjectKey::Expression(Expression::String(name)) => {
                        Ok((name.value().clone(), Field::parse(ev, of.expr(), at)?))
                    }
                    ObjectKey::Expression(_) => Err(Fault::at(ev.at(key, at), "expected a plain key").into()),
                }))?;
                Ok(Self::Object(fields.into_iter().collect()))
            }
            "tuple" => {
                let [Expression::Array(items)] = args.as_slice() else {
                    return Err(Fault::at(at, "`tuple` takes its types")
                        .help("write `tuple([string, number])`")
                        .into());
                };
                all(items.iter().map(|of| Self::parse(ev, of, at))).map(Self::Tuple)
            }
            "optional" => Err(Fault::at(at, "`optional` belongs to the key of an object")
                .help("write `object({ size = optional(number, 1) })`")
                .into()),
            _ => Err(Fault::at(at, format!("unknown type `{name}`")).maybe_help(did_you_mean(name, NAMES)).into()),
        }
    }

    /// Returns the value as this type, converted where nothing is lost (`"8"` and `8`).
    pub(crate) fn convert(&self, value: Value) -> Eval<Value> {
        let (at, sensitive) = (value.at, value.sensitive);
        // A fault inside of what is sensitive must not show it either.
        let data = match (self, if sensitive { value.marked_within() } else { value.data }) {
            (Self::Any, data) | (_, data @ Data::Null) => data,
            (Self::List(of), Data::List(items)) => Data::List(of.convert_all(items)?),
            (Self::Set(of), Data::List(items)) => Data::List(set(of.convert_all(items)?)),
            (Self::Tuple(of), Data::List(items)) => {
                if of.len() != items.len() {
                    let message = format!("expected {} elements, found {}", of.len(), items.len());
                    return Err(Fault::at(at, message).into());
                }
                Data::List(all(of.iter().zip(items).map(|(of, item)| of.convert(item)))?)
            }
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
    fields: &BTreeMap<String, Field>,
    mut map: BTreeMap<String, Value>,
    at: At,
) -> Eval<BTreeMap<String, Value>> {
    for (key, field) in fields {
        let missing = map.get(key).is_none_or(|value| value.is_null() && field.default.is_some());
        if missing && !field.optional && !map.contains_key(key) {
            return Err(Fault::at(at, format!("the key `{key}` is missing")).into());
        }
        if missing && field.optional {
            let default = field.default.clone().unwrap_or_else(|| Value::new(Data::Null, at));
            map.insert(key.clone(), default.moved(at));
        }
    }
    let entries = all(map.into_iter().map(|(key, value)| match fields.get(&key) {
        Some(field) => Ok((key, field.of.convert(value)?)),
        None => {
            let help = did_you_mean(&key, fields.keys().map(String::as_str));
            Err(Fault::at(value.at, format!("unknown key `{key}`")).maybe_help(help).into())
        }
    }))?;
    Ok(entries.into_iter().collect())
}

/// Returns the elements of a set: each once, texts and numbers in their order.
pub(crate) fn set(items: Vec<Value>) -> Vec<Value> {
    let mut items = distinct(items);
    items.sort_by(|a, b| match (&a.data, &b.data) {
        (Data::Text(a), Data::Text(b)) => a.cmp(b),
        (Data::Number(a), Data::Number(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    items
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

impl Field {
    /// Reads the type of a key, which may be `optional(type)` or `optional(type, default)`.
    fn parse(ev: &Evaluator, expr: &Expression, around: At) -> Eval<Self> {
        let at = ev.at(expr, around);
        let Expression::FuncCall(call) = expr else {
            return Ok(Self { of: Type::parse(ev, expr, around)?, optional: false, default: None });
        };
        if call.name.name.as_str() != "optional" {
            return Ok(Self { of: Type::parse(ev, expr, around)?, optional: false, default: None });
        }
        let (of, default) = match call.args.iter().collect::<Vec<_>>().as_slice() {
            [of] => (Type::parse(ev, of, at)?, None),
            [of, default] => {
                let of = Type::parse(ev, of, at)?;
                let default = of.convert(ev.eval(default, &Scope::default(), at)?)?;
                (of, Some(default))
            }
            _ => return Err(Fault::at(at, "`optional` takes a type, and a default if need be").into()),
        };
        Ok(Self { of, optional: true, default })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.optional { write!(f, "optional({})", self.of) } else { write!(f, "{}", self.of) }
    }
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
                let fields: Vec<String> = fields.iter().map(|(k, field)| format!("{k} = {field}")).collect();
                write!(f, "object({{ {} }})", fields.join(", "))
            }
            Self::Tuple(of) => {
                let of: Vec<String> = of.iter().map(Self::to_string).collect();
                write!(f, "tuple([{}])", of.join(", "))
            }
        }
    }
}
