//! From what the controller shows to the public JSON: pure functions.

mod event;
mod instance;
mod job;
mod release;
#[cfg(test)]
pub(crate) mod sample;
mod sentence;
mod service;
mod status;

pub use event::event;
pub use release::releases;
pub use sentence::sentence;
pub use status::{server, status};
