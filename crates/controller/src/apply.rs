//! From a plan to the events that perform it.

use std::collections::BTreeSet;

use basalt_model::{Event, Millis, Name, State};
use basalt_plan::{Change, Desired, DesiredJob, DesiredService, JobChange, Plan, ServiceChange};
use basalt_rollout::{Command, command, evolve, start_rollout};

use crate::ControllerError;

/// Returns the events that perform a plan; none if it has no changes.
pub(crate) fn apply_events(
    state: &State,
    at: Millis,
    plan: &Plan,
    desired: &Desired,
) -> Result<Vec<Event>, ControllerError> {
    if !plan.has_changes() {
        return Ok(Vec::new());
    }
    let mut draft = Draft { state: state.clone(), at, events: Vec::new() };
    draft.push(Event::StackApplied { stack: plan.stack.clone() })?;
    for (name, change) in &plan.jobs {
        draft.job(name, change, desired.jobs.get(name))?;
    }
    for (name, change) in &plan.services {
        draft.service(name, change, desired.services.get(name))?;
    }
    Ok(draft.events)
}

/// Returns the events that remove everything.
pub(crate) fn down_events(state: &State, at: Millis, plan: &Plan) -> Result<Vec<Event>, ControllerError> {
    let mut draft = Draft { state: state.clone(), at, events: Vec::new() };
    draft.push(Event::StackRemoved { stack: plan.stack.clone() })?;
    for (name, change) in &plan.jobs {
        draft.job(name, change, None)?;
    }
    for (name, change) in &plan.services {
        draft.service(name, change, None)?;
    }
    Ok(draft.events)
}

/// Events so far, and the state as it is after them.
struct Draft {
    state: State,
    at: Millis,
    events: Vec<Event>,
}

impl Draft {
    fn push(&mut self, event: Event) -> Result<(), ControllerError> {
        evolve(&mut self.state, self.at, &event)?;
        self.events.push(event);
        Ok(())
    }

    fn job(&mut self, name: &Name, change: &JobChange, wanted: Option<&DesiredJob>) -> Result<(), ControllerError> {
        match (change.change, wanted, &change.release) {
            (Change::Unchanged, ..) => Ok(()),
            (_, Some(wanted), Some(release)) => self.push(Event::JobCreated {
                job: name.clone(),
                number: release.number,
                release: wanted.release.clone(),
                retries: wanted.retries,
                timeout: wanted.timeout,
                depends_on: wanted.depends_on.clone(),
            }),
            _ => self.push(Event::JobRetired { job: name.clone() }),
        }
    }

    fn service(
        &mut self,
        name: &Name,
        change: &ServiceChange,
        wanted: Option<&DesiredService>,
    ) -> Result<(), ControllerError> {
        let (Some(wanted), Some(release)) = (wanted, &change.release) else {
            return match change.change {
                Change::Unchanged => Ok(()),
                _ => self.push(Event::ServiceRetired { service: name.clone() }),
            };
        };
        let service = name.clone();
        if change.change == Change::Create {
            let slot = self.free_slot()?;
            self.push(Event::ServiceCreated { service: name.clone(), slot, settings: wanted.settings.clone() })?;
        } else if self.state.services.get(name).is_some_and(|s| s.removing || s.settings != wanted.settings) {
            self.push(Event::ServiceConfigured { service: name.clone(), settings: wanted.settings.clone() })?;
        }
        match change.change {
            Change::Create | Change::Update => {
                if !release.kept {
                    let (number, release) = (release.number, wanted.release.clone());
                    self.push(Event::ReleaseCreated { service, number, release })?;
                }
                let spec = wanted.settings.rollout.clone();
                let event = start_rollout(name, &self.state.services[name], self.at, release.number, spec);
                self.push(event)
            }
            Change::Abort => {
                let events = command(name, &self.state.services[name], self.at, &Command::Abort)?;
                events.into_iter().try_for_each(|event| self.push(event))
            }
            Change::Configure | Change::Unchanged | Change::Remove => Ok(()),
        }
    }

    /// Returns the first slot that no service has, from where the last one was given.
    fn free_slot(&self) -> Result<u16, ControllerError> {
        let taken: BTreeSet<u16> = self.state.services.values().map(|s| s.slot).collect();
        let next = self.state.next_slot;
        let mut slots = (next..State::SLOTS).chain(0..next);
        slots.find(|slot| !taken.contains(slot)).ok_or(ControllerError::NoSlot)
    }
}
