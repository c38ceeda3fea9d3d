//! The gateway with real sockets: small servers on loopback addresses stand for instances.

mod acme_server;
mod app;
mod client;
mod deploys;
mod frames;
pub(crate) mod gateway;
mod grpc;
mod hedges;
mod hostile;
mod http1;
mod http2;
mod paths;
mod requests;
mod restarts;
mod rules;
mod secure;
mod seeing;
mod sockets;
mod tables;
mod tls;
mod uploads;
