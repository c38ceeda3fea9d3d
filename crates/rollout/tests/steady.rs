//! A service in steady state: what is missing, too much, dead, sick or not ours.

mod support;

use std::sync::Arc;

use basalt_model::{
    Event, Exit, InstanceState, Millis, Phase, Rollout, Service, Settings, Share, StopReason, Strategy,
};
use basalt_rollout::{Action, Command, Life, Waiting, command, evolve};
use support::*;

#[test]
fn at_rest_nothing_is_decided() {
    let web = service(3);
    let decision = ask(&web, NOW, &all_well(&web));
    assert_eq!(decision, Default::default(), "law 6");
}

#[test]
fn an_absence_counts_only_while_the_backend_is_reached() {
    let web = service(2);
    let gone = Default::default();
    assert_eq!(kinds(&ask(&web, NOW, &gone))[..2], ["instance_exited"; 2]);
    let unsure = ask_with(&web, NOW, &gone, |seen| seen.backend_connected = false);
    assert!(unsure.events.is_empty() && unsure.actions.is_empty(), "{unsure:?}");
    assert!(unsure.waiting.contains(&Waiting::Backend));
}

#[test]
fn the_dead_is_started_again_after_a_growing_pause() {
    let mut web = service(1);
    let mut pauses = Vec::new();
    for round in 0..6 {
        let generation = web.generation;
        let mut seen = all_well(&web);
        let exit = Exit::Code(3);
        let life = Life::Ended { exit: exit.clone(), at: NOW, last_lines: vec!["bye".into()] };
        seen.get_mut(&id(1, 1)).unwrap().life = life;
        let decision = ask(&web, NOW, &seen);
        let Some(Event::InstanceExited { retry_at, last_lines, .. }) = decision.events.first() else {
            panic!("{decision:?}")
        };
        assert_eq!(last_lines[..], ["bye"]);
        pauses.push(retry_at.since(NOW).0 / 1000);
        web = after(&web, NOW, &decision.events);
        if web.instances[&id(1, 1)].state != InstanceState::Wanted {
            let waits = ask(&web, NOW, &seen);
            assert_eq!(waits.wake_at, Some(*retry_at), "round {round}");
            assert!(waits.waiting.iter().any(|w| matches!(w, Waiting::Backoff { exit: Some(e), .. } if *e == exit)));
            let again = ask(&web, *retry_at, &seen);
            assert_eq!(kinds(&again), ["instance_requested"]);
            web = after(&web, NOW, &again.events);
        }
        assert!(web.generation > generation);
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16]);
}

#[test]
fn the_sick_is_replaced_by_one_that_proved_itself() {
    let web = service(4);
    let mut seen = all_well(&web);
    seen.get_mut(&id(1, 2)).unwrap().healthy = Some(false);
    seen.get_mut(&id(1, 3)).unwrap().healthy = Some(false);
    let decision = ask(&web, NOW, &seen);
    assert_eq!(kinds(&decision), ["instance_failed", "instance_requested"], "one in four at a time");
    let mut web = after(&web, NOW, &decision.events);
    assert!(ask(&web, NOW, &seen).events.is_empty(), "nothing leaves before the new one is healthy");
    seen.insert(id(1, 5), running(web.generation, Some(true)));
    let decision = ask(&web, NOW, &seen);
    let drained = Event::InstanceDrained { instance: id(1, 2), reason: StopReason::Unhealthy };
    assert!(decision.events.contains(&drained), "{decision:?}");
    web = after(&web, NOW, &decision.events);
    assert!(web.failures >= 1);
}

#[test]
fn what_can_not_be_there_twice_is_stopped_first() {
    let mut web = service(1);
    web.releases.insert(1, Arc::new(exclusive(1)));
    let mut seen = all_well(&web);
    seen.get_mut(&id(1, 1)).unwrap().healthy = Some(false);
    assert_eq!(kinds(&ask(&web, NOW, &seen))[..2], ["instance_failed", "instance_drained"]);
}

