//! How events change a service: its settings, releases and rollouts.

use basalt_model::{Event, LastRollout, Millis, Outcome, Phase, Rollout, Service, Strategy, Warm};

use crate::evolve::ensure;

/// Changes a service by an event about it. An event that does not fit changes nothing.
pub(crate) fn evolve_service(service: &mut Service, at: Millis, event: &Event) -> Result<(), String> {
    match event {
        // A service that is declared again while it is being removed stays.
        Event::ServiceConfigured { settings, .. } => {
            service.settings = settings.clone();
            service.removing = false;
            service.failures = 0;
            service.failed_at = None;
        }
        Event::ServiceRetired { .. } => {
            ensure(!service.removing, || "it has been retired already".into())?;
            end_rollout(service, at, Outcome::Aborted);
            service.warm = None;
            service.removing = true;
        }
        Event::ReleaseCreated { number, release, .. } => {
            ensure(*number > service.last_release, || {
                format!("number {number} is not above {}, which was given before", service.last_release)
            })?;
            service.releases.insert(*number, release.clone());
            service.last_release = *number;
        }
        Event::ReleaseForgotten { number, .. } => {
            ensure(service.releases.contains_key(number), || format!("release {number} is not kept"))?;
            ensure(!in_use(service, *number), || format!("release {number} is in use"))?;
            service.releases.remove(number);
            service.previous = service.previous.filter(|p| p != number);
        }
        Event::RolloutStarted { rollout, .. } => start(service, at, rollout)?,
        Event::RolloutAdvanced { phase, .. } => advance(service, at, phase)?,
        Event::WeightShifted { .. } => {
            let rollout = under_way(service)?;
            ensure(rollout.in_force_at.is_none(), || "the weights of this phase are in force already".into())?;
            rollout.in_force_at = Some(at);
        }
        Event::RolloutPaused { .. } => {
            let rollout = under_way(service)?;
            ensure(rollout.paused_at.is_none(), || "it is paused already".into())?;
            rollout.paused_at = Some(at);
        }
        Event::RolloutResumed { .. } => {
            let rollout = under_way(service)?;
            let Some(paused_at) = rollout.paused_at.take() else { return Err("it is not paused".into()) };
            rollout.paused_for = rollout.paused_for + at.since(paused_at);
            // What is held is held as long as if there had been no pause.
            rollout.in_force_at = rollout.in_force_at.map(|since| since + at.since(since.max(paused_at)));
        }
        Event::RolloutFinished { outcome, .. } => {
            let rollout = under_way(service)?;
            let (baseline, target) = (rollout.baseline, rollout.target);
            if *outcome == Outcome::Done && baseline != Some(target) {
                service.previous = baseline;
            }
            if *outcome == Outcome::Done {
                service.stable = Some(target);
            }
            end_rollout(service, at, outcome.clone());
        }
        Event::WarmExpired { release, .. } => {
            ensure(service.warm.as_ref().is_some_and(|w| w.release == *release), || "it is not kept warm".into())?;
            service.warm = None;
        }
        _ => return Err("it is not about a service".into()),
    }
    Ok(())
}

/// Returns whether something rests on the release: it serves, is passed to or from, is kept warm, or has instances.
pub(crate) fn in_use(service: &Service, number: u32) -> bool {
    let rollout = service.rollout.as_ref();
    service.stable == Some(number)
        || service.warm.as_ref().is_some_and(|w| w.release == number)
        || rollout.is_some_and(|r| r.target == number || r.baseline == Some(number))
        || service.instances.keys().any(|id| id.release() == number)
}

/// Returns whether the old release of a rollout can stay warm: only where all its instances are there to the end.
pub(crate) fn keeps_old(rollout: &Rollout) -> bool {
    rollout.spec.keep_old > Millis::ZERO
        && matches!(rollout.spec.strategy, Strategy::BlueGreen | Strategy::Canary { .. })
}

fn start(service: &mut Service, at: Millis, rollout: &Rollout) -> Result<(), String> {
    ensure(!service.removing, || "the service is being removed".into())?;
    ensure(service.releases.contains_key(&rollout.target), || format!("release {} is not kept", rollout.target))?;
    ensure(rollout.baseline == service.stable, || "its baseline is not the release that serves".into())?;
    end_rollout(service, at, Outcome::Superseded);
    service.warm = service.warm.take().filter(|w| w.release != rollout.target);
    service.rollouts = service.rollouts.saturating_add(1);
    service.rollout = Some(rollout.clone());
    Ok(())
}

fn advance(service: &mut Service, at: Millis, phase: &Phase) -> Result<(), String> {
    let rollout = under_way(service)?;
    ensure(!matches!(rollout.phase, Phase::Returning { .. }), || "it is on its way back".into())?;
    // A promoted step is the same step: its weights have been in force all along.
    let same =
        matches!((&rollout.phase, phase), (Phase::Stepping { step: a, .. }, Phase::Stepping { step: b, .. }) if a == b);
    if !same {
        rollout.phase_at = at;
        rollout.in_force_at = None;
    }
    rollout.phase = phase.clone();
    let warm = rollout.baseline.filter(|b| *b != rollout.target && keeps_old(rollout));
    let until = at + rollout.spec.keep_old;
    match phase {
        Phase::Finishing => service.warm = warm.map(|release| Warm { release, until }),
        Phase::Returning { .. } => service.warm = service.warm.take().filter(|w| Some(w.release) != service.stable),
        _ => {}
    }
    Ok(())
}

fn under_way(service: &mut Service) -> Result<&mut Rollout, String> {
    service.rollout.as_mut().ok_or_else(|| "no rollout is under way".into())
}

fn end_rollout(service: &mut Service, at: Millis, outcome: Outcome) {
    if let Some(Rollout { id, baseline, target, .. }) = service.rollout.take() {
        service.last_rollout = Some(LastRollout { id, baseline, target, outcome, at });
    }
}
