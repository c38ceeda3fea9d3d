//! HTTP/1 between clients and instances.
//!
//! Every request of an HTTP/1 connection is read and judged here, more strictly than RFC 9112 demands: a message that two
//! programs could read in two ways goes no further. Common requests are passed on right here as well ([`short`]), since that
//! takes half of what the general proxy takes; all others are handed to it ([`connection`]).

pub(crate) mod asker;
pub(crate) mod attempt;
pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod head;
pub(crate) mod hedge;
pub(crate) mod over_http2;
pub(crate) mod pool;
pub(crate) mod response;
pub(crate) mod rewrite;
pub(crate) mod short;
pub(crate) mod to_client;
pub(crate) mod tunnel;
pub(crate) mod websocket;
