//! Weights and routes by row.

mod support;

use std::net::Ipv4Addr;

use basalt_model::{CanaryStep, Instance, Millis, Phase, Service, Share, Strategy, Warm, Weight};
use basalt_rollout::{Command, command, routes, weights};
use support::*;

fn rolling(surge: u32, missing: u32) -> Strategy {
    Strategy::Rolling { max_surge: Share::Count(surge), max_unavailable: Share::Count(missing) }
}

fn canary(percents: &[u32]) -> Strategy {
    let step = |p: &u32| CanaryStep { weight: Weight::percent(*p), hold: Millis(10), approval: false };
    Strategy::Canary { instances: Share::Count(1), steps: percents.iter().map(step).collect() }
}

fn returning() -> Phase {
    Phase::Returning { reason: "a test".into(), aborted: false }
}

fn with(mut service: Service, release: u32, count: u32) -> Service {
    add(&mut service, release, count);
    service
}

#[track_caller]
fn check(service: &Service, expected: &[(u32, u32)]) {
    let weights: Vec<(u32, u32)> = weights(service).into_iter().map(|(r, w)| (r, w.0)).collect();
    assert_eq!(weights, expected);
}

#[test]
fn weights_of_phases() {
    let step = |step| Phase::Stepping { step, approved: false };
    check(&service(4), &[(1, 10_000)]);
    check(&Service { stable: None, ..service(0) }, &[]);
    check(&Service { warm: Some(Warm { release: 3, until: NOW }), ..service(4) }, &[(1, 10_000), (3, 0)]);

    let blue_green = |phase| rolling_out(with(service(4), 2, 4), Strategy::BlueGreen, phase);
    check(&blue_green(Phase::Preparing), &[(1, 10_000), (2, 0)]);
    check(&blue_green(Phase::Starting), &[(1, 10_000), (2, 0)]);
    check(&blue_green(Phase::Holding), &[(1, 0), (2, 10_000)]);
    check(&blue_green(Phase::Finishing), &[(1, 0), (2, 10_000)]);
    check(&blue_green(returning()), &[(1, 10_000), (2, 0)]);

    let canary = |phase| rolling_out(with(service(4), 2, 2), canary(&[5, 50]), phase);
    check(&canary(step(0)), &[(1, 9_500), (2, 500)]);
    check(&canary(Phase::Growing { step: 0 }), &[(1, 10_000), (2, 0)]);
    check(&canary(Phase::Growing { step: 1 }), &[(1, 9_500), (2, 500)]);
    check(&canary(step(1)), &[(1, 5_000), (2, 5_000)]);
    check(&canary(Phase::Growing { step: 2 }), &[(1, 5_000), (2, 5_000)]);
    // A step that the journal names and the rollout does not have gives nothing away.
    check(&canary(step(9)), &[(1, 10_000), (2, 0)]);

    let moving = |old, new, strategy| {
        let service = Service { instances: Default::default(), ..service(4) };
        rolling_out(with(with(service, 1, old), 2, new), strategy, Phase::Moving { moved: new })
    };
    check(&moving(3, 1, rolling(1, 0)), &[(1, 7_500), (2, 2_500)]);
    check(&moving(1, 3, rolling(1, 0)), &[(1, 2_500), (2, 7_500)]);
    check(&moving(2, 1, rolling(0, 1)), &[(1, 6_667), (2, 3_333)]);
}

#[test]
fn a_first_release_gets_traffic_when_all_is_proven() {
    let first = |phase| rolling_out(Service { stable: None, ..with(service(0), 2, 4) }, Strategy::BlueGreen, phase);
    check(&first(Phase::Starting), &[(2, 0)]);
    check(&first(Phase::Holding), &[(2, 10_000)]);
    check(&first(returning()), &[(2, 0)]);
}

#[test]
fn who_has_too_few_instances_is_lent_help() {
    let empty = |n| Service { instances: Default::default(), ..service(n) };
    let back = |old, new| rolling_out(with(with(empty(4), 1, old), 2, new), rolling(1, 0), returning());
    check(&back(4, 0), &[(1, 10_000), (2, 0)]);
    check(&back(1, 3), &[(1, 2_500), (2, 7_500)]);
    check(&back(0, 3), &[(1, 0), (2, 10_000)]);
    check(&back(0, 0), &[(1, 10_000), (2, 0)]);
    // Half of the baseline is enough where the target may be bad.
    let back = |old, new| rolling_out(with(with(empty(4), 1, old), 2, new), Strategy::BlueGreen, returning());
    check(&back(2, 4), &[(1, 10_000), (2, 0)]);
    check(&back(1, 4), &[(1, 2_500), (2, 7_500)]);
    // An update took the place of another that had replaced everything.
    let superseded = rolling_out(with(empty(4), 3, 4), rolling(1, 0), Phase::Starting);
    check(&superseded, &[(1, 0), (2, 0), (3, 10_000)]);
}

