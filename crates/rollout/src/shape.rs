//! The shape of a service: how many instances each release should have, and which share of the traffic.
//!
//! A pure function of what is recorded. The reconciler makes instances match it; the machine only decides when the
//! phase, and with it the shape, changes.

use std::collections::BTreeMap;

use basalt_model::{Instance, InstanceState, Phase, ReleaseNumber, Rollout, Service, Strategy, Weight};

/// How many instances each release should have, and what holds on the way there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Wanted instances by release; what is not in it should have none.
    pub wanted: BTreeMap<ReleaseNumber, u32>,
    /// So many healthy instances must be left when a healthy one is drained.
    pub floor: u32,
    /// Instances of this release are started only while the service has fewer than so many in all.
    pub most: Option<(ReleaseNumber, u32)>,
}

/// Returns the shape that follows from what is recorded.
/// A service that `leaves` should have nothing.
pub(crate) fn shape(service: &Service, leaves: bool) -> Shape {
    if leaves {
        return Shape::default();
    }
    let n = service.settings.instances;
    let mut wanted = BTreeMap::new();
    let mut most = None;
    match &service.rollout {
        None => wanted.extend(service.stable.map(|stable| (stable, n))),
        Some(rollout) => {
            let (old, new) = counts(service, rollout);
            wanted.extend(old_release(rollout).map(|release| (release, old)));
            wanted.insert(rollout.target, new);
            if let (Strategy::Rolling { .. }, Some(_)) = (&rollout.spec.strategy, old_release(rollout)) {
                most = Some((rollout.target, n.saturating_add(rollout.spec.strategy.surge(n))));
            }
        }
    }
    wanted.extend(service.warm.as_ref().map(|warm| (warm.release, n)));
    Shape { wanted, floor: drain_floor(service), most }
}

/// Returns the share of the service's traffic that each release is to get.
///
/// The shares are a pure function of what is recorded and add up to [`Weight::ALL`], or are all zero while nothing has
/// ever proven itself. Where the releases that should serve have too few proven instances (the way back of a rolling
/// update, or an update that took the place of another half-way), others that still have some are lent a share.
pub fn weights(service: &Service) -> BTreeMap<ReleaseNumber, Weight> {
    let mut weights = BTreeMap::new();
    weights.extend(service.warm.as_ref().map(|warm| (warm.release, Weight::NONE)));
    match &service.rollout {
        None => weights.extend(service.stable.map(|stable| (stable, Weight::ALL))),
        Some(rollout) => {
            let share = target_weight(service, rollout);
            weights.extend(old_release(rollout).map(|release| (release, share.rest())));
            weights.insert(rollout.target, share);
        }
    }
    lend(service, &mut weights);
    weights
}

/// Returns the release that a rollout replaces; none at the first, and none if it leads to where it came from.
pub(crate) fn old_release(rollout: &Rollout) -> Option<ReleaseNumber> {
    rollout.baseline.filter(|baseline| *baseline != rollout.target)
}

/// Returns how many instances of the target a canary has at a step; all behind the last.
pub(crate) fn at_step(service: &Service, rollout: &Rollout, step: u32) -> u32 {
    let n = service.settings.instances;
    let Strategy::Canary { instances, steps } = &rollout.spec.strategy else { return n };
    let Some(step) = steps.get(step as usize) else { return n };
    let share = step.weight.min(Weight::ALL).0;
    let needed = (u64::from(n) * u64::from(share)).div_ceil(u64::from(Weight::ALL.0)) as u32;
    instances.of(n).max(1).max(needed).min(n)
}

/// Returns whether an instance is meant to run (perhaps after a pause), and not on its way out.
pub(crate) fn live(instance: &Instance) -> bool {
    matches!(instance.state, InstanceState::Wanted | InstanceState::Waiting { .. })
}

/// Returns how many instances of a release are meant to run and have proven themselves.
pub(crate) fn proven(service: &Service, release: ReleaseNumber) -> u32 {
    let is = |i: &Instance| i.state == InstanceState::Wanted && i.healthy_at.is_some();
    service.instances.iter().filter(|(id, i)| id.release() == release && is(i)).count() as u32
}

