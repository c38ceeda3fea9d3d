//! End-to-end tests: the real binary, real containers, the real gateway and real load, as root.
//!
//! Run by `make test`, one at a time; `cargo test` alone passes over them. The laws they show are named by number.

#![allow(missing_docs)]

mod harness;

mod archives;
mod baking;
mod broken;
mod clients;
mod deploys;
mod edge;
mod exits;
mod jobs;
mod killed;
mod registry;
mod rollouts;
mod routes;
mod secrets;
mod software;
mod updates;
