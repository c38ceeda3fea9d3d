//! Where instances live.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use basalt_model::{Exit, Generation, InstanceId, Millis, Release};
use serde::{Deserialize, Serialize};

use crate::{PinnedImage, SecretBytes};

/// Starts, stops and watches instances.
pub trait Backend: Send + Sync {
    /// Takes an action and returns at once; what comes of it is seen in [`Backend::seen`].
    ///
    /// Actions are idempotent: one that has been taken already, or that carries an older generation than the instance
    /// has, changes nothing. From the return of this call on, `seen` shows a started instance at least as
    /// [`BackendState::Starting`].
    fn perform(&self, action: InstanceAction);

    /// Returns what is there now.
    fn seen(&self) -> Arc<BackendSeen>;
}

/// What a backend shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceAction {
    /// Starts an instance.
    Start(Box<StartInstance>),
    /// Asks an instance to end (SIGTERM), and kills it if it has not ended in time.
    Stop {
        /// The instance.
        id: InstanceId,
        /// Which start of it.
        generation: Generation,
        /// Time from SIGTERM to SIGKILL.
        within: Millis,
    },
    /// Drops what is left of an ended instance: its end has been journalled.
    Forget {
        /// The instance.
        id: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
}

/// All that is needed to start an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartInstance {
    /// The instance.
    pub id: InstanceId,
    /// Which start of it.
    pub generation: Generation,
    /// What it runs.
    pub release: Arc<Release>,
    /// Its image.
    pub image: PinnedImage,
    /// The contents of the release's secrets.
    pub secrets: Vec<StartSecret>,
    /// The release's environment variables that are secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretBytes>,
    /// Names it can look up, and their addresses.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// Virtual addresses that it may reach; all else is denied unless the release has egress.
    pub reaches: Vec<Ipv4Addr>,
}

/// A secret in clear, on its way to an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartSecret {
    /// Absolute path in the instance.
    pub path: String,
    /// What the file holds.
    pub content: SecretBytes,
    /// Permission bits.
    pub mode: u32,
}

/// What a backend sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendSeen {
    /// Whether the rest is true now. While it is false, nothing may be concluded from an instance's absence.
    pub connected: bool,
    /// Instances by id, ended ones included until they are forgotten.
    pub instances: BTreeMap<InstanceId, BackendInstance>,
}

/// An instance as its backend sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendInstance {
    /// Which start of it.
    pub generation: Generation,
    /// Where it stands.
    pub state: BackendState,
    /// Its own address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// For command checks: what the last ones said.
    pub healthy: Option<bool>,
    /// For people: how the last command check ended.
    pub last_probe: Option<String>,
}

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Its start is under way.
    Starting,
    /// It runs.
    Running {
        /// Its process as the host sees it.
        pid: u32,
        /// When its process was started.
        since: Millis,
    },
    /// It has ended.
    Ended {
        /// How.
        exit: Exit,
        /// When.
        at: Millis,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
}
