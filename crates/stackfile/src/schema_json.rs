//! The JSON Schema of stack files in YAML and JSON, made from the table that they are read by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::{DYNAMIC, OPEN, Of, STACK, Shape};

/// Returns the JSON Schema (draft 2020-12) of a stack in YAML or JSON.
pub fn json_schema() -> Value {
    let mut definitions = BTreeMap::new();
    define(&STACK, &mut definitions);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Basalt stack",
        "description": "A set of declarations that Basalt makes run. In every string, `${…}` is an expression.",
        "$ref": "#/$defs/stack",
    });
    schema["$defs"] = json!(definitions);
    schema
}

fn define(shape: &'static Shape, definitions: &mut BTreeMap<&'static str, Value>) {
    if definitions.contains_key(shape.name) {
        return;
    }
    definitions.insert(shape.name, Value::Null);
    let mut properties = Map::new();
    for key in shape.keys {
        let mut schema = value(&key.of, definitions);
        schema["description"] = key.about.into();
        properties.insert(key.name.to_owned(), schema);
    }
    for inner in shape.blocks {
        define(inner.shape, definitions);
        let one = reference(inner.shape);
        let mut schema = match inner.label {
            Some(_) => {
                let labels = json!({
                    "type": "object",
                    "additionalProperties": { "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }] },
                });
                json!({ "anyOf": [labels, { "type": "array", "items": labels }] })
            }
            None => json!({ "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }] }),
        };
        schema["description"] = match inner.label {
            Some(label) => format!("{} A map by {label}.", inner.about).into(),
            None => inner.about.into(),
        };
        properties.insert(inner.word.to_owned(), schema);
    }
    if shape.name == "image" {
        properties.insert("steps".to_owned(), steps(shape));
    }
    if !shape.blocks.is_empty() && shape.name != STACK.name {
        properties.insert(DYNAMIC.to_owned(), dynamic(shape));
    }
    let required: Vec<&str> = shape.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let others = shape.others.map_or(Value::Bool(false), |of| value(&of, definitions));
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": others });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    definitions.insert(shape.name, schema);
}

fn reference(shape: &Shape) -> Value {
    json!({ "$ref": format!("#/$defs/{}", shape.name) })
}

/// Returns the schema of an image's steps in the order of a list.
fn steps(shape: &'static Shape) -> Value {
    let step = |word: &str| json!({ "$ref": format!("#/$defs/{}/properties/{word}", shape.name) });
    let properties: Map<String, Value> = shape.blocks.iter().map(|i| (i.word.to_owned(), step(i.word))).collect();
    json!({
        "description": "The blocks that fill the image, in this order.",
        "type": "array",
        "items": { "type": "object", "properties": properties, "additionalProperties": false },
    })
}

/// Returns the schema of `dynamic` blocks in a block.
fn dynamic(shape: &'static Shape) -> Value {
    let made = |content: Value| {
        let one = json!({
            "type": "object",
            "properties": { "for_each": true, "iterator": { "type": "string" }, "labels": true, "content": content },
            "required": ["for_each", "content"],
            "additionalProperties": false,
        });
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    };
    let properties: Map<String, Value> =
        shape.blocks.iter().map(|inner| (inner.word.to_owned(), made(reference(inner.shape)))).collect();
    json!({
        "description": "Blocks made once for each element of a list or map.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Returns the schema of a kind of value. Each may be null, which is as if it was not written, and an expression.
fn value(of: &Of, definitions: &mut BTreeMap<&'static str, Value>) -> Value {
    let any = |kinds: Vec<Value>| {
        let expression = json!({ "type": "string", "pattern": "[$%]\\{" });
        let null = json!({ "type": "null" });
        json!({ "anyOf": kinds.into_iter().chain([expression, null]).collect::<Vec<_>>() })
    };
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let number = || json!({ "type": "number" });
    match of {
        Of::Any => json!({}),
        Of::Text => json!({ "type": ["string", "number", "boolean", "null"] }),
        Of::Bool => any(vec![json!({ "type": "boolean" }), json!({ "enum": ["true", "false"] })]),
        Of::Integer(least, most) => {
            any(vec![json!({ "type": "integer", "minimum": least, "maximum": most }), pattern("^[0-9]+$")])
        }
        Of::Duration => any(vec![pattern("^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d))+$")]),
        Of::Size => any(vec![number(), pattern("^[0-9]+(\\.[0-9]+)?\\s*([kKmMgGtT][iI]?)?[bB]?$")]),
        Of::Cpu => any(vec![number(), pattern("^[0-9]+(\\.[0-9]+)?m?$")]),
        Of::Share => any(vec![json!({ "type": "integer", "minimum": 0 }), pattern("^[0-9]+%?$")]),
        Of::Weight => any(vec![json!({ "type": "number", "minimum": 0, "maximum": 100 }), pattern("^[0-9.]+%?$")]),
        Of::Mode => any(vec![pattern("^0?[0-7]{3}$")]),
        Of::Words(words) => any(vec![json!({ "enum": words })]),
        Of::Image | Of::Reference | Of::Type => json!({ "type": ["string", "null"] }),
        Of::List(of) => {
            let items = value(of, definitions);
            any(vec![json!({ "type": "array", "items": items })])
        }
        Of::Map(of) => {
            let values = value(of, definitions);
            any(vec![json!({ "type": "object", "additionalProperties": values })])
        }
        Of::Object(shape) => {
            if shape.name == OPEN.name {
                return json!({});
            }
            define(shape, definitions);
            any(vec![reference(shape)])
        }
    }
}
