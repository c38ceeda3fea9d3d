//! Docker Compose files (Compose Specification) to stacks in HCL, and everything that has no counterpart by name.
//!
//! Nothing is lost silently: each scalar of the file either decides something in the stack or is named in a [`Finding`]. It must
//! not know how anything is run, and touches no file but through [`Files`]. Its main type is [`Imported`], which [`import`] returns.
//!
//! A file passes through: `yaml` (text to nodes that know whether they were used) → `project` (merges, `extends`, profiles) →
//! `service` and its parts (nodes to blocks) → `hcl` (blocks to text).

#![forbid(unsafe_code)]

mod build;
mod deploy;
mod dotenv;
mod fields;
mod findings;
mod hcl;
mod health;
mod images;
mod import;
mod interpolate;
mod keys;
mod mounts;
mod names;
mod network;
mod ports;
mod project;
mod service;
mod shell;
mod yaml;

pub use dotenv::dotenv;
pub use findings::Finding;
pub use import::{Files, Imported, Options, PathKind, import};
