//! Jobs: once each, in order, tried again, stopped when their time is over.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{Event, Exit, InstanceId, Job, JobState, Millis, Name, Phase, State};
use basalt_rollout::{Action, Decision, InstanceSeen, Life, Observation, Waiting, decide_job, evolve};
use support::*;

type Seen = BTreeMap<InstanceId, InstanceSeen>;

fn declared(retries: u32, depends_on: &[&str]) -> State {
    let mut state = State::default();
    let created = Event::JobCreated {
        job: name("migrate"),
        number: 1,
        release: Arc::new(release(1)),
        retries,
        timeout: Millis::seconds(60),
        depends_on: depends_on.iter().map(|n| name(n)).collect(),
    };
    evolve(&mut state, NOW, &created).unwrap();
    state
}

fn job(state: &State) -> &Job {
    &state.jobs[&name("migrate")]
}

fn instance_id() -> InstanceId {
    InstanceId::new(name("migrate"), 1, 1)
}

fn seen(generation: u64, life: Life) -> Seen {
    let seen = InstanceSeen { life, healthy: None, routed: false, ..running(generation, None) };
    BTreeMap::from([(instance_id(), seen)])
}

fn ended(code: i32) -> Life {
    Life::Ended { exit: Exit::Code(code), at: NOW, last_lines: vec!["last".into()] }
}

fn ask_job(state: &State, at: Millis, instances: &Seen, jobs: &BTreeMap<Name, JobState>) -> Decision {
    let seen = Observation {
        at,
        backend_connected: true,
        router_connected: true,
        routes_in_force: in_force(true),
        instances,
        jobs,
        callers: &BTreeMap::new(),
    };
    decide_job(&name("migrate"), job(state), &seen)
}

/// Asks and records until nothing more is decided; returns the kinds of events and the last decision.
fn settle(state: &mut State, at: Millis, instances: &Seen) -> (Vec<&'static str>, Decision) {
    let mut kinds = Vec::new();
    for _ in 0..10 {
        if !state.jobs.contains_key(&name("migrate")) {
            return (kinds, Decision::default());
        }
        let decision = ask_job(state, at, instances, &BTreeMap::new());
        if decision.events.is_empty() {
            return (kinds, decision);
        }
        for event in &decision.events {
            kinds.push(event.kind());
            evolve(state, at, event).unwrap();
        }
    }
    panic!("no rest: {kinds:?}");
}

#[test]
fn a_job_runs_once() {
    let mut state = declared(0, &[]);
    let (kinds, decision) = settle(&mut state, NOW, &Seen::new());
    assert_eq!(kinds, ["job_started"]);
    assert_eq!(decision.actions, [Action::Start { instance: instance_id(), generation: 1 }]);
    let (kinds, decision) = settle(&mut state, NOW, &seen(1, ended(0)));
    assert_eq!(kinds, ["job_succeeded"]);
    assert_eq!(decision.actions, [Action::Forget { instance: instance_id(), generation: 1 }]);
    assert_eq!(settle(&mut state, NOW, &Seen::new()), (vec![], Decision::default()));
}

