//! The gateway with real sockets: small servers on loopback addresses stand for instances.

mod app;
mod client;
mod deploys;
mod frames;
mod gateway;
mod hostile;
mod http1;
mod http2;
mod requests;
mod restarts;
mod sockets;
mod tables;
