//! How the processes of one machine talk: JSON values, one a line, over unix sockets.
//!
//! It knows nothing of what is said. Main types: [`Reader`] and [`Writer`].

#![forbid(unsafe_code)]

mod lines;

pub use lines::{LONGEST_LINE, Reader, WireError, Writer, split};
