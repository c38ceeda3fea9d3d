//! What is said about a stack: one fault or warning, where it stands, and how to mend it.

use serde::{Deserialize, Serialize};

/// One thing to say about a stack. Its JSON form is part of `--output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether the stack can be used in spite of it.
    pub severity: Severity,
    /// What is wrong: a lowercase fragment, values in backticks.
    pub message: String,
    /// Where; `None` if it stands in no file (a variable from the command line, a missing file).
    pub span: Option<Span>,
    /// What to write beside the marked text.
    pub label: Option<String>,
    /// Other places that have to do with it, such as the other party of a conflict.
    pub places: Vec<Place>,
    /// How to mend it.
    pub help: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The stack can't be used.
    Error,
    /// The stack can be used, though likely not as meant.
    Warning,
}

/// A stretch of text in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The file, as it was named.
    pub file: String,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
    /// Line of the first byte, counted from 1.
    pub line: usize,
    /// Column of the first byte in characters, counted from 1.
    pub column: usize,
    /// Line of the place behind the last byte.
    pub end_line: usize,
    /// Column of the place behind the last byte.
    pub end_column: usize,
}

/// Another place that a diagnostic speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    pub span: Span,
    /// What is there.
    pub label: String,
}
