//! A moment in the middle of a canary, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_controller::View;
use basalt_model::{
    CanaryStep, Digest, Exit, Generation, Health, HealthCheck, Instance, InstanceId, InstanceState, Job, JobState,
    Kind, LastRollout, Limits, Millis, Name, Outcome, Phase, Port, Protocol, Release, Rollout, RolloutSpec, Route,
    Service, Settings, Share, State, StopReason, Strategy, Weight,
};
use basalt_rollout::{InstanceSeen, Life, Waiting};
use basalt_seam::{InstanceTraffic, RouterSeen};

/// 2026-07-30T12:00:00Z.
pub(crate) const NOW: Millis = Millis(1_785_412_800_000);

fn before(seconds: u64) -> Millis {
    NOW - Millis::seconds(seconds)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn instance(release: u32, ordinal: u32) -> InstanceId {
    InstanceId::new(name("web"), release, ordinal)
}

/// A release with a port, a route and a check.
pub(crate) fn release() -> Release {
    let http = name("http");
    Release {
        kind: Kind::Service,
        image: Digest::from_bytes([7; 32]),
        command: None,
        env: BTreeMap::from([("LOG".to_owned(), "info".to_owned())]),
        user: None,
        workdir: None,
        ports: BTreeMap::from([
            (name("admin"), Port::new(9000, Protocol::Tcp)),
            (http.clone(), Port::new(8080, Protocol::Http)),
        ]),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env_secrets: BTreeMap::new(),
        scratch: Vec::new(),
        volumes: BTreeMap::new(),
        limits: Limits::default(),
        capabilities: Vec::new(),
        egress: false,
        connects_to: Vec::new(),
        health: Health { check: HealthCheck::Http { path: "/".into(), port: http.clone() }, ..Health::default() },
        routes: vec![Route::new(Some("shop.example.com"), "/", http)],
    }
}

fn recorded(generation: Generation, state: InstanceState) -> Instance {
    Instance {
        generation,
        state,
        requested_at: before(60),
        healthy_at: None,
        failed_at: None,
        exits: 0,
        last_exit: None,
    }
}

fn running(generation: Generation, last: u8, healthy: Option<bool>) -> InstanceSeen {
    InstanceSeen {
        generation,
        life: Life::Running { pid: 4000 + u32::from(last), since: before(50) },
        address: Some([10, 83, 0, last].into()),
        healthy,
        last_probe: healthy.map(|healthy| if healthy { "GET / → 200".into() } else { "GET / → 503".into() }),
        routed: true,
        in_flight: 0,
    }
}

/// The service `web` in the middle of a canary from release 7 to release 8, and the job `migrate` that failed.
pub(crate) fn view() -> View {
    let (web, migrate) = (name("web"), name("migrate"));
    let release = Arc::new(release());
    let steps = [5, 50].map(|percent| CanaryStep {
        weight: Weight::percent(percent),
        hold: Millis::seconds(120),
        approval: percent == 50,
    });
    let strategy = Strategy::Canary { instances: Share::Percent(25), steps: steps.into() };
    let settings = Settings { instances: 2, ..Settings::default() };
    let mut service = Service::new(0, settings);
    service.releases = BTreeMap::from([(7, release.clone()), (8, release.clone())]);
    service.last_release = 8;
    service.stable = Some(7);
    service.last_rollout = Some(LastRollout {
        id: "web-6".into(),
        baseline: Some(6),
        target: 7,
        outcome: Outcome::RolledBack { reason: "instance web-7-1 exited with status 1".into() },
        at: before(600),
    });
    service.rollout = Some(Rollout {
        id: "web-7".into(),
        spec: RolloutSpec { strategy, ..RolloutSpec::default() },
        baseline: Some(7),
        target: 8,
        phase: Phase::Stepping { step: 0, approved: false },
        started_at: before(60),
        phase_at: before(30),
        paused_at: None,
        paused_for: Millis::seconds(5),
        exits: 1,
        in_force_at: Some(before(30)),
        because: None,
    });
    let waits = Instance {
        exits: 3,
        last_exit: Some(Exit::OutOfMemory),
        ..recorded(9, InstanceState::Waiting { until: NOW + Millis::seconds(4) })
    };
    let draining = InstanceState::Draining { since: before(3), reason: StopReason::Unhealthy };
    service.instances = BTreeMap::from([
        (instance(7, 1), recorded(1, InstanceState::Wanted)),
        (instance(7, 2), recorded(2, draining)),
        (instance(8, 1), recorded(3, InstanceState::Wanted)),
        (instance(8, 2), waits),
        (instance(8, 3), recorded(10, InstanceState::Wanted)),
    ]);
    let job = Job {
        release: release.clone(),
        number: 2,
        retries: 1,
        timeout: Millis::seconds(60),
        depends_on: Vec::new(),
        state: JobState::Failed { exit: Exit::Code(3), at: before(90) },
        generation: 2,
        failures: 2,
        retry_at: None,
        removing: false,
    };
    let seen = BTreeMap::from([
        (instance(6, 1), running(1, 6, None)),
        (instance(7, 1), running(1, 2, Some(true))),
        (instance(7, 2), running(2, 3, Some(false))),
        (instance(8, 1), running(3, 4, None)),
        // Of an earlier start: it says nothing about the tenth.
        (instance(8, 3), running(5, 5, Some(true))),
    ]);
    let traffic =
        InstanceTraffic { generation: 2, named: false, in_flight: 3, requests: 1000, errors: 7, ..Default::default() };
    let state = State {
        stack: Some(name("shop")),
        services: BTreeMap::from([(web.clone(), service)]),
        jobs: BTreeMap::from([(migrate, job)]),
        ..State::default()
    };
    View {
        at: NOW,
        seq: 42,
        state: Arc::new(state),
        instances: Arc::new(seen),
        waiting: BTreeMap::from([(web, vec![Waiting::Hold { until: NOW + Millis::seconds(90) }])]),
        backend_connected: true,
        router: Arc::new(RouterSeen {
            connected: true,
            version: 12,
            instances: BTreeMap::from([(instance(7, 2), traffic)]),
            http: Some("127.0.0.1:8080".into()),
            problems: Vec::new(),
        }),
        routes_version: 12,
        routes_in_force: true,
        problems: vec!["port 443 is taken".into()],
    }
}
