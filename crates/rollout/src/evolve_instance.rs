//! How events change the instances of a service.

use basalt_model::{Event, Generation, Instance, InstanceId, InstanceState, Millis, Service};

use crate::evolve::ensure;
use crate::pause::in_a_row;

/// Changes a service by an event about one of its instances. An event that does not fit changes nothing.
pub(crate) fn evolve_instance(service: &mut Service, at: Millis, event: &Event) -> Result<(), String> {
    match event {
        Event::InstanceRequested { instance, generation } => request(service, at, instance, *generation),
        Event::InstanceProven { instance, generation } => {
            let recorded = current(service, instance, *generation)?;
            ensure(recorded.state == InstanceState::Wanted, || "it is not meant to run".into())?;
            recorded.healthy_at.get_or_insert(at);
            Ok(())
        }
        Event::InstanceExited { instance, generation, exit, retry_at, .. } => {
            let recorded = current(service, instance, *generation)?;
            ensure(recorded.state == InstanceState::Wanted, || "it was not meant to run".into())?;
            recorded.exits = in_a_row(recorded, recorded.exits, at);
            recorded.last_exit = Some(exit.clone());
            recorded.healthy_at = None;
            recorded.failed_at = None;
            recorded.state = InstanceState::Waiting { until: *retry_at };
            if let Some(rollout) = service.rollout.as_mut().filter(|r| r.target == instance.release()) {
                rollout.exits = rollout.exits.saturating_add(1);
            }
            Ok(())
        }
        Event::InstanceFailed { instance, generation, .. } => {
            let before = service.failures;
            let recorded = current(service, instance, *generation)?;
            ensure(recorded.state == InstanceState::Wanted, || "it is not meant to run".into())?;
            ensure(recorded.failed_at.is_none(), || "it has failed already".into())?;
            recorded.failed_at = Some(at);
            service.failures = in_a_row(recorded, before, at);
            service.failed_at = Some(at);
            Ok(())
        }
        Event::InstanceDrained { instance, reason } => {
            let recorded = find(service, instance)?;
            ensure(matches!(recorded.state, InstanceState::Wanted | InstanceState::Waiting { .. }), || {
                "it is leaving already".into()
            })?;
            recorded.state = InstanceState::Draining { since: at, reason: reason.clone() };
            Ok(())
        }
        Event::InstanceStopRequested { instance, generation, .. } => {
            let recorded = current(service, instance, *generation)?;
            let InstanceState::Draining { reason, .. } = &recorded.state else {
                return Err("it has not been drained".into());
            };
            recorded.state = InstanceState::Stopping { since: at, reason: reason.clone() };
            Ok(())
        }
        Event::InstanceStopped { instance, generation } => {
            let recorded = current(service, instance, *generation)?;
            ensure(matches!(recorded.state, InstanceState::Stopping { .. }), || "its stop was not requested".into())?;
            service.instances.remove(instance);
            Ok(())
        }
        _ => Err("it is not about an instance".into()),
    }
}

/// Records that an instance is to be started: one that was not there, or one that has ended.
fn request(service: &mut Service, at: Millis, id: &InstanceId, generation: Generation) -> Result<(), String> {
    ensure(service.releases.contains_key(&id.release()), || format!("release {} is not kept", id.release()))?;
    ensure(generation > service.generation, || {
        format!("generation {generation} is not above {}, which was given before", service.generation)
    })?;
    let before = service.instances.get(id);
    ensure(before.is_none_or(|i| matches!(i.state, InstanceState::Waiting { .. })), || "it is there already".into())?;
    let recorded = Instance {
        generation,
        state: InstanceState::Wanted,
        requested_at: at,
        healthy_at: None,
        failed_at: None,
        exits: before.map_or(0, |i| i.exits),
        last_exit: before.and_then(|i| i.last_exit.clone()),
    };
    service.instances.insert(id.clone(), recorded);
    service.generation = generation;
    Ok(())
}

fn find<'a>(service: &'a mut Service, id: &InstanceId) -> Result<&'a mut Instance, String> {
    service.instances.get_mut(id).ok_or_else(|| "it is not recorded".into())
}

/// Returns the instance if the event is about the start of it that is recorded.
fn current<'a>(service: &'a mut Service, id: &InstanceId, generation: Generation) -> Result<&'a mut Instance, String> {
    let recorded = find(service, id)?;
    let is = recorded.generation;
    ensure(is == generation, || format!("it is about generation {generation}, and {is} is recorded"))?;
    Ok(recorded)
}
