//! A second try while the first is silent.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use basalt_model::{Millis, RouteTable, Rules};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::app::App;
use super::client::{Client, Kind};
use super::gateway::{Gateway, name, table};

/// A table whose only route sends a second time after so many milliseconds.
fn hedging(apps: &[&App], after: u64) -> RouteTable {
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let mut table = table(1, &[(1, 100, &addresses)]);
    let rules = Rules { hedge_after: Some(Millis(after)), ..Rules::default() };
    table.services.get_mut(&name("web")).unwrap().routes[0].rules = rules;
    table
}

async fn serving(table: &RouteTable) -> (Gateway, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    gateway.set(table).await;
    gateway.until_healthy().await;
    (gateway, data)
}

/// How often was sent a second time, by the word of metrics.
async fn hedges(data: &tempfile::TempDir) -> u64 {
    let mut unix = UnixStream::connect(data.path().join("run/metrics.sock")).await.unwrap();
    unix.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    unix.read_to_string(&mut text).await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("http_request_hedges_total{service=\"web\",route=\"*/\",release=\"1\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_counts_and_nobody_is_blamed() {
    let (slow, quick) = (App::start().await, App::start().await);
    let (mut gateway, data) = serving(&hedging(&[&slow, &quick], 100)).await;
    slow.behaviour.delay.store(30_000, SeqCst);
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    let began = Instant::now();
    for _ in 0..6 {
        let got = client.get("/").await.unwrap();
        assert_eq!((got.status, got.body), (200, quick.address.to_string()));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "nobody has waited for the slow one");
    let id = "web-1-1".parse().unwrap();
    let seen = gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
    let one = &seen.instances[&id];
    assert_eq!((one.healthy, one.errors), (Some(true), 0), "{one:?}");
    assert!(slow.requests() > 0);
    assert_eq!(hedges(&data).await, slow.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_writes_is_sent_once_and_so_is_what_has_nowhere_else_to_go() {
    let apps = [App::start().await, App::start().await];
    let (gateway, data) = serving(&hedging(&[&apps[0], &apps[1]], 50)).await;
    apps.iter().for_each(|app| app.behaviour.delay.store(300, SeqCst));
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(client.send(method, "/", "x".into()).await.unwrap().status, 200);
    }
    assert_eq!((apps[0].requests() + apps[1].requests(), hedges(&data).await), (3, 0));

    let (gateway, data) = serving(&hedging(&[&apps[0]], 50)).await;
    let before = apps[0].requests();
    assert_eq!(Client::new(gateway.http, Kind::KeepAlive).get("/").await.unwrap().status, 200);
    assert_eq!((apps[0].requests() - before, hedges(&data).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_does_not_win() {
    // Whichever of the two is tried first: the one that fails at once after the hedge loses against the one that is slower.
    let (bad, good) = (App::start().await, App::start().await);
    let (gateway, data) = serving(&hedging(&[&bad, &good], 100)).await;
    bad.behaviour.status.store(503, SeqCst);
    bad.behaviour.delay.store(200, SeqCst);
    good.behaviour.delay.store(400, SeqCst);
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    for _ in 0..4 {
        let got = client.get("/").await.unwrap();
        assert_eq!((got.status, got.body), (200, good.address.to_string()));
    }
    assert_eq!((bad.requests(), good.requests(), hedges(&data).await), (4, 4, 4));
}
