//! What the keeper and its clients say to each other, one JSON value a line.

use std::path::{Path, PathBuf};

use basalt_model::InstanceId;
use basalt_seam::{BackendInstance, InstanceAction};
use serde::{Deserialize, Serialize};

/// From a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToKeeper {
    /// Take an action.
    Perform(InstanceAction),
    /// Stop gateway and controller, take everything away, and end.
    Shutdown,
}

/// From the keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromKeeper {
    /// Everything, once, at the beginning.
    Snapshot(Vec<(InstanceId, BackendInstance)>),
    /// One instance has changed, or is no longer there.
    Changed(InstanceId, Option<BackendInstance>),
    /// The shutdown is done; the keeper ends.
    Down,
    /// The shutdown was refused; the text says why.
    Refused(String),
}

/// Returns the keeper's socket of a data directory.
pub fn keeper_socket(data: &Path) -> PathBuf {
    data.join("run/keeper.sock")
}

/// Returns the socket of the keeper's store of descriptors.
pub fn fdstore_socket(data: &Path) -> PathBuf {
    data.join("run/fdstore.sock")
}
