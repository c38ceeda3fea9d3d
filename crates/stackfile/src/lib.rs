//! The stack file: text to ([`Stack`](basalt_model::Stack), diagnostics).
//!
//! Reads the HCL, YAML and JSON files of a stack, evaluates variables, locals, modules and functions, and turns the blocks
//! into the nouns of `basalt-model`, with every fault found at once and shown where it stands. It must not know how anything is run, and
//! touches nothing but the files that the stack names, through [`Files`]. Its main type is [`Loaded`], which [`load`] returns.
//!
//! Text passes through these steps: `text` (files of three kinds to one `tree`, by what `schema` says may stand where) →
//! `unit` (variables, locals, modules and `for_each`, each after what it refers to) → `expand` (`for_each` and `dynamic`) →
//! `decode` (blocks to nouns, expressions evaluated on the way) → `check` (what only the whole stack shows).

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as basalt_stackfile;

mod check;
mod decode;
mod diagnostic;
mod eval;
mod expand;
mod fault;
mod files;
mod format;
mod functions;
mod globals;
mod json;
mod lex;
mod load;
mod module;
mod node;
mod number;
mod operators;
mod read;
mod reader;
mod render;
mod schema;
mod schema_json;
mod sealed;
mod source;
mod suggest;
mod template;
mod text;
mod tree;
mod types;
mod unit;
mod units;
mod value;
mod yaml;

pub use diagnostic::{Diagnostic, Place, Severity, Span};
pub use files::{Disk, Files};
pub use format::format;
pub use load::{Inputs, Loaded, OutputValue, load, load_from, load_text, parse_hcl};
pub use render::render;
pub use schema_json::json_schema;
pub use sealed::Sealed;
pub use source::Source;
