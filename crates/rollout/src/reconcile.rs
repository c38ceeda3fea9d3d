//! Makes instances match the shape: requests what is missing, drains what is too much, replaces what fails.

use basalt_model::{Event, Instance, InstanceId, InstanceState, Millis, Phase, ReleaseNumber, StopReason};

use crate::pause::pause;
use crate::shape::{Shape, live, shape};
use crate::view::View;

/// One in so many instances may be under replacement for failing its checks at a time: if more fail at once, the
/// cause is more likely around them than in them.
const REPLACED_AT_ONCE: u32 = 4;

/// Returns what brings the recorded instances closer to the shape.
pub(crate) fn reconcile(view: &View<'_>) -> Vec<Event> {
    let shape = shape(view.service, view.leaves());
    let mut releases: Vec<ReleaseNumber> = shape.wanted.keys().copied().collect();
    releases.extend(view.service.instances.keys().map(InstanceId::release));
    releases.sort_unstable();
    releases.dedup();
    let mut balance = Balance::new(view, &shape);
    let mut events = Vec::new();
    for release in releases {
        let wanted = shape.wanted.get(&release).copied().unwrap_or(0);
        let before = events.len();
        events.extend(failed(view, release));
        events.extend(drains(view, release, wanted, &mut balance));
        if events.len() == before {
            // What leaves and what fails decides how many are missing: these come in the next round.
            events.extend(requests(view, release, wanted, &mut balance));
        }
    }
    events
}

/// Returns when a failed instance may be replaced, while that lies ahead.
pub(crate) fn replaced_from(view: &View<'_>) -> Option<Millis> {
    let from = view.service.failed_at? + pause(view.service.failures);
    (from > view.at() && view.service.rollout.is_none()).then_some(from)
}

/// What drains and requests of all releases together keep to.
struct Balance {
    /// Healthy instances that are left.
    healthy: u32,
    /// Healthy instances that must be left.
    floor: u32,
    /// The release whose instances are bounded, and how many more may be requested.
    room: Option<(ReleaseNumber, u32)>,
    /// The last generation given.
    generation: u64,
}

impl Balance {
    fn new(view: &View<'_>, shape: &Shape) -> Self {
        let warm = view.service.warm.as_ref().map(|w| w.release);
        let serving = || view.service.instances.iter().filter(|(id, _)| Some(id.release()) != warm);
        let healthy = serving().filter(|(id, i)| view.healthy(id, i)).count() as u32;
        let there = serving().count() as u32;
        let room = shape.most.map(|(release, most)| (release, most.saturating_sub(there)));
        Self { healthy, floor: shape.floor, room, generation: view.generation() }
    }

    /// Returns whether the instance may be drained, and counts it as drained if so.
    fn spare(&mut self, view: &View<'_>, id: &InstanceId, instance: &Instance) -> bool {
        let counted = u32::from(view.healthy(id, instance));
        let left = self.healthy.saturating_sub(counted);
        let may = !view.perhaps_healthy(id, instance) || left >= self.floor;
        if may {
            self.healthy = left;
        }
        may
    }
}

/// Returns the instances of a release that are to be replaced because they fail.
fn failed(view: &View<'_>, release: ReleaseNumber) -> Vec<Event> {
    if !view.replaces(release) || view.leaves() {
        return Vec::new();
    }
    let under_way = view.of(release).filter(|(_, i)| i.failed_at.is_some() && i.healthy_at.is_some()).count();
    let at_once = (view.service.settings.instances / REPLACED_AT_ONCE).max(1) as usize;
    let room = if replaced_from(view).is_some() { 0 } else { at_once.saturating_sub(under_way) };
    let fresh = || view.of(release).filter(|(_, i)| i.failed_at.is_none());
    let in_rollout = view.service.rollout.as_ref().is_some_and(|r| r.target == release);
    // Without traffic there is nothing to lose: one that never proved itself is not counted.
    let late = fresh().filter(|(id, i)| !in_rollout && view.late(id, i));
    let sick = fresh().filter(|(id, i)| view.sick(id, i)).take(room);
    late.chain(sick)
        .map(|(id, i)| Event::InstanceFailed {
            instance: id.clone(),
            generation: i.generation,
            probe: view.present(id).and_then(|s| s.last_probe.clone()),
        })
        .collect()
}

