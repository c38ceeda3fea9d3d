//! When a rollout passes to its next phase, and what else happens to a service as a whole.

use basalt_model::{Event, Instance, JobState, Outcome, Phase, ReleaseNumber, Rollout, RolloutSpec, Strategy, Weight};

use crate::command::begin;
use crate::evolve_service::in_use;
use crate::failure::failure;
use crate::shape::{at_step, live, old_release, weights};
use crate::view::View;

/// So many releases are kept for a rollback. Ten reach back far enough for any mistake that is noticed at all, and
/// the images behind them still fit a small disk.
const KEPT: usize = 10;

/// An instance that died so often in a row counts as broken. It is restarted at once after the first death, which may
/// be chance.
const BROKEN: u32 = 2;

/// Returns the next decision about the service as a whole, if there is one.
pub(crate) fn advance(view: &View<'_>) -> Vec<Event> {
    next(view).into_iter().collect()
}

fn next(view: &View<'_>) -> Option<Event> {
    let service = view.name.clone();
    if view.leaves() {
        let gone = view.service.instances.is_empty() && view.cleared(&[]) && view.strays().next().is_none();
        return gone.then_some(Event::ServiceRemoved { service });
    }
    if let Some(warm) = view.service.warm.as_ref().filter(|w| view.at() >= w.until) {
        return Some(Event::WarmExpired { service, release: warm.release });
    }
    match &view.service.rollout {
        None => back_to_warm(view).or_else(|| forgotten(view)),
        Some(rollout) => advance_rollout(view, rollout),
    }
}

/// Starts a rollout to the warm release if nothing of the stable one is left that works.
fn back_to_warm(view: &View<'_>) -> Option<Event> {
    let (warm, stable) = (view.service.warm.as_ref()?.release, view.service.stable?);
    let broken = |i: &Instance| i.healthy_at.is_none() && i.exits >= BROKEN;
    let lives = |release| view.of(release).filter(|(_, i)| live(i));
    let all_bad = lives(stable).all(|(id, i)| view.sick(id, i) || broken(i));
    let all_good = lives(warm).all(|(id, i)| view.healthy(id, i));
    let some = lives(stable).next().is_some() && lives(warm).next().is_some();
    let spec = RolloutSpec { strategy: Strategy::BlueGreen, ..RolloutSpec::default() };
    (some && all_bad && all_good).then(|| {
        let because = format!("every instance of release {stable} fails, and release {warm} is still warm");
        begin(view.name, view.service, view.at(), warm, spec, Phase::Starting, Some(because))
    })
}

fn forgotten(view: &View<'_>) -> Option<Event> {
    let kept = &view.service.releases;
    let idle = |n: &ReleaseNumber| !in_use(view.service, *n) && view.service.previous != Some(*n);
    let oldest = kept.keys().copied().find(idle).filter(|_| kept.len() > KEPT)?;
    Some(Event::ReleaseForgotten { service: view.name.clone(), number: oldest })
}

fn advance_rollout(view: &View<'_>, rollout: &Rollout) -> Option<Event> {
    let service = view.name.clone();
    if let Some(reason) = failure(view, rollout) {
        return Some(Event::RolloutAdvanced { service, phase: Phase::Returning { reason, aborted: false } });
    }
    match &rollout.phase {
        Phase::Finishing => {
            view.settled(Some(rollout.target)).then_some(Event::RolloutFinished { service, outcome: Outcome::Done })
        }
        Phase::Returning { reason, aborted } => returned(view, rollout).then(|| {
            let rolled_back = Outcome::RolledBack { reason: reason.clone() };
            let outcome = if *aborted { Outcome::Aborted } else { rolled_back };
            Event::RolloutFinished { service, outcome }
        }),
        Phase::Stepping { .. } | Phase::Holding if rollout.in_force_at.is_none() => view.in_force.then(|| {
            let weight = weights(view.service).get(&rollout.target).copied().unwrap_or(Weight::NONE);
            Event::WeightShifted { service, target: rollout.target, weight }
        }),
        _ if rollout.paused_at.is_some() => None,
        _ => next_phase(view, rollout).map(|phase| Event::RolloutAdvanced { service, phase }),
    }
}

