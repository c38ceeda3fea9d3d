//! What the machine is told, and what it answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use basalt_model::{Event, Exit, Generation, InstanceId, JobState, Millis, Name, ReleaseNumber};
use serde::{Deserialize, Serialize};

use crate::callers::Caller;
use crate::sent::InForce;

/// Everything the machine may know about the world, at one moment.
#[derive(Debug, Clone)]
pub struct Observation<'a> {
    /// The time.
    pub at: Millis,
    /// Whether the backend's part is true now. If not, nothing is concluded from an absence.
    pub backend_connected: bool,
    /// Whether the router's part is true now.
    pub router_connected: bool,
    /// Which services' routes, as they follow from what is recorded and seen now, are in force at the router.
    pub routes_in_force: InForce,
    /// What is seen of instances: everything the backend has, and everything the router names or still has requests for.
    pub instances: &'a BTreeMap<InstanceId, InstanceSeen>,
    /// Where the jobs of the stack stand.
    pub jobs: &'a BTreeMap<Name, JobState>,
    /// Who still calls the services that are being removed; see [`callers`](crate::callers()).
    pub callers: &'a BTreeMap<Name, Caller>,
}

/// What is seen of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSeen {
    /// Which start of it the backend has.
    pub generation: Generation,
    /// Whether it lives.
    pub life: Life,
    /// Its own address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// The verdict of its health checks in this generation; `None` before the first.
    pub healthy: Option<bool>,
    /// For people: how the last check ended.
    pub last_probe: Option<String>,
    /// Whether the table in force names it.
    pub routed: bool,
    /// Requests and connections under way to it.
    pub in_flight: u64,
}

impl Observation<'_> {
    /// Returns whether the gateway sends an instance nothing and has nothing in flight to it, by its own word.
    pub fn cut_off(&self, id: &InstanceId, seen: &InstanceSeen) -> bool {
        self.router_connected && self.routes_in_force.of(id.service()) && !seen.routed && seen.in_flight == 0
    }
}

/// Whether an instance lives.
#[derive(Debug, Clone, PartialEq)]
pub enum Life {
    /// The backend does not have it.
    Absent,
    /// Its start is under way.
    Starting,
    /// It runs.
    Running {
        /// Its process as the host sees it.
        pid: u32,
        /// Since when.
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

/// What the machine wants.
///
/// While there are events, they are to be journalled and evolved, and the machine asked again: actions follow only
/// from what is already recorded (law 5).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// What is to be recorded.
    pub events: Vec<Event>,
    /// What is to be done for what is recorded already.
    pub actions: Vec<Action>,
    /// Why it isn't moving.
    pub waiting: Vec<Waiting>,
    /// When to ask again even if nothing is seen to change.
    pub wake_at: Option<Millis>,
}

/// What is to be done. The controller completes it with release, image and secrets.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Starts an instance.
    Start {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
    /// Asks an instance to end.
    Stop {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
        /// Time before it is killed.
        within: Millis,
    },
    /// Drops what is left of an ended instance whose end is recorded, or that is not recorded at all.
    Forget {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
}

/// What is waited for, and since when. It answers "why isn't it moving?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Waiting {
    /// A job must end well first.
    Job {
        /// The job.
        job: Name,
    },
    /// An instance must start.
    Start {
        /// The instance.
        instance: InstanceId,
        /// Since when.
        since: Millis,
    },
    /// An instance must become healthy.
    Health {
        /// The instance.
        instance: InstanceId,
        /// Since when.
        since: Millis,
        /// How the last check ended.
        last_probe: Option<String>,
    },
    /// An instance that keeps dying is started again later.
    Backoff {
        /// The instance.
        instance: InstanceId,
        /// Until when.
        until: Millis,
        /// How often it has died in a row.
        exits: u32,
        /// How it died last.
        exit: Option<Exit>,
    },
    /// The gateway must acknowledge the newest route table.
    Routes,
    /// Requests in flight to an instance must end.
    Drain {
        /// The instance.
        instance: InstanceId,
        /// Until when at the latest.
        until: Millis,
        /// How many are left.
        in_flight: u64,
    },
    /// An instance must end.
    Stop {
        /// The instance.
        instance: InstanceId,
        /// Since when.
        since: Millis,
    },
    /// Time must pass.
    Hold {
        /// Until when.
        until: Millis,
    },
    /// A person must promote the rollout.
    Approval,
    /// A person must resume the rollout.
    Resume,
    /// A service that is no longer declared stays as long as a release in use calls it.
    Caller {
        /// The service that calls it.
        service: Name,
        /// Its release.
        release: ReleaseNumber,
    },
    /// The keeper can't be reached.
    Backend,
    /// The gateway can't be reached.
    Router,
}

impl Waiting {
    /// Returns the instance that is waited for, if it is one.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Start { instance, .. }
            | Self::Health { instance, .. }
            | Self::Backoff { instance, .. }
            | Self::Drain { instance, .. }
            | Self::Stop { instance, .. } => Some(instance),
            Self::Job { .. }
            | Self::Caller { .. }
            | Self::Routes
            | Self::Hold { .. }
            | Self::Approval
            | Self::Resume
            | Self::Backend
            | Self::Router => None,
        }
    }
}

/// An event that does not fit the state: the journal is damaged, or a program error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{kind}` about `{subject}` does not fit what is recorded: {why}")]
pub struct IllegalEvent {
    /// The event's kind.
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// Why it does not fit.
    pub why: String,
}
