//! Events: the journal outlives every binary that wrote it, so each kind of row is explained in `docs/events.md`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, ensure};

use crate::workspace::Workspace;

/// Returns a sentence for each kind of event that is not explained, and each explanation without an event.
///
/// # Errors
/// If the model's `event.rs` or `docs/events.md` can't be read or holds no events.
pub fn breaches(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let read = |path: &str| {
        let path = workspace.workspace_root.join(path);
        fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))
    };
    let kinds = kinds(&read("crates/model/src/event.rs")?);
    ensure!(!kinds.is_empty(), "crates/model/src/event.rs has no `pub enum Event`");
    Ok(differences(&kinds, &explained(&read("docs/events.md")?)))
}

fn differences(kinds: &BTreeSet<String>, explained: &BTreeSet<String>) -> Vec<String> {
    let missing = kinds.difference(explained).map(|kind| format!("event `{kind}` is not explained in docs/events.md"));
    let stale = explained.difference(kinds).map(|kind| format!("docs/events.md explains `{kind}`, which is no event"));
    missing.chain(stale).collect()
}

/// Returns the kinds of the variants of `pub enum Event`, laid out as rustfmt does.
fn kinds(source: &str) -> BTreeSet<String> {
    let body = source.lines().skip_while(|line| *line != "pub enum Event {").skip(1).take_while(|line| *line != "}");
    body.filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| snake_case(line.split([' ', ',', '(']).next().unwrap_or_default()))
        .collect()
}

/// Returns the kinds explained: rows of the document's tables that begin with a name in backticks.
fn explained(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(kind, _)| kind.to_owned()).collect()
}

/// Returns `RolloutStarted` as `rollout_started`.
fn snake_case(camel: &str) -> String {
    let mut snake = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_missing_and_what_is_stale() {
        let source = "pub enum Other {\n    Not,\n}\npub enum Event {\n    /// Doc.\n    StackApplied {\n        /// Doc.\n        \
                      stack: Name,\n    },\n    WarmExpired,\n    Held(u8),\n}\n";
        let kinds = kinds(source);
        assert_eq!(kinds.iter().collect::<Vec<_>>(), ["held", "stack_applied", "warm_expired"]);
        let document =
            "text `not_a_row`\n| kind | says |\n|---|---|\n| `held` | x |\n| `stack_applied` | y |\n| `gone` | z |\n";
        assert_eq!(
            differences(&kinds, &explained(document)),
            [
                "event `warm_expired` is not explained in docs/events.md",
                "docs/events.md explains `gone`, which is no event"
            ]
        );
    }
}