#[test]
fn routes_name_what_runs_and_stays() {
    let address = |slot: u16| Ipv4Addr::new(10, 128, 0, slot as u8);
    let mut web = with(service(3), 2, 1);
    web = rolling_out(web, canary(&[5]), Phase::Starting);
    let mut seen = all_well(&web);
    seen.get_mut(&id(1, 2)).unwrap().generation = 99;
    web.instances.insert(
        id(1, 3),
        Instance {
            state: basalt_model::InstanceState::Draining { since: NOW, reason: basalt_model::StopReason::Replaced },
            ..instance(3)
        },
    );
    let table = routes(&state(web.clone()), &seen, &address);
    let routed = &table[&name("web")];
    let named: Vec<String> =
        routed.releases.values().flat_map(|r| r.instances.keys()).map(ToString::to_string).collect();
    assert_eq!(named, ["web-1-1", "web-2-1"], "an older start and one that drains are not named");
    let paths = |s: &basalt_model::ServiceRoutes| s.routes.iter().map(|r| r.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(routed), ["/1"], "a release without traffic answers nothing yet");
    let listeners: Vec<String> = routed.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(listeners, ["10.128.0.3:8080"]);

    web.rollout.as_mut().unwrap().phase = Phase::Stepping { step: 0, approved: false };
    assert_eq!(paths(&routes(&state(web), &seen, &address)[&name("web")]), ["/2", "/1"]);
}

#[test]
fn commands_say_what_to_do_instead() {
    let plain = service(2);
    let holding = rolling_out(service(2), Strategy::BlueGreen, Phase::Holding);
    let starting = rolling_out(service(2), Strategy::BlueGreen, Phase::Starting);
    let finishing = rolling_out(service(2), Strategy::BlueGreen, Phase::Finishing);
    let back = rolling_out(service(2), Strategy::BlueGreen, returning());
    let warm = Service { warm: Some(Warm { release: 3, until: NOW }), ..service(2) };
    let check = |service: &Service, asked: Command, expected: Result<&[&str], &str>| {
        let answer = command(&name("web"), service, NOW, &asked);
        let kinds = answer.as_ref().map(|events| events.iter().map(basalt_model::Event::kind).collect::<Vec<_>>());
        match (kinds, expected) {
            (Ok(kinds), Ok(expected)) => assert_eq!(kinds, expected, "{asked:?}"),
            (Err(refused), Err(expected)) => {
                assert!(refused.what.contains(expected), "{asked:?}: {refused}");
                assert!(!refused.help.is_empty());
            }
            (answer, expected) => panic!("{asked:?}: {answer:?}, expected {expected:?}"),
        }
    };
    let back_to = |to| Command::Rollback { to };
    check(&plain, Command::Pause, Err("no rollout"));
    check(&plain, Command::Promote, Err("no rollout"));
    check(&plain, Command::Abort, Err("no rollout"));
    check(&plain, back_to(None), Err("no earlier release"));
    check(&plain, back_to(Some(1)), Err("serves already"));
    check(&plain, back_to(Some(9)), Err("is not kept"));
    check(&plain, back_to(Some(3)), Ok(&["rollout_started"]));
    check(&warm, back_to(None), Ok(&["rollout_started"]));
    check(&plain, Command::Scale { instances: 2 }, Ok(&[]));
    check(&plain, Command::Scale { instances: 3 }, Ok(&["service_configured"]));
    check(&plain, Command::Scale { instances: u32::MAX }, Err("more than one service may have"));
    check(&holding, Command::Pause, Ok(&["rollout_paused"]));
    check(&holding, Command::Resume, Ok(&[]));
    check(&holding, Command::Promote, Ok(&["rollout_advanced"]));
    check(&holding, Command::Abort, Ok(&["rollout_advanced"]));
    check(&holding, back_to(None), Ok(&["rollout_advanced"]));
    check(&starting, Command::Promote, Err("not for a person"));
    check(&finishing, Command::Abort, Err("all but ended"));
    check(&finishing, Command::Pause, Err("all but ended"));
    check(&finishing, back_to(None), Ok(&["rollout_started"]));
    check(&back, Command::Abort, Ok(&[]));
    check(&back, Command::Promote, Err("on its way back"));
    check(&Service { removing: true, ..plain }, Command::Pause, Err("being removed"));
}
