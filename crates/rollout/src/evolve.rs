//! The fold: how each event changes what is recorded. Nothing else changes it.

use std::collections::BTreeMap;

use basalt_model::{Event, Millis, Name, Service, State};

use crate::evolve_instance::evolve_instance;
use crate::evolve_job::evolve_job;
use crate::evolve_service::evolve_service;
use crate::observation::IllegalEvent;

/// Changes the state by one event, live and on recovery alike. An event that does not fit changes nothing.
///
/// # Errors
/// If the event does not fit what is recorded.
pub fn evolve(state: &mut State, at: Millis, event: &Event) -> Result<(), IllegalEvent> {
    apply(state, at, event).map_err(|why| IllegalEvent { kind: event.kind(), subject: event.subject(), why })
}

fn apply(state: &mut State, at: Millis, event: &Event) -> Result<(), String> {
    match event {
        Event::StackApplied { stack } => state.stack = Some(stack.clone()),
        Event::StackRemoved { stack } => {
            ensure(state.stack.as_ref() == Some(stack), || "this stack is not applied".into())?;
            state.stack = None;
        }
        Event::ServiceCreated { service, slot, settings } => {
            free(state, service)?;
            let taken = state.services.iter().find(|(_, other)| other.slot == *slot);
            ensure(taken.is_none(), || {
                format!("slot {slot} belongs to `{}`", taken.map_or("", |(name, _)| name.as_str()))
            })?;
            let generation = state.generations.remove(service).unwrap_or(0);
            let created = Service { generation, ..Service::new(*slot, settings.clone()) };
            state.services.insert(service.clone(), created);
            state.next_slot = slot.saturating_add(1) % State::SLOTS;
        }
        Event::ServiceRemoved { service } => {
            let recorded = find(&mut state.services, service)?;
            ensure(recorded.removing, || "it has not been retired".into())?;
            ensure(recorded.instances.is_empty(), || "it still has instances".into())?;
            let generation = recorded.generation;
            state.services.remove(service);
            state.generations.insert(service.clone(), generation);
        }
        Event::ServiceConfigured { service, .. }
        | Event::ServiceRetired { service }
        | Event::ReleaseCreated { service, .. }
        | Event::ReleaseForgotten { service, .. }
        | Event::RolloutStarted { service, .. }
        | Event::RolloutAdvanced { service, .. }
        | Event::WeightShifted { service, .. }
        | Event::RolloutPaused { service }
        | Event::RolloutResumed { service }
        | Event::RolloutFinished { service, .. }
        | Event::WarmExpired { service, .. } => evolve_service(find(&mut state.services, service)?, at, event)?,
        Event::InstanceRequested { instance, .. }
        | Event::InstanceProven { instance, .. }
        | Event::InstanceExited { instance, .. }
        | Event::InstanceFailed { instance, .. }
        | Event::InstanceDrained { instance, .. }
        | Event::InstanceStopRequested { instance, .. }
        | Event::InstanceStopped { instance, .. } => {
            evolve_instance(find(&mut state.services, instance.service())?, at, event)?;
        }
        Event::JobCreated { job, .. } if !state.jobs.contains_key(job) => {
            free(state, job)?;
            let generation = state.generations.remove(job).unwrap_or(0);
            state.jobs.extend(crate::evolve_job::created(event, generation));
        }
        Event::JobRemoved { job } => {
            let recorded = find(&mut state.jobs, job)?;
            ensure(recorded.removing, || "it has not been retired".into())?;
            let generation = recorded.generation;
            state.jobs.remove(job);
            state.generations.insert(job.clone(), generation);
        }
        Event::JobCreated { job, .. }
        | Event::JobStarted { job, .. }
        | Event::JobStopRequested { job }
        | Event::JobSucceeded { job }
        | Event::JobAttemptFailed { job, .. }
        | Event::JobRetired { job } => evolve_job(find(&mut state.jobs, job)?, at, event)?,
    }
    Ok(())
}

/// Returns what is recorded under a name.
fn find<'a, T>(map: &'a mut BTreeMap<Name, T>, name: &Name) -> Result<&'a mut T, String> {
    map.get_mut(name).ok_or_else(|| format!("`{name}` is not recorded"))
}

/// Fails if a service or job has the name: they share one space of names, since instance ids are made of it.
fn free(state: &State, name: &Name) -> Result<(), String> {
    ensure(!state.services.contains_key(name), || "there is a service of that name".into())?;
    ensure(!state.jobs.contains_key(name), || "there is a job of that name".into())
}

/// Fails with a reason unless a condition holds.
pub(crate) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
