//! The status: what is recorded and what is seen, at one moment.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// What is recorded and what is seen, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The stack that is applied; null before the first apply and after `down`.
    pub stack: Option<String>,
    /// The environment.
    #[schema(example = "default")]
    pub environment: String,
    /// The moment.
    pub at: Timestamp,
    /// The number of the last event; the journal has had `seq` rows so far.
    pub seq: u64,
    /// Whether everything is as recorded: no rollout, nothing waited for, the newest routes in force.
    pub settled: bool,
    /// Services, by name.
    pub services: Vec<ServiceStatus>,
    /// Jobs, by name.
    pub jobs: Vec<JobStatus>,
    /// The gateway.
    pub gateway: GatewayStatus,
    /// The keeper.
    pub keeper: KeeperStatus,
    /// What is wrong and needs a person, in sentences.
    pub problems: Vec<String>,
    /// What is so on this machine and worth knowing, in sentences: for example what its kernel can't do.
    pub notes: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The release that serves outside rollouts; null before the first rollout is done.
    pub stable: Option<ReleaseRef>,
    /// The rollout under way; null when there is none.
    pub rollout: Option<RolloutStatus>,
    /// How the last rollout ended; null before the first has.
    pub last_rollout: Option<LastRollout>,
    /// The release kept warm for a rollback; null when there is none.
    pub warm: Option<WarmStatus>,
    /// How many instances are wanted.
    pub wanted: u32,
    /// How many of its instances are healthy, all releases together.
    pub healthy: u32,
    /// Shares of the traffic, by release. They add up to 100, or are all 0.
    pub traffic: Vec<Traffic>,
    /// Requests from outside that it answers.
    pub routes: Vec<RouteStatus>,
    /// Its instances, by release and place.
    pub instances: Vec<InstanceStatus>,
    /// Why it isn't moving, in sentences; during a rollout the same as the rollout's.
    pub waiting: Vec<String>,
    /// Whether it is being removed.
    pub removing: bool,
    /// The service that still calls it and so keeps it from being removed; null when there is none.
    #[serde(default)]
    pub called_by: Option<String>,
}

/// A release, by number and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseRef {
    /// Its number within its service, counted from 1.
    pub number: u32,
    /// The SHA-256 of its canonical bytes.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub id: String,
}

/// A rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStatus {
    /// Its id: `SERVICE-N`.
    pub id: String,
    /// How it passes: `rolling`, `blue_green`, `canary` or `recreate`.
    pub strategy: String,
    /// Where it stands: `preparing`, `starting`, `shifting`, `holding`, `finishing` or `returning`.
    pub phase: String,
    /// The number of the release it passes to.
    pub target: u32,
    /// The number of the release that keeps serving if it fails; null at the first.
    pub baseline: Option<u32>,
    /// Why it isn't moving, in sentences.
    pub waiting: Vec<String>,
    /// How far it has come.
    pub progress: Progress,
    /// Whether a person has paused it.
    pub paused: bool,
    /// Why it returns to the baseline; null while it goes forward.
    pub reason: Option<String>,
    /// Why it began, where no person asked for it.
    pub because: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it entered its phase.
    pub phase_at: Timestamp,
    /// When it has failed if it is not done by then; moves while it is paused.
    pub deadline_at: Timestamp,
}

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// How many instances of the target there are.
    pub instances: u32,
    /// How many of them are healthy.
    pub healthy: u32,
    /// How many are wanted at the end.
    pub wanted: u32,
    /// The target's share of the traffic, in percent.
    pub weight: f64,
    /// The step of a canary; null elsewhere.
    pub step: Option<Step>,
}

/// A step of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Which, counted from 1.
    pub number: u32,
    /// How many there are before all traffic.
    pub of: u32,
    /// Whether a person must promote it.
    pub approval: bool,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastRollout {
    /// Its id.
    pub id: String,
    /// The release it came from; null if it was the first.
    pub baseline: Option<u32>,
    /// The release it went to.
    pub target: u32,
    /// How it ended: `done`, `rolled_back`, `aborted` or `superseded`.
    pub outcome: String,
    /// What failed; null unless it was rolled back.
    pub reason: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

/// A release kept warm: its instances run and are checked, and get no traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WarmStatus {
    /// Its number.
    pub release: u32,
    /// Until when.
    pub until: Timestamp,
}

