//! Properties of the heart, whatever is recorded and seen.

mod support;

use std::collections::BTreeMap;

use basalt_model::{
    CanaryStep, Event, Exit, Instance, InstanceState, Millis, Phase, Service, Settings, Share, StopReason, Strategy,
    Warm, Weight,
};
use basalt_rollout::{Command, InstanceSeen, Life, command, weights};
use proptest::prelude::*;
// The model's word is `Strategy` too.
use proptest::strategy::Strategy as Strategy_;
use support::*;

fn share() -> impl Strategy_<Value = Share> {
    prop_oneof![(0u32..5).prop_map(Share::Count), (0u32..=150).prop_map(Share::Percent)]
}

fn strategy() -> impl Strategy_<Value = Strategy> {
    let step = (0u32..12_000, 0u64..5000, any::<bool>()).prop_map(|(weight, hold, approval)| CanaryStep {
        weight: Weight(weight),
        hold: Millis(hold),
        approval,
    });
    prop_oneof![
        (share(), share()).prop_map(|(max_surge, max_unavailable)| Strategy::Rolling { max_surge, max_unavailable }),
        Just(Strategy::BlueGreen),
        (share(), prop::collection::vec(step, 0..4))
            .prop_map(|(instances, steps)| Strategy::Canary { instances, steps }),
        Just(Strategy::Recreate),
    ]
}

fn phase() -> impl Strategy_<Value = Phase> {
    prop_oneof![
        Just(Phase::Preparing),
        Just(Phase::Starting),
        (0u32..8).prop_map(|moved| Phase::Moving { moved }),
        (0u32..5, any::<bool>()).prop_map(|(step, approved)| Phase::Stepping { step, approved }),
        (0u32..5).prop_map(|step| Phase::Growing { step }),
        Just(Phase::Holding),
        Just(Phase::Finishing),
        any::<bool>().prop_map(|aborted| Phase::Returning { reason: "a test".into(), aborted }),
    ]
}

fn recorded() -> impl Strategy_<Value = Instance> {
    let state = prop_oneof![
        4 => Just(InstanceState::Wanted),
        1 => (0u64..3000).prop_map(|d| InstanceState::Waiting { until: NOW + Millis(d) }),
        1 => Just(InstanceState::Draining { since: NOW, reason: StopReason::Replaced }),
        1 => Just(InstanceState::Stopping { since: NOW, reason: StopReason::Replaced }),
    ];
    (state, any::<bool>(), any::<bool>(), 0u32..5).prop_map(|(state, proven, failed, exits)| Instance {
        healthy_at: (proven && !matches!(state, InstanceState::Waiting { .. })).then_some(NOW),
        failed_at: (failed && state == InstanceState::Wanted).then_some(NOW),
        state,
        exits,
        ..instance(0)
    })
}

fn any_service() -> impl Strategy_<Value = Service> {
    let instances = prop::collection::btree_map((1u32..=3, 1u32..=6), recorded(), 0..10);
    let rollout = prop::option::of((strategy(), phase(), 0u32..3));
    (0u32..7, instances, rollout, prop::option::of(1u32..=2), any::<bool>(), any::<bool>()).prop_map(
        |(n, instances, rollout, stable, warm, removing)| {
            let mut web = service(0);
            web.settings = Settings { instances: n, ..Settings::default() };
            web.stable = stable;
            for ((release, ordinal), instance) in instances {
                web.generation += 1;
                web.instances.insert(id(release, ordinal), Instance { generation: web.generation, ..instance });
            }
            if let Some((strategy, phase, exits)) = rollout.filter(|_| !removing) {
                web = rolling_out(web, strategy, phase);
                web.rollout.as_mut().unwrap().exits = exits;
            }
            web.warm = (warm && !removing).then_some(Warm { release: 3, until: NOW + Millis(500) });
            web.removing = removing;
            web
        },
    )
}

fn life() -> impl Strategy_<Value = Life> {
    prop_oneof![
        1 => Just(Life::Absent),
        1 => Just(Life::Starting),
        5 => Just(Life::Running { pid: 1, since: NOW }),
        1 => Just(Life::Ended { exit: Exit::Code(1), at: NOW, last_lines: vec![] }),
        1 => Just(Life::Ended { exit: Exit::CouldNotStart("no".into()), at: NOW, last_lines: vec![] }),
    ]
}

