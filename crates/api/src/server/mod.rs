//! The handlers, and the socket that they are reached through.

mod app;
mod change;
mod created;
mod docs;
mod endpoints;
mod extract;
mod live;
mod read;
mod refusal;
mod socket;

pub use docs::openapi;
pub use endpoints::router;
pub use socket::serve;
