//! The rollout as data. What moves it is the `rollout` crate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Millis, ReleaseNumber, Weight};

/// How a service passes from one release to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSpec {
    /// The strategy.
    pub strategy: Strategy,
    /// Time within which the whole rollout must be done, holds and approvals included.
    pub deadline: Millis,
    /// How long the target must stay healthy with all traffic before the rollout is done.
    pub hold: Millis,
    /// How long the old release stays warm for a rollback after the rollout is done.
    pub keep_old: Millis,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling { max_surge: Share::Percent(25), max_unavailable: Share::Count(0) },
            deadline: Millis::seconds(600),
            hold: Millis::ZERO,
            keep_old: Millis::ZERO,
        }
    }
}

/// How a rollout passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Instances are replaced a few at a time; each gets its share of the traffic once healthy.
    Rolling {
        /// How many instances there may be above the wanted number.
        max_surge: Share,
        /// How many healthy instances may be missing from the wanted number.
        max_unavailable: Share,
    },
    /// All new instances come up beside the old, then all traffic moves at once.
    BlueGreen,
    /// Few new instances get little traffic first, then more in steps.
    Canary {
        /// New instances at the first step; later steps have as many as their weight needs.
        instances: Share,
        /// The steps before all traffic.
        steps: Vec<CanaryStep>,
    },
    /// The old is stopped before the new starts.
    Recreate,
}

impl Strategy {
    /// Returns the strategy's name in stack files and output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rolling { .. } => "rolling",
            Self::BlueGreen => "blue_green",
            Self::Canary { .. } => "canary",
            Self::Recreate => "recreate",
        }
    }

    /// Returns how many instances a rolling update may have above the wanted number `n`: at least one if none may be
    /// missing, since nothing could move otherwise.
    pub fn surge(&self, n: u32) -> u32 {
        let Self::Rolling { max_surge, .. } = self else { return 0 };
        max_surge.of(n).max(u32::from(self.missing(n) == 0))
    }

    /// Returns how many healthy instances may be missing from `n` during a rolling update: never all of them.
    pub fn missing(&self, n: u32) -> u32 {
        let Self::Rolling { max_unavailable, .. } = self else { return 0 };
        max_unavailable.of(n).min(n.saturating_sub(1))
    }

    /// Returns how many instances the strategy needs above the wanted number `n` while it passes.
    pub fn extra_instances(&self, n: u32) -> u32 {
        match self {
            Self::Rolling { .. } => self.surge(n).min(n),
            // All of the target stand beside all of the baseline before the end.
            Self::BlueGreen | Self::Canary { .. } => n,
            Self::Recreate => 0,
        }
    }
}

/// One step of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CanaryStep {
    /// Share of the traffic that the target gets.
    pub weight: Weight,
    /// How long it must stay healthy with it.
    pub hold: Millis,
    /// Whether a person must promote it after the hold.
    pub approval: bool,
}

/// A number of instances, absolute or relative to the wanted number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many percent, rounded up.
    Percent(u32),
}

impl Share {
    /// Returns the number of instances out of `whole`.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (u64::from(whole) * u64::from(percent)).div_ceil(100) as u32,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The passage of a service from a baseline release to a target release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// `SERVICE-N`, where N counts the rollouts of the service.
    pub id: String,
    /// How it passes. Fixed at its start: later changes of the stack's rollout block are for the next rollout.
    pub spec: RolloutSpec,
    /// The release that keeps serving if this fails; `None` at the first.
    pub baseline: Option<ReleaseNumber>,
    /// The release to pass to.
    pub target: ReleaseNumber,
    /// Where it stands.
    pub phase: Phase,
    /// When it started.
    pub started_at: Millis,
    /// When the phase was entered.
    pub phase_at: Millis,
    /// Since when it is paused by a person. Health failures still bring it back.
    pub paused_at: Option<Millis>,
    /// How long it has been paused before; the deadline moves by as much.
    pub paused_for: Millis,
    /// How often instances of the target have died in this rollout.
    pub exits: u32,
    /// Since when the gateway has the weights of the phase in force; what is held, is held from then on.
    pub in_force_at: Option<Millis>,
    /// Why it began, where no person asked for it.
    pub because: Option<String>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for the jobs that the service depends on.
    Preparing,
    /// Instances of the target start and become healthy; no traffic yet. For `recreate`, the old is stopped first.
    Starting,
    /// Rolling: so many instances of the target are proven and take traffic.
    Moving {
        /// Instances of the target that have proven themselves.
        moved: u32,
    },
    /// Canary: the step (counted from 0) whose weight is in force.
    Stepping {
        /// The step.
        step: u32,
        /// Whether a person has promoted it.
        approved: bool,
    },
    /// Canary: instances that this step needs start and become healthy; the weight of the step before stays in force.
    /// The step behind the last is the one with all traffic.
    Growing {
        /// The step that follows.
        step: u32,
    },
    /// The target has all traffic and is watched for `hold`.
    Holding,
    /// The hold has passed; the old is drained and stopped, or made warm, and the end state observed.
    Finishing,
    /// Something failed: all traffic goes back to the baseline, and the target is discarded.
    Returning {
        /// What failed.
        reason: String,
        /// Whether a person asked for it.
        aborted: bool,
    },
}

impl Phase {
    /// Returns the phase's name in output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Moving { .. } | Self::Stepping { .. } | Self::Growing { .. } => "shifting",
            Self::Holding => "holding",
            Self::Finishing => "finishing",
            Self::Returning { .. } => "returning",
        }
    }
}
