//! The heart under simulation: thousands of rollouts, no law broken.

use basalt_model::{
    CanaryStep, Event, Exit, HealthCheck, InstanceState, Millis, Name, Outcome, RolloutSpec, Settings, Share, Strategy,
    Weight,
};
use basalt_rollout::Command;
use basalt_testkit::sim::{Fate, Rng, World, any_fate, any_spec, for_seeds, http, name};

fn settings(instances: u32) -> Settings {
    Settings { instances, drain: Millis::seconds(3), ..Settings::default() }
}

/// Returns a world where release 1 of `web` serves.
fn serving(world: &mut World, instances: u32) -> Result<Name, String> {
    let web = name("web");
    world.declare(&web, settings(instances))?;
    world.deploy(&web, RolloutSpec::default(), Fate::Good, http())?;
    expect(world, &web, Outcome::Done)?;
    Ok(web)
}

fn expect(world: &mut World, service: &Name, wanted: Outcome) -> Result<(), String> {
    match world.finish(service, Millis::seconds(900))? {
        Some(outcome) if std::mem::discriminant(&outcome) == std::mem::discriminant(&wanted) => Ok(()),
        other => Err(world.told(&format!("expected {wanted:?}, got {other:?}"))),
    }
}

/// Healthy instances of the stable release that the gateway names.
fn healthy(world: &World, service: &Name) -> u32 {
    let recorded = &world.state.services[service];
    let stable = |id: &basalt_model::InstanceId| Some(id.release()) == recorded.stable;
    let fine = |id: &&basalt_model::InstanceId| stable(id) && world.router.names(id) && world.healthy(id);
    recorded.instances.keys().filter(fine).count() as u32
}

#[test]
fn rollouts_end_as_their_release_deserves() {
    for_seeds(0..1500, |world| {
        let n = world.rng.below(7) as u32;
        world.delay = Millis(world.rng.below(300));
        world.flight = Millis(world.rng.below(4000));
        world.twice = world.rng.chance(50);
        let web = serving(world, n)?;
        for _ in 0..3 {
            let spec = any_spec(&mut world.rng);
            let fate = any_fate(&mut world.rng);
            let check = if world.rng.chance(80) { http() } else { HealthCheck::Running };
            let before = world.state.services[&web].stable;
            let number = world.deploy(&web, spec, fate, check.clone())?;
            let outcome = world.finish(&web, Millis::seconds(900))?;
            let stable = world.state.services[&web].stable;
            // Sickness that no check sees, or that comes after the end, is not the rollout's to find.
            let doomed = n > 0
                && match fate {
                    Fate::CannotStart | Fate::Crashes => true,
                    Fate::NeverHealthy => check != HealthCheck::Running,
                    _ => false,
                };
            match outcome {
                Some(Outcome::Done) if !doomed && stable == Some(number) => {}
                Some(Outcome::RolledBack { reason }) if fate != Fate::Good && stable == before => {
                    assert!(!reason.is_empty());
                }
                other => return Err(world.told(&format!("{fate:?} ended as {other:?}"))),
            }
            if !matches!(fate, Fate::DiesAfter(_) | Fate::SickAfter(_)) || stable == before {
                rests(world, &web)?;
            } else {
                world.fates.insert((web.clone(), number), Fate::Good);
                world.pass(Millis::seconds(400))?;
            }
        }
        Ok(())
    });
}

/// Law 6: after the end nothing more happens, but that what was kept warm leaves.
fn rests(world: &mut World, service: &Name) -> Result<(), String> {
    world.pass(Millis::seconds(120))?;
    let rows = world.journal.len();
    world.pass(Millis::seconds(3600))?;
    if world.journal.len() != rows {
        return Err(world.told(&format!("law 6: events at rest: {:?}", &world.journal[rows..])));
    }
    if !world.at_rest() {
        return Err(world.told("nothing to do, and something is waited for"));
    }
    let (is, wanted) = (healthy(world, service), world.state.services[service].settings.instances);
    if is != wanted { Err(world.told(&format!("law 7: {is} instances serve, {wanted} are wanted"))) } else { Ok(()) }
}

