//! The gateway with real sockets: small servers on loopback addresses stand for instances.

mod app;
mod client;
mod deploys;
mod gateway;
mod requests;
mod restarts;
mod tables;
