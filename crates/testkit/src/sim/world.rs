//! A whole small Basalt in virtual time: journal, controller loop, backend and gateway, with faults.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use basalt_model::{Event, InstanceId, JobState, Millis, Name, ReleaseNumber, State};
use basalt_rollout::{
    Action, Command, Decision, InForce, InstanceSeen, Life, Observation, SentRoutes, callers, command, decide,
    decide_job, evolve, routes,
};

use super::backend::{Fate, SimBackend};
use super::laws;
use super::rng::Rng;
use super::router::SimRouter;

/// Rounds of decisions at one observation. They come to rest long before.
const ROUNDS: usize = 20;

/// A simulated Basalt.
pub struct World {
    /// The seed it began with.
    pub seed: u64,
    /// Chance.
    pub rng: Rng,
    /// The time.
    pub now: Millis,
    /// What is recorded.
    pub state: State,
    /// Every event so far.
    pub journal: Vec<(Millis, Event)>,
    /// Where instances live.
    pub backend: SimBackend,
    /// What routes to them.
    pub router: SimRouter,
    /// Whether the controller reaches the backend.
    pub backend_up: bool,
    /// Whether the controller reaches the router.
    pub router_up: bool,
    /// The fate of instances by release; those of others are good.
    pub fates: BTreeMap<(Name, ReleaseNumber), Fate>,
    /// How long a table takes to come into force, at most.
    pub delay: Millis,
    /// How long a last request takes, at most.
    pub flight: Millis,
    /// Whether each action is performed twice.
    pub twice: bool,
    /// The controller is killed as soon as the journal has so many rows.
    pub cut_at: Option<usize>,
    /// The last decision about each service.
    pub decisions: BTreeMap<Name, Decision>,
    sent: Option<SentRoutes>,
    last_seen: BTreeMap<InstanceId, InstanceSeen>,
    wake_at: Option<Millis>,
}

