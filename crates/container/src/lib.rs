//! The embedded backend: instances on this machine.
//!
//! The keeper owns the instance processes of a data directory; a short-lived child creates each of them.
//! This crate knows nothing of rollouts, routes or journals.

mod cgroup;
mod channel;
mod client;
pub mod create;
mod erofs;
mod firewall;
mod forwarding;
mod init;
mod inside;
pub mod keeper;
pub mod logs;
mod netlink;
pub mod network;
mod order;
mod place;
pub mod probe;
mod process;
mod protocol;
mod root;
pub mod sandbox;
mod seccomp;
mod sets;
pub mod supervise;
mod sys;
mod tree;
mod user;
mod veth;

pub use client::{KeeperBackend, shutdown};
pub use protocol::{fdstore_socket, keeper_socket};
