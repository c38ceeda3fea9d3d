//! The embedded backend: instances on this machine.
//!
//! The keeper owns the instance processes of a data directory; a short-lived child creates each of them.
//! This crate knows nothing of rollouts, routes or journals.

mod cgroup;
mod client;
pub mod create;
mod firewall;
mod init;
pub mod keeper;
pub mod logs;
mod netlink;
pub mod network;
mod order;
pub mod probe;
mod protocol;
mod root;
mod runtime_spec;
mod seccomp;
pub mod supervise;
mod sys;
mod user;
mod veth;

pub use client::{KeeperBackend, shutdown};
pub use protocol::{fdstore_socket, keeper_socket};