#[test]
fn drift_is_ended() {
    let web = service(1);
    let mut seen = all_well(&web);
    seen.insert(id(2, 9), basalt_rollout::InstanceSeen { routed: false, ..running(7, None) });
    let stop = Action::Stop { instance: id(2, 9), generation: 7, within: Settings::default().stop_within };
    assert_eq!(ask(&web, NOW, &seen).actions, [stop]);
    seen.get_mut(&id(2, 9)).unwrap().life = Life::Ended { exit: Exit::Code(0), at: NOW, last_lines: vec![] };
    assert_eq!(ask(&web, NOW, &seen).actions, [Action::Forget { instance: id(2, 9), generation: 7 }]);
}

#[test]
fn a_drained_instance_is_stopped_once_nothing_reaches_it() {
    let mut web = service(2);
    web.settings.instances = 1;
    let seen = all_well(&web);
    let web = after(&web, NOW, &ask(&web, NOW, &seen).events);
    assert!(matches!(web.instances[&id(1, 2)].state, InstanceState::Draining { .. }));
    let drain = web.settings.drain;
    // in force, reached, routed, in flight, time → stopped?
    let check = |in_force, reached, routed, in_flight, at: Millis, expected: Option<u64>| {
        let mut seen = seen.clone();
        let leaving = seen.get_mut(&id(1, 2)).unwrap();
        (leaving.routed, leaving.in_flight) = (routed, in_flight);
        let decision = ask_with(&web, at, &seen, |o| {
            (o.routes_in_force, o.router_connected) = (support::in_force(in_force), reached);
        });
        let cut = decision.events.iter().find_map(|e| match e {
            Event::InstanceStopRequested { cut, .. } => Some(*cut),
            _ => None,
        });
        assert_eq!(cut, expected, "in force {in_force}, reached {reached}, routed {routed}, in flight {in_flight}");
        assert!(expected.is_some() || !decision.waiting.is_empty());
    };
    check(true, true, false, 0, NOW, Some(0));
    check(true, true, true, 0, NOW, None);
    check(false, true, false, 0, NOW, None);
    check(true, false, false, 0, NOW, None);
    check(true, true, false, 2, NOW, None);
    check(true, true, false, 2, NOW + drain, Some(2));
    check(true, true, true, 2, NOW + drain, None);
    check(false, true, false, 2, NOW + drain, None);
}

#[test]
fn a_newer_start_than_recorded_is_drift() {
    let web = service(1);
    let mut seen = all_well(&web);
    seen.get_mut(&id(1, 1)).unwrap().generation = 40;
    let decision = ask(&web, NOW, &seen);
    let requested = Event::InstanceRequested { instance: id(1, 1), generation: 41 };
    assert!(decision.events.contains(&requested), "{decision:?}");
    let web = after(&web, NOW, &decision.events);
    assert!(matches!(ask(&web, NOW, &seen).actions[..], [Action::Stop { generation: 40, .. }]));
}

#[test]
fn a_stray_that_is_named_is_not_stopped_yet() {
    let web = service(1);
    let mut seen = all_well(&web);
    seen.insert(id(2, 9), running(7, None));
    let decision = ask(&web, NOW, &seen);
    assert!(decision.actions.is_empty());
    assert_eq!(decision.waiting, [Waiting::Routes]);
}

#[test]
fn weights_move_on_once_those_before_are_in_force() {
    let rolling = Strategy::Rolling { max_surge: Share::Count(1), max_unavailable: Share::Count(0) };
    let mut web = service(4);
    add(&mut web, 2, 2);
    let web = rolling_out(web, rolling, Phase::Moving { moved: 1 });
    let seen = all_well(&web);
    let moves = |in_force| {
        let decision = ask_with(&web, NOW, &seen, |o| o.routes_in_force = support::in_force(in_force));
        kinds(&decision).contains(&"rollout_advanced")
    };
    assert!(moves(true));
    assert!(!moves(false));
}

#[test]
fn what_served_before_is_remembered() {
    let mut web = service(1);
    add(&mut web, 2, 1);
    web.instances.remove(&id(1, 1));
    let web = rolling_out(web, Strategy::BlueGreen, Phase::Finishing);
    let decision = ask(&web, NOW, &all_well(&web));
    assert_eq!(kinds(&decision), ["rollout_finished"]);
    let web = after(&web, NOW, &decision.events);
    assert_eq!((web.stable, web.previous), (Some(2), Some(1)));
    let back = command(&name("web"), &web, NOW, &Command::Rollback { to: None }).unwrap();
    assert!(matches!(&back[..], [Event::RolloutStarted { rollout, .. }] if rollout.target == 1));
}