/// Returns how many instances a release has above the wanted number while others are replaced.
fn extra(view: &View<'_>, release: ReleaseNumber, wanted: u32) -> u32 {
    let failing = view.of(release).filter(|(_, i)| live(i) && i.failed_at.is_some() && i.healthy_at.is_some()).count();
    if wanted > 0 && view.overlaps(release) && view.replaces(release) { failing as u32 } else { 0 }
}

/// Returns the instances of a release that are to leave.
fn drains(view: &View<'_>, release: ReleaseNumber, wanted: u32, balance: &mut Balance) -> Vec<Event> {
    let mut lives: Vec<_> = view.of(release).filter(|(_, i)| live(i)).collect();
    // The sick that wait for their turn keep their place: what is proven beyond it was started for the failing.
    let judged = |id, i: &Instance| view.healthy(id, i) || view.sick(id, i);
    let in_place = lives.iter().filter(|(id, i)| i.failed_at.is_none() && judged(id, i)).count() as u32;
    let failing = lives.iter().filter(|(_, i)| i.failed_at.is_some() && i.healthy_at.is_some()).count() as u32;
    // One that fails leaves once another has proven itself in its place, or at once if the two can't be there together.
    let mut replaced = if view.overlaps(release) { (in_place + failing).saturating_sub(wanted) } else { failing };
    let mut surplus = (lives.len() as u32).saturating_sub(wanted.saturating_add(extra(view, release, wanted)));
    lives.sort_by_key(|(id, i)| (worth(view, id, i), std::cmp::Reverse(id.ordinal())));
    let mut leaving = Vec::new();
    for (id, instance) in lives {
        let failed = instance.failed_at.is_some();
        let reason = if failed && instance.healthy_at.is_none() {
            StopReason::Unhealthy
        } else if failed && replaced > 0 && balance.spare(view, id, instance) {
            replaced -= 1;
            StopReason::Unhealthy
        } else if surplus > 0 && balance.spare(view, id, instance) {
            surplus -= 1;
            surplus_reason(view, release, wanted)
        } else {
            continue;
        };
        leaving.push(Event::InstanceDrained { instance: id.clone(), reason });
    }
    leaving
}

/// Orders instances by what is lost with them: those that wait to be started again first, healthy ones last.
fn worth(view: &View<'_>, id: &InstanceId, instance: &Instance) -> u8 {
    match instance.state {
        InstanceState::Waiting { .. } => 0,
        _ if instance.healthy_at.is_none() => 1,
        _ if view.sick(id, instance) => 2,
        _ if instance.failed_at.is_some() => 3,
        _ => 4,
    }
}

fn surplus_reason(view: &View<'_>, release: ReleaseNumber, wanted: u32) -> StopReason {
    match &view.service.rollout {
        _ if view.leaves() => StopReason::Removed,
        Some(r) if matches!(r.phase, Phase::Returning { .. }) && r.target == release => StopReason::RolledBack,
        Some(r) if r.target == release || wanted >= view.service.settings.instances => StopReason::ScaledDown,
        Some(_) => StopReason::Replaced,
        None if view.service.stable == Some(release) || wanted > 0 => StopReason::ScaledDown,
        None => StopReason::Expired,
    }
}

/// Returns the instances of a release that are to be started: those whose pause is over, and those that are missing.
fn requests(view: &View<'_>, release: ReleaseNumber, wanted: u32, balance: &mut Balance) -> Vec<Event> {
    let again =
        view.of(release).filter(|(_, i)| matches!(i.state, InstanceState::Waiting { until } if view.at() >= until));
    let mut ids: Vec<InstanceId> = again.map(|(id, _)| id.clone()).collect();
    let lives = view.of(release).filter(|(_, i)| live(i)).count() as u32;
    let mut missing = wanted.saturating_add(extra(view, release, wanted)).saturating_sub(lives);
    if replaced_from(view).is_some() || view.volume_taken(release) {
        missing = 0;
    }
    if let Some((_, room)) = balance.room.as_mut().filter(|(bounded, _)| *bounded == release) {
        missing = missing.min(*room);
        *room -= missing;
    }
    let free = (1..=u32::MAX)
        .map(|ordinal| InstanceId::new(view.name.clone(), release, ordinal))
        .filter(|id| !view.service.instances.contains_key(id));
    ids.extend(free.take(missing as usize));
    ids.into_iter()
        .map(|instance| {
            balance.generation += 1;
            Event::InstanceRequested { instance, generation: balance.generation }
        })
        .collect()
}
