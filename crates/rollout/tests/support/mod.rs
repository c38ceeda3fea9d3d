//! What the tests of the heart share: a service built by events, and a world in which all goes well.
#![allow(dead_code, missing_docs)] // each test file uses its part

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use basalt_model::{
    Digest, Event, Health, HealthCheck, Instance, InstanceId, InstanceState, JobState, Kind, Millis, Name, Phase, Port,
    Protocol, Release, ReleaseNumber, Rollout, RolloutSpec, Route, Service, Settings, State, Strategy, Volume,
};
use basalt_rollout::{Decision, InForce, InstanceSeen, Life, Observation, decide, evolve, start_rollout};

pub const NOW: Millis = Millis(1_000_000);

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn id(release: ReleaseNumber, ordinal: u32) -> InstanceId {
    InstanceId::new(name("web"), release, ordinal)
}

pub fn release(number: ReleaseNumber) -> Release {
    Release {
        env: BTreeMap::from([("NUMBER".into(), number.to_string())]),
        ports: BTreeMap::from([(name("http"), Port::new(8080, Protocol::Http))]),
        health: Health { check: HealthCheck::Http { path: "/".into(), port: name("http") }, ..Health::default() },
        routes: vec![Route::new(None, format!("/{number}"), name("http"))],
        ..Release::new(Kind::Service, Digest::from_bytes([0; 32]))
    }
}

pub fn exclusive(number: ReleaseNumber) -> Release {
    let volumes = BTreeMap::from([("/data".into(), Volume { name: name("data"), shared: false })]);
    Release { volumes, ..release(number) }
}

pub fn instance(generation: u64) -> Instance {
    Instance {
        generation,
        state: InstanceState::Wanted,
        requested_at: NOW,
        healthy_at: Some(NOW),
        failed_at: None,
        exits: 0,
        last_exit: None,
    }
}

/// A service with `instances` wanted, releases 1 to 3 kept, and release 1 stable with all its instances proven.
pub fn service(instances: u32) -> Service {
    let mut service = Service::new(3, Settings { instances, ..Settings::default() });
    service.releases = (1..=3).map(|n| (n, Arc::new(release(n)))).collect();
    service.last_release = 3;
    service.stable = Some(1);
    add(&mut service, 1, instances);
    service
}

/// Adds proven instances of a release.
pub fn add(service: &mut Service, release: ReleaseNumber, count: u32) {
    for ordinal in 1..=count {
        service.generation += 1;
        service.instances.insert(id(release, ordinal), instance(service.generation));
    }
}

/// The service with a rollout from what is stable to release 2.
pub fn rolling_out(mut service: Service, strategy: Strategy, phase: Phase) -> Service {
    let spec = RolloutSpec { strategy, ..RolloutSpec::default() };
    let Event::RolloutStarted { rollout, .. } = start_rollout(&name("web"), &service, NOW, 2, spec) else {
        unreachable!()
    };
    service.rollout = Some(Rollout { phase, ..*rollout });
    service
}

pub fn state(service: Service) -> State {
    State { services: BTreeMap::from([(name("web"), service)]), ..State::default() }
}

pub fn running(generation: u64, healthy: Option<bool>) -> InstanceSeen {
    InstanceSeen {
        generation,
        life: Life::Running { pid: 1, since: NOW },
        address: Some(Ipv4Addr::new(10, 0, 0, generation as u8)),
        healthy,
        last_probe: None,
        routed: true,
        in_flight: 0,
    }
}

/// What is seen if every recorded instance runs and is healthy.
pub fn all_well(service: &Service) -> BTreeMap<InstanceId, InstanceSeen> {
    service.instances.iter().map(|(id, i)| (id.clone(), running(i.generation, Some(true)))).collect()
}

/// What is in force if all is, or nothing.
pub fn in_force(all: bool) -> InForce {
    if all { InForce::everywhere() } else { InForce::default() }
}

pub fn ask(service: &Service, at: Millis, seen: &BTreeMap<InstanceId, InstanceSeen>) -> Decision {
    ask_with(service, at, seen, |_| {})
}

pub fn ask_with(
    service: &Service,
    at: Millis,
    instances: &BTreeMap<InstanceId, InstanceSeen>,
    change: impl FnOnce(&mut Observation<'_>),
) -> Decision {
    let jobs: BTreeMap<Name, JobState> = BTreeMap::new();
    let mut seen = Observation {
        at,
        backend_connected: true,
        router_connected: true,
        routes_in_force: InForce::everywhere(),
        instances,
        jobs: &jobs,
        callers: &BTreeMap::new(),
    };
    change(&mut seen);
    decide(&name("web"), service, &seen)
}

/// Applies events to a service; they must fit.
pub fn after(service: &Service, at: Millis, events: &[Event]) -> Service {
    let mut state = state(service.clone());
    for event in events {
        evolve(&mut state, at, event).unwrap();
    }
    state.services.remove(&name("web")).unwrap()
}

pub fn kinds(decision: &Decision) -> Vec<&'static str> {
    decision.events.iter().map(Event::kind).collect()
}
