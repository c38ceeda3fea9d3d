//! Updates and rollbacks under load, by every strategy that keeps serving, in every way that clients speak (law 4).

use basalt_testkit::load::Kind;

use crate::harness::{Basalt, Loads, Stack, now};

/// Updates, rolls back, and fails on one request that fails.
#[track_caller]
fn check(rollout: &str) {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", rollout)).expect(0);
    let loads = Loads::start(&basalt, &Kind::ALL, &["version=one\n", "version=two\n"]);
    loads.flow(20);

    let started = now();
    basalt.up(&Stack::new("two", rollout)).expect(0);
    println!("update: {:?}", started.elapsed());
    assert_eq!(basalt.stable(), Some(2));
    assert!(basalt.get("/").1.contains("version=two"));
    loads.flow(20);
    loads.finish_without_failure(&["version=one\n", "version=two\n"]);

    let loads = Loads::start(&basalt, &Kind::ALL, &["version=one\n", "version=two\n"]);
    loads.flow(20);
    let started = now();
    basalt.run(&["rollback", "app"]).expect(0);
    println!("rollback: {:?}", started.elapsed());
    assert_eq!(basalt.stable(), Some(1));
    assert!(basalt.get("/").1.contains("version=one"));
    loads.flow(20);
    loads.finish_without_failure(&["version=one\n", "version=two\n"]);
    basalt.down();
}

#[test]
fn rolling() {
    check(r#"rollout "rolling" { max_surge = 1 }"#);
}

#[test]
fn blue_green() {
    check(r#"rollout "blue_green" {}"#);
}

#[test]
fn blue_green_with_the_old_kept_warm() {
    check(r#"rollout "blue_green" { keep_old = "10m" }"#);
}

#[test]
fn canary() {
    check(
        "rollout \"canary\" {\n instances = 1\n steps = [{ weight = 10, hold = \"300ms\" }, { weight = 50, hold = \"300ms\" }]\n}",
    );
}

#[test]
fn recreate_makes_requests_wait_and_fails_none() {
    let rollout = r#"rollout "recreate" {}"#;
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", rollout)).expect(0);
    // While nothing runs, a request waits for what comes.
    let loads = Loads::start(&basalt, &Kind::ALL, &["version=one\n", "version=two\n"]);
    loads.flow(20);
    basalt.up(&Stack::new("two", rollout)).expect(0);
    loads.flow(20);
    loads.finish_without_failure(&["version=one\n", "version=two\n"]);
    basalt.down();
}

#[test]
fn a_rollback_to_any_kept_release() {
    let mut basalt = Basalt::new();
    for version in ["one", "two", "three"] {
        basalt.up(&Stack::new(version, "").instances(1)).expect(0);
    }
    basalt.run(&["rollback", "app", "--to", "1"]).expect(0);
    assert!(basalt.get("/").1.contains("version=one"));
    assert_eq!(basalt.stable(), Some(1));
    basalt.down();
}
