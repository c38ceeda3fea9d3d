//! The heart under simulation: services that call one another, jobs that come first, people who approve, volumes that only one may have.

use std::sync::Arc;

use basalt_model::{
    CanaryStep, Event, Exit, Millis, Name, Outcome, Release, RolloutSpec, Settings, Share, Strategy, Volume, Weight,
};
use basalt_rollout::Command;
use basalt_testkit::sim::{Fate, World, any_fate, any_spec, for_seeds, http, name, release};

const LONG: Millis = Millis::seconds(900);

fn settings(instances: u32) -> Settings {
    Settings { instances, drain: Millis::seconds(3), ..Settings::default() }
}

fn serving(world: &mut World, service: &str, instances: u32, first: Release) -> Result<Name, String> {
    let service = name(service);
    world.declare(&service, settings(instances))?;
    world.deploy_release(&service, RolloutSpec::default(), Fate::Good, first)?;
    match world.finish(&service, LONG)? {
        Some(Outcome::Done) => Ok(service),
        other => Err(world.told(&format!("the first release ended as {other:?}"))),
    }
}

fn calling(number: u32, called: &[&str]) -> Release {
    Release { connects_to: called.iter().map(|text| name(text)).collect(), ..release(number, http()) }
}

#[test]
fn what_is_removed_stays_until_nobody_calls_it() {
    for_seeds(0..600, |world| {
        world.delay = Millis(world.rng.below(300));
        world.flight = Millis(world.rng.below(2000));
        let n = 1 + world.rng.below(4) as u32;
        let api = serving(world, "api", n, release(1, http()))?;
        let web = serving(world, "web", n, calling(1, &["api"]))?;
        // One apply: `web` calls nobody any more, `api` is gone from the stack.
        let (spec, fate) = (any_spec(&mut world.rng), any_fate(&mut world.rng));
        let spec = RolloutSpec { keep_old: Millis::ZERO, ..spec };
        world.deploy_release(&web, spec, fate, release(2, http()))?;
        world.record(&[Event::ServiceRetired { service: api.clone() }])?;
        if world.rng.chance(30) {
            world.pass(Millis(500))?;
            world.crash()?;
        }
        let outcome = world.finish(&web, LONG)?;
        world.pass(Millis::seconds(30))?;
        match outcome {
            Some(Outcome::Done) if world.state.services[&web].stable == Some(2) => {
                if world.state.services.contains_key(&api) {
                    return Err(world.told("nobody calls api, and it is still there"));
                }
            }
            Some(Outcome::RolledBack { .. }) => {
                let healthy = world.state.services.get(&api).map_or(0, |api| {
                    api.instances.keys().filter(|id| world.router.names(id) && world.healthy(id)).count() as u32
                });
                if healthy != n {
                    return Err(world.told(&format!("law 3: {healthy} of {n} of api are left for the old web")));
                }
                // Declared again, it stays for good.
                world.record(&[Event::ServiceConfigured { service: api.clone(), settings: settings(n) }])?;
                world.pass(Millis::seconds(30))?;
                if world.state.services[&api].removing || world.state.services[&api].instances.len() != n as usize {
                    return Err(world.told("api was declared again and does not stay"));
                }
            }
            other => return Err(world.told(&format!("{fate:?} ended as {other:?}"))),
        }
        Ok(())
    });
}

#[test]
fn of_what_goes_at_once_the_caller_goes_first_and_circles_go_too() {
    for_seeds(0..200, |world| {
        world.flight = Millis(world.rng.below(5000));
        let (web, api) = ("web", "api");
        let circle = world.rng.chance(50);
        let calls: &[&str] = if circle { &[web] } else { &[] };
        serving(world, api, 2, calling(1, calls))?;
        serving(world, web, 2, calling(1, &[api]))?;
        for service in [api, web] {
            world.record(&[Event::ServiceRetired { service: name(service) }])?;
        }
        world.pass(Millis::seconds(60))?;
        let removed = |service: &str| {
            world
                .journal
                .iter()
                .position(|(_, e)| matches!(e, Event::ServiceRemoved { service: s } if *s == name(service)))
        };
        match (removed(web), removed(api)) {
            (Some(web), Some(api)) if circle || web < api => Ok(()),
            other => Err(world.told(&format!("web and api went as {other:?}"))),
        }
    });
}

