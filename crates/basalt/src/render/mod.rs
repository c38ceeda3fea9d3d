//! What people read. Everything here is a pure function from public values to text.

mod event;
mod failure;
mod fields;
mod plan;
mod released;
mod status;
mod style;
mod tree;

pub use event::{event, log_line, printable};
pub use failure::failure;
pub use fields::fields;
pub use plan::plan;
pub use released::releases;
pub use status::{age, healthy, status};
pub use style::{Paint, Style, clip};
pub use tree::Node;