#[test]
fn old_instances_serve_until_new_ones_do() {
    for_seeds(0..600, |world| {
        let n = 1 + world.rng.below(6) as u32;
        world.delay = Millis(world.rng.below(300));
        world.flight = Millis(world.rng.below(2000));
        let web = serving(world, n)?;
        let spec = any_spec(&mut world.rng);
        if spec.strategy == Strategy::Recreate {
            return Ok(());
        }
        let floor = match &spec.strategy {
            Strategy::Rolling { max_unavailable, .. } => n - max_unavailable.of(n).min(n - 1),
            _ => n,
        };
        let most = match &spec.strategy {
            Strategy::Rolling { max_surge, max_unavailable } => {
                let missing = max_unavailable.of(n).min(n - 1);
                n + max_surge.of(n).max(u32::from(missing == 0))
            }
            _ => 2 * n,
        };
        let fate = *world.rng.pick(&[Fate::Good, Fate::Crashes, Fate::NeverHealthy, Fate::CannotStart]);
        world.deploy(&web, spec, fate, http())?;
        let end = world.now + Millis::seconds(900);
        world.turn()?;
        while world.state.services[&web].rollout.is_some() {
            world.step(end)?;
            let well =
                world.router.named().filter(|id| world.backend.instances.get(id).is_some_and(|i| i.well(world.now)));
            let well = well.count() as u32;
            if well < floor {
                return Err(world.told(&format!("law 3: {well} instances serve, the floor is {floor}")));
            }
            let all = world.state.services[&web].instances.len() as u32;
            let returning = world.state.services[&web].rollout.as_ref().is_some_and(|r| r.phase.name() == "returning");
            if all > most && !returning {
                return Err(world.told(&format!("{all} instances are there, at most {most} may be")));
            }
            if world.now >= end {
                return Err(world.told("the rollout does not end"));
            }
        }
        rests(world, &web)
    });
}

