//! What simulated people do: they declare services, deploy releases and wait for the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{
    CanaryStep, Digest, Event, Health, HealthCheck, Kind, Millis, Name, Outcome, Port, Protocol, Release,
    ReleaseNumber, RolloutSpec, Route, Settings, Share, Strategy, Weight,
};
use basalt_rollout::start_rollout;

use super::backend::Fate;
use super::rng::Rng;
use super::world::World;

/// Returns a name that is one.
pub fn name(text: &str) -> Name {
    text.parse().expect("names in scenarios are valid")
}

/// Returns a release of a service that differs from others by its number.
pub fn release(number: ReleaseNumber, check: HealthCheck) -> Release {
    Release {
        env: BTreeMap::from([("NUMBER".into(), number.to_string())]),
        ports: BTreeMap::from([(name("http"), Port::new(8080, Protocol::Http))]),
        health: Health { check, start_within: Millis::seconds(5), ..Health::default() },
        routes: vec![Route::new(None, "/", name("http"))],
        ..Release::new(Kind::Service, Digest::from_bytes([0; 32]))
    }
}

/// Returns a check that the gateway makes.
pub fn http() -> HealthCheck {
    HealthCheck::Http { path: "/".into(), port: name("http") }
}

/// Returns some way to pass to a new release.
pub fn any_spec(rng: &mut Rng) -> RolloutSpec {
    let share = |rng: &mut Rng| match rng.below(3) {
        0 => Share::Percent(25),
        1 => Share::Percent(50),
        _ => Share::Count(rng.below(3) as u32),
    };
    let strategy = match rng.below(4) {
        0 => Strategy::Rolling { max_surge: share(rng), max_unavailable: share(rng) },
        1 => Strategy::BlueGreen,
        2 => {
            let weights = rng.below(4);
            let step = |i| CanaryStep {
                weight: Weight::percent(10 + 25 * i as u32),
                hold: Millis(rng.below(3000)),
                approval: false,
            };
            let steps = (0..weights).map(step).collect();
            Strategy::Canary { instances: share(rng), steps }
        }
        _ => Strategy::Recreate,
    };
    let hold = Millis(rng.below(2) * rng.below(5000));
    let keep_old = Millis(rng.below(2) * rng.below(60_000));
    RolloutSpec { strategy, hold, keep_old, ..RolloutSpec::default() }
}

/// Returns some fate of a release, good half of the time.
pub fn any_fate(rng: &mut Rng) -> Fate {
    match rng.below(12) {
        0 => Fate::CannotStart,
        1 => Fate::Crashes,
        2 => Fate::NeverHealthy,
        3 => Fate::DiesAfter(Millis(20 + rng.below(3000))),
        4 | 5 => Fate::SickAfter(Millis(rng.below(3000))),
        _ => Fate::Good,
    }
}

/// Runs a scenario for many seeds; a seed that fails is named. `BASALT_SIM_SEEDS=FIRST..LAST` runs others instead.
///
/// # Panics
/// If a scenario fails.
pub fn for_seeds(seeds: std::ops::Range<u64>, scenario: impl Fn(&mut World) -> Result<(), String>) {
    let asked = std::env::var("BASALT_SIM_SEEDS").ok();
    let range = asked.as_deref().and_then(|text| text.split_once("..")).map(|(first, last)| {
        first.parse().expect("BASALT_SIM_SEEDS starts with a number")..last.parse().expect("and ends with one")
    });
    for seed in range.unwrap_or(seeds) {
        let mut world = World::new(seed);
        if let Err(what) = scenario(&mut world) {
            let last = &world.journal[world.journal.len().saturating_sub(30)..];
            let events: Vec<String> = last.iter().map(|(at, e)| format!("{} {e:?}", at.0)).collect();
            panic!(
                "{what}\nlast events:\n{}\nstate: {:#?}\ndecisions: {:#?}",
                events.join("\n"),
                world.state.services.values().map(|s| (&s.stable, &s.rollout, &s.instances)).collect::<Vec<_>>(),
                world.decisions
            );
        }
    }
}

impl World {
    /// Declares a service.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn declare(&mut self, service: &Name, settings: Settings) -> Result<(), String> {
        let slot = self.state.services.len() as u16;
        self.record(&[Event::ServiceCreated { service: service.clone(), slot, settings }])
    }

    /// Begins to pass to a new release with a fate; returns its number.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn deploy(
        &mut self,
        service: &Name,
        spec: RolloutSpec,
        fate: Fate,
        check: HealthCheck,
    ) -> Result<ReleaseNumber, String> {
        let number = self.state.services[service].last_release + 1;
        self.deploy_release(service, spec, fate, release(number, check))
    }

    /// Begins to pass to a release with a fate; returns its number.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn deploy_release(
        &mut self,
        service: &Name,
        spec: RolloutSpec,
        fate: Fate,
        release: Release,
    ) -> Result<ReleaseNumber, String> {
        let number = self.state.services[service].last_release + 1;
        let release = Arc::new(release);
        self.fates.insert((service.clone(), number), fate);
        self.record(&[Event::ReleaseCreated { service: service.clone(), number, release }])?;
        let event = start_rollout(service, &self.state.services[service], self.now, number, spec);
        self.record(&[event])?;
        Ok(number)
    }

    /// Lets time pass until no rollout is under way, or the time is over; returns how the last one ended.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn finish(&mut self, service: &Name, within: Millis) -> Result<Option<Outcome>, String> {
        let until = self.now + within;
        self.turn()?;
        while self.state.services.get(service).is_some_and(|s| s.rollout.is_some()) {
            if self.now >= until {
                return Ok(None);
            }
            self.step(until)?;
        }
        Ok(self.state.services.get(service).and_then(|s| s.last_rollout.clone()).map(|l| l.outcome))
    }

    /// Lets so much time pass.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn pass(&mut self, time: Millis) -> Result<(), String> {
        let until = self.now + time;
        self.turn()?;
        while self.now < until {
            self.step(until)?;
        }
        Ok(())
    }
}
