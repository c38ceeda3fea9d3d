//! Decisions about one service.

use basalt_model::{Event, Name, Service};

use crate::act::act;
use crate::evolve_instance::evolve_instance;
use crate::evolve_service::evolve_service;
use crate::lifecycle::facts;
use crate::machine::advance;
use crate::observation::{Decision, Observation};
use crate::reconcile::reconcile;
use crate::view::View;

/// How many times decisions may follow from decisions at one observation. The longest honest chain is about ten; what
/// is left over is decided at the next.
const ROUNDS: usize = 32;

/// Decides what is to be recorded or done about a service now, in steady state and in rollouts alike.
///
/// All events that follow from one observation come at once, so that they cost one append. What the gateway has
/// acknowledged is only believed of the state before them: a changed table is always waited for.
pub fn decide(name: &Name, service: &Service, seen: &Observation<'_>) -> Decision {
    let mut draft = None;
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..ROUNDS {
        let service = draft.as_ref().unwrap_or(service);
        let view = View { name, service, seen, in_force: seen.routes_in_force.of(name) && events.is_empty() };
        let next = step(&view);
        if next.is_empty() {
            break;
        }
        let mut changed = service.clone();
        let removed = next.iter().any(|e| matches!(e, Event::ServiceRemoved { .. }));
        let fits = removed || next.iter().all(|event| change(&mut changed, seen, event));
        debug_assert!(fits, "decided what does not fit: {next:?}");
        if !fits {
            // Unreachable as long as decisions fit the fold, which tests hold; never worth a broken journal.
            break;
        }
        events.extend(next);
        draft = Some(changed);
        if removed {
            break;
        }
    }
    if events.is_empty() {
        act(&View { name, service, seen, in_force: seen.routes_in_force.of(name) })
    } else {
        Decision { events, ..Decision::default() }
    }
}

/// Returns the next decisions: first what has happened, then what the rollout makes of it, then what instances need.
fn step(view: &View<'_>) -> Vec<Event> {
    let mut events = facts(view);
    if events.is_empty() {
        events = advance(view);
    }
    if events.is_empty() {
        events = reconcile(view);
    }
    events
}

fn change(service: &mut Service, seen: &Observation<'_>, event: &Event) -> bool {
    evolve_service(service, seen.at, event).is_ok() || evolve_instance(service, seen.at, event).is_ok()
}
