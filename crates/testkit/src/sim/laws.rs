//! The laws, checked by number at every event, action and turn.

use basalt_model::{
    Event, InstanceId, InstanceState, JobState, Name, Outcome, Phase, ReleaseNumber, Service, StopReason, Strategy,
    Weight,
};
use basalt_rollout::{Action, weights};

use super::world::World;

/// Checks an event against what is there.
pub(crate) fn before_event(world: &World, event: &Event) -> Result<(), String> {
    match event {
        Event::InstanceDrained { instance, reason: StopReason::Removed } => still_called(world, instance.service()),
        Event::InstanceDrained { instance, .. } => law_3(world, instance),
        Event::InstanceStopRequested { instance, .. } => law_4(world, instance, "a stop is decided"),
        Event::RolloutAdvanced { service, phase: Phase::Holding } => {
            let Some(rollout) = world.state.services.get(service).and_then(|s| s.rollout.as_ref()) else {
                return Ok(());
            };
            serves(world, service, Some(rollout.target), "gets all traffic")
        }
        Event::RolloutFinished { service, outcome: Outcome::Done } => {
            let Some(recorded) = world.state.services.get(service) else { return Ok(()) };
            let target = recorded.rollout.as_ref().map(|r| r.target);
            let warm = recorded.warm.as_ref().map(|w| w.release);
            let old = recorded.instances.keys().find(|id| ![target, warm].contains(&Some(id.release())));
            match old {
                Some(id) => Err(world.told(&format!("{service} is called done while {id} is there"))),
                None => serves(world, service, target, "is called done"),
            }
        }
        Event::InstanceRequested { instance, generation } => {
            let before = world.backend.started.get(instance).copied().unwrap_or(0);
            let grows = *generation > before;
            grows
                .then_some(())
                .ok_or_else(|| world.told(&format!("{instance}: generation {generation} after {before}")))
        }
        _ => Ok(()),
    }
}

/// Law 3: a release gets all traffic, and is called done, only once all its instances have proven themselves.
fn serves(world: &World, name: &Name, release: Option<ReleaseNumber>, what: &str) -> Result<(), String> {
    let service = &world.state.services[name];
    let proven = service.instances.iter().filter(|(id, i)| Some(id.release()) == release && i.healthy_at.is_some());
    let (is, wanted) = (proven.count() as u32, service.settings.instances);
    if is < wanted {
        Err(world.told(&format!("law 3: release {release:?} {what} with {is} of {wanted}")))
    } else {
        Ok(())
    }
}

/// Law 3: what is well is only drained while enough others are well, unless the strategy says `recreate`.
fn law_3(world: &World, id: &InstanceId) -> Result<(), String> {
    let Some(service) = world.state.services.get(id.service()) else { return Ok(()) };
    let (Some(floor), true) = (floor(service), world.router_up && world.backend_up) else { return Ok(()) };
    let warm = service.warm.as_ref().map(|w| w.release);
    // As seen, so that what has just fallen ill and nobody can know of is not held against the machine.
    let well = |id: &InstanceId| {
        let recorded = service.instances.get(id);
        let live = recorded.is_some_and(|i| i.state == InstanceState::Wanted && i.healthy_at.is_some());
        live && world.healthy(id)
    };
    let replaced = service.instances.get(id).is_some_and(|i| i.failed_at.is_some());
    let others = service.instances.keys().filter(|o| *o != id && Some(o.release()) != warm && well(o)).count() as u32;
    if well(id) && Some(id.release()) != warm && !replaced && others < floor {
        return Err(world.told(&format!("law 3: {id} is drained while only {others} others are well, floor {floor}")));
    }
    Ok(())
}

/// Returns how many healthy instances a strategy must leave.
pub(crate) fn floor(service: &Service) -> Option<u32> {
    let n = service.settings.instances;
    if service.removing || service.stable.is_none() || n == 0 {
        return None;
    }
    match service.rollout.as_ref().map(|r| &r.spec.strategy) {
        Some(Strategy::Recreate) => None,
        Some(Strategy::Rolling { max_unavailable, .. }) => Some(n - max_unavailable.of(n).min(n - 1)),
        _ => Some(n.div_ceil(2)),
    }
}

/// Law 4: nothing is stopped that the gateway names, or that has a request before its drain time has passed.
fn law_4(world: &World, id: &InstanceId, what: &str) -> Result<(), String> {
    let Some(running) = world.backend.instances.get(id).filter(|i| i.runs(world.now)) else { return Ok(()) };
    if world.router.address(id) == Some(running.address) {
        return Err(world.told(&format!("law 4: {id}: {what} while the gateway names it")));
    }
    let service = world.state.services.get(id.service());
    let drained = service.and_then(|s| Some((s.instances.get(id)?, s.settings.drain)));
    let over = drained.is_none_or(|(i, drain)| match i.state {
        InstanceState::Draining { since, .. } | InstanceState::Stopping { since, .. } => world.now >= since + drain,
        _ => false,
    });
    // Once its stop is decided, it may follow at any time.
    let decided = drained.is_some_and(|(i, _)| matches!(i.state, InstanceState::Stopping { .. }));
    if world.router.flies_to(world.now, id, running.address) && !over && !decided {
        return Err(world.told(&format!("law 4: {id}: {what} while a request is in flight")));
    }
    Ok(())
}