/// The share of traffic of one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Its number.
    pub release: u32,
    /// Its share in percent, 0.0 to 100.0.
    #[schema(example = 95.0)]
    pub weight: f64,
}

/// Requests from outside that a service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteStatus {
    /// The host name; null is any.
    pub host: Option<String>,
    /// The path prefix.
    pub path: String,
    /// The name of the port that they go to.
    pub port: String,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    /// Its id: `SERVICE-RELEASE-ORDINAL`.
    #[schema(example = "web-7-2")]
    pub id: String,
    /// The number of the release that it runs.
    pub release: u32,
    /// Where it stands.
    pub state: InstanceState,
    /// Whether its checks say that it is healthy.
    pub healthy: bool,
    /// Its process as the host sees it; null while it does not run.
    pub pid: Option<u32>,
    /// Where it is reached: address and port, or the address alone if it has no port; null before it has one.
    #[schema(example = "10.83.0.2:8080")]
    pub address: Option<String>,
    /// When its process was started; null while it does not run.
    pub started_at: Option<Timestamp>,
    /// How often it has died since it last stayed healthy for long.
    pub exits: u32,
    /// How it ended last; null if it never has.
    pub last_exit: Option<ExitStatus>,
    /// How its last check ended; null before the first.
    pub last_probe: Option<String>,
    /// When it is started again; null unless it waits for that.
    pub retry_at: Option<Timestamp>,
    /// Requests and connections under way to it.
    pub in_flight: u64,
    /// Requests sent to it so far.
    pub requests: u64,
    /// Requests that it answered with a status of 500 or more, or not at all.
    pub errors: u64,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Its start is under way.
    Starting,
    /// It runs.
    Running,
    /// It has ended, and what follows is being decided.
    Exited,
    /// It has ended, and is started again later.
    Waiting,
    /// It gets no new requests, and finishes those it has.
    Draining,
    /// It has been asked to end.
    Stopping,
}

impl InstanceState {
    /// Returns the state as the JSON writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Waiting => "waiting",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitStatus {
    /// What ended it: `code`, `signal`, `out_of_memory`, `could_not_start` or `unseen`.
    pub kind: String,
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// For people.
    #[schema(example = "exited with status 1")]
    pub text: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobStatus {
    /// Its name.
    pub name: String,
    /// The release it runs.
    pub release: ReleaseRef,
    /// Where it stands.
    pub state: JobState,
    /// Tries that have failed.
    pub failures: u32,
    /// How often it is tried again.
    pub retries: u32,
    /// When it is tried again after a failure; null otherwise.
    pub retry_at: Option<Timestamp>,
    /// When it ended for good; null before.
    pub ended_at: Option<Timestamp>,
    /// How its last try ended; null unless it failed for good.
    pub last_exit: Option<ExitStatus>,
    /// The instance of the try under way; null between tries.
    pub instance: Option<InstanceStatus>,
    /// Why it isn't moving, in sentences.
    pub waiting: Vec<String>,
    /// Whether it is being removed.
    pub removing: bool,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not been started, or is tried again later.
    Pending,
    /// A try is under way.
    Running,
    /// It ended well.
    Succeeded,
    /// All tries failed.
    Failed,
}

impl JobState {
    /// Returns the state as the JSON writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayStatus {
    /// Where it takes HTTP requests from outside; null if nowhere.
    #[schema(example = "127.0.0.1:8080")]
    pub http: Option<String>,
    /// The version of the newest route table.
    pub routes_version: u64,
    /// Whether that table is in force.
    pub routes_in_force: bool,
    /// Whether it is reached.
    pub connected: bool,
}

/// The keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeeperStatus {
    /// Whether it is reached. While it is not, what is said of instances is what was seen last.
    pub connected: bool,
}
