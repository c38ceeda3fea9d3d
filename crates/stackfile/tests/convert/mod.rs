//! HCL stacks as JSON and YAML.

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::Body;
use hcl_edit::template::Element;
use serde_json::{Map, Value, json};

/// Returns an HCL stack as JSON.
pub fn to_json(text: &str) -> Value {
    let body = hcl_edit::parser::parse_body(text).unwrap_or_else(|error| panic!("{error}"));
    convert(text, &body, "")
}

fn convert(text: &str, body: &Body, kind: &str) -> Value {
    let mut map = Map::new();
    for attribute in body.attributes() {
        map.insert(attribute.key.as_str().to_owned(), expression(text, &attribute.value));
    }
    for block in body.blocks() {
        let word = block.ident.as_str();
        let content = convert(text, &block.body, word);
        let labelled = match block.labels.first() {
            Some(label) => json!({ label.as_str(): content }),
            None => content,
        };
        if kind == "image" {
            // Their order counts.
            let steps = map.entry("steps").or_insert(json!([]));
            steps.as_array_mut().unwrap().push(json!({ word: labelled }));
        } else if block.labels.is_empty() && !["locals", "content"].contains(&word) {
            let all = map.entry(word).or_insert(json!([]));
            all.as_array_mut().unwrap().push(labelled);
        } else {
            let all = map.entry(word).or_insert(json!({})).as_object_mut().unwrap();
            for (label, content) in labelled.as_object().unwrap() {
                match all.get_mut(label) {
                    Some(Value::Array(more)) => more.push(content.clone()),
                    Some(one) => *one = json!([one, content]),
                    None => drop(all.insert(label.clone(), content.clone())),
                }
            }
        }
    }
    Value::Object(map)
}

fn expression(text: &str, expr: &Expression) -> Value {
    let template = |elements: &mut dyn Iterator<Item = &Element>| -> String {
        elements
            .map(|element| match element {
                Element::Literal(literal) => escaped(literal.as_str()),
                other => text[other.span().unwrap()].to_owned(),
            })
            .collect()
    };
    match expr {
        Expression::Null(_) => Value::Null,
        Expression::Bool(b) => Value::Bool(*b.value()),
        Expression::Number(_) => serde_json::from_str(text[expr.span().unwrap()].trim()).unwrap(),
        Expression::String(string) => Value::String(escaped(string.value())),
        Expression::Array(items) => Value::Array(items.iter().map(|item| expression(text, item)).collect()),
        Expression::Object(object) => {
            let entries = object.iter().map(|(key, value)| {
                let key = match key {
                    ObjectKey::Ident(name) => name.as_str().to_owned(),
                    ObjectKey::Expression(Expression::String(name)) => name.value().clone(),
                    ObjectKey::Expression(other) => panic!("a computed key: {other}"),
                };
                (key, expression(text, value.expr()))
            });
            Value::Object(entries.collect())
        }
        Expression::StringTemplate(parts) => Value::String(template(&mut parts.iter())),
        Expression::HeredocTemplate(heredoc) => Value::String(template(&mut heredoc.template.iter())),
        other => Value::String(format!("${{{}}}", text[other.span().unwrap()].trim())),
    }
}

fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

/// Returns JSON as YAML in its block form.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, level: usize, text: &mut String) {
    let indent = "  ".repeat(level);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                *text += &format!("{indent}{}:", serde_json::to_string(key).unwrap());
                inner(value, level, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                *text += &format!("{indent}-");
                inner(item, level, text);
            }
        }
        other => *text += &format!("{indent}{other}\n"),
    }
}

fn inner(value: &Value, level: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write(value, level + 1, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            write(value, level + 1, text);
        }
        // Without quotes where that is the same.
        Value::String(plain) if plain.chars().all(|c| c.is_ascii_lowercase()) && plain.len() > 5 => {
            *text += &format!(" {plain}\n");
        }
        Value::String(lines) if lines.ends_with('\n') && lines.trim() == &lines[..lines.len() - 1] => {
            *text += " |\n";
            for line in lines.lines() {
                *text += &format!("{}{line}\n", "  ".repeat(level + 1));
            }
        }
        other => *text += &format!(" {other}\n"),
    }
}
