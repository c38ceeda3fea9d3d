//! The data plane: takes requests from outside and from other instances, weighs releases, checks health, retries,
//! drains and measures.
//!
//! It receives the whole route table as one versioned value, acknowledges a version only when no later request uses
//! an older one, keeps a copy on disk and comes back with it alone. It must not know rollouts, journals or backends.
//! Main types: [`run`] is the process, [`GatewayRouter`] the controller's end of its control socket.

#![forbid(unsafe_code)]

mod access_log;
mod acme;
mod admin;
mod admission;
mod affinity;
mod aim;
mod answer;
mod budget;
mod changes;
mod choice;
mod client;
mod compression;
mod connections;
mod control;
mod copy;
mod difference;
mod edge;
mod ejection;
mod error;
mod forwarded;
mod gently;
mod health;
mod held;
mod http1;
mod http2;
mod instance;
mod limiter;
mod limits;
mod listeners;
mod metrics;
mod native;
mod network;
mod plane;
mod predecessors;
mod probe;
mod process;
mod protocol;
mod proxy_header;
mod ready;
mod ready_service;
mod receipts;
mod refusals;
mod routing;
mod service;
mod sockets;
mod stats;
mod table_change;
mod tables;
mod target;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod trace;
mod waiting;
mod watched;
mod weights;
mod workers;

pub use access_log::LogFormat;
pub use acme::{AcmeOptions, LETS_ENCRYPT};
pub use client::GatewayRouter;
pub use error::Error;
pub use limits::Limits;
pub use network::{Network, NotANetwork};
pub use process::{GatewayOptions, run};
