//! Sandboxes: one program over a writable root, for baking.

mod capture;
mod child;
mod devices;
mod root;
mod run;

pub use child::main;
pub use run::Sandboxes;
