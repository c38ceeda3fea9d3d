//! A person steers a rollout: pause, resume, promote, abort, scale.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Basalt, Stack, wait_until};

const WITH_APPROVAL: &str = "rollout \"canary\" {\n instances = 1\n steps = [{ weight = 20, approval = true }, { weight = 60, hold = \"100ms\" }]\n}";

/// Begins a canary that stands at its first step and waits for a person.
fn at_first_step() -> Basalt {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", WITH_APPROVAL)).expect(0);
    let stack = Stack::new("two", WITH_APPROVAL).write(&basalt.folder()).display().to_string();
    basalt.run(&["apply", &stack, "--detach"]).expect(0);
    wait_until("a fifth of the traffic", Duration::from_secs(15), || weight(&basalt.service("app"), 2) == 20.0);
    basalt
}

fn weight(service: &Value, release: u64) -> f64 {
    let shares = service["traffic"].as_array().cloned().unwrap_or_default();
    shares.iter().find(|share| share["release"] == release).and_then(|share| share["weight"].as_f64()).unwrap_or(0.0)
}

#[test]
fn weights_hold_and_a_person_promotes() {
    let mut basalt = at_first_step();
    let service = basalt.service("app");
    assert_eq!(weight(&service, 1), 80.0);
    assert!(!service["rollout"]["waiting"].as_array().unwrap().is_empty(), "{service}");
    let new = (0..100).filter(|_| basalt.get("/").1.contains("version=two")).count();
    assert!((15..=25).contains(&new), "{new} of 100 requests went to the canary, wanted 20");

    basalt.run(&["promote", "app"]).expect(0);
    wait_until("release 2 serves", Duration::from_secs(20), || basalt.stable() == Some(2) && basalt.serves(2, 3));
    basalt.down();
}

#[test]
fn an_aborted_rollout_leaves_the_old() {
    let mut basalt = at_first_step();
    basalt.run(&["abort", "app"]).expect(0);
    wait_until("release 1 serves alone", Duration::from_secs(20), || {
        basalt.service("app")["rollout"].is_null() && basalt.serves(1, 3)
    });
    assert_eq!(basalt.service("app")["last_rollout"]["outcome"], "aborted");
    basalt.down();
}

#[test]
fn a_paused_rollout_stands_still_until_it_is_resumed() {
    let mut basalt = at_first_step();
    basalt.run(&["pause", "app"]).expect(0);
    basalt.run(&["promote", "app"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(weight(&basalt.service("app"), 2), 20.0);
    basalt.run(&["resume", "app"]).expect(0);
    basalt.run(&["promote", "app"]);
    wait_until("release 2 serves", Duration::from_secs(20), || basalt.stable() == Some(2));
    basalt.down();
}

#[test]
fn scaled_up_and_down_without_a_new_release() {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    basalt.run(&["scale", "app=4"]).expect(0);
    wait_until("four serve", Duration::from_secs(10), || basalt.serves(1, 4));
    basalt.run(&["scale", "app=2"]).expect(0);
    wait_until("two serve", Duration::from_secs(10), || basalt.serves(1, 2));
    assert_eq!(basalt.events_of("release_created").len(), 1);
    basalt.down();
}
