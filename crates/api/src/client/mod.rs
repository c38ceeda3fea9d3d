//! The client of the API.

mod calls;
mod error;
mod feed;
mod transport;

pub use calls::Client;
pub use error::ClientError;
pub use feed::Feed;
