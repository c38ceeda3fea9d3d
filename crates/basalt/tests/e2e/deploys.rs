//! A stack comes up, stays as it is, and goes without a trace.

use std::path::{Path, PathBuf};

use crate::harness::{Basalt, Stack, wait_until};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn hello_is_served_and_the_second_apply_writes_nothing() {
    let mut basalt = Basalt::new();
    let hello = example("hello");
    basalt.up_path(&hello, &[]).expect(0);
    assert_eq!(basalt.get("/"), (200, "hello\n".to_owned()));
    assert_eq!(basalt.get("/nothing").0, 404);

    // Law 6.
    let before = (basalt.events().len(), basalt.instances_of("web"));
    basalt.up_path(&hello, &[]).expect(0);
    basalt.run(&["plan", &hello.display().to_string(), "--detailed-exitcode"]).expect(0);
    basalt.run(&["plan", &hello.display().to_string(), "--detailed-exitcode", "--var", "greeting=x"]).expect(2);
    assert_eq!((basalt.events().len(), basalt.instances_of("web")), before);

    basalt.up_path(&hello, &["--var", "greeting=good day"]).expect(0);
    assert_eq!(basalt.get("/"), (200, "good day\n".to_owned()));
    basalt.down();
}

#[test]
fn the_shop_s_front_reaches_its_api_by_name_after_the_job() {
    let mut basalt = Basalt::new();
    basalt.up_path(&example("shop"), &[]).expect(0);
    let (status, page) = basalt.get("/");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Welcome to the shop") && page.contains("5 basalt columns"), "{page}");

    let events = basalt.events();
    let first = |kind: &str, subject: &str| {
        let found = |event: &&serde_json::Value| {
            event["kind"] == kind && event["subject"].as_str().is_some_and(|name| name.starts_with(subject))
        };
        events
            .iter()
            .find(found)
            .and_then(|event| event["seq"].as_u64())
            .unwrap_or_else(|| panic!("no {kind} {subject}"))
    };
    assert!(first("job_succeeded", "migrate") < first("instance_requested", "api-"), "{events:#?}");

    // Instances reach what they connect to, and nothing else.
    let logs = basalt.run(&["logs", "migrate"]).expect(0);
    assert!(logs.out.contains("migrating"), "{}", logs.out);
    basalt.down();
}

#[test]
fn images_that_kept_releases_need_stay() {
    let mut basalt = Basalt::new();
    let hello = example("hello");
    basalt.up_path(&hello, &[]).expect(0);
    basalt.up_path(&hello, &["--var", "greeting=good day"]).expect(0);
    let images = basalt.run(&["image", "list", "--output", "json"]).expect(0);
    let images: Vec<serde_json::Value> = serde_json::from_str(&images.out).unwrap();
    let needed: Vec<String> = images.iter().map(|image| image["needed_by"].to_string()).collect();
    assert!(needed.iter().any(|by| by.contains("web#1")) && needed.iter().any(|by| by.contains("web#2")), "{needed:?}");
    for image in &images {
        let refused = basalt.run(&["image", "remove", image["digest"].as_str().unwrap()]).expect(4);
        assert!(refused.err.contains("is needed by web#"), "{}", refused.err);
    }
    let freed = basalt.run(&["image", "gc", "--all", "--output", "json"]).expect(0);
    assert!(freed.out.contains("\"images\": 0"), "{}", freed.out);
    basalt.run(&["image", "verify"]).expect(0);
    // What is needed includes what may come back.
    basalt.run(&["rollback", "web"]).expect(0);
    assert_eq!(basalt.get("/"), (200, "hello\n".to_owned()));
    let notes = basalt.status()["notes"].to_string();
    let sealed = Path::new("/sys/fs/ext4/features/verity").exists();
    assert!(sealed || notes.contains("fs-verity"), "{notes}");
    basalt.down();
}

#[test]
fn examples_are_valid() {
    let basalt = Basalt::new();
    for entry in std::fs::read_dir(example("")).unwrap() {
        basalt.run(&["validate", &entry.unwrap().path().display().to_string()]).expect(0);
    }
}