impl World {
    /// Returns an empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed),
            now: Millis::seconds(1_000_000),
            state: State::default(),
            journal: Vec::new(),
            backend: SimBackend::default(),
            router: SimRouter::default(),
            backend_up: true,
            router_up: true,
            fates: BTreeMap::new(),
            delay: Millis(10),
            flight: Millis::ZERO,
            twice: false,
            cut_at: None,
            decisions: BTreeMap::new(),
            sent: None,
            last_seen: BTreeMap::new(),
            wake_at: None,
        }
    }

    /// Records events; each is checked against the laws first.
    ///
    /// # Errors
    /// If an event does not fit, or breaks a law.
    pub fn record(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            laws::before_event(self, event)?;
            evolve(&mut self.state, self.now, event).map_err(|e| self.told(&e.to_string()))?;
            self.journal.push((self.now, event.clone()));
            if self.cut_at == Some(self.journal.len()) {
                return self.crash();
            }
        }
        Ok(())
    }

    /// Gives a command, as a person would; a refused one changes nothing.
    ///
    /// # Errors
    /// If its events break a law.
    pub fn command(&mut self, name: &Name, asked: &Command) -> Result<bool, String> {
        let Some(service) = self.state.services.get(name) else { return Ok(false) };
        match command(name, service, self.now, asked) {
            Ok(events) => self.record(&events).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Kills the controller and starts it again: all it knows is the journal.
    ///
    /// # Errors
    /// If the journal does not give the same state again.
    pub fn crash(&mut self) -> Result<(), String> {
        let mut state = State::default();
        for (at, event) in &self.journal {
            evolve(&mut state, *at, event).map_err(|e| self.told(&e.to_string()))?;
        }
        if state != self.state {
            return Err(self.told("the journal gives another state than the one that was live (law 5)"));
        }
        self.sent = None;
        self.last_seen = BTreeMap::new();
        self.cut_at = None;
        Ok(())
    }

    /// Lets time pass until something happens, and lets the controller react; at most until `until`.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn step(&mut self, until: Millis) -> Result<(), String> {
        let world =
            self.backend.next_change(self.now).into_iter().chain(self.router.next_change(self.now, &self.backend));
        let wake = self.wake_at.filter(|at| *at > self.now);
        self.now = world.chain(wake).min().unwrap_or(until).min(until).max(self.now + Millis(1));
        let (rng, flight) = (&mut self.rng, self.flight);
        self.router.tick(self.now, || Millis(rng.below(flight.0 + 1)));
        self.turn()?;
        laws::after_turn(self)
    }

    /// One turn of the controller: records until there is nothing more to decide, then performs.
    ///
    /// # Errors
    /// If a law is broken, or decisions do not come to rest.
    pub fn turn(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            let seen = self.observe();
            let mut events = Vec::new();
            let mut actions = Vec::new();
            self.wake_at = None;
            let jobs: BTreeMap<Name, JobState> =
                self.state.jobs.iter().map(|(n, j)| (n.clone(), j.state.clone())).collect();
            let observation = Observation {
                at: self.now,
                backend_connected: self.backend_up,
                router_connected: self.router_up,
                routes_in_force: self.in_force(&seen),
                instances: &seen,
                jobs: &jobs,
                callers: &callers(&self.state),
            };
            let on_jobs = self.state.jobs.iter().map(|(n, j)| (n.clone(), decide_job(n, j, &observation)));
            let on_services = self.state.services.iter().map(|(n, s)| (n.clone(), decide(n, s, &observation)));
            let decisions: BTreeMap<Name, Decision> = on_jobs.chain(on_services).collect();
            for decision in decisions.values() {
                events.extend(decision.events.iter().cloned());
                actions.extend(decision.actions.iter().cloned());
                self.wake_at = self.wake_at.into_iter().chain(decision.wake_at).min();
            }
            self.decisions = decisions;
            if !events.is_empty() {
                self.record(&events)?;
                continue;
            }
            self.send_routes(&seen);
            // What an action changes at once is news to the controller.
            let at_once = |a: &Action| matches!(a, Action::Forget { .. });
            let news = (self.backend_up && actions.iter().any(at_once)).then_some(self.now + Millis(1));
            self.wake_at = self.wake_at.into_iter().chain(news).min();
            for action in actions {
                laws::before_action(self, &action)?;
                self.perform(&action);
                if self.twice {
                    self.perform(&action);
                }
            }
            return Ok(());
        }
        let last = &self.journal[self.journal.len().saturating_sub(6)..];
        Err(self.told(&format!("decisions do not come to rest; the last were {last:#?}")))
    }

    /// Returns what the controller sees of instances now.
    pub fn observe(&mut self) -> BTreeMap<InstanceId, InstanceSeen> {
        if self.backend_up {
            let of = |(id, i): (&InstanceId, &super::SimInstance)| {
                let (generation, life) = (i.generation, i.life(self.now));
                let address = (life != Life::Starting).then_some(i.address);
                let seen = InstanceSeen {
                    generation,
                    life,
                    address,
                    healthy: None,
                    last_probe: None,
                    routed: false,
                    in_flight: 0,
                };
                (id.clone(), seen)
            };
            self.last_seen = self.backend.instances.iter().map(of).collect();
        }
        let mut seen = self.last_seen.clone();
        if self.router_up {
            for id in self.router.named().chain(self.router.flights.keys()) {
                seen.entry(id.clone()).or_insert_with(|| InstanceSeen {
                    generation: 0,
                    life: Life::Absent,
                    address: None,
                    healthy: None,
                    last_probe: None,
                    routed: false,
                    in_flight: 0,
                });
            }
        }
        for (id, seen) in &mut seen {
            if self.router_up {
                seen.routed = self.router.names(id);
                seen.in_flight = self.router.in_flight(self.now, id);
            }
            let running = matches!(seen.life, Life::Running { .. });
            seen.healthy = if by_router(&self.state, id) {
                self.router.verdict(self.now, id, &self.backend).filter(|_| self.router_up && running)
            } else {
                running.then_some(true)
            };
        }
        seen
    }

    /// Returns whether an instance is judged healthy at this moment, whoever can be reached.
    pub fn healthy(&self, id: &InstanceId) -> bool {
        match by_router(&self.state, id) {
            true => self.router.verdict(self.now, id, &self.backend) == Some(true),
            false => self.backend.instances.get(id).is_some_and(|i| i.runs(self.now)),
        }
    }

    /// Returns a message with the seed and the time, so that the run can be repeated.
    pub fn told(&self, what: &str) -> String {
        format!("seed {}, at {} with {} events: {what}", self.seed, self.now.0, self.journal.len())
    }

    /// Returns whether nothing is left to be done or waited for.
    pub fn at_rest(&self) -> bool {
        let idle = |d: &Decision| d.events.is_empty() && d.actions.is_empty() && d.waiting.is_empty();
        self.decisions.values().all(idle)
            && self.state.services.values().all(|s| s.rollout.is_none())
            && self.router.next_change(self.now, &self.backend).is_none()
    }

    fn in_force(&self, seen: &BTreeMap<InstanceId, InstanceSeen>) -> InForce {
        let sent = self.sent.as_ref().filter(|_| self.router_up);
        let routes = || routes(&self.state, seen, &address);
        sent.map(|sent| sent.in_force(self.router.table.version, &routes())).unwrap_or_default()
    }

    fn send_routes(&mut self, seen: &BTreeMap<InstanceId, InstanceSeen>) {
        if !self.router_up || self.sent.is_none() && !self.backend_up {
            return;
        }
        let services = routes(&self.state, seen, &address);
        if let Some(next) = SentRoutes::next(self.sent.as_ref(), self.router.table.version, services) {
            self.sent = Some(next);
        }
        // What was lost on the way is sent again; a router takes each version once.
        if let Some(sent) = &self.sent {
            let delay = Millis(self.rng.below(self.delay.0 + 1));
            self.router.set(self.now, delay, sent.table().clone());
        }
    }

    fn perform(&mut self, action: &Action) {
        if !self.backend_up {
            return;
        }
        match action {
            Action::Start { instance, generation } => {
                let key = (instance.service().clone(), instance.release());
                let fate = self.fates.get(&key).copied().unwrap_or(Fate::Good);
                let job = self.state.jobs.contains_key(instance.service());
                self.backend.start(self.now, instance, *generation, fate, job);
            }
            Action::Stop { instance, generation, .. } => self.backend.stop(self.now, instance, *generation),
            Action::Forget { instance, generation } => self.backend.forget(self.now, instance, *generation),
        }
    }
}

fn by_router(state: &State, id: &InstanceId) -> bool {
    let release = state.services.get(id.service()).and_then(|s| s.releases.get(&id.release()));
    release.is_some_and(|r| r.health.check.port().is_some())
}

/// Returns the virtual address of a slot.
fn address(slot: u16) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + u32::from(slot))
}
