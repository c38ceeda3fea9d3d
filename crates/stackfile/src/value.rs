//! Values of the stack language, each with the place it came from.

use std::collections::BTreeMap;
use std::fmt;

use crate::fault::{Eval, Fault};
use crate::number::Number;
use crate::source::{At, STEP};

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) data: Data,
    /// The expression that it is the value of.
    pub(crate) at: At,
    /// Whether it must not be shown, because a sensitive variable went into it.
    pub(crate) sensitive: bool,
}

/// What a value holds.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// A block of the stack, or a secret.
    Reference(Kind, String),
}

/// What a reference refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Image,
    Service,
    Job,
    Secret,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Image, Self::Service, Self::Job, Self::Secret];

    /// Returns the word that references begin with.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Service => "service",
            Self::Job => "job",
            Self::Secret => "secret",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Levels of lists and maps that a value may have: more than any stack needs, few enough to walk without care.
pub(crate) const DEEPEST: usize = 64;

impl Value {
    pub(crate) fn new(data: Data, at: At) -> Self {
        Self { data, at, sensitive: false }
    }

    pub(crate) fn text(text: impl Into<String>, at: At) -> Self {
        Self::new(Data::Text(text.into()), at)
    }

    /// Makes the value sensitive if `sensitive` is.
    pub(crate) fn marked(mut self, sensitive: bool) -> Self {
        self.sensitive |= sensitive;
        self
    }

    /// Returns what it is with every element marked as sensitive.
    pub(crate) fn marked_within(self) -> Data {
        match self.data {
            Data::List(items) => Data::List(items.into_iter().map(|item| item.marked(true)).collect()),
            Data::Map(map) => Data::Map(map.into_iter().map(|(key, value)| (key, value.marked(true))).collect()),
            data => data,
        }
    }

    /// Returns it with the names of blocks in the place of references to them.
    pub(crate) fn named(self) -> Self {
        let data = match self.data {
            Data::List(items) => Data::List(items.into_iter().map(Self::named).collect()),
            Data::Map(map) => Data::Map(map.into_iter().map(|(key, value)| (key, value.named())).collect()),
            Data::Reference(_, name) => Data::Text(name),
            data => data,
        };
        Self { data, ..self }
    }

    /// Returns it as if it, and all in it, stood at another place.
    pub(crate) fn moved(self, at: At) -> Self {
        let data = match self.data {
            Data::List(items) => Data::List(items.into_iter().map(|item| item.moved(at)).collect()),
            Data::Map(map) => Data::Map(map.into_iter().map(|(key, value)| (key, value.moved(at))).collect()),
            data => data,
        };
        Self { data, at, ..self }
    }