#[test]
fn a_failed_try_is_followed_by_another_while_there_are_some() {
    let mut state = declared(2, &[]);
    settle(&mut state, NOW, &Seen::new());
    for (generation, pause) in [(1, 0), (2, 1)] {
        let (kinds, decision) = settle(&mut state, NOW, &seen(generation, ended(1)));
        assert_eq!(kinds, ["job_attempt_failed"]);
        assert!(matches!(decision.actions[..], [Action::Forget { .. }]), "the old try goes before a new one starts");
        let later = NOW + Millis::seconds(pause);
        assert_eq!(settle(&mut state, later, &Seen::new()).0, ["job_started"]);
    }
    let (kinds, _) = settle(&mut state, NOW, &seen(3, ended(1)));
    assert_eq!(kinds, ["job_attempt_failed"]);
    assert!(matches!(job(&state).state, JobState::Failed { exit: Exit::Code(1), .. }));
    // Declared again, it is as good as new.
    let again = Event::JobCreated {
        job: name("migrate"),
        number: 1,
        release: job(&state).release.clone(),
        retries: 2,
        timeout: Millis::seconds(60),
        depends_on: Vec::new(),
    };
    evolve(&mut state, NOW, &again).unwrap();
    assert_eq!(settle(&mut state, NOW, &Seen::new()).0, ["job_started"]);
    assert_eq!(job(&state).generation, 4);
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_has_failed() {
    let mut state = declared(0, &[]);
    settle(&mut state, NOW, &Seen::new());
    let running = seen(1, Life::Running { pid: 1, since: NOW });
    let (kinds, decision) = settle(&mut state, NOW, &running);
    assert!(kinds.is_empty() && decision.actions.is_empty());
    assert_eq!(decision.wake_at, Some(NOW + Millis::seconds(60)));
    let (kinds, decision) = settle(&mut state, NOW + Millis::seconds(60), &running);
    assert_eq!(kinds, ["job_stop_requested"]);
    assert!(matches!(decision.actions[..], [Action::Stop { generation: 1, .. }]));
    assert_eq!(settle(&mut state, NOW, &seen(1, ended(0))).0, ["job_attempt_failed"], "too late is failed");
}

#[test]
fn a_job_waits_for_those_before_it() {
    let state = declared(0, &["first"]);
    let waits = ask_job(&state, NOW, &Seen::new(), &BTreeMap::new());
    assert_eq!(waits.waiting, [Waiting::Job { job: name("first") }]);
    let done = BTreeMap::from([(name("first"), JobState::Succeeded { at: NOW })]);
    assert_eq!(kinds(&ask_job(&state, NOW, &Seen::new(), &done)), ["job_started"]);
}

#[test]
fn a_retired_job_leaves_nothing() {
    let mut state = declared(0, &[]);
    settle(&mut state, NOW, &Seen::new());
    evolve(&mut state, NOW, &Event::JobRetired { job: name("migrate") }).unwrap();
    let (kinds, decision) = settle(&mut state, NOW, &seen(1, Life::Running { pid: 1, since: NOW }));
    assert_eq!(kinds, ["job_stop_requested"]);
    assert!(matches!(decision.actions[..], [Action::Stop { .. }]));
    let (_, decision) = settle(&mut state, NOW, &seen(1, ended(0)));
    assert!(matches!(decision.actions[..], [Action::Forget { .. }]), "{decision:?}");
    assert!(settle(&mut state, NOW, &Seen::new()).0.ends_with(&["job_removed"]));
    // The name comes back: generations go on.
    let back = declared(0, &[]);
    assert_eq!(job(&back).generation, 0);
    assert_eq!(state.generations[&name("migrate")], 1);
}

#[test]
fn a_rollout_waits_for_its_jobs_and_fails_with_them() {
    let mut web = rolling_out(service(2), basalt_model::Strategy::BlueGreen, Phase::Preparing);
    web.settings.depends_on = vec![name("migrate")];
    let well = all_well(&web);
    let check = |state: Option<JobState>, expected: &[&str]| {
        let jobs: BTreeMap<Name, JobState> = state.into_iter().map(|s| (name("migrate"), s)).collect();
        let seen = Observation {
            at: NOW,
            backend_connected: true,
            router_connected: true,
            routes_in_force: in_force(true),
            instances: &well,
            jobs: &jobs,
            callers: &BTreeMap::new(),
        };
        let decision = basalt_rollout::decide(&name("web"), &web, &seen);
        assert_eq!(kinds(&decision), expected);
        if expected.is_empty() {
            assert!(decision.waiting.contains(&Waiting::Job { job: name("migrate") }));
        }
    };
    check(None, &[]);
    check(Some(JobState::Pending), &[]);
    check(Some(JobState::Succeeded { at: NOW }), &["rollout_advanced", "instance_requested", "instance_requested"]);
    check(Some(JobState::Failed { exit: Exit::Code(1), at: NOW }), &["rollout_advanced"]);
}

#[test]
fn a_job_behind_one_that_failed_is_not_run_and_says_so() {
    let mut state = declared(3, &["before"]);
    let failed = JobState::Failed { exit: Exit::Code(7), at: NOW };
    let decision = ask_job(&state, NOW, &Seen::new(), &BTreeMap::from([(name("before"), failed)]));
    let [event @ Event::JobAttemptFailed { exit: Exit::CouldNotStart(why), last: true, .. }] = &decision.events[..]
    else {
        panic!("{decision:?}")
    };
    assert!(why.contains("`before`"), "{why}");
    evolve(&mut state, NOW, event).unwrap();
    assert!(matches!(job(&state).state, JobState::Failed { .. }));
}

#[test]
fn one_whose_time_is_over_says_so_however_it_ends() {
    let mut state = declared(0, &[]);
    settle(&mut state, NOW, &Seen::new());
    let late = NOW + Millis::seconds(60);
    let running = seen(1, Life::Running { pid: 1, since: NOW });
    assert_eq!(settle(&mut state, late, &running).0, ["job_stop_requested"]);
    settle(&mut state, late, &seen(1, ended(0)));
    let JobState::Failed { exit, .. } = &job(&state).state else { panic!("{:?}", job(&state)) };
    assert_eq!(exit.to_string(), "did not end within 1m");
}