type Seen = BTreeMap<basalt_model::InstanceId, InstanceSeen>;

/// What may be seen of a service, of older and newer starts and of strays too.
fn any_seen() -> impl Strategy_<Value = Seen> {
    let one = (life(), prop::option::of(any::<bool>()), any::<bool>(), 0u64..3, 0u64..12).prop_map(
        |(life, healthy, routed, in_flight, generation)| InstanceSeen {
            life,
            routed,
            in_flight,
            ..running(generation, healthy)
        },
    );
    prop::collection::btree_map((1u32..=3, 1u32..=6).prop_map(|(r, o)| id(r, o)), one, 0..12)
}

/// Makes most of what is seen be about the starts that are recorded.
fn matched(web: &Service, mut seen: Seen, strays: u64) -> Seen {
    for (index, (id, seen)) in seen.iter_mut().enumerate() {
        if let Some(instance) = web.instances.get(id).filter(|_| !(index as u64 + strays).is_multiple_of(5)) {
            seen.generation = instance.generation;
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weights_add_up(web in any_service()) {
        let sum: u32 = weights(&web).values().map(|w| w.0).sum();
        prop_assert!(sum == 0 || sum == Weight::ALL.0, "{sum}");
        prop_assert!(sum > 0 || web.stable.is_none() || web.removing);
    }

    #[test]
    fn decisions_fit_and_come_to_rest(
        web in any_service(),
        seen in any_seen(),
        strays in 0u64..5,
        flags in any::<[bool; 3]>(),
        later in 0u64..100_000,
    ) {
        let seen = matched(&web, seen, strays);
        let at = NOW + Millis(later);
        let ask = |web: &Service| ask_with(web, at, &seen, |o| {
            let routed;
            [o.backend_connected, o.router_connected, routed] = flags;
            o.routes_in_force = in_force(routed && o.router_connected);
        });
        let mut state = state(web);
        for round in 0.. {
            prop_assert!(round < 20, "no rest");
            let Some(web) = state.services.get(&name("web")) else { return Ok(()) };
            let decision = ask(web);
            if decision.events.is_empty() {
                // Asked again, the answer is the same.
                prop_assert_eq!(&decision, &ask(web));
                prop_assert!(decision.wake_at.is_none_or(|wake| wake > at));
                // A rollout never stands still in silence.
                let silent = decision.waiting.is_empty() && decision.actions.is_empty() && decision.wake_at.is_none();
                prop_assert!(web.rollout.is_none() || !silent, "stuck in silence: {:?}", web.rollout);
                return Ok(());
            }
            prop_assert!(decision.actions.is_empty(), "law 5: actions come with events not recorded yet");
            for event in &decision.events {
                let told = format!("{event:?}");
                if let Err(illegal) = basalt_rollout::evolve(&mut state, at, event) {
                    prop_assert!(false, "{illegal}: {told}");
                }
            }
        }
    }

    #[test]
    fn a_rollback_is_always_within_reach(web in any_service()) {
        let web = Service { removing: false, ..web };
        let to = Command::Rollback { to: Some(3) };
        let events = command(&name("web"), &web, NOW, &to).unwrap();
        let web = after(&web, NOW, &events);
        prop_assert!(events.is_empty() || web.rollout.is_some_and(|r| r.target == 3));
    }

    #[test]
    fn commands_fit(web in any_service(), which in 0usize..7) {
        let asked = [
            Command::Pause,
            Command::Resume,
            Command::Promote,
            Command::Abort,
            Command::Rollback { to: None },
            Command::Rollback { to: Some(2) },
            Command::Scale { instances: 5 },
        ];
        if let Ok(events) = command(&name("web"), &web, NOW, &asked[which]) {
            after(&web, NOW, &events);
        }
    }

    #[test]
    fn state_reads_back(web in any_service()) {
        let state = state(web);
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<basalt_model::State>(&text).unwrap(), state);
    }

    #[test]
    fn rollout_events_read_back(strategy in strategy(), phase in phase()) {
        let rollout = rolling_out(service(1), strategy, phase).rollout.unwrap();
        let event = Event::RolloutStarted { service: name("web"), rollout: Box::new(rollout) };
        let text = serde_json::to_string(&event).unwrap();
        prop_assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
