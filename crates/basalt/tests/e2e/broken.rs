//! A broken release leaves the old one serving as if nothing had happened (laws 3 and 4).

use std::time::Duration;

use basalt_testkit::load::Kind;

use crate::harness::{Basalt, Loads, Stack, wait_until};

const BLUE_GREEN: &str = "rollout \"blue_green\" { hold = \"4s\" }";
const CANARY: &str = "rollout \"canary\" {\n instances = 1\n steps = [{ weight = 30, hold = \"4s\" }]\n}";
const ROLLING: &str = "rollout \"rolling\" {\n max_surge = 1\n hold = \"4s\"\n}";

/// Tries a broken release over a good one, and expects `because` in what is said about it.
#[track_caller]
fn check(rollout: &str, env: &[(&str, &str)], kinds: &[Kind], because: &str) {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("good", rollout)).expect(0);
    let pids: Vec<_> = basalt.instances().iter().map(|instance| instance["pid"].clone()).collect();
    let loads = Loads::start(&basalt, kinds, &["version=good\n", "version=broken\n"]);
    loads.flow(20);

    let mut stack = Stack::new("broken", rollout);
    stack.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let output = basalt.up(&stack).expect(3);
    assert!(output.text().contains(because), "{because:?} is not in {}", output.text());

    loads.flow(50);
    loads.finish_without_failure(&["version=good\n"]);
    wait_until("the old serves alone", Duration::from_secs(10), || basalt.serves(1, 3));
    assert_eq!(basalt.stable(), Some(1));
    // With these strategies nothing old is stopped before the new has proven itself: the very same processes serve.
    if !rollout.contains("rolling") {
        let now: Vec<_> = basalt.instances().iter().map(|instance| instance["pid"].clone()).collect();
        assert_eq!(now, pids);
    }
    let finished = basalt.events_of("rollout_finished");
    assert!(finished.last().unwrap()["data"].to_string().contains("rolled_back"), "{finished:?}");
    basalt.down();
}

#[test]
fn crashes_at_start() {
    check(BLUE_GREEN, &[("CRASH", "7")], &Kind::ALL, "exited with status 7");
}

#[test]
fn its_last_lines_are_shown() {
    check(ROLLING, &[("CRASH", "7")], &Kind::ALL, "fatal: the thing is broken");
}

#[test]
fn never_healthy() {
    check(CANARY, &[("NEVER_HEALTHY", "1")], &Kind::ALL, "healthy");
}

#[test]
fn healthy_and_then_answering_with_errors() {
    // An error that answers a POST can't be taken back by another try, so clients here send what can be repeated.
    let kinds = [Kind::KeepAlive, Kind::Close, Kind::Http2];
    check(CANARY, &[("FAIL_AFTER_MS", "1500"), ("FAIL_HOW", "error")], &kinds, "health");
}

#[test]
fn healthy_and_then_failing_its_checks() {
    check(BLUE_GREEN, &[("FAIL_AFTER_MS", "1500"), ("FAIL_HOW", "health")], &Kind::ALL, "health");
}

#[test]
fn healthy_and_then_refusing_connections() {
    // Connections that are open break too: a POST that was sent on one of them can't be repeated safely.
    let kinds = [Kind::KeepAlive, Kind::Close, Kind::Http2];
    check(BLUE_GREEN, &[("FAIL_AFTER_MS", "2000"), ("FAIL_HOW", "refuse")], &kinds, "health");
}

#[test]
fn a_first_release_that_is_broken_leaves_nothing_running() {
    let mut basalt = Basalt::new();
    let output = basalt.up(&Stack::new("broken", "").env("CRASH", "7")).expect(3);
    assert!(output.text().contains("fatal: the thing is broken"), "{}", output.text());
    assert!(basalt.instances().is_empty());
    basalt.up(&Stack::new("good", "")).expect(0);
    assert!(basalt.serves(2, 3));
    basalt.down();
}
