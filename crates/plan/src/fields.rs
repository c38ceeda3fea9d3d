//! Field-by-field differences between two values of the same type.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// Where: `env.LOG`, `configs["/etc/app.toml"].content`.
    pub field: String,
    /// What it was; `None` if it was not there.
    pub before: Option<String>,
    /// What it becomes; `None` if it goes.
    pub after: Option<String>,
}

/// Returns the fields in which two values differ, by their JSON forms, in the order of their paths.
///
/// Secrets are in a release by name and version only, so nothing confidential can come out.
pub fn field_changes<T: Serialize + PartialEq>(before: &T, after: &T) -> Vec<FieldChange> {
    // Most services of a plan are unchanged, and forms are dear.
    if before == after {
        return Vec::new();
    }
    let json = |value: &T| serde_json::to_value(value).expect("model values always have a JSON form");
    let mut changes = Vec::new();
    walk(String::new(), &json(before), &json(after), &mut changes);
    changes
}

fn walk(path: String, before: &Value, after: &Value, changes: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let nothing = Value::Null;
                walk(join(&path, key), old.get(key).unwrap_or(&nothing), new.get(key).unwrap_or(&nothing), changes);
            }
        }
        _ => changes.push(FieldChange { field: path, before: text(before), after: text(after) }),
    }
}

fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences() {
        let check = |a: Value, b: Value, expected: &[(&str, Option<&str>, Option<&str>)]| {
            let found = field_changes(&a, &b);
            let found: Vec<_> =
                found.iter().map(|c| (c.field.as_str(), c.before.as_deref(), c.after.as_deref())).collect();
            assert_eq!(found, expected);
        };
        check(json!({"a": 1}), json!({"a": 1}), &[]);
        check(
            json!({"env": {"A": "1", "B": "2"}}),
            json!({"env": {"A": "1", "B": "3", "C": "4"}}),
            &[("env.B", Some("2"), Some("3")), ("env.C", None, Some("4"))],
        );
        check(json!({"c": {"/etc/x": "old"}}), json!({"c": {}}), &[("c[\"/etc/x\"]", Some("old"), None)]);
        check(
            json!({"command": ["a"]}),
            json!({"command": ["a", "b"]}),
            &[("command", Some("[\"a\"]"), Some("[\"a\",\"b\"]"))],
        );
        check(json!({"limits": {"cpu": null}}), json!({"limits": {"cpu": 500}}), &[("limits.cpu", None, Some("500"))]);
    }
}
