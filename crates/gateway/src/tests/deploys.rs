//! Law 4: a request that was accepted is answered, whatever happens to instances.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use basalt_model::Millis;
use basalt_seam::Router;
use hyper::Method;

use super::app::App;
use super::client::{Client, Kind, Load, all_kinds};
use super::gateway::{Gateway, table, web};

async fn apps(count: usize) -> Vec<App> {
    let mut apps = Vec::new();
    for _ in 0..count {
        apps.push(App::start().await);
    }
    apps
}

fn addresses(apps: &[App]) -> Vec<Ipv4Addr> {
    apps.iter().map(|app| app.address).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutovers_under_load_lose_nothing() {
    let mut gateway = Gateway::start().await;
    let mut old = apps(3).await;
    gateway.set(&table(1, &[(1, 100, &addresses(&old))])).await;
    gateway.until_healthy().await;
    let load = Load::start(gateway.http, &all_kinds());
    for round in 1..=8 {
        let new = apps(3).await;
        let (old_number, new_number) = (round, round + 1);
        let version = u64::from(round) * 10;
        let (old_at, new_at) = (addresses(&old), addresses(&new));
        gateway.set(&table(version, &[(old_number, 100, &old_at), (new_number, 0, &new_at)])).await;
        gateway.until_healthy().await;
        load.more(50).await;
        assert!(new.iter().all(|app| app.requests() == 0), "an instance without weight is only checked");
        gateway.set(&table(version + 1, &[(old_number, 50, &old_at), (new_number, 50, &new_at)])).await;
        load.more(50).await;
        // The acknowledgement: from here on only what is in flight may still reach an old instance.
        gateway.set(&table(version + 2, &[(new_number, 100, &new_at)])).await;
        gateway.until(|seen| seen.instances.values().all(|one| one.named)).await;
        let drained: Vec<_> = old.iter().map(App::requests).collect();
        load.more(100).await;
        assert_eq!(old.iter().map(App::requests).collect::<Vec<_>>(), drained, "drained instances get no request");
        old.iter().for_each(App::kill);
        old = new;
    }
    let (answered, failures) = load.end().await;
    assert!(answered > 1000, "{answered}");
    assert_eq!(failures, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_reported_until_they_end() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (App::start().await, App::start().await);
    gateway.set(&table(1, &[(1, 100, &[old.address]), (2, 0, &[new.address])])).await;
    gateway.until_healthy().await;
    old.behaviour.delay.store(300, SeqCst);
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    let slow = tokio::spawn(async move { client.get("/").await.unwrap().body });
    while old.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let id = "web-1-1".parse().unwrap();
    let seen = gateway.set(&table(2, &[(2, 100, &[new.address])])).await;
    assert_eq!(seen.instances.get(&id).map(|old| (old.named, old.in_flight)), Some((false, 1)), "{seen:#?}");
    gateway.until(|seen| !seen.instances.contains_key(&id)).await;
    assert_eq!(slow.await.unwrap(), old.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_die_under_load_cost_nothing() {
    let mut gateway = Gateway::start().await;
    let mut living = apps(4).await;
    gateway.set(&table(1, &[(1, 100, &addresses(&living))])).await;
    gateway.until_healthy().await;
    // What can't be sent twice may be lost with the instance that works on it; all else may not.
    let clients: Vec<_> = all_kinds().into_iter().filter(|(_, method, _)| *method != Method::POST).collect();
    let load = Load::start(gateway.http, &clients);
    for _ in 0..6 {
        load.more(100).await;
        let address = living.remove(0).address;
        load.more(100).await;
        living.push(App::start_at(address).await);
        gateway.until_healthy().await;
    }
    let (_, failures) = load.end().await;
    assert_eq!(failures, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_instance_is_waited_for() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    let address = app.address;
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    gateway.until_healthy().await;
    let clients: Vec<_> = all_kinds().into_iter().filter(|(_, method, _)| *method != Method::POST).collect();
    let load = Load::start(gateway.http, &clients);
    load.more(100).await;
    drop(app);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _app = App::start_at(address).await;
    load.more(100).await;
    let (_, failures) = load.end().await;
    assert_eq!(failures, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_the_first_healthy_instance() {
    let mut gateway = Gateway::start().await;
    let address = super::app::fresh_address();
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    let waiting: Vec<_> = (0..50)
        .map(|at| {
            let mut client = Client::new(gateway.http, [Kind::KeepAlive, Kind::Http2][at % 2]);
            tokio::spawn(async move { client.send(Method::POST, "/echo", "x".into()).await.unwrap().status })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waiting.iter().all(|request| !request.is_finished()));
    let _app = App::start_at(address).await;
    for request in waiting {
        assert_eq!(request.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_ready_at_once_is_soon_proven() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    let mut table = table(1, &[(1, 100, &[app.address])]);
    let web = web(&mut table);
    web.releases.get_mut(&1).unwrap().health.interval = Millis::seconds(20);
    let start = now();
    gateway.set(&table).await;
    gateway.until_healthy().await;
    // Two successes, at most 50 ms apart, and not an interval; the rest is for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fails_its_checks_gets_nothing_until_it_recovers() {
    let mut gateway = Gateway::start().await;
    let (good, bad) = (App::start().await, App::start().await);
    gateway.set(&table(1, &[(1, 100, &[good.address, bad.address])])).await;
    gateway.until_healthy().await;
    bad.behaviour.check_status.store(500, SeqCst);
    let id = "web-1-2".parse().unwrap();
    let seen = gateway.until(|seen| seen.instances[&id].healthy == Some(false)).await;
    assert_eq!(seen.instances[&id].last_probe.as_deref(), Some("GET /check answered 500"));
    let before = bad.requests();
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().body, good.address.to_string());
    }
    assert_eq!(bad.requests(), before);
    bad.behaviour.check_status.store(0, SeqCst);
    gateway.until_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tables_a_second_under_load_lose_nothing() {
    let mut gateway = Gateway::start().await;
    let apps = apps(4).await;
    let at = addresses(&apps);
    gateway.set(&table(1, &[(1, 100, &at)])).await;
    gateway.until_healthy().await;
    let load = Load::start(gateway.http, &all_kinds());
    let start = now();
    for version in 2..=200 {
        let weight = (version % 101) as u32;
        let releases = [(1, 100 - weight, &at[..2]), (2, weight, &at[2..])];
        gateway.set(&table(version, &releases)).await;
        tokio::time::sleep(Duration::from_millis(10).saturating_sub(start.elapsed() / version as u32)).await;
    }
    let (answered, failures) = load.end().await;
    assert!(answered > 500, "{answered}");
    assert_eq!(failures, [] as [String; 0]);
}

/// Tests have no other clock.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_change_a_hundred_times_a_second_lose_nothing() {
    let mut gateway = Gateway::start().await;
    let apps = apps(3).await;
    let at = addresses(&apps);
    gateway.set(&table(1, &[(1, 100, &at)])).await;
    gateway.until_healthy().await;
    let load = Load::start(gateway.http, &all_kinds());
    for version in 2..302u64 {
        // Weights, releases and instances come and go.
        let releases: [&[(u32, u32, &[Ipv4Addr])]; 3] =
            [&[(1, 100, &at)], &[(1, 70, &at[..2]), (2, 30, &at[2..])], &[(1, 0, &at[..1]), (2, 100, &at[1..])]];
        gateway.router.set(std::sync::Arc::new(table(version, releases[version as usize % 3])));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.until(|seen| seen.version == 301).await;
    let (answered, failures) = load.end().await;
    assert!(answered > 300, "{answered}");
    assert_eq!(failures, [] as [String; 0]);
}
