//! Rows: desired beside recorded, and what the plan says.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{
    Digest, Kind, Millis, Name, Phase, Release, Rollout, RolloutSpec, Service, Settings, Share, State, Strategy,
};
use basalt_plan::{Change, Desired, DesiredService, PlanError, plan, plan_down, state_digest};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn release(log: &str) -> Arc<Release> {
    Arc::new(Release {
        env: BTreeMap::from([("LOG".to_owned(), log.to_owned())]),
        ..Release::new(Kind::Service, Digest::from_bytes([1; 32]))
    })
}

fn settings(instances: u32, strategy: Strategy) -> Settings {
    Settings { instances, rollout: RolloutSpec { strategy, ..RolloutSpec::default() }, ..Settings::default() }
}

fn desired(log: &str, settings: Settings) -> Desired {
    let service = DesiredService { release: release(log), settings };
    Desired { stack: name("shop"), services: BTreeMap::from([(name("web"), service)]), jobs: BTreeMap::new() }
}

/// A state with `web` stable on release 2 (`LOG=info`), release 1 (`LOG=debug`) kept.
fn recorded(settings: Settings) -> State {
    let service = Service {
        settings,
        releases: BTreeMap::from([(1, release("debug")), (2, release("info"))]),
        last_release: 2,
        stable: Some(2),
        ..Service::new(0, Settings::default())
    };
    State { stack: Some(name("shop")), services: BTreeMap::from([(name("web"), service)]), ..State::default() }
}

#[test]
fn one_service() {
    let blue_green = || settings(4, Strategy::BlueGreen);
    let rolling = || settings(4, Strategy::Rolling { max_surge: Share::Percent(25), max_unavailable: Share::Count(0) });
    let check = |desired: Desired, change: Change, number: u32, kept: bool, extra: u32, fields: &[&str]| {
        let plan = plan(&desired, &recorded(blue_green())).unwrap();
        let web = &plan.services[&name("web")];
        let release = web.release.as_ref().unwrap();
        let found: Vec<_> = web.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!((web.change, release.number, release.kept, web.extra_instances), (change, number, kept, extra));
        assert_eq!(found, fields);
        assert_eq!(plan.has_changes(), change != Change::Unchanged);
    };
    check(desired("info", blue_green()), Change::Unchanged, 2, true, 0, &[]);
    check(desired("warn", blue_green()), Change::Update, 3, false, 4, &["env.LOG"]);
    check(desired("debug", blue_green()), Change::Update, 1, true, 4, &["env.LOG"]);
    check(desired("info", settings(5, Strategy::BlueGreen)), Change::Configure, 2, true, 0, &["settings.instances"]);
    check(desired("warn", rolling()), Change::Update, 3, false, 1, &["env.LOG", "settings.rollout.strategy"]);
    // One instance, none to be missing: the new one comes first, whatever `max_surge` says.
    let alone = settings(1, Strategy::Rolling { max_surge: Share::Count(0), max_unavailable: Share::Count(1) });
    let fields = ["env.LOG", "settings.instances", "settings.rollout.strategy"];
    check(desired("warn", alone), Change::Update, 3, false, 1, &fields);
}

#[test]
fn first_and_last() {
    let first = plan(&desired("info", Settings::default()), &State::default()).unwrap();
    assert_eq!(first.services[&name("web")].change, Change::Create);
    let mut nothing = desired("info", Settings::default());
    nothing.services.clear();
    let removed = plan(&nothing, &recorded(Settings::default())).unwrap();
    assert_eq!(removed.services[&name("web")].change, Change::Remove);
    assert_eq!(plan_down(&recorded(Settings::default())).unwrap().services, removed.services);
    assert_eq!(plan_down(&State::default()), None);
}

#[test]
fn a_rollout_under_way_is_what_counts() {
    let mut state = recorded(Settings::default());
    let web = state.services.get_mut(&name("web")).unwrap();
    web.releases.insert(3, release("warn"));
    web.last_release = 3;
    web.rollout = Some(Rollout {
        id: "web-2".to_owned(),
        spec: RolloutSpec::default(),
        baseline: Some(2),
        target: 3,
        phase: Phase::Starting,
        started_at: Millis::ZERO,
        phase_at: Millis::ZERO,
        paused_at: None,
        paused_for: Millis::ZERO,
        exits: 0,
        in_force_at: None,
        because: None,
    });
    let change =
        |state: &State, log| plan(&desired(log, Settings::default()), state).unwrap().services[&name("web")].change;
    assert_eq!(change(&state, "warn"), Change::Unchanged);
    assert_eq!(change(&state, "info"), Change::Abort);
    assert_eq!(change(&state, "error"), Change::Update);
    // What has all but ended is not given up any more: the way back is a rollout of its own.
    state.services.get_mut(&name("web")).unwrap().rollout.as_mut().unwrap().phase = Phase::Finishing;
    assert_eq!(change(&state, "info"), Change::Update);
    let web = state.services.get_mut(&name("web")).unwrap();
    web.rollout.as_mut().unwrap().phase = Phase::Returning { reason: "unhealthy".to_owned(), aborted: false };
    assert_eq!(change(&state, "info"), Change::Unchanged);
    assert_eq!(change(&state, "warn"), Change::Update);
}

#[test]
fn refusals() {
    let mut other = desired("info", Settings::default());
    other.stack = name("blog");
    let error = plan(&other, &recorded(Settings::default())).unwrap_err();
    assert_eq!(error, PlanError::OtherStack { running: name("shop"), wanted: name("blog") });
    let many = settings(Settings::MOST_INSTANCES + 1, Strategy::BlueGreen);
    assert_eq!(plan(&desired("info", many), &State::default()), Err(PlanError::TooMany(name("web"))));
}

#[test]
fn what_is_declared_again_before_it_is_gone_stays() {
    let mut state = recorded(Settings::default());
    state.services.get_mut(&name("web")).unwrap().removing = true;
    let change = |log| plan(&desired(log, Settings::default()), &state).unwrap().services[&name("web")].change;
    assert_eq!((change("info"), change("debug")), (Change::Configure, Change::Update));
}

#[test]
fn the_base_moves_with_releases_not_with_instances() {
    let state = recorded(Settings::default());
    let mut exited = state.clone();
    exited.services.get_mut(&name("web")).unwrap().rollouts += 1;
    assert_eq!(state_digest(&state), state_digest(&exited));
    let mut scaled = state.clone();
    scaled.services.get_mut(&name("web")).unwrap().settings.instances = 9;
    assert_ne!(state_digest(&state), state_digest(&scaled));
}

#[test]
fn a_plan_names_releases_by_their_own_ids() {
    let recorded = recorded(settings(1, Strategy::Recreate));
    for log in ["info", "debug", "other"] {
        let plan = plan(&desired(log, settings(1, Strategy::Recreate)), &recorded).unwrap();
        let planned = plan.services[&name("web")].release.as_ref().unwrap();
        assert_eq!(planned.id, release(log).id(), "{log}");
        assert_eq!(plan.base, state_digest(&recorded), "{log}");
    }
}
