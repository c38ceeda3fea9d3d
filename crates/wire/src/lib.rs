//! How the processes of one machine talk: JSON values, one a line, over unix sockets; and open descriptors, handed over.
//!
//! It knows nothing of what is said. Main types: [`Reader`], [`Writer`] and [`FdStore`](fdstore::FdStore).

#![forbid(unsafe_code)]

pub mod fdstore;
mod lines;

pub use lines::{LONGEST_LINE, Line, Reader, WireError, Writer, split};
