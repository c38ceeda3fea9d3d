//! TLS: certificates by host, and the handshake that chooses among them.

mod certificates;
mod handshake;
mod proofs;
mod times;

pub(crate) use certificates::{Certificates, tend, wanted};
pub(crate) use handshake::accept;
pub(crate) use times::Times;