/// Law 3: what is removed stays as long as a release calls it that serves or may serve again.
fn still_called(world: &World, name: &Name) -> Result<(), String> {
    for (caller, service) in world.state.services.iter().filter(|(_, service)| !service.removing) {
        let rollout = service.rollout.as_ref();
        let numbers = [service.stable, rollout.and_then(|r| r.baseline), rollout.map(|r| r.target)];
        let calls = |n: ReleaseNumber| service.releases[&n].connects_to.contains(name);
        if let Some(number) = numbers.into_iter().flatten().find(|n| calls(*n)) {
            return Err(world.told(&format!("law 3: {name} is taken away while {caller}#{number} calls it")));
        }
    }
    Ok(())
}

/// What only one instance may have at a time, only one has.
fn alone(world: &World, id: &InstanceId) -> Result<(), String> {
    let Some(service) = world.state.services.get(id.service()) else { return Ok(()) };
    let exclusive = |n| service.releases.get(&n).is_some_and(|r| r.volumes.values().any(|v| !v.shared));
    let runs = |o: &InstanceId| world.backend.instances.get(o).is_some_and(|i| i.runs(world.now));
    let other = service.instances.keys().find(|o| *o != id && exclusive(o.release()) && runs(o));
    match other.filter(|_| exclusive(id.release())) {
        Some(other) => Err(world.told(&format!("{id} is started while {other} has the exclusive volume"))),
        None => Ok(()),
    }
}

/// A rollout starts nothing before its jobs have ended well.
fn jobs_first(world: &World, id: &InstanceId) -> Result<(), String> {
    let Some(service) = world.state.services.get(id.service()) else { return Ok(()) };
    let target = service.rollout.as_ref().is_some_and(|r| r.target == id.release() && r.baseline != Some(r.target));
    let done = |job: &Name| matches!(world.state.jobs.get(job).map(|j| &j.state), Some(JobState::Succeeded { .. }));
    match service.settings.depends_on.iter().find(|job| target && !done(job)) {
        Some(job) => Err(world.told(&format!("{id} is started before job {job} has ended well"))),
        None => Ok(()),
    }
}

/// Checks an action: laws 4 and 5.
pub(crate) fn before_action(world: &World, action: &Action) -> Result<(), String> {
    let unrecorded = |id: &InstanceId| Err(world.told(&format!("law 5: {action:?} of {id} is not recorded")));
    match action {
        Action::Start { instance, generation } => {
            let service = world.state.services.get(instance.service()).and_then(|s| s.instances.get(instance));
            let meant = service.is_some_and(|i| i.state == InstanceState::Wanted && i.generation == *generation);
            let job = world.state.jobs.get(instance.service()).map(|j| &j.state);
            let tried = matches!(job, Some(JobState::Running { generation: g, .. }) if g == generation);
            if !meant && !tried {
                return unrecorded(instance);
            }
            alone(world, instance)?;
            jobs_first(world, instance)
        }
        Action::Stop { instance, generation, .. } => {
            let service = world.state.services.get(instance.service()).and_then(|s| s.instances.get(instance));
            let wanted = service.is_some_and(|i| i.state == InstanceState::Wanted && i.generation == *generation);
            let draining = service.is_some_and(|i| matches!(i.state, InstanceState::Draining { .. }));
            if wanted || draining { unrecorded(instance) } else { law_4(world, instance, "a stop is performed") }
        }
        Action::Forget { instance, generation } => {
            let service = world.state.services.get(instance.service()).and_then(|s| s.instances.get(instance));
            let wanted = service.is_some_and(|i| i.state == InstanceState::Wanted && i.generation == *generation);
            if wanted { unrecorded(instance) } else { Ok(()) }
        }
    }
}

/// Checks what holds at all times: weights add up, and rolling updates keep within their bound.
pub(crate) fn after_turn(world: &World) -> Result<(), String> {
    for (name, service) in &world.state.services {
        let weights = weights(service);
        let sum: u32 = weights.values().map(|w| w.0).sum();
        if sum != 0 && sum != Weight::ALL.0 {
            return Err(world.told(&format!("weights of {name} add up to {sum}: {weights:?}")));
        }
        if sum == 0 && service.stable.is_some() {
            return Err(world.told(&format!("{name} has a stable release and no weights")));
        }
    }
    Ok(())
}
