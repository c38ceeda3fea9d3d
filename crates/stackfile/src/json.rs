//! JSON texts (RFC 8259) to nodes with places.

use jsonc_parser::ast::{ObjectProp, ObjectPropName, Value as Json};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};

use crate::fault::Fault;
use crate::node;
use crate::number::Number;
use crate::source::{At, Context};
use crate::text::character;
use crate::tree::{Entry, Node, NodeData};
use crate::value::{Data, Value};

/// JSON as the RFC has it, without what the parser would take beyond that.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Parses a text whose whole is an object; reports what is wrong with it.
pub(crate) fn parse(cx: &Context, source: u32, text: &str) -> Option<Vec<Entry>> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
    let parsed = match parse_to_ast(text, &collect, &STRICT) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            let at = character(source, text, error.range().start);
            cx.report(Fault::at(at, format!("not valid JSON: {}", error.kind())).label("here"));
            return None;
        }
    };
    let value = parsed.map(|value| convert(cx, source, text, value));
    node::top(cx, source, value)
}

/// Returns the value of a text, with every number exact; all of it is at one place. An error says what is wrong.
pub(crate) fn value(text: &str, at: At) -> Result<Value, String> {
    fn convert(json: Json, at: At) -> Result<Value, String> {
        let data = match json {
            Json::NullKeyword(_) => Data::Null,
            Json::BooleanLit(b) => Data::Bool(b.value),
            Json::NumberLit(n) => Data::Number(Number::parse(n.value).ok_or("number out of range")?),
            Json::StringLit(text) => Data::Text(text.value.into_owned()),
            Json::Array(array) => {
                Data::List(array.elements.into_iter().map(|item| convert(item, at)).collect::<Result<_, _>>()?)
            }
            Json::Object(object) => {
                let entry = |property: ObjectProp| Ok((key(property.name), convert(property.value, at)?));
                Data::Map(object.properties.into_iter().map(entry).collect::<Result<_, String>>()?)
            }
        };
        Ok(Value::new(data, at))
    }
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
    let parsed = parse_to_ast(text, &collect, &STRICT).map_err(|error| error.to_string())?;
    convert(parsed.value.ok_or("there is no value in it")?, at)
}

fn key(name: ObjectPropName) -> String {
    match name {
        ObjectPropName::String(string) => string.value.into_owned(),
        ObjectPropName::Word(word) => word.value.to_owned(),
    }
}

fn convert(cx: &Context, source: u32, text: &str, value: Json) -> Node {
    let range = value.range();
    let at = At::new(source, range.start..range.end);
    let data = match value {
        Json::NullKeyword(_) => NodeData::Null,
        Json::BooleanLit(b) => NodeData::Bool(b.value),
        Json::NumberLit(number) => node::number(cx, number.value, at),
        Json::StringLit(string) => node::string(cx, text, string.value.into_owned(), at),
        Json::Array(array) => {
            NodeData::List(array.elements.into_iter().map(|item| convert(cx, source, text, item)).collect())
        }
        Json::Object(object) => {
            let entries = object.properties.into_iter().map(|property| {
                let range = property.name.range();
                let key = key(property.name);
                let value = convert(cx, source, text, property.value);
                Entry { key, key_at: At::new(source, range.start..range.end), value }
            });
            NodeData::Map(node::distinct(cx, entries.collect()))
        }
    };
    Node { data, at }
}
