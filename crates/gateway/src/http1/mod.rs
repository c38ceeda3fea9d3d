//! HTTP/1 between clients and instances.
//!
//! Every request of an HTTP/1 connection is read and judged here, more strictly than RFC 9112 demands: a message that two
//! programs could read in two ways goes no further. Requests over HTTP/2 take the same path from [`request`] on, since instances
//! speak HTTP/1; only gRPC does not.

pub(crate) mod asker;
pub(crate) mod attempt;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod content;
pub(crate) mod exchange;
pub(crate) mod head;
pub(crate) mod hedge;
pub(crate) mod pool;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod rewrite;
pub(crate) mod to_client;
pub(crate) mod tunnel;
pub(crate) mod upload;
pub(crate) mod websocket;
