//! The embedded backend: instances on this machine.
//!
//! The keeper owns the instance processes of a data directory; a short-lived child creates each of them.
//! This crate knows nothing of rollouts, routes or journals.

mod cgroup;
pub mod create;
mod firewall;
mod init;
mod netlink;
pub mod network;
mod order;
mod root;
mod runtime_spec;
mod seccomp;
mod sys;
mod user;
mod veth;