/// Returns the wanted instances of the old release and of the target.
fn counts(service: &Service, rollout: &Rollout) -> (u32, u32) {
    let n = service.settings.instances;
    let none_of = |release: Option<ReleaseNumber>| !service.instances.keys().any(|id| Some(id.release()) == release);
    let strategy = &rollout.spec.strategy;
    let Some(old) = old_release(rollout) else {
        // The first release is just started, and one that is passed to itself just stays.
        let starts = !matches!(rollout.phase, Phase::Preparing | Phase::Returning { .. });
        return (0, if starts || rollout.baseline.is_some() { n } else { 0 });
    };
    match (&rollout.phase, strategy) {
        (Phase::Preparing, _) => (n, 0),
        (Phase::Starting, Strategy::BlueGreen) => (n, n),
        (Phase::Starting, Strategy::Canary { .. }) => (n, at_step(service, rollout, 0)),
        (Phase::Starting, Strategy::Rolling { .. }) => {
            // With room for more, the new comes before the old goes; without, what may be missing goes first.
            let (surge, missing) = (strategy.surge(n), strategy.missing(n));
            if surge > 0 { (n, surge.min(n)) } else { (n - missing, missing) }
        }
        (Phase::Starting, Strategy::Recreate) => (0, if none_of(Some(old)) { n } else { 0 }),
        (Phase::Moving { moved }, _) => {
            let (surge, missing) = (strategy.surge(n), strategy.missing(n));
            let ahead = moved.saturating_add(missing);
            (n.saturating_sub(ahead), ahead.saturating_add(surge).min(n))
        }
        (Phase::Stepping { step, .. } | Phase::Growing { step }, _) => (n, at_step(service, rollout, *step)),
        (Phase::Holding, Strategy::BlueGreen | Strategy::Canary { .. }) => (n, n),
        (Phase::Holding | Phase::Finishing, _) => (0, n),
        // What was stopped to make place comes back the same way.
        (Phase::Returning { .. }, Strategy::Recreate) => (if none_of(Some(rollout.target)) { n } else { 0 }, 0),
        (Phase::Returning { .. }, _) => (n, 0),
    }
}

/// Returns how many healthy instances must be left when a healthy one is drained: while a rollout passes, all of them,
/// since nothing old goes before something new has proven itself in its place (law 3).
fn drain_floor(service: &Service) -> u32 {
    let passes = service.rollout.as_ref().is_some_and(|r| {
        let strict = matches!(r.spec.strategy, Strategy::BlueGreen | Strategy::Canary { .. });
        strict && r.baseline.is_some() && !matches!(r.phase, Phase::Returning { .. })
    });
    if passes { service.settings.instances } else { floor(service) }
}

/// Returns how many healthy instances are enough to serve.
///
/// Half of the wanted number where a strategy says nothing: with fewer, those that are left would take more than
/// twice their load, which is worse than to keep what was to go a little longer.
fn floor(service: &Service) -> u32 {
    let n = service.settings.instances;
    if service.stable.is_none() {
        return 0;
    }
    match service.rollout.as_ref().map(|r| &r.spec.strategy) {
        Some(Strategy::Recreate) => 0,
        Some(strategy @ Strategy::Rolling { .. }) => n - strategy.missing(n),
        _ => n.div_ceil(2),
    }
}

fn target_weight(service: &Service, rollout: &Rollout) -> Weight {
    if old_release(rollout).is_none() {
        let proven = rollout.baseline.is_some() || matches!(rollout.phase, Phase::Holding | Phase::Finishing);
        return if proven { Weight::ALL } else { Weight::NONE };
    }
    let step_weight = |step: Option<u32>| match &rollout.spec.strategy {
        Strategy::Canary { steps, .. } => {
            step.and_then(|s| steps.get(s as usize)).map_or(Weight::NONE, |s| s.weight.min(Weight::ALL))
        }
        _ => Weight::NONE,
    };
    match &rollout.phase {
        Phase::Preparing | Phase::Starting | Phase::Returning { .. } => Weight::NONE,
        Phase::Moving { moved } => {
            let (old, _) = counts(service, rollout);
            share(*moved, moved.saturating_add(old))
        }
        Phase::Stepping { step, .. } => step_weight(Some(*step)),
        Phase::Growing { step } => step_weight(step.checked_sub(1)),
        Phase::Holding | Phase::Finishing => Weight::ALL,
    }
}

/// Lends a share to a release that should get nothing, where those that should get all have too few proven instances.
fn lend(service: &Service, weights: &mut BTreeMap<ReleaseNumber, Weight>) {
    let n = service.settings.instances;
    let serving: u32 = weights.iter().filter(|(_, w)| **w > Weight::NONE).map(|(r, _)| proven(service, *r)).sum();
    if serving >= floor(service) || serving >= n {
        return;
    }
    let warm = service.warm.as_ref().map(|w| w.release);
    let idle = |r: &ReleaseNumber| weights.get(r).is_none_or(|w| *w == Weight::NONE) && Some(*r) != warm;
    let helper = service.releases.keys().copied().filter(idle).map(|r| (proven(service, r), r)).max();
    let Some((helping, helper)) = helper.filter(|(helping, _)| *helping > 0) else { return };
    let lent = if serving == 0 { Weight::ALL } else { share(helping.min(n - serving), n) };
    let mut left = lent.rest().0;
    let given: u32 = weights.values().map(|w| w.0).sum();
    for weight in weights.values_mut() {
        weight.0 = (u64::from(weight.0) * u64::from(lent.rest().0)).checked_div(u64::from(given)).unwrap_or(0) as u32;
        left -= weight.0;
    }
    // What rounding leaves over goes with the loan.
    weights.insert(helper, Weight(lent.0 + left));
}

fn share(part: u32, whole: u32) -> Weight {
    let all = u64::from(Weight::ALL.0);
    Weight((u64::from(part) * all).checked_div(u64::from(whole)).unwrap_or(all) as u32)
}
