//! Events: everything that was decided and everything that happened, in the order of the journal.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Exit, Generation, InstanceId, Millis, Name, Phase, Release, ReleaseNumber, Rollout, Settings, Weight};

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A stack was applied; the events behind it in the same append say what it changes.
    StackApplied {
        /// The stack.
        stack: Name,
    },
    /// Everything of the stack is to be removed.
    StackRemoved {
        /// The stack.
        stack: Name,
    },
    /// A service was declared for the first time.
    ServiceCreated {
        /// The service.
        service: Name,
        /// Its slot.
        slot: u16,
        /// Its settings.
        settings: Settings,
    },
    /// Settings of a service changed (number of instances, drain, rollout block).
    ServiceConfigured {
        /// The service.
        service: Name,
        /// The new settings.
        settings: Settings,
    },
    /// A service is no longer declared: its instances are to be drained and stopped.
    ServiceRetired {
        /// The service.
        service: Name,
    },
    /// The last instance of a retired service is gone.
    ServiceRemoved {
        /// The service.
        service: Name,
    },
    /// A release was recorded under the next number.
    ReleaseCreated {
        /// The service.
        service: Name,
        /// The number.
        number: ReleaseNumber,
        /// All of it.
        release: Arc<Release>,
    },
    /// A release is no longer kept.
    ReleaseForgotten {
        /// The service.
        service: Name,
        /// The number.
        number: ReleaseNumber,
    },
    /// A rollout began. One that was under way ends with it, as superseded.
    RolloutStarted {
        /// The service.
        service: Name,
        /// The rollout at its start.
        rollout: Box<Rollout>,
    },
    /// A rollout entered its next phase or step: the weights of that phase are in force from here on.
    RolloutAdvanced {
        /// The service.
        service: Name,
        /// The phase.
        phase: Phase,
    },
    /// The gateway has the weights of the rollout's phase in force.
    WeightShifted {
        /// The service.
        service: Name,
        /// The release that the rollout passes to.
        target: ReleaseNumber,
        /// Its share of the traffic.
        weight: Weight,
    },
    /// A person paused a rollout.
    RolloutPaused {
        /// The service.
        service: Name,
    },
    /// A person resumed a rollout.
    RolloutResumed {
        /// The service.
        service: Name,
    },
    /// A rollout ended, and its end state was observed.
    RolloutFinished {
        /// The service.
        service: Name,
        /// How.
        outcome: Outcome,
    },
    /// The time of a warm release has passed: its instances are to be stopped.
    WarmExpired {
        /// The service.
        service: Name,
        /// The release.
        release: ReleaseNumber,
    },
    /// An instance is to be started.
    InstanceRequested {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
    /// An instance was healthy for the first time in this generation.
    InstanceProven {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
    /// An instance ended without having been asked to.
    InstanceExited {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
        /// How.
        exit: Exit,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// When it is to be started again.
        retry_at: Millis,
    },
    /// An instance fails its checks, or was not healthy in time: another takes its place.
    InstanceFailed {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
        /// How its last check ended.
        probe: Option<String>,
    },
    /// An instance gets no new requests.
    InstanceDrained {
        /// The instance.
        instance: InstanceId,
        /// Why.
        reason: StopReason,
    },
    /// An instance is to be stopped: the gateway names it no more and nothing is in flight, or its drain time has passed.
    InstanceStopRequested {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
        /// Requests that were still in flight and are cut.
        cut: u64,
    },
    /// An instance that was asked to end is gone.
    InstanceStopped {
        /// The instance.
        instance: InstanceId,
        /// Which start of it.
        generation: Generation,
    },
    /// A job was declared, or declared anew with another release.
    JobCreated {
        /// The job.
        job: Name,
        /// The number of its release.
        number: ReleaseNumber,
        /// Its release.
        release: Arc<Release>,
        /// How often it is tried again.
        retries: u32,
        /// How long one try may take.
        timeout: Millis,
        /// Jobs before it.
        depends_on: Vec<Name>,
    },
    /// A try of a job is to be started.
    JobStarted {
        /// The job.
        job: Name,
        /// Which start of its instance.
        generation: Generation,
        /// Tries that failed before.
        failures: u32,
    },
    /// A try of a job is to be stopped, because its time is over or it is being removed.
    JobStopRequested {
        /// The job.
        job: Name,
    },
    /// A job ended well.
    JobSucceeded {
        /// The job.
        job: Name,
    },
    /// A try of a job failed.
    JobAttemptFailed {
        /// The job.
        job: Name,
        /// How.
        exit: Exit,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// Whether it was the last try.
        last: bool,
    },
    /// A job is no longer declared.
    JobRetired {
        /// The job.
        job: Name,
    },
    /// A retired job has no instance left.
    JobRemoved {
        /// The job.
        job: Name,
    },
}

/// Why an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// A newer release has taken over.
    Replaced,
    /// Its rollout was given up.
    RolledBack,
    /// Fewer instances are wanted.
    ScaledDown,
    /// The service is removed.
    Removed,
    /// It became unhealthy, and another takes its place.
    Unhealthy,
    /// The time it was kept warm has passed.
    Expired,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The target serves alone.
    Done,
    /// The baseline serves as before.
    RolledBack {
        /// What failed.
        reason: String,
    },
    /// A person gave it up; the baseline serves as before.
    Aborted,
    /// Another rollout took its place.
    Superseded,
}