#[test]
fn jobs_come_first_and_a_failed_one_fails_the_rollout() {
    for_seeds(0..400, |world| {
        world.twice = world.rng.chance(50);
        let web = serving(world, "web", 2, release(1, http()))?;
        let job = name("migrate");
        let retries = world.rng.below(3) as u32;
        let fate = *world.rng.pick(&[Fate::Good, Fate::Crashes, Fate::CannotStart]);
        world.fates.insert((job.clone(), 1), fate);
        let depends_on = vec![job.clone()];
        let (release_of_job, timeout) = (Arc::new(release(1, http())), Millis::seconds(60));
        let declared = Event::JobCreated {
            job: job.clone(),
            number: 1,
            release: release_of_job,
            retries,
            timeout,
            depends_on: Vec::new(),
        };
        world.record(&[declared])?;
        let settings = Settings { depends_on, ..settings(2) };
        world.record(&[Event::ServiceConfigured { service: web.clone(), settings }])?;
        let spec = any_spec(&mut world.rng);
        world.deploy(&web, spec, Fate::Good, http())?;
        if world.rng.chance(50) {
            let time = Millis(world.rng.below(400));
            world.pass(time)?;
            world.crash()?;
        }
        let outcome = world.finish(&web, LONG)?;
        let tries = world.journal.iter().filter(|(_, e)| matches!(e, Event::JobStarted { .. })).count() as u32;
        match (fate, outcome) {
            (Fate::Good, Some(Outcome::Done)) if tries == 1 => Ok(()),
            (Fate::Crashes | Fate::CannotStart, Some(Outcome::RolledBack { reason })) if tries == retries + 1 => {
                let (stable, names_it) = (world.state.services[&web].stable, reason.contains("migrate"));
                let kept = stable == Some(1) && names_it;
                kept.then_some(()).ok_or_else(|| world.told(&format!("{stable:?} serves: {reason}")))
            }
            (fate, outcome) => Err(world.told(&format!("{fate:?} job, {tries} tries, ended as {outcome:?}"))),
        }
    });
}

#[test]
fn a_step_that_needs_approval_waits_for_a_person() {
    for_seeds(0..200, |world| {
        let web = serving(world, "web", 4, release(1, http()))?;
        let step = |percent, approval| CanaryStep { weight: Weight::percent(percent), hold: Millis(500), approval };
        let steps = vec![step(10, false), step(50, true)];
        let strategy = Strategy::Canary { instances: Share::Count(1), steps };
        let spec = RolloutSpec { strategy, deadline: Millis::seconds(600), ..RolloutSpec::default() };
        world.deploy(&web, spec, Fate::Good, http())?;
        let time = Millis::seconds(60 + world.rng.below(300));
        world.pass(time)?;
        let waits = world.state.services[&web].rollout.as_ref().is_some_and(|r| r.phase.name() == "shifting");
        if !waits {
            return Err(world.told("it went on, or back, without the approval that it asks for"));
        }
        if world.rng.chance(50) {
            world.crash()?;
        }
        if world.rng.chance(20) {
            // Nobody comes: at its deadline it goes back.
            return match world.finish(&web, LONG)? {
                Some(Outcome::RolledBack { .. }) => Ok(()),
                other => Err(world.told(&format!("nobody approved, and it ended as {other:?}"))),
            };
        }
        world.command(&web, &Command::Promote)?;
        match world.finish(&web, LONG)? {
            Some(Outcome::Done) => Ok(()),
            other => Err(world.told(&format!("approved, it ended as {other:?}"))),
        }
    });
}

#[test]
fn only_one_instance_has_an_exclusive_volume() {
    for_seeds(0..400, |world| {
        world.flight = Millis(world.rng.below(2000));
        let with_volume = |number| {
            let mut release = release(number, http());
            release.volumes.insert("/data".into(), Volume { name: name("data"), shared: false });
            release
        };
        let web = serving(world, "web", 1, with_volume(1))?;
        for number in 2..5 {
            let spec = RolloutSpec { strategy: Strategy::Recreate, ..RolloutSpec::default() };
            let fate = any_fate(&mut world.rng);
            world.deploy_release(&web, spec, fate, with_volume(number))?;
            for _ in 0..world.rng.below(6) {
                let time = Millis(world.rng.below(3000));
                world.pass(time)?;
                let ids: Vec<_> = world.backend.instances.keys().cloned().collect();
                match world.rng.below(3) {
                    0 => world.crash()?,
                    1 if !ids.is_empty() => {
                        let (id, now) = (world.rng.pick(&ids).clone(), world.now);
                        if let Some(instance) = world.backend.instances.get_mut(&id) {
                            instance.end(now, Exit::Signal(9));
                        }
                    }
                    _ => {
                        world.command(&web, &Command::Rollback { to: None })?;
                    }
                }
            }
            world.finish(&web, LONG)?;
        }
        Ok(())
    });
}
