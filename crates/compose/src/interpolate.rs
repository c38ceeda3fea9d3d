//! `$VARIABLE` and `${VARIABLE:-default}` in values of a Compose file (Compose Specification, "Interpolation").

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::hcl::{Part, Text};
use crate::names::is_secret;

/// The variables that a file refers to, and what they are.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// What they are set to: by the process environment or by `.env`.
    pub(crate) set: BTreeMap<String, String>,
    uses: RefCell<BTreeMap<String, Use>>,
}

/// How a variable is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Use {
    /// The defaults that are given for it.
    pub(crate) defaults: BTreeSet<String>,
    /// The text of `${VARIABLE:?text}`.
    pub(crate) required: Option<String>,
    /// Whether it is part of anything else than values of environment variables.
    pub(crate) elsewhere: bool,
    /// Whether its value was written where the stack has no place for a variable.
    pub(crate) inlined: bool,
    /// Whether the stack refers to it.
    pub(crate) referred: bool,
    /// Whether it is given to a service as it is, and so may be missing.
    pub(crate) passed_on: bool,
    /// Whether an environment variable whose name says that it is secret has its value.
    pub(crate) secret: bool,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// In the value of an environment variable, which may be secret.
    Environment,
    /// In another place where the stack may refer to a variable.
    Elsewhere,
    /// Where it must be known now.
    Known,
}

impl Variables {
    /// Returns variables that are set to something, and not used yet.
    pub(crate) fn new(set: BTreeMap<String, String>) -> Self {
        Self { set, uses: RefCell::default() }
    }

    /// Returns what is known of all uses.
    pub(crate) fn uses(&self) -> BTreeMap<String, Use> {
        self.uses.borrow().clone()
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut Use)) {
        change(self.uses.borrow_mut().entry(name.to_owned()).or_default());
    }

    /// Returns a reference to a variable that a service takes over from outside as it is.
    pub(crate) fn passed_on(&self, name: &str) -> Text {
        self.update(name, |used| (used.referred, used.passed_on) = (true, true));
        Text(vec![Part::Variable { name: name.to_owned(), default: None }])
    }

    /// Returns a reference to a variable for a secret of a service: the one that holds it already, else one of its own.
    pub(crate) fn secret(&self, service: &str, key: &str, value: &str) -> Text {
        let own = || format!("{service}_{key}").replace('-', "_").to_ascii_uppercase();
        let name = if self.set.get(key).is_some_and(|set| set == value) { key.to_owned() } else { own() };
        self.update(&name, |used| used.referred = true);
        Text(vec![Part::Variable { name, default: None }])
    }

    /// Returns a value with its variables replaced.
    pub(crate) fn known(&self, text: &str) -> String {
        self.read(text, Where::Known).plain()
    }

    /// Returns a value with its variables replaced or referred to.
    pub(crate) fn read(&self, text: &str, place: Where) -> Text {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('$') {
            literal.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let Some((expression, after)) = expression(rest) else {
                literal.push('$');
                continue;
            };
            rest = after;
            match self.part(&expression, place) {
                Part::Literal(text) => literal.push_str(&text),
                part => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Text(parts)
    }

    /// Returns what stands for an expression.
    fn part(&self, expression: &Expression, place: Where) -> Part {
        let name = expression.name.as_str();
        let set = self.set.get(name);
        let non_empty = set.filter(|value| !value.is_empty());
        /// The most expressions within a default; what has more is taken as it is.
        const DEEPEST: usize = 32;
        let deep = expression.operand.matches("${").count() > DEEPEST;
        let operand = |text: &str| if deep { text.to_owned() } else { self.known(text) };
        let counted = if expression.operator.starts_with(':') { non_empty } else { set };
        if matches!(expression.operator.as_str(), ":+" | "+") {
            // What is written depends on the variable, and is no value of it.
            self.update(name, |used| used.inlined = true);
            return Part::Literal(if counted.is_some() { operand(&expression.operand) } else { String::new() });
        }
        let default = matches!(expression.operator.as_str(), ":-" | "-").then(|| operand(&expression.operand));
        self.update(name, |used| {
            used.defaults.extend(default.clone());
            if matches!(expression.operator.as_str(), ":?" | "?") {
                used.required = Some(expression.operand.clone());
            }
            used.elsewhere |= place != Where::Environment;
            used.inlined |= place == Where::Known;
            used.referred |= place != Where::Known;
        });
        match place {
            Where::Known => Part::Literal(counted.cloned().or(default).unwrap_or_default()),
            _ => Part::Variable { name: name.to_owned(), default },
        }
    }

    /// Remembers that what a text refers to is secret.
    pub(crate) fn conceal(&self, text: &Text) {
        for part in &text.0 {
            if let Part::Variable { name, .. } = part {
                self.update(name, |used| used.secret = true);
            }
        }
    }

    /// Returns whether a variable is declared as sensitive: its name or that of what has its value says so, and no place
    /// that shows it refers to it.
    pub(crate) fn is_sensitive(name: &str, used: &Use) -> bool {
        (is_secret(name) || used.secret) && !used.elsewhere && used.defaults.is_empty()
    }
}

struct Expression {
    name: String,
    operator: String,
    operand: String,
}

/// Returns the expression behind a `$`, and what is behind it; `None` if the `$` is meant as it is.
fn expression(text: &str) -> Option<(Expression, &str)> {
    let name_end = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(inner) = text.strip_prefix('{') else {
        let end = name_end(text);
        let name = &text[..end];
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let plain = Expression { name: name.to_owned(), operator: String::new(), operand: String::new() };
        return starts.then_some((plain, &text[end..]));
    };
    // Defaults may have expressions in them.
    let mut depth = 1;
    let end = inner.char_indices().find_map(|(i, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(i)
    })?;
    let (body, after) = (&inner[..end], &inner[end + 1..]);
    let (name, rest) = body.split_at(name_end(body));
    let length = match rest.as_bytes() {
        [] => 0,
        [b':', b'-' | b'+' | b'?', ..] => 2,
        [b'-' | b'+' | b'?', ..] => 1,
        _ => return None,
    };
    let (operator, operand) = rest.split_at(length);
    let parsed = Expression { name: name.to_owned(), operator: operator.to_owned(), operand: operand.to_owned() };
    (!name.is_empty()).then_some((parsed, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let set = [("A", "1"), ("E", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let variables = Variables { set, ..Variables::default() };
        let check = |text: &str, expected: &str| assert_eq!(variables.known(text), expected, "{text}");
        check("x$A ${A}y $$A $", "x1 1y $A $");
        check("${B:-d} ${B-d} ${E:-d} ${E-d} ${A:-d}", "d d d  1");
        check("${B:-${A:-x}}", "1");
        check("${B} ${A:+yes} ${B:+yes} ${E:+yes} ${E+yes}", " yes   yes");
        check("${A:?must be set}", "1");
        check("$1 ${1-x", "$1 ${1-x");
        check("a$", "a$");
        check(
            &format!("{}{}", "${B:-".repeat(9999), "}".repeat(9999)),
            &format!("{}{}", "${B:-".repeat(9998), "}".repeat(9998)),
        );
    }

    #[test]
    fn references() {
        let variables = Variables::default();
        let text = variables.read("http://${HOST:-web}:$PORT/", Where::Environment);
        let part =
            |name: &str, default: Option<&str>| Part::Variable { name: name.into(), default: default.map(Into::into) };
        let literal = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(
            text.0,
            [literal("http://"), part("HOST", Some("web")), literal(":"), part("PORT", None), literal("/")]
        );
        assert!(!variables.uses()["HOST"].elsewhere);
    }
}
