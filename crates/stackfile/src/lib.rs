//! The stack file: text to ([`Stack`](basalt_model::Stack), diagnostics).
//!
//! Reads the HCL files of a stack, evaluates variables, locals and functions, and turns the blocks into the nouns of
//! `basalt-model`, with every fault found at once and shown where it stands. It must not know how anything is run, and
//! touches nothing but the files that the stack names, through [`Files`]. Its main type is [`Loaded`], which [`load`] returns.
//!
//! Text passes through four steps: `load` (files to syntax trees) → `globals` (variables and locals) → `decode`
//! (blocks to nouns, expressions evaluated on the way) → `check` (what only the whole stack shows).

#![forbid(unsafe_code)]

mod check;
mod decode;
mod diagnostic;
mod eval;
mod fault;
mod files;
mod functions;
mod globals;
mod load;
mod number;
mod operators;
mod read;
mod reader;
mod render;
mod source;
mod suggest;
mod template;
mod types;
mod units;
mod value;

pub use diagnostic::{Diagnostic, Place, Severity, Span};
pub use files::{Disk, Files};
pub use load::{Inputs, Loaded, load, load_from};
pub use render::render;
pub use source::Source;