#[test]
fn only_ten_releases_are_kept() {
    let mut web = service(1);
    web.releases = (1..=14).map(|n| (n, Arc::new(release(n)))).collect();
    web.previous = Some(3);
    let decision = ask(&web, NOW, &all_well(&web));
    let web = after(&web, NOW, &decision.events);
    assert_eq!(web.releases.keys().copied().collect::<Vec<_>>(), [1, 3, 7, 8, 9, 10, 11, 12, 13, 14]);
}

#[test]
fn a_retired_service_leaves_nothing() {
    let mut web = after(&service(2), NOW, &[Event::ServiceRetired { service: name("web") }]);
    let mut seen = all_well(&web);
    web = after(&web, NOW, &ask(&web, NOW, &seen).events);
    seen.values_mut().for_each(|s| s.routed = false);
    web = after(&web, NOW, &ask(&web, NOW, &seen).events);
    assert_eq!(ask(&web, NOW, &seen).actions.len(), 2);
    seen.clear();
    assert_eq!(kinds(&ask(&web, NOW, &seen)), ["instance_stopped", "instance_stopped", "service_removed"]);
}

#[test]
fn events_that_do_not_fit_change_nothing() {
    let rollout = rolling_out(service(2), Strategy::BlueGreen, Phase::Returning { reason: "x".into(), aborted: false });
    let web = name("web");
    let advanced = Event::RolloutAdvanced { service: web.clone(), phase: Phase::Holding };
    let requested = |instance, generation| Event::InstanceRequested { instance, generation };
    let cases: Vec<(Service, Event)> = vec![
        (service(1), Event::ServiceRemoved { service: web.clone() }),
        (service(1), Event::ServiceRemoved { service: name("other") }),
        (service(1), Event::ServiceCreated { service: web.clone(), slot: 9, settings: Settings::default() }),
        (service(1), Event::ServiceCreated { service: name("other"), slot: 3, settings: Settings::default() }),
        (service(1), Event::RolloutFinished { service: web.clone(), outcome: basalt_model::Outcome::Done }),
        (service(1), Event::ReleaseForgotten { service: web.clone(), number: 1 }),
        (service(1), Event::ReleaseCreated { service: web.clone(), number: 3, release: Arc::new(release(3)) }),
        (service(1), Event::WarmExpired { service: web.clone(), release: 2 }),
        (service(1), requested(id(1, 1), 50)),
        (service(1), requested(id(1, 2), 1)),
        (service(1), requested(id(7, 1), 50)),
        (service(1), Event::InstanceStopRequested { instance: id(1, 1), generation: 1, cut: 0 }),
        (service(1), Event::InstanceStopped { instance: id(1, 1), generation: 1 }),
        (service(1), Event::InstanceProven { instance: id(1, 1), generation: 2 }),
        (service(1), Event::JobRetired { job: web.clone() }),
        (rollout, advanced),
    ];
    for (service, event) in cases {
        let before = state(service);
        let mut after = before.clone();
        let illegal = evolve(&mut after, NOW, &event).expect_err(event.kind());
        assert_eq!(before, after, "{event:?}");
        assert!(!illegal.why.is_empty());
    }
}

#[test]
fn on_the_way_back_from_the_end_nothing_goes_before_something_has_proven_itself() {
    // All instances of release 1 have been drained already when a person asks for it again.
    let mut web = service(2);
    web.instances.clear();
    add(&mut web, 2, 2);
    let web = rolling_out(web, Strategy::BlueGreen, Phase::Starting);
    let back = Rollout { target: 1, ..web.rollout.clone().unwrap() };
    let web = Service { rollout: Some(back), ..web };
    let decision = ask(&web, NOW, &all_well(&web));
    assert_eq!(kinds(&decision), ["instance_requested", "instance_requested"], "law 3");
}
