//! The plan: how the recorded state becomes the desired stack.

use std::collections::BTreeMap;

use basalt_model::{Digest, JobState, Name, Phase, ReleaseNumber, Service, Settings, State, digest_of};
use serde::{Deserialize, Serialize};

use crate::{Desired, DesiredJob, DesiredService, FieldChange, field_changes};

/// What an apply will do, service by service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// The stack.
    pub stack: Name,
    /// The digest of the recorded state that the plan was made against; see [`state_digest`].
    pub base: Digest,
    /// Services by name: those desired and those to be removed.
    pub services: BTreeMap<Name, ServiceChange>,
    /// Jobs by name.
    pub jobs: BTreeMap<Name, JobChange>,
}

impl Plan {
    /// Returns whether performing the plan would do anything.
    pub fn has_changes(&self) -> bool {
        self.services.values().any(|s| s.change != Change::Unchanged)
            || self.jobs.values().any(|j| j.change != Change::Unchanged)
    }
}

/// What happens to a service or job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Create,
    /// It passes to another release by a rollout; a job runs again.
    Update,
    /// A rollout that is under way is given up, since the stack asks for the baseline again.
    Abort,
    /// Its settings change; instances are only added or removed.
    Configure,
    /// Nothing happens.
    Unchanged,
    /// It is no longer declared.
    Remove,
}

/// What happens to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceChange {
    /// What happens.
    pub change: Change,
    /// The release it passes to or stays on.
    pub release: Option<PlannedRelease>,
    /// The release that serves now.
    pub from: Option<ReleaseNumber>,
    /// Field by field, releases first, then settings (`settings.…`).
    pub fields: Vec<FieldChange>,
    /// The strategy of the rollout, if there is one.
    pub strategy: Option<String>,
    /// How many instances are wanted at the end.
    pub instances: u32,
    /// How many instances run at most above that number meanwhile.
    pub extra_instances: u32,
}

/// A release as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedRelease {
    /// Its number: the next one, or the one that it has already.
    pub number: ReleaseNumber,
    /// Its id.
    pub id: Digest,
    /// Whether it is recorded already.
    pub kept: bool,
}

/// What happens to one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobChange {
    /// What happens: created, run anew with another release, run again after a failure (also an update), or nothing.
    pub change: Change,
    /// The release it runs.
    pub release: Option<PlannedRelease>,
    /// Field by field.
    pub fields: Vec<FieldChange>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The data directory runs another stack.
    #[error(
        "this data directory runs the stack `{running}`, not `{wanted}`; take another with --data, or end that one with `basalt down`"
    )]
    OtherStack {
        /// The stack that runs.
        running: Name,
        /// The stack that was given.
        wanted: Name,
    },
    /// A service wants more instances than one service may have.
    #[error("`{0}` wants more than {most} instances, the most of one service", most = Settings::MOST_INSTANCES)]
    TooMany(Name),
    /// A service became a job or the other way round.
    #[error(
        "`{0}` is recorded as the other kind (service, job); remove it in one apply and declare it anew in the next"
    )]
    KindChanged(Name),
}

/// Compares what is desired with what is recorded.
///
/// # Errors
/// If the two can't be compared; nothing has been changed.
pub fn plan(desired: &Desired, recorded: &State) -> Result<Plan, PlanError> {
    if let Some(running) = recorded.stack.as_ref().filter(|running| **running != desired.stack) {
        return Err(PlanError::OtherStack { running: running.clone(), wanted: desired.stack.clone() });
    }
    let too_many = |s: &DesiredService| s.settings.instances > Settings::MOST_INSTANCES;
    if let Some((name, _)) = desired.services.iter().find(|(_, s)| too_many(s)) {
        return Err(PlanError::TooMany(name.clone()));
    }
    let swapped = |name: &&Name| {
        desired.services.contains_key(*name) && recorded.jobs.contains_key(*name)
            || desired.jobs.contains_key(*name) && recorded.services.contains_key(*name)
    };
    if let Some(name) = desired.services.keys().chain(desired.jobs.keys()).find(swapped) {
        return Err(PlanError::KindChanged(name.clone()));
    }
    // An id is dear, and a release that is recorded has its own: each is made once.
    let ids = stable_ids(recorded);
    let change = |(name, wanted): (&Name, &DesiredService)| {
        (name.clone(), service_change(wanted, recorded.services.get(name), ids.get(name).copied()))
    };
    let mut services: BTreeMap<_, _> = desired.services.iter().map(change).collect();
    let mut jobs: BTreeMap<_, _> =
        desired.jobs.iter().map(|(name, wanted)| (name.clone(), job_change(wanted, recorded.jobs.get(name)))).collect();
    remove_undeclared(recorded, &mut services, &mut jobs);
    Ok(Plan { stack: desired.stack.clone(), base: digest_with(recorded, &ids), services, jobs })
}

/// Returns the plan that removes everything, or `None` if nothing is applied.
pub fn plan_down(recorded: &State) -> Option<Plan> {
    let (mut services, mut jobs) = (BTreeMap::new(), BTreeMap::new());
    remove_undeclared(recorded, &mut services, &mut jobs);
    Some(Plan { stack: recorded.stack.clone()?, base: state_digest(recorded), services, jobs })
}

/// Returns the digest of what a plan depends on: releases, settings and targets, not the comings and goings of instances.
pub fn state_digest(state: &State) -> Digest {
    digest_with(state, &stable_ids(state))
}

