//! What the backend and the router see, put together by instance.

use std::collections::BTreeMap;

use basalt_model::{HealthCheck, InstanceId, Release, State};
use basalt_rollout::{InstanceSeen, Life};
use basalt_seam::{BackendInstance, BackendSeen, BackendState, InstanceTraffic, RouterSeen};

use crate::perform::FailedStarts;

/// Returns everything that is seen of instances.
pub(crate) fn observe(
    state: &State,
    backend: &BackendSeen,
    router: &RouterSeen,
    failed: &FailedStarts,
) -> BTreeMap<InstanceId, InstanceSeen> {
    let mut seen: BTreeMap<InstanceId, InstanceSeen> = backend
        .instances
        .iter()
        .map(|(id, instance)| (id.clone(), merge(release_of(state, id), instance, router.instances.get(id))))
        .collect();
    for (id, traffic) in &router.instances {
        seen.entry(id.clone()).or_insert_with(|| absent(traffic));
    }
    for (id, (generation, life)) in failed {
        // What the backend has of a newer start counts more than an old failure.
        let newer = seen.get(id).is_some_and(|s| s.life != Life::Absent && s.generation >= *generation);
        if !newer {
            let traffic = router.instances.get(id).cloned().unwrap_or_default();
            seen.insert(id.clone(), InstanceSeen { generation: *generation, life: life.clone(), ..absent(&traffic) });
        }
    }
    seen
}

/// Returns the recorded release that an instance runs.
pub(crate) fn release_of<'a>(state: &'a State, id: &InstanceId) -> Option<&'a std::sync::Arc<Release>> {
    let of_service = || state.services.get(id.service())?.releases.get(&id.release());
    let of_job = || state.jobs.get(id.service()).filter(|job| job.number == id.release()).map(|job| &job.release);
    of_service().or_else(of_job)
}

fn merge(
    release: Option<&std::sync::Arc<Release>>,
    instance: &BackendInstance,
    traffic: Option<&InstanceTraffic>,
) -> InstanceSeen {
    let life = match &instance.state {
        BackendState::Starting => Life::Starting,
        BackendState::Running { pid, since } => Life::Running { pid: *pid, since: *since },
        BackendState::Ended { exit, at, last_lines } => {
            Life::Ended { exit: exit.clone(), at: *at, last_lines: last_lines.clone() }
        }
    };
    let running = matches!(life, Life::Running { .. });
    // The router's verdict is about the start that its table names.
    let same = traffic.filter(|t| t.generation == instance.generation);
    let (healthy, last_probe) = match release.map(|r| &r.health.check) {
        Some(HealthCheck::Http { .. } | HealthCheck::Tcp { .. } | HealthCheck::Grpc { .. }) => {
            (same.and_then(|t| t.healthy), same.and_then(|t| t.last_probe.clone()))
        }
        Some(HealthCheck::Command(_)) => (instance.healthy, instance.last_probe.clone()),
        Some(HealthCheck::Running) | None => (running.then_some(true), None),
    };
    InstanceSeen {
        generation: instance.generation,
        life,
        address: instance.address,
        healthy: healthy.filter(|_| running),
        last_probe,
        routed: traffic.is_some_and(|t| t.named),
        in_flight: traffic.map_or(0, |t| t.in_flight),
    }
}

fn absent(traffic: &InstanceTraffic) -> InstanceSeen {
    InstanceSeen {
        generation: traffic.generation,
        life: Life::Absent,
        address: None,
        healthy: None,
        last_probe: None,
        routed: traffic.named,
        in_flight: traffic.in_flight,
    }
}