/// Does something unforeseen.
fn fault(world: &mut World, service: &Name) -> Result<(), String> {
    let ids: Vec<_> = world.backend.instances.keys().cloned().collect();
    let now = world.now;
    match world.rng.below(14) {
        0 | 1 if !ids.is_empty() => {
            let id = world.rng.pick(&ids).clone();
            if let Some(instance) = world.backend.instances.get_mut(&id) {
                instance.end(now, Exit::Signal(9));
            }
        }
        2 if !ids.is_empty() => {
            let id = world.rng.pick(&ids).clone();
            let until = now + Millis(world.rng.below(20_000));
            if let Some(instance) = world.backend.instances.get_mut(&id) {
                (instance.sick_from, instance.sick_until) = (Some(now), Some(until));
            }
        }
        3 => world.crash()?,
        4 => world.backend_up = !world.backend_up,
        5 => world.router_up = !world.router_up,
        6 => world.router.restart(now),
        // The machine restarts: all instances are gone at once.
        7 if world.rng.chance(10) => world.backend.instances.clear(),
        8 => {
            world.command(service, &Command::Pause)?;
        }
        9 => {
            world.command(service, &Command::Resume)?;
        }
        10 => {
            let asked =
                [Command::Abort, Command::Promote, Command::Rollback { to: None }, Command::Rollback { to: Some(1) }];
            let asked = world.rng.pick(&asked).clone();
            world.command(service, &asked)?;
        }
        11 => {
            let instances = world.rng.below(6) as u32;
            world.command(service, &Command::Scale { instances })?;
        }
        12 => {
            let (spec, fate) = (any_spec(&mut world.rng), any_fate(&mut world.rng));
            world.deploy(service, spec, fate, http())?;
        }
        // Something runs that nobody recorded.
        13 => {
            let stray = basalt_model::InstanceId::new(service.clone(), 1 + world.rng.below(3) as u32, 77);
            let generation = world.backend.started.get(&stray).copied().unwrap_or(0) + 1;
            world.backend.start(now, &stray, generation, Fate::Good, false);
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn no_fault_breaks_a_law() {
    for_seeds(0..1500, |world| {
        let n = world.rng.below(5) as u32;
        world.delay = Millis(world.rng.below(500));
        world.flight = Millis(world.rng.below(5000));
        world.twice = world.rng.chance(50);
        let web = serving(world, n)?;
        for _ in 0..world.rng.below(40) {
            fault(world, &web)?;
            let time = Millis(world.rng.below(4000));
            world.pass(time)?;
        }
        // Once faults end, all comes to rest, and what is recorded is what runs.
        (world.backend_up, world.router_up) = (true, true);
        world.command(&web, &Command::Resume)?;
        for fate in world.fates.values_mut() {
            *fate = Fate::Good;
        }
        for instance in world.backend.instances.values_mut() {
            instance.sick_until = Some(world.now);
        }
        world.pass(Millis::seconds(2400))?;
        rests(world, &web)
    });
}

/// Each strategy with each way to end, as they are cut.
fn courses() -> Vec<(RolloutSpec, Fate)> {
    let step = |percent| CanaryStep { weight: Weight::percent(percent), hold: Millis(500), approval: false };
    let strategies = [
        Strategy::Rolling { max_surge: Share::Count(1), max_unavailable: Share::Count(1) },
        Strategy::Rolling { max_surge: Share::Count(0), max_unavailable: Share::Count(1) },
        Strategy::BlueGreen,
        Strategy::Canary { instances: Share::Count(1), steps: vec![step(10), step(60)] },
        Strategy::Recreate,
    ];
    let fates = [Fate::Good, Fate::Crashes, Fate::NeverHealthy, Fate::SickAfter(Millis(600)), Fate::CannotStart];
    let spec = |strategy: &Strategy| RolloutSpec {
        strategy: strategy.clone(),
        hold: Millis::seconds(1),
        keep_old: Millis::seconds(20),
        ..RolloutSpec::default()
    };
    strategies.iter().flat_map(|s| fates.iter().map(move |f| (spec(s), *f))).collect()
}

#[test]
fn the_journal_may_be_cut_after_every_event() {
    let course = |world: &mut World, spec: &RolloutSpec, fate: Fate, cut: Option<usize>| {
        world.cut_at = cut;
        let web = serving(world, 3)?;
        world.deploy(&web, spec.clone(), fate, http())?;
        let outcome = world.finish(&web, Millis::seconds(900))?;
        world.pass(Millis::seconds(60))?;
        rests(world, &web)?;
        world.record(&[Event::ServiceRetired { service: web.clone() }])?;
        world.pass(Millis::seconds(10))?;
        if !world.state.services.is_empty() || !world.backend.instances.is_empty() {
            return Err(world.told("something is left of a removed service"));
        }
        Ok::<_, String>(outcome.map(|o| std::mem::discriminant(&o)))
    };
    let mut cuts = 0;
    for (spec, fate) in courses() {
        let told = |world: &World, what: String| format!("{:?}, {fate:?}: {what}\n{:#?}", spec.strategy, world.journal);
        let mut whole = World::new(1);
        let wanted = course(&mut whole, &spec, fate, None).unwrap_or_else(|e| panic!("{}", told(&whole, e)));
        for cut in 1..whole.journal.len() {
            let mut world = World::new(1);
            let outcome = course(&mut world, &spec, fate, Some(cut));
            let outcome = outcome.unwrap_or_else(|e| panic!("cut after {cut}: {}", told(&world, e)));
            assert_eq!(outcome, wanted, "cut after {cut}: {}", told(&world, String::new()));
            cuts += 1;
        }
    }
    assert!(cuts > 500, "only {cuts} cuts");
}

#[test]
fn a_warm_release_takes_over_at_once() {
    for_seeds(0..50, |world| {
        let web = serving(world, 3)?;
        let spec =
            RolloutSpec { strategy: Strategy::BlueGreen, keep_old: Millis::seconds(60), ..RolloutSpec::default() };
        world.deploy(&web, spec, Fate::Good, http())?;
        expect(world, &web, Outcome::Done)?;
        let starts = world.backend.started.values().sum::<u64>();
        let began = world.now;
        world.command(&web, &Command::Rollback { to: None })?;
        expect(world, &web, Outcome::Done)?;
        assert_eq!(world.state.services[&web].stable, Some(1));
        assert_eq!(world.backend.started.values().sum::<u64>(), starts, "nothing had to be started");
        assert!(world.now.since(began) < Millis(200), "took {}", world.now.since(began));
        rests(world, &web)
    });
}

#[test]
fn a_broken_release_gives_way_to_the_warm_one_by_itself() {
    for_seeds(0..50, |world| {
        let web = serving(world, 3)?;
        let spec =
            RolloutSpec { strategy: Strategy::BlueGreen, keep_old: Millis::seconds(60), ..RolloutSpec::default() };
        world.deploy(&web, spec, Fate::SickAfter(Millis::seconds(5)), http())?;
        expect(world, &web, Outcome::Done)?;
        world.pass(Millis::seconds(30))?;
        assert_eq!(world.state.services[&web].stable, Some(1));
        rests(world, &web)
    });
}

#[test]
fn a_killed_instance_is_replaced_at_once() {
    for_seeds(0..50, |world| {
        let web = serving(world, 4)?;
        world.pass(Millis::seconds(5))?;
        let id = world.backend.instances.keys().next().cloned().ok_or("no instance")?;
        let killed = world.now;
        world.backend.instances.get_mut(&id).ok_or("no instance")?.end(killed + Millis(1), Exit::Signal(9));
        world.step(killed + Millis(1))?;
        while healthy(world, &web) < 4 {
            world.step(killed + Millis(500))?;
        }
        assert!(world.now.since(killed) <= Millis(100), "took {}", world.now.since(killed));
        rests(world, &web)
    });
}

#[test]
fn what_keeps_dying_is_started_ever_more_rarely() {
    for_seeds(0..20, |world| {
        let web = serving(world, 2)?;
        world.fates.insert((web.clone(), 1), Fate::Crashes);
        for instance in world.backend.instances.values_mut() {
            instance.end(world.now, Exit::Code(1));
        }
        let rows = world.journal.len();
        world.pass(Millis::seconds(3600))?;
        let exits = |(_, e): &&(Millis, Event)| matches!(e, Event::InstanceExited { .. });
        let count = world.journal[rows..].iter().filter(exits).count();
        // Eight tries until the pause is a minute, then one a minute.
        assert!((100..=140).contains(&count), "{count} exits in an hour");
        world.fates.insert((web.clone(), 1), Fate::Good);
        world.pass(Millis::seconds(70))?;
        rests(world, &web)
    });
}

#[test]
fn the_sick_is_replaced_new_before_old() {
    for_seeds(0..50, |world| {
        let web = serving(world, 4)?;
        let id = world.backend.instances.keys().next().cloned().ok_or("no instance")?;
        world.backend.instances.get_mut(&id).ok_or("no instance")?.sick_from = Some(world.now);
        world.pass(Millis::seconds(2))?;
        assert!(!world.state.services[&web].instances.contains_key(&id));
        let kinds: Vec<&str> = world.journal.iter().map(|(_, e)| e.kind()).collect();
        let find = |kind| kinds.iter().rposition(|k| *k == kind);
        assert!(find("instance_requested") < find("instance_drained"));
        rests(world, &web)
    });
}

#[test]
fn a_rolling_update_given_up_half_way_keeps_serving() {
    for_seeds(0..200, |world| {
        let web = serving(world, 4)?;
        let rolling = Strategy::Rolling { max_surge: Share::Count(1), max_unavailable: Share::Count(0) };
        let spec = RolloutSpec { strategy: rolling, hold: Millis::seconds(2), ..RolloutSpec::default() };
        world.deploy(&web, spec.clone(), Fate::Good, http())?;
        let time = Millis(world.rng.below(1500));
        world.pass(time)?;
        match world.rng.below(3) {
            0 => {
                world.command(&web, &Command::Abort)?;
            }
            1 => {
                world.deploy(&web, spec, Fate::Good, http())?;
            }
            _ => {
                world.command(&web, &Command::Rollback { to: Some(1) })?;
            }
        }
        let end = world.now + Millis::seconds(100);
        world.turn()?;
        while world.state.services[&web].rollout.is_some() && world.now < end {
            world.step(end)?;
            let live = |i: &basalt_model::Instance| i.state == InstanceState::Wanted;
            let instances = &world.state.services[&web].instances;
            let well = instances.iter().filter(|(id, i)| live(i) && world.healthy(id)).count();
            if well < 4 {
                return Err(world.told(&format!("only {well} serve")));
            }
        }
        rests(world, &web)
    });
}

#[test]
fn chance_repeats() {
    let run = || {
        let mut world = World::new(7);
        let web = serving(&mut world, 3).unwrap();
        for _ in 0..20 {
            fault(&mut world, &web).unwrap();
            world.pass(Millis(500)).unwrap();
        }
        world.journal
    };
    assert_eq!(run(), run());
    assert_ne!(Rng::new(1).bits(), Rng::new(2).bits());
}
