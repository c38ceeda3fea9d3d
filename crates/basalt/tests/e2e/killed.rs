//! Any process of Basalt may be killed at any moment (laws 4 and 5).

use std::time::Duration;

use basalt_testkit::load::Kind;

use crate::harness::{Basalt, Loads, Stack, kill, now, wait_until};

const ROLLING: &str = "rollout \"rolling\" { max_surge = 1 }";

/// Kills a role at several moments of rollouts, each of which comes to its end.
#[track_caller]
fn check(role: &str, requests_may_be_cut: bool) {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("v1", ROLLING).env("SLOW_START_MS", "150")).expect(0);
    for (round, moment) in [20, 150, 400, 800].into_iter().enumerate() {
        let (old, new) = (round as u64 + 1, round as u64 + 2);
        let expect = [format!("version=v{old}\n"), format!("version=v{new}\n")];
        let loads = Loads::start(&basalt, &Kind::ALL, &[&expect[0], &expect[1]]);
        loads.flow(10);

        let stack = Stack::new(&format!("v{new}"), ROLLING).env("SLOW_START_MS", "150").write(&basalt.folder());
        basalt.run(&["apply", &stack.display().to_string(), "--detach"]).expect(0);
        std::thread::sleep(Duration::from_millis(moment));
        basalt.kill_role(role);

        wait_until(&format!("release {new} serves after a kill at {moment} ms"), Duration::from_secs(60), || {
            basalt.run(&["status"]).code == Some(0) && basalt.stable() == Some(new) && basalt.serves(new, 3)
        });
        loads.flow(10);
        for (kind, report) in loads.finish() {
            if requests_may_be_cut {
                // Each of the two clients may lose the one request under way; no connection is refused.
                let refused = report.errors.iter().any(|error| error.contains("connecting"));
                assert!(report.failed <= 2 && !refused, "{kind:?}: {report}");
            } else {
                assert_eq!(report.failed, 0, "{kind:?}: {report}");
            }
        }
    }
    // Nothing was done twice.
    assert_eq!(basalt.events_of("release_created").len(), 5);
    assert_eq!(basalt.events_of("rollout_started").len(), 5);
    assert_eq!(basalt.events_of("instance_exited").len(), 0, "{:#?}", basalt.events_of("instance_exited"));
    basalt.down();
}

#[test]
fn the_controller() {
    check("serve", false);
}

#[test]
fn the_keeper() {
    check("keeper", false);
}

#[test]
fn the_gateway() {
    check("gateway", true);
}

#[test]
fn all_three_at_once_and_the_instances_go_on() {
    let mut basalt = Basalt::new();
    let stack = Stack::new("one", "");
    basalt.up(&stack).expect(0);
    let pids: Vec<_> = basalt.instances().iter().map(|instance| instance["pid"].clone()).collect();
    let all = ["keeper", "serve", "gateway"];
    all.iter().for_each(|role| kill(basalt.role(role).unwrap()));
    let started = now();
    basalt.up(&stack).expect(0);
    println!("up again: {:?}", started.elapsed());
    // As at boot: nothing is applied.
    all.iter().for_each(|role| kill(basalt.role(role).unwrap()));
    basalt.run(&["serve", "--detach"]).expect(0);
    wait_until("all serve again", Duration::from_secs(10), || basalt.serves(1, 3));
    let again: Vec<_> = basalt.instances().iter().map(|instance| instance["pid"].clone()).collect();
    assert_eq!(again, pids);
    assert!(basalt.get("/").1.contains("version=one"));
    basalt.down();
}