impl Event {
    /// Returns the event's kind, as the journal writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StackApplied { .. } => "stack_applied",
            Self::StackRemoved { .. } => "stack_removed",
            Self::ServiceCreated { .. } => "service_created",
            Self::ServiceConfigured { .. } => "service_configured",
            Self::ServiceRetired { .. } => "service_retired",
            Self::ServiceRemoved { .. } => "service_removed",
            Self::ReleaseCreated { .. } => "release_created",
            Self::ReleaseForgotten { .. } => "release_forgotten",
            Self::RolloutStarted { .. } => "rollout_started",
            Self::RolloutAdvanced { .. } => "rollout_advanced",
            Self::WeightShifted { .. } => "weight_shifted",
            Self::RolloutPaused { .. } => "rollout_paused",
            Self::RolloutResumed { .. } => "rollout_resumed",
            Self::RolloutFinished { .. } => "rollout_finished",
            Self::WarmExpired { .. } => "warm_expired",
            Self::InstanceRequested { .. } => "instance_requested",
            Self::InstanceProven { .. } => "instance_proven",
            Self::InstanceExited { .. } => "instance_exited",
            Self::InstanceFailed { .. } => "instance_failed",
            Self::InstanceDrained { .. } => "instance_drained",
            Self::InstanceStopRequested { .. } => "instance_stop_requested",
            Self::InstanceStopped { .. } => "instance_stopped",
            Self::JobCreated { .. } => "job_created",
            Self::JobStarted { .. } => "job_started",
            Self::JobStopRequested { .. } => "job_stop_requested",
            Self::JobSucceeded { .. } => "job_succeeded",
            Self::JobAttemptFailed { .. } => "job_attempt_failed",
            Self::JobRetired { .. } => "job_retired",
            Self::JobRemoved { .. } => "job_removed",
        }
    }

    /// Returns what the event is about: a stack, service, job or instance.
    pub fn subject(&self) -> String {
        match self {
            Self::StackApplied { stack } | Self::StackRemoved { stack } => stack.to_string(),
            Self::ServiceCreated { service, .. }
            | Self::ServiceConfigured { service, .. }
            | Self::ServiceRetired { service }
            | Self::ServiceRemoved { service }
            | Self::ReleaseCreated { service, .. }
            | Self::ReleaseForgotten { service, .. }
            | Self::RolloutStarted { service, .. }
            | Self::RolloutAdvanced { service, .. }
            | Self::WeightShifted { service, .. }
            | Self::RolloutPaused { service }
            | Self::RolloutResumed { service }
            | Self::RolloutFinished { service, .. }
            | Self::WarmExpired { service, .. } => service.to_string(),
            Self::InstanceRequested { instance, .. }
            | Self::InstanceProven { instance, .. }
            | Self::InstanceExited { instance, .. }
            | Self::InstanceFailed { instance, .. }
            | Self::InstanceDrained { instance, .. }
            | Self::InstanceStopRequested { instance, .. }
            | Self::InstanceStopped { instance, .. } => instance.to_string(),
            Self::JobCreated { job, .. }
            | Self::JobStarted { job, .. }
            | Self::JobStopRequested { job }
            | Self::JobSucceeded { job }
            | Self::JobAttemptFailed { job, .. }
            | Self::JobRetired { job }
            | Self::JobRemoved { job } => job.to_string(),
        }
    }
}