/// Returns whether the baseline serves as before and the target is gone.
///
/// A baseline that does not become healthy again does not keep the rollout open for ever: after as long as the whole
/// rollout may have taken, it is enough that the target is gone.
fn returned(view: &View<'_>, rollout: &Rollout) -> bool {
    let warm = view.service.warm.as_ref().map(|w| w.release);
    let given_up = view.at() >= rollout.phase_at + rollout.spec.deadline;
    view.settled(rollout.baseline) || given_up && view.in_force && view.cleared(&[rollout.baseline, warm])
}

fn next_phase(view: &View<'_>, rollout: &Rollout) -> Option<Phase> {
    let n = view.service.settings.instances;
    let healthy = view.count_healthy(rollout.target);
    match &rollout.phase {
        Phase::Preparing => {
            let done = |job| matches!(view.seen.jobs.get(job), Some(JobState::Succeeded { .. }));
            view.service.settings.depends_on.iter().all(done).then_some(Phase::Starting)
        }
        // Without an old release there is nothing to pass from: all strategies just start the new one.
        Phase::Starting if old_release(rollout).is_none() => (healthy >= n).then_some(Phase::Holding),
        Phase::Starting => match &rollout.spec.strategy {
            Strategy::Rolling { .. } if healthy < n => (healthy > 0).then_some(Phase::Moving { moved: healthy }),
            Strategy::Canary { .. } => (healthy >= at_step(view.service, rollout, 0)).then(|| enter(rollout, 0)),
            _ => (healthy >= n).then_some(Phase::Holding),
        },
        Phase::Moving { .. } if !view.in_force => None,
        Phase::Moving { .. } if healthy >= n => Some(Phase::Holding),
        Phase::Moving { moved } => (healthy > *moved).then_some(Phase::Moving { moved: healthy }),
        Phase::Stepping { step, approved } => {
            let step_spec = steps(rollout).get(*step as usize);
            let held = step_spec.is_none_or(|s| held(view, rollout, s.hold) && !s.approval);
            let passes = (held || *approved) && healthy >= at_step(view.service, rollout, *step);
            let enough = healthy >= at_step(view.service, rollout, step + 1);
            let next = if enough { enter(rollout, step + 1) } else { Phase::Growing { step: step + 1 } };
            passes.then_some(next)
        }
        Phase::Growing { step } => (healthy >= at_step(view.service, rollout, *step)).then(|| enter(rollout, *step)),
        Phase::Holding => (healthy >= n && held(view, rollout, hold(rollout))).then_some(Phase::Finishing),
        Phase::Finishing | Phase::Returning { .. } => None,
    }
}

/// Returns how long the target is watched with all traffic. A first release is not: there is nothing to return to.
pub(crate) fn hold(rollout: &Rollout) -> basalt_model::Millis {
    old_release(rollout).map_or(basalt_model::Millis::ZERO, |_| rollout.spec.hold)
}

/// Returns the steps of a canary; other strategies have none.
pub(crate) fn steps(rollout: &Rollout) -> &[basalt_model::CanaryStep] {
    match &rollout.spec.strategy {
        Strategy::Canary { steps, .. } => steps,
        _ => &[],
    }
}

/// Returns the phase of a canary's step; behind the last, the one with all traffic.
fn enter(rollout: &Rollout, step: u32) -> Phase {
    if (step as usize) < steps(rollout).len() { Phase::Stepping { step, approved: false } } else { Phase::Holding }
}

fn held(view: &View<'_>, rollout: &Rollout, hold: basalt_model::Millis) -> bool {
    rollout.in_force_at.is_some_and(|since| view.at() >= since + hold)
}
