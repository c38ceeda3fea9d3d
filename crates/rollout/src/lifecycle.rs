//! What has happened to instances since it was last recorded.

use basalt_model::{Event, Exit, Instance, InstanceId, InstanceState, Millis};

use crate::observation::{InstanceSeen, Life};
use crate::pause::{in_a_row, pause};
use crate::view::View;

/// Returns what happened to instances: proven, ended, drained to the last request, gone.
pub(crate) fn facts(view: &View<'_>) -> Vec<Event> {
    view.service.instances.iter().filter_map(|(id, instance)| fact(view, id, instance)).collect()
}

fn fact(view: &View<'_>, id: &InstanceId, instance: &Instance) -> Option<Event> {
    let generation = instance.generation;
    match &instance.state {
        InstanceState::Wanted => wanted(view, id, instance),
        InstanceState::Waiting { .. } => None,
        InstanceState::Draining { since, .. } => {
            let cut = may_stop(view, id, *since)?;
            Some(Event::InstanceStopRequested { instance: id.clone(), generation, cut })
        }
        InstanceState::Stopping { .. } => {
            let ended = view.present(id).is_none_or(|s| matches!(s.life, Life::Ended { .. }));
            let gone = view.seen.backend_connected && ended;
            gone.then(|| Event::InstanceStopped { instance: id.clone(), generation })
        }
    }
}

fn wanted(view: &View<'_>, id: &InstanceId, instance: &Instance) -> Option<Event> {
    let generation = instance.generation;
    let exited = |exit: Exit, last_lines: Vec<String>| {
        let retry_at = view.at() + pause(in_a_row(instance, instance.exits, view.at()));
        Some(Event::InstanceExited { instance: id.clone(), generation, exit, last_lines, retry_at })
    };
    match view.present(id) {
        Some(InstanceSeen { generation: newer, .. }) if *newer > generation => exited(Exit::Unseen, Vec::new()),
        Some(seen) if seen.generation == generation => match &seen.life {
            Life::Ended { exit, last_lines, .. } => exited(exit.clone(), last_lines.clone()),
            Life::Running { .. } if seen.healthy == Some(true) && instance.healthy_at.is_none() => {
                let proven = view.proven_at(id, instance).is_none_or(|at| view.at() >= at);
                proven.then(|| Event::InstanceProven { instance: id.clone(), generation })
            }
            _ => None,
        },
        // One that has run is not started again under the same generation.
        _ if view.seen.backend_connected && instance.healthy_at.is_some() => exited(Exit::Unseen, Vec::new()),
        _ => None,
    }
}

/// Returns the number of requests that are cut if the drained instance is stopped now, if it may be.
fn may_stop(view: &View<'_>, id: &InstanceId, since: Millis) -> Option<u64> {
    let Some(seen) = view.present(id) else { return view.seen.backend_connected.then_some(0) };
    let never_named = matches!(seen.life, Life::Starting) && !seen.routed;
    if never_named || matches!(seen.life, Life::Ended { .. }) {
        return Some(0); // Nothing can be cut.
    }
    let unnamed = view.seen.router_connected && view.in_force && !seen.routed;
    let over = view.at() >= since + view.service.settings.drain;
    (unnamed && (seen.in_flight == 0 || over)).then_some(seen.in_flight)
}
