//! The seams between the heart and the adapters: traits in plain types.
//!
//! The controller knows adapters only through these traits. All of them are level-triggered: an adapter shows what it
//! sees as one snapshot and calls a [`Wake`] when that changes; the controller decides anew from the snapshot and
//! hands out complete, idempotent actions. Nothing here knows an implementation.

#![forbid(unsafe_code)]

mod backend;
mod depot;
mod journal;
mod router;
mod sandbox;
mod secrets;

pub use backend::{Backend, BackendInstance, BackendSeen, BackendState, InstanceAction, StartInstance, StartSecret};
pub use depot::{Depot, DepotError, MountPoints, PinnedImage};
pub use journal::{Journal, JournalError, Row};
pub use router::{InstanceTraffic, Router, RouterSeen};
pub use sandbox::{Sandbox, SandboxError, SandboxRun, Sandboxed};
pub use secrets::{SecretBytes, Secrets, SecretsError};

use basalt_model::Millis;

/// Called by an adapter when its snapshot has changed. Cheap, and safe to call from any thread.
pub type Wake = std::sync::Arc<dyn Fn() + Send + Sync>;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns the time since the Unix epoch.
    fn now(&self) -> Millis;
}
