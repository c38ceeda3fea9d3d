//! The keeper: owns the instance processes of one data directory, and keeps gateway and controller running.
//!
//! One thread, one task per instance. What it must not forget is in `DATA/run/instances/ID/`; killed and started again it
//! adopts everything from there.

mod collector;
mod instance;
pub(crate) mod record;
mod roles;
mod serve;
mod spare;
mod state;
mod watch;

pub use serve::{KeeperOptions, RoleCommand, run};