/// Returns the ids of the releases that serve.
fn stable_ids(state: &State) -> BTreeMap<&Name, Digest> {
    let stable = |(name, s)| -> Option<(&Name, Digest)> {
        let service: &Service = s;
        Some((name, service.releases.get(&service.stable?)?.id()))
    };
    state.services.iter().filter_map(stable).collect()
}

fn digest_with(state: &State, ids: &BTreeMap<&Name, Digest>) -> Digest {
    let services: BTreeMap<_, _> = state
        .services
        .iter()
        .map(|(name, s)| {
            let stable = s.stable.and_then(|n| Some((n, *ids.get(name)?)));
            (name, (&s.settings, stable, s.rollout.as_ref().map(|r| (r.target, &r.phase)), s.removing))
        })
        .collect();
    let jobs: BTreeMap<_, _> =
        state.jobs.iter().map(|(name, j)| (name, (j.number, j.release.id(), j.removing))).collect();
    digest_of(&(&state.stack, services, jobs))
}

/// Returns what happens to a service; `stable` is the id of the release that serves.
fn service_change(wanted: &DesiredService, recorded: Option<&Service>, stable: Option<Digest>) -> ServiceChange {
    let instances = wanted.settings.instances;
    let strategy = &wanted.settings.rollout.strategy;
    let Some(recorded) = recorded else {
        return ServiceChange {
            change: Change::Create,
            release: Some(PlannedRelease { number: 1, id: wanted.release.id(), kept: false }),
            from: None,
            fields: Vec::new(),
            strategy: None,
            instances,
            extra_instances: 0,
        };
    };
    let known = recorded.releases.iter().rev().find(|(_, r)| **r == wanted.release).map(|(number, _)| *number);
    let number = known.unwrap_or(recorded.last_release + 1);
    let serves = known.is_some() && known == recorded.stable;
    let id = stable.filter(|_| serves).unwrap_or_else(|| wanted.release.id());
    let heading = recorded.rollout.as_ref().filter(|r| !matches!(r.phase, Phase::Returning { .. })).map(|r| r.target);
    let current = heading.or(recorded.stable);
    let finishing = recorded.rollout.as_ref().is_some_and(|r| r.phase == Phase::Finishing);
    let mut fields = match current.and_then(|n| recorded.releases.get(&n)) {
        Some(release) => field_changes(release.as_ref(), wanted.release.as_ref()),
        None => Vec::new(),
    };
    let settings = settings_changes(&recorded.settings, &wanted.settings);
    let change = match known {
        Some(n) if Some(n) == current => {
            // What is declared again before it is gone stays, as it is.
            if settings.is_empty() && !recorded.removing { Change::Unchanged } else { Change::Configure }
        }
        // Once all but the end has been reached, the way back is a rollout of its own.
        Some(n) if Some(n) == recorded.stable && heading.is_some() && !finishing => Change::Abort,
        _ => Change::Update,
    };
    fields.extend(settings);
    let rolls = change == Change::Update;
    let warm = recorded.warm.as_ref().map_or(0, |_| instances);
    ServiceChange {
        change,
        release: Some(PlannedRelease { number, id, kept: known.is_some() }),
        from: current,
        fields,
        strategy: rolls.then(|| strategy.name().to_owned()),
        instances,
        extra_instances: if rolls && current.is_some() { strategy.extra_instances(instances) + warm } else { 0 },
    }
}

fn settings_changes(before: &Settings, after: &Settings) -> Vec<FieldChange> {
    let mut changes = field_changes(before, after);
    for change in &mut changes {
        change.field.insert_str(0, "settings.");
    }
    changes
}

fn job_change(wanted: &DesiredJob, recorded: Option<&basalt_model::Job>) -> JobChange {
    let id = wanted.release.id();
    let Some(recorded) = recorded else {
        return JobChange {
            change: Change::Create,
            release: Some(PlannedRelease { number: 1, id, kept: false }),
            fields: Vec::new(),
        };
    };
    let same = recorded.release == wanted.release;
    let fields = field_changes(recorded.release.as_ref(), wanted.release.as_ref());
    // Retries and time-out matter to the next run alone, so a change of theirs waits for it.
    // What is declared again before it is gone is as good as new.
    let run_again = !same || recorded.removing || matches!(recorded.state, JobState::Failed { .. });
    let change = if run_again { Change::Update } else { Change::Unchanged };
    let number = if same { recorded.number } else { recorded.number + 1 };
    JobChange { change, release: Some(PlannedRelease { number, id, kept: same }), fields }
}

fn remove_undeclared(
    recorded: &State,
    services: &mut BTreeMap<Name, ServiceChange>,
    jobs: &mut BTreeMap<Name, JobChange>,
) {
    for (name, service) in &recorded.services {
        services.entry(name.clone()).or_insert_with(|| ServiceChange {
            change: if service.removing { Change::Unchanged } else { Change::Remove },
            release: None,
            from: service.stable,
            fields: Vec::new(),
            strategy: None,
            instances: 0,
            extra_instances: 0,
        });
    }
    for (name, job) in &recorded.jobs {
        jobs.entry(name.clone()).or_insert_with(|| JobChange {
            change: if job.removing { Change::Unchanged } else { Change::Remove },
            release: None,
            fields: Vec::new(),
        });
    }
}
