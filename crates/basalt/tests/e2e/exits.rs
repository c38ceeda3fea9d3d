//! Instances that end: how is told apart, and they are replaced.

use std::net::SocketAddr;
use std::time::Duration;

use basalt_testkit::load::Kind;
use serde_json::{Value, json};

use crate::harness::{Basalt, Loads, Stack, get, kill, now, wait_until};

fn pid(instance: &Value) -> u32 {
    u32::try_from(instance["pid"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_killed_instance_is_replaced_without_a_failed_request() {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "")).expect(0);
    let kinds = [Kind::KeepAlive, Kind::Close, Kind::Http2];
    let loads = Loads::start(&basalt, &kinds, &["version=one\n"]);
    for _ in 0..3 {
        loads.flow(20);
        let victim = pid(&basalt.instances()[1]);
        let started = now();
        kill(victim);
        wait_until("three serve, and not the killed one", Duration::from_secs(10), || {
            basalt.serves(1, 3) && basalt.instances().iter().all(|instance| instance["pid"] != victim)
        });
        println!("replaced within {:?}", started.elapsed());
    }
    loads.flow(20);
    loads.finish_without_failure(&["version=one\n"]);
    basalt.down();
}

#[test]
fn status_signal_and_memory_are_told_apart() {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").service("limits { memory = \"64MiB\" }")).expect(0);
    let instances = basalt.instances();
    for (instance, path) in instances.iter().zip(["/exit?3", "/abort", "/eat"]) {
        let address: SocketAddr = instance["address"].as_str().unwrap().parse().unwrap();
        get(address, path);
    }
    wait_until("all three have ended", Duration::from_secs(15), || basalt.events_of("instance_exited").len() >= 3);
    let exits: Vec<(String, Value)> = basalt
        .events_of("instance_exited")
        .into_iter()
        .map(|event| (event["subject"].as_str().unwrap().to_owned(), event["data"]["exit"].clone()))
        .collect();
    for (instance, expected) in instances.iter().zip([json!({"code": 3}), json!({"signal": 6}), json!("out_of_memory")])
    {
        let id = instance["id"].as_str().unwrap();
        let exit = exits.iter().find(|(subject, _)| subject == id).map(|(_, exit)| exit);
        assert_eq!(exit, Some(&expected), "{id}: {exits:?}");
    }
    wait_until("three serve again", Duration::from_secs(20), || basalt.serves(1, 3));
    let kinds: Vec<_> = basalt.instances().iter().map(|instance| instance["last_exit"]["kind"].clone()).collect();
    assert_eq!(kinds, ["code", "signal", "out_of_memory"]);
    basalt.down();
}

#[test]
fn one_that_keeps_dying_is_retried_with_growing_pauses_and_named() {
    let mut basalt = Basalt::new();
    let stack = Stack::new("one", "").instances(1).env("EXIT_AFTER_MS", "1200").env("EXIT_CODE", "5");
    basalt.up(&stack).expect(0);
    wait_until("it has died three times", Duration::from_secs(30), || basalt.events_of("instance_exited").len() >= 3);
    let exited = basalt.events_of("instance_exited");
    for event in &exited {
        assert!(event["data"]["last_lines"].to_string().contains("time is over"), "{event}");
        assert_eq!(event["data"]["exit"], json!({"code": 5}));
    }
    let retry_at: Vec<u64> = exited.iter().map(|event| event["data"]["retry_at"].as_u64().unwrap()).collect();
    let requested = basalt.events_of("instance_requested");
    assert!(requested.len() >= 3 && retry_at.is_sorted(), "{retry_at:?}");

    wait_until("it waits for its next start", Duration::from_secs(30), || {
        basalt
            .instances()
            .iter()
            .any(|instance| instance["state"] == "waiting" && instance["exits"].as_u64() >= Some(3))
    });
    let status = basalt.run(&["status"]).expect(0);
    assert!(status.out.contains("exited with status 5"), "{}", status.out);
    basalt.down();
}

#[test]
fn logs_tell_who_wrote_what() {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(2)).expect(0);
    let logs = basalt.run(&["logs", "app", "--output", "json"]).expect(0);
    let lines: Vec<Value> = logs.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for id in ["app-1-1", "app-1-2"] {
        let wrote = |line: &&Value| line["instance"] == id && line["line"] == "version one starts";
        assert_eq!(lines.iter().filter(wrote).count(), 1, "{}", logs.out);
    }
    basalt.down();
}
