//! One service.

use std::collections::BTreeSet;

use basalt_controller::View;
use basalt_model::{InstanceId, Millis, Name, Outcome, Phase, ReleaseNumber, Rollout, Service, Strategy};
use basalt_rollout::{Life, Waiting};

use super::instance::instance_status;
use super::sentence::sentence;
use crate::{
    InstanceStatus, LastRollout, Progress, ReleaseRef, RolloutStatus, RouteStatus, ServiceStatus, Step, Timestamp,
    Traffic, WarmStatus,
};

/// Returns the status of a service.
pub(super) fn service_status(view: &View, name: &Name, service: &Service) -> ServiceStatus {
    let instances = instances(view, name, service);
    let waiting = sentences(view, name);
    let traffic: Vec<_> = view
        .weights(name)
        .into_iter()
        .map(|(release, weight)| Traffic { release, weight: weight.as_percent() })
        .collect();
    let rollout = service.rollout.as_ref();
    ServiceStatus {
        name: name.to_string(),
        stable: service.stable.and_then(|number| release_ref(service, number)),
        rollout: rollout.map(|rollout| rollout_status(service, rollout, view.at, &instances, &traffic, &waiting)),
        last_rollout: service.last_rollout.as_ref().map(last_rollout),
        warm: service.warm.as_ref().map(|warm| WarmStatus { release: warm.release, until: Timestamp(warm.until) }),
        wanted: service.settings.instances,
        healthy: count(&instances, |instance| instance.healthy),
        routes: routes(service, &traffic),
        traffic,
        instances,
        waiting,
        removing: service.removing,
        called_by: called_by(view, name),
    }
}

/// Returns why a service or job isn't moving.
pub(super) fn sentences(view: &View, name: &Name) -> Vec<String> {
    let waiting = view.waiting.get(name).map(Vec::as_slice).unwrap_or_default();
    waiting.iter().map(|waiting| sentence(name, waiting, view.at)).collect()
}

/// Returns the service that keeps this one from being removed.
fn called_by(view: &View, name: &Name) -> Option<String> {
    view.waiting.get(name)?.iter().find_map(|waiting| match waiting {
        Waiting::Caller { service, .. } => Some(service.to_string()),
        _ => None,
    })
}

/// Returns every instance that is recorded, and every other one that is still seen alive.
fn instances(view: &View, name: &Name, service: &Service) -> Vec<InstanceStatus> {
    // Ids are ordered by service first.
    let seen = view.instances.range(InstanceId::new(name.clone(), 0, 0)..).take_while(|(id, _)| id.service() == name);
    let alive = seen.filter(|(_, seen)| matches!(seen.life, Life::Starting | Life::Running { .. })).map(|(id, _)| id);
    let ids: BTreeSet<&InstanceId> = service.instances.keys().chain(alive).collect();
    let release = |id: &InstanceId| service.releases.get(&id.release()).map(AsRef::as_ref);
    ids.into_iter().map(|id| instance_status(view, id, service.instances.get(id), release(id))).collect()
}

fn release_ref(service: &Service, number: ReleaseNumber) -> Option<ReleaseRef> {
    let release = service.releases.get(&number)?;
    Some(ReleaseRef { number, id: release.id().to_string() })
}

fn rollout_status(
    service: &Service,
    rollout: &Rollout,
    now: Millis,
    instances: &[InstanceStatus],
    traffic: &[Traffic],
    waiting: &[String],
) -> RolloutStatus {
    let ours = |instance: &InstanceStatus| instance.release == rollout.target;
    let reason = match &rollout.phase {
        Phase::Returning { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    let paused = rollout.paused_at.map_or(Millis::ZERO, |since| now.since(since)) + rollout.paused_for;
    RolloutStatus {
        id: rollout.id.clone(),
        strategy: rollout.spec.strategy.name().to_owned(),
        phase: rollout.phase.name().to_owned(),
        target: rollout.target,
        baseline: rollout.baseline,
        waiting: waiting.to_vec(),
        progress: Progress {
            instances: count(instances, ours),
            healthy: count(instances, |instance| ours(instance) && instance.healthy),
            wanted: service.settings.instances,
            weight: traffic.iter().find(|share| share.release == rollout.target).map_or(0.0, |share| share.weight),
            step: step(rollout),
        },
        paused: rollout.paused_at.is_some(),
        reason,
        because: rollout.because.clone(),
        started_at: Timestamp(rollout.started_at),
        phase_at: Timestamp(rollout.phase_at),
        deadline_at: Timestamp(rollout.started_at + rollout.spec.deadline + paused),
    }
}

fn step(rollout: &Rollout) -> Option<Step> {
    let Strategy::Canary { steps, .. } = &rollout.spec.strategy else { return None };
    // While it grows, the step before is in force; the step behind the last has all traffic and is none of them.
    let index = match rollout.phase {
        Phase::Stepping { step, .. } => step,
        Phase::Growing { step } => step.checked_sub(1)?,
        _ => return None,
    };
    let approval = steps.get(usize::try_from(index).ok()?)?.approval;
    Some(Step { number: index.saturating_add(1), of: u32::try_from(steps.len()).unwrap_or(u32::MAX), approval })
}

fn last_rollout(last: &basalt_model::LastRollout) -> LastRollout {
    let (outcome, reason) = match &last.outcome {
        Outcome::Done => ("done", None),
        Outcome::RolledBack { reason } => ("rolled_back", Some(reason.clone())),
        Outcome::Aborted => ("aborted", None),
        Outcome::Superseded => ("superseded", None),
    };
    LastRollout {
        id: last.id.clone(),
        baseline: last.baseline,
        target: last.target,
        outcome: outcome.to_owned(),
        reason,
        at: Timestamp(last.at),
    }
}

/// Returns the routes of the releases that have traffic; before there is any, those of the release to come.
fn routes(service: &Service, traffic: &[Traffic]) -> Vec<RouteStatus> {
    let mut numbers: Vec<_> = traffic.iter().filter(|share| share.weight > 0.0).map(|share| share.release).collect();
    if numbers.is_empty() {
        numbers.extend(service.stable.or(service.rollout.as_ref().map(|rollout| rollout.target)));
    }
    let releases = numbers.iter().filter_map(|number| service.releases.get(number));
    let mut routes = Vec::new();
    for route in releases.flat_map(|release| &release.routes) {
        let route = RouteStatus { host: route.host.clone(), path: route.path.clone(), port: route.port.to_string() };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    routes
}

fn count(instances: &[InstanceStatus], which: impl Fn(&InstanceStatus) -> bool) -> u32 {
    u32::try_from(instances.iter().filter(|instance| which(instance)).count()).unwrap_or(u32::MAX)
}