#[test]
fn a_service_is_reached_only_by_who_declares_it() {
    let other = r#"
service "other" {
  image     = image.app
  instances = 1
  env       = { VERSION = "other" }
  port "http" { container = 8080 }
  route { path = "/other" }
}
"#;
    let connected = Stack::new("one", "").instances(1).stack(other).service("connects_to = [service.other]");
    let mut basalt = Basalt::new();
    basalt.up(&connected).expect(0);
    let (status, body) = basalt.get("/call?other:8080/");
    assert!(status == 200 && body.contains("version=other"), "{status} {body}");
    let address = basalt.instances_of("other")[0]["address"].as_str().unwrap().to_owned();
    let (status, body) = basalt.get(&format!("/call?{address}/"));
    assert_eq!(status, 502, "the address of an instance itself is not open to others: {body}");

    basalt.up(&Stack::new("two", "").instances(1).stack(other)).expect(0);
    let (status, body) = basalt.get("/call?other:8080/");
    assert_eq!(status, 502, "default deny: {body}");
    basalt.down();
}

#[test]
fn a_service_may_have_the_port_that_the_gateway_has_on_all_addresses() {
    let mut basalt = Basalt::new().on_all_addresses();
    let port = basalt.http().port();
    let other = format!(
        "service \"other\" {{\n image = image.app\n env = {{ VERSION = \"other\", PORT = \"{port}\" }}\n \
         port \"http\" {{ container = {port} }}\n}}\n"
    );
    let connected = Stack::new("one", "").instances(1).stack(&other).service("connects_to = [service.other]");
    basalt.up(&connected).expect(0);
    let (status, body) = basalt.get(&format!("/call?other:{port}/"));
    assert!(status == 200 && body.contains("version=other"), "{status} {body}");
    assert!(basalt.get("/").1.contains("version=one"));
    basalt.down();
}

#[test]
fn a_service_that_is_no_longer_declared_is_removed() {
    let other = "service \"other\" {\n image = image.app\n port \"http\" { container = 8080 }\n}\n";
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1).stack(other)).expect(0);
    assert_eq!(basalt.instances_of("other").len(), 1);
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    assert!(basalt.service("other").is_null());
    assert_eq!(basalt.events_of("service_removed").len(), 1);
    basalt.down();
}

#[test]
fn what_the_returning_release_calls_is_still_there() {
    let other = "service \"other\" {\n image = image.app\n port \"http\" { container = 8080 }\n}\n";
    let calls = "connects_to = [service.other]";
    let one = Stack::new("one", "").instances(1).stack(other).service(calls);
    let mut basalt = Basalt::new();
    basalt.up(&one).expect(0);
    let served_by = basalt.instances_of("other")[0]["id"].clone();
    // One apply takes `other` away and fails: the release that serves as before still needs it (law 3).
    let broken = Stack::new("two", "").instances(1).env("CRASH", "7");
    let failed = basalt.up(&broken).expect(3);
    assert!(failed.text().contains("stays, since app#1 calls it"), "{}", failed.text());
    let (status, body) = basalt.get("/call?other:8080/");
    assert_eq!(status, 200, "{body}");
    // Declared again it stays, as it is.
    basalt.up(&one).expect(0);
    assert_eq!(basalt.service("other")["removing"], false);
    assert_eq!(basalt.instances_of("other")[0]["id"], served_by);
    basalt.up(&Stack::new("two", "").instances(1)).expect(0);
    assert!(basalt.service("other").is_null());
    basalt.down();
}

#[test]
fn down_waits_for_what_an_apply_was_still_removing() {
    let other = "service \"other\" {\n image = image.app\n stop_within = \"1s\"\n env = { IGNORE_TERM = \"1\" }\n port \"http\" { container = 8080 }\n}\n";
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1).stack(other).service("connects_to = [service.other]")).expect(0);
    basalt.up(&Stack::new("two", "").instances(1).env("CRASH", "7")).expect(3);
    assert_eq!(basalt.service("other")["removing"], true);
    basalt.down();
}

#[test]
fn a_saved_plan_is_refused_once_the_state_has_moved_on() {
    let mut basalt = Basalt::new();
    basalt.up(&Stack::new("one", "").instances(1)).expect(0);
    let stack = Stack::new("two", "").instances(1).write(&basalt.folder()).display().to_string();
    let plan = basalt.folder().join("saved.plan").display().to_string();
    basalt.run(&["plan", &stack, "--out", &plan]).expect(0);
    basalt.run(&["scale", "app=2"]).expect(0);
    let refused = basalt.run(&["apply", &plan]);
    assert!(refused.code.is_some_and(|code| code != 0), "{}", refused.text());
    assert_eq!(basalt.stable(), Some(1));

    basalt.run(&["plan", &stack, "--out", &plan]).expect(0);
    basalt.run(&["apply", &plan]).expect(0);
    wait_until("release 2 serves", std::time::Duration::from_secs(10), || basalt.stable() == Some(2));
    basalt.down();
}