    /// Returns whether it or anything in it is sensitive.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.sensitive
            || match &self.data {
                Data::List(items) => items.iter().any(Self::is_sensitive),
                Data::Map(map) => map.values().any(Self::is_sensitive),
                _ => false,
            }
    }

    /// Adds the texts in it that are sensitive; `whole` says whether all are.
    pub(crate) fn sensitive_texts(&self, whole: bool, texts: &mut Vec<String>) {
        let whole = whole || self.sensitive;
        match &self.data {
            Data::List(items) => items.iter().for_each(|item| item.sensitive_texts(whole, texts)),
            Data::Map(map) => map.values().for_each(|value| value.sensitive_texts(whole, texts)),
            Data::Text(text) if whole && !text.is_empty() => texts.push(text.clone()),
            Data::Number(number) if whole => texts.push(number.to_string()),
            _ => {}
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// Returns the type's name with its article, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.data {
            Data::Null => "null",
            Data::Bool(_) => "a bool",
            Data::Number(_) => "a number",
            Data::Text(_) => "a string",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
            Data::Reference(Kind::Image, _) => "an image",
            Data::Reference(Kind::Service, _) => "a service",
            Data::Reference(Kind::Job, _) => "a job",
            Data::Reference(Kind::Secret, _) => "a secret",
        }
    }

    /// Returns a short text of it in backticks for messages, which never shows what is sensitive.
    pub(crate) fn shown(&self) -> String {
        /// Characters shown of a text: as many as fit beside the rest of a sentence.
        const SHOWN: usize = 60;
        if self.is_sensitive() {
            return "a sensitive value".to_owned();
        }
        match &self.data {
            Data::Null => "null".to_owned(),
            Data::Bool(b) => format!("`{b}`"),
            Data::Number(n) => format!("`{n}`"),
            Data::Text(text) if text.chars().count() > SHOWN => {
                format!("`{}…`", text.chars().take(SHOWN).collect::<String>().escape_debug())
            }
            Data::Text(text) => format!("`{}`", text.escape_debug()),
            Data::Reference(kind, name) => format!("`{kind}.{name}`"),
            Data::List(_) | Data::Map(_) => self.type_name().to_owned(),
        }
    }

    /// Returns how many levels of lists and maps it has.
    pub(crate) fn depth(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Data::Map(map) => 1 + map.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Returns roughly how many bytes a copy takes.
    pub(crate) fn size(&self) -> usize {
        STEP + match &self.data {
            Data::Text(text) => text.len(),
            Data::List(items) => items.iter().map(Self::size).sum(),
            Data::Map(map) => map.iter().map(|(key, value)| key.len() + value.size()).sum(),
            _ => 0,
        }
    }

    /// Returns whether both are of the same type and hold the same.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (Data::Null, Data::Null) => true,
            (Data::Bool(a), Data::Bool(b)) => a == b,
            (Data::Number(a), Data::Number(b)) => a == b,
            (Data::Text(a), Data::Text(b)) => a == b,
            (Data::List(a), Data::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Data::Map(a), Data::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && a.equals(b))
            }
            (Data::Reference(ka, a), Data::Reference(kb, b)) => ka == kb && a == b,
            _ => false,
        }
    }

    /// Returns a string, number or bool as text.
    pub(crate) fn to_text(&self) -> Eval<String> {
        match &self.data {
            Data::Text(text) => Ok(text.clone()),
            Data::Number(number) => Ok(number.to_string()),
            Data::Bool(b) => Ok(b.to_string()),
            Data::Reference(_, name) => Err(self
                .wrong_type("a string")
                .help(format!("write `{}.name` for its name, \"{name}\"", self.shown().trim_matches('`')))
                .into()),
            Data::List(_) | Data::Map(_) => Err(self
                .wrong_type("a string")
                .help("`jsonencode(…)` or `join(\", \", …)` makes a string of it")
                .into()),
            Data::Null => Err(self.wrong_type("a string").into()),
        }
    }

    /// Returns a number, or a string that holds one.
    pub(crate) fn to_number(&self) -> Eval<Number> {
        match &self.data {
            Data::Number(number) => Ok(*number),
            Data::Text(text) => Number::parse(text).ok_or_else(|| self.wrong_type("a number").into()),
            _ => Err(self.wrong_type("a number").into()),
        }
    }

    /// Returns a bool, or a string that holds one.
    pub(crate) fn to_bool(&self) -> Eval<bool> {
        match &self.data {
            Data::Bool(b) => Ok(*b),
            Data::Text(text) if text == "true" => Ok(true),
            Data::Text(text) if text == "false" => Ok(false),
            _ => Err(self.wrong_type("a bool").help("write `true` or `false`").into()),
        }
    }

    /// Returns the fault that something else was expected here.
    pub(crate) fn wrong_type(&self, expected: &str) -> Fault {
        let found = match &self.data {
            Data::Text(_) | Data::Number(_) | Data::Bool(_) => format!("{} {}", self.type_name(), self.shown()),
            _ if self.is_sensitive() => self.type_name().to_owned(),
            Data::Reference(..) => self.shown(),
            _ => self.type_name().to_owned(),
        };
        let found = if self.is_sensitive() { self.type_name().to_owned() } else { found };
        Fault::at(self.at, format!("expected {expected}, found {found}")).label(format!("this is {}", self.type_name()))
    }
}
