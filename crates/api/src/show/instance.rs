//! One instance, from what is recorded and what is seen of it.

use basalt_controller::View;
use basalt_model::{Exit, Instance, InstanceId, InstanceState as Recorded, Release};
use basalt_rollout::{InstanceSeen, Life};

use crate::{ExitStatus, InstanceState, InstanceStatus, Timestamp};

/// Returns the status of an instance of a service. One that is seen and not recorded is about to be stopped.
pub(super) fn instance_status(
    view: &View,
    id: &InstanceId,
    recorded: Option<&Instance>,
    release: Option<&Release>,
) -> InstanceStatus {
    let seen = view.instances.get(id);
    // What is seen of an older start says nothing about this one.
    let current = seen.filter(|seen| recorded.is_none_or(|recorded| recorded.generation == seen.generation));
    let state = match recorded.map(|recorded| &recorded.state) {
        Some(Recorded::Wanted) => life_state(current),
        Some(Recorded::Waiting { .. }) => InstanceState::Waiting,
        Some(Recorded::Draining { .. }) => InstanceState::Draining,
        Some(Recorded::Stopping { .. }) | None => InstanceState::Stopping,
    };
    let mut status = seen_status(view, id, current, release, state);
    if let Some(recorded) = recorded {
        status.exits = recorded.exits;
        status.last_exit = status.last_exit.or_else(|| recorded.last_exit.as_ref().map(exit_status));
        status.retry_at = match recorded.state {
            Recorded::Waiting { until } => Some(Timestamp(until)),
            _ => None,
        };
    }
    status
}

/// Returns the status of an instance by what is seen of it.
pub(super) fn seen_status(
    view: &View,
    id: &InstanceId,
    seen: Option<&InstanceSeen>,
    release: Option<&Release>,
    state: InstanceState,
) -> InstanceStatus {
    let traffic = view.router.instances.get(id);
    let running = seen.and_then(|seen| match &seen.life {
        Life::Running { pid, since } => Some((*pid, *since)),
        _ => None,
    });
    let ended = seen.and_then(|seen| match &seen.life {
        Life::Ended { exit, .. } => Some(exit_status(exit)),
        _ => None,
    });
    InstanceStatus {
        id: id.to_string(),
        release: id.release(),
        state,
        healthy: running.is_some() && seen.is_some_and(|seen| seen.healthy == Some(true)),
        pid: running.map(|(pid, _)| pid),
        address: seen.and_then(|seen| seen.address).map(|ip| match release.and_then(main_port) {
            Some(port) => format!("{ip}:{port}"),
            None => ip.to_string(),
        }),
        started_at: running.map(|(_, since)| Timestamp(since)),
        exits: 0,
        last_exit: ended,
        last_probe: seen.and_then(|seen| seen.last_probe.clone()),
        retry_at: None,
        in_flight: traffic.map_or(0, |traffic| traffic.in_flight),
        requests: traffic.map_or(0, |traffic| traffic.requests),
        errors: traffic.map_or(0, |traffic| traffic.errors),
    }
}

/// Returns where a wanted instance stands by what is seen of it.
pub(super) fn life_state(seen: Option<&InstanceSeen>) -> InstanceState {
    match seen.map(|seen| &seen.life) {
        None | Some(Life::Absent | Life::Starting) => InstanceState::Starting,
        Some(Life::Running { .. }) => InstanceState::Running,
        Some(Life::Ended { .. }) => InstanceState::Exited,
    }
}

/// Returns how an instance ended, for programs and for people.
pub(super) fn exit_status(exit: &Exit) -> ExitStatus {
    let (kind, code, signal) = match exit {
        Exit::Code(code) => ("code", Some(*code), None),
        Exit::Signal(signal) => ("signal", None, Some(*signal)),
        Exit::OutOfMemory => ("out_of_memory", None, None),
        Exit::CouldNotStart(_) => ("could_not_start", None, None),
        Exit::TimedOut { .. } => ("timed_out", None, None),
        Exit::Unseen => ("unseen", None, None),
    };
    ExitStatus { kind: kind.to_owned(), code, signal, text: exit.to_string() }
}

/// Returns the port that people want to see: where requests from outside go, else what is checked, else the first by name.
fn main_port(release: &Release) -> Option<u16> {
    let routed = release.routes.first().map(|route| &route.port);
    let checked = release.health.check.port();
    let named = routed.or(checked).and_then(|name| release.ports.get(name));
    named.or_else(|| release.ports.values().next()).map(|port| port.container)
}
