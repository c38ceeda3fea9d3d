//! What is recorded: the fold of all events. Only `rollout::evolve` changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Exit, Generation, InstanceId, Millis, Name, Outcome, Release, ReleaseNumber, Rollout, Settings, StopReason,
};

/// Everything that is recorded for one data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The stack that was applied; `None` before the first and after `down`.
    pub stack: Option<Name>,
    /// By name.
    pub services: BTreeMap<Name, Service>,
    /// By name.
    pub jobs: BTreeMap<Name, Job>,
    /// The slot behind the one given last: slots are used again as late as can be, since the firewall of an instance may
    /// still name the virtual address of a service that is gone.
    #[serde(default)]
    pub next_slot: u16,
    /// The highest generation given under each name whose service or job has been removed: should the name come back,
    /// generations go on from there.
    pub generations: BTreeMap<Name, Generation>,
}

/// A service as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// A small number that no other service has at the same time; its virtual address is made of it.
    pub slot: u16,
    /// Settings in force.
    pub settings: Settings,
    /// Kept releases by number.
    pub releases: BTreeMap<ReleaseNumber, Arc<Release>>,
    /// The highest number given to a release so far.
    pub last_release: ReleaseNumber,
    /// The release that serves outside rollouts.
    pub stable: Option<ReleaseNumber>,
    /// The release that served before the stable one.
    pub previous: Option<ReleaseNumber>,
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// How many rollouts have been started.
    pub rollouts: u32,
    /// How the last one ended.
    pub last_rollout: Option<LastRollout>,
    /// A release kept warm for rollback.
    pub warm: Option<Warm>,
    /// Instances that should be, or are being stopped.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// The highest generation given to an instance so far.
    pub generation: Generation,
    /// How many instances in a row failed their checks without having been healthy for long; decides the pause before
    /// the next is replaced.
    pub failures: u32,
    /// When the last of them did.
    pub failed_at: Option<Millis>,
    /// Whether the service is being removed.
    pub removing: bool,
}

impl State {
    /// How many slots there are: the virtual addresses of a /20, less that of the network and that of the host.
    pub const SLOTS: u16 = (1 << 12) - 2;
}

impl Service {
    /// Returns a service as it is when it is declared: without a release.
    pub fn new(slot: u16, settings: Settings) -> Self {
        Self {
            slot,
            settings,
            releases: BTreeMap::new(),
            last_release: 0,
            stable: None,
            previous: None,
            rollout: None,
            rollouts: 0,
            last_rollout: None,
            warm: None,
            instances: BTreeMap::new(),
            generation: 0,
            failures: 0,
            failed_at: None,
            removing: false,
        }
    }
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRollout {
    /// The rollout.
    pub id: String,
    /// The release it came from.
    pub baseline: Option<ReleaseNumber>,
    /// The release it went to.
    pub target: ReleaseNumber,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub at: Millis,
}

/// A release kept warm: its instances run and are checked, and get no traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// The release.
    pub release: ReleaseNumber,
    /// Until when.
    pub until: Millis,
}

/// An instance as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which start of it is meant; it grows with every start.
    pub generation: Generation,
    /// Where it stands.
    pub state: InstanceState,
    /// When this generation was requested.
    pub requested_at: Millis,
    /// When this generation was first seen healthy.
    pub healthy_at: Option<Millis>,
    /// When this generation was found to fail its checks; another instance takes its place.
    pub failed_at: Option<Millis>,
    /// How often it has died since it last stayed healthy for long; decides the pause before it is started again.
    pub exits: u32,
    /// How it died last.
    pub last_exit: Option<Exit>,
}

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Its start has been decided.
    Wanted,
    /// It died; it is started again at this time.
    Waiting {
        /// The time.
        until: Millis,
    },
    /// It gets no new requests, and finishes those it has.
    Draining {
        /// Since when.
        since: Millis,
        /// Why.
        reason: StopReason,
    },
    /// Its end has been decided.
    Stopping {
        /// Since when.
        since: Millis,
        /// Why.
        reason: StopReason,
    },
}

/// A job as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The release to run.
    pub release: Arc<Release>,
    /// Its number.
    pub number: ReleaseNumber,
    /// How often it is tried again.
    pub retries: u32,
    /// How long one try may take.
    pub timeout: Millis,
    /// Jobs that must have ended well before.
    pub depends_on: Vec<Name>,
    /// Where it stands.
    pub state: JobState,
    /// The highest generation given to its instance so far.
    pub generation: Generation,
    /// Tries that failed since it was declared.
    pub failures: u32,
    /// When it is tried again after a failure.
    pub retry_at: Option<Millis>,
    /// Whether the job is being removed.
    pub removing: bool,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not been started.
    Pending,
    /// A try is under way.
    Running {
        /// Counts the tries over all time, and is the generation of the instance.
        generation: Generation,
        /// Tries that failed before this one.
        failures: u32,
        /// When this try was requested.
        since: Millis,
        /// Whether its end has been decided (time-out or removal).
        stopping: bool,
    },
    /// It ended well.
    Succeeded {
        /// When.
        at: Millis,
    },
    /// All tries failed.
    Failed {
        /// How the last one ended.
        exit: Exit,
        /// When.
        at: Millis,
    },
}
