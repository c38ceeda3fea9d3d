//! Dockerfiles: text to the steps of a bake. Pure: it reads no file and runs nothing.
//!
//! It takes the subset that nearly all Dockerfiles are made of, multi-stage ones included, with the meaning that Docker's
//! own reference gives it. Whatever it does not take is refused with its line and a reason; what has no part in an image
//! here (`HEALTHCHECK`, `VOLUME`, …) is said in a note.
//!
//! It must not know how an image is baked, nor where images come from. Main type: [`Dockerfile`].

#![forbid(unsafe_code)]

mod expand;
mod instruction;
mod lines;
mod parse;
mod plan;

pub use parse::{Dockerfile, Stage, StageFrom};
pub use plan::{Context, Planned, stage_of};

/// What is wrong with a Dockerfile, or worth saying of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}
