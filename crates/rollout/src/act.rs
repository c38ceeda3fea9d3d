//! What is to be done for what is recorded, what is waited for, and when to look again.

use basalt_model::{Instance, InstanceId, InstanceState, JobState, Millis, Phase, Rollout};

use crate::failure::deadline;
use crate::machine::{hold, steps};
use crate::observation::{Action, Decision, InstanceSeen, Life, Waiting};
use crate::reconcile::replaced_from;
use crate::view::View;

/// Returns the actions that follow from what is recorded. Each is idempotent and asked for as long as it shows no effect.
pub(crate) fn act(view: &View<'_>) -> Decision {
    let mut todo = Todo { at: view.at(), decision: Decision::default() };
    for (id, instance) in &view.service.instances {
        instance_todo(view, id, instance, &mut todo);
    }
    for (id, seen) in view.strays() {
        // What nobody recorded goes as all others go: once the gateway names it no more and nothing is in flight.
        if !matches!(seen.life, Life::Running { .. }) || view.seen.cut_off(id, seen) {
            discard(view, id, seen, &mut todo);
        } else {
            todo.wait(if view.seen.router_connected { Waiting::Routes } else { Waiting::Router });
        }
    }
    if let Some(rollout) = &view.service.rollout {
        rollout_todo(view, rollout, &mut todo);
    }
    if let Some(from) = replaced_from(view) {
        todo.wake(from);
    }
    if let Some(warm) = &view.service.warm {
        todo.wake(warm.until);
    }
    // What is only kept warm holds nobody up.
    if let (None, Some(warm)) = (&view.service.rollout, &view.service.warm) {
        todo.decision.waiting.retain(|w| w.instance().is_none_or(|id| id.release() != warm.release));
    }
    if let Some(caller) = view.caller() {
        todo.wait(Waiting::Caller { service: caller.service.clone(), release: caller.release });
    }
    if !view.seen.backend_connected {
        todo.wait(Waiting::Backend);
    }
    todo.decision
}

struct Todo {
    at: Millis,
    decision: Decision,
}

impl Todo {
    fn act(&mut self, action: Action) {
        self.decision.actions.push(action);
    }

    fn wait(&mut self, waiting: Waiting) {
        if !self.decision.waiting.contains(&waiting) {
            self.decision.waiting.push(waiting);
        }
    }

    fn wake(&mut self, at: Millis) {
        if at > self.at {
            self.decision.wake_at = Some(self.decision.wake_at.map_or(at, |other| other.min(at)));
        }
    }
}

fn instance_todo(view: &View<'_>, id: &InstanceId, instance: &Instance, todo: &mut Todo) {
    match &instance.state {
        InstanceState::Wanted => wanted_todo(view, id, instance, todo),
        InstanceState::Waiting { until } => {
            if let Some(seen) = view.present(id) {
                discard(view, id, seen, todo);
            }
            let (exits, exit) = (instance.exits, instance.last_exit.clone());
            todo.wait(Waiting::Backoff { instance: id.clone(), until: *until, exits, exit });
            todo.wake(*until);
        }
        InstanceState::Draining { since, .. } => {
            let until = *since + view.service.settings.drain;
            let seen = view.seen.instances.get(id);
            let in_flight = seen.map_or(0, |s| s.in_flight);
            if !view.seen.router_connected {
                todo.wait(Waiting::Router);
            } else if !view.in_force || seen.is_some_and(|s| s.routed) {
                todo.wait(Waiting::Routes);
            } else {
                todo.wait(Waiting::Drain { instance: id.clone(), until, in_flight });
            }
            todo.wake(until);
        }
        InstanceState::Stopping { since, .. } => {
            if let Some(seen) = view.present(id) {
                discard(view, id, seen, todo);
            }
            todo.wait(Waiting::Stop { instance: id.clone(), since: *since });
        }
    }
}

fn wanted_todo(view: &View<'_>, id: &InstanceId, instance: &Instance, todo: &mut Todo) {
    let start = Action::Start { instance: id.clone(), generation: instance.generation };
    let starting = Waiting::Start { instance: id.clone(), since: instance.requested_at };
    match view.present(id) {
        None if view.seen.backend_connected => {
            todo.act(start);
            todo.wait(starting);
        }
        None => todo.wait(starting),
        Some(seen) if seen.generation < instance.generation => {
            discard(view, id, seen, todo);
            if matches!(seen.life, Life::Ended { .. }) {
                todo.act(start);
            }
            todo.wait(starting);
        }
        Some(InstanceSeen { life: Life::Running { .. }, last_probe, .. }) => {
            if instance.healthy_at.is_none() || view.sick(id, instance) {
                let (since, last_probe) = (instance.requested_at, last_probe.clone());
                todo.wait(Waiting::Health { instance: id.clone(), since, last_probe });
            }
        }
        Some(_) => todo.wait(starting),
    }
    let unproven = || instance.healthy_at.is_none().then(|| view.proven_at(id, instance)).flatten();
    view.late_at(id, instance).into_iter().chain(unproven()).for_each(|at| todo.wake(at));
}

/// Ends what runs and is not meant to, and drops what has ended.
fn discard(view: &View<'_>, id: &InstanceId, seen: &InstanceSeen, todo: &mut Todo) {
    let (instance, generation) = (id.clone(), seen.generation);
    todo.act(match seen.life {
        Life::Ended { .. } => Action::Forget { instance, generation },
        _ => Action::Stop { instance, generation, within: view.service.settings.stop_within },
    });
}

fn rollout_todo(view: &View<'_>, rollout: &Rollout, todo: &mut Todo) {
    if let Some(due) = deadline(rollout) {
        todo.wake(due);
    }
    if rollout.paused_at.is_some() && !matches!(rollout.phase, Phase::Returning { .. } | Phase::Finishing) {
        todo.wait(Waiting::Resume);
    }
    match &rollout.phase {
        Phase::Preparing => {
            let done = |job: &&_| matches!(view.seen.jobs.get(*job), Some(JobState::Succeeded { .. }));
            for job in view.service.settings.depends_on.iter().filter(|job| !done(job)) {
                todo.wait(Waiting::Job { job: job.clone() });
            }
        }
        Phase::Stepping { step, .. } => {
            let step = steps(rollout).get(*step as usize);
            hold_todo(rollout, step.map_or(Millis::ZERO, |s| s.hold), todo);
            if step.is_some_and(|s| s.approval) {
                todo.wait(Waiting::Approval);
            }
        }
        Phase::Holding => hold_todo(rollout, hold(rollout), todo),
        Phase::Returning { .. } => todo.wake(rollout.phase_at + rollout.spec.deadline),
        Phase::Starting | Phase::Moving { .. } | Phase::Growing { .. } | Phase::Finishing => {}
    }
    if !view.seen.router_connected {
        todo.wait(Waiting::Router);
    } else if !view.in_force && !matches!(rollout.phase, Phase::Preparing) {
        todo.wait(Waiting::Routes);
    }
}

fn hold_todo(rollout: &Rollout, hold: Millis, todo: &mut Todo) {
    let Some(until) = rollout.in_force_at.map(|since| since + hold) else { return };
    if until > todo.at {
        todo.wait(Waiting::Hold { until });
        todo.wake(until);
    }
}
