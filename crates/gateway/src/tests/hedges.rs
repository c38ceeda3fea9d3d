//! A second try while the first is silent.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use basalt_model::{Millis, RateLimit, Route, RouteTable, Rules};
use hyper::{Method, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::Instant;

use super::app::{App, PORT, fresh_address};
use super::client::{Client, Kind};
use super::gateway::{Gateway, all_healthy, name, table, web};
use crate::{GatewayOptions, LogFormat};

/// A table whose only route sends a second time after so many milliseconds.
fn hedging(apps: &[&App], after: u64) -> RouteTable {
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let mut table = table(1, &[(1, 100, &addresses)]);
    let rules = Rules { hedge_after: Some(Millis(after)), ..Rules::default() };
    web(&mut table).routes[0].rules = rules;
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
    let began = Instant::now();
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let mut client = Client::new(gateway.http, kind);
        for _ in 0..6 {
            let got = client.get("/").await.unwrap();
            assert_eq!((got.status, got.body), (200, quick.address.to_string()), "{kind:?}");
        }
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
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let mut client = Client::new(gateway.http, kind);
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(client.send(method, "/", "x".into()).await.unwrap().status, 200);
        }
    }
    assert_eq!((apps[0].requests() + apps[1].requests(), hedges(&data).await), (6, 0));

    let (gateway, data) = serving(&hedging(&[&apps[0]], 50)).await;
    let before = apps[0].requests();
    assert_eq!(Client::new(gateway.http, Kind::KeepAlive).get("/").await.unwrap().status, 200);
    assert_eq!((apps[0].requests() - before, hedges(&data).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_release_answers_for_a_slow_one() {
    let (old, new) = (App::start().await, App::start().await);
    let mut both = hedging(&[&old], 50);
    let with_new = table(1, &[(1, 100, &[old.address]), (2, 0, &[new.address])]);
    web(&mut both).releases = with_new.services[&name("web")].releases.clone();
    let (gateway, data) = serving(&both).await;
    old.behaviour.delay.store(300, SeqCst);
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let got = Client::new(gateway.http, kind).get("/").await.unwrap();
        assert_eq!((got.status, got.body), (200, old.address.to_string()));
    }
    assert_eq!((new.requests(), hedges(&data).await), (0, 0));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_nobody_wants_does_not_win() {
    let (good, bad) = (App::start().await, fresh_address());
    let listener = TcpListener::bind((bad, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Later than the hedge, whichever of the two is tried first.
                tokio::time::sleep(Duration::from_millis(150)).await;
                let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n").await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let mut hedging = hedging(&[&good], 50);
    let both = table(1, &[(1, 100, &[good.address, bad])]);
    web(&mut hedging).releases = both.services[&name("web")].releases.clone();
    all_healthy(&mut hedging);
    let (gateway, _data) = serving(&hedging).await;
    good.behaviour.delay.store(300, SeqCst);
    for _ in 0..4 {
        assert_eq!(Client::new(gateway.http, Kind::KeepAlive).get("/").await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_answers_are_what_they_are_without_hedges() {
    let app = App::start().await;
    let folder = tempfile::tempdir().unwrap();
    let options = GatewayOptions {
        access_log: Some(LogFormat::Json),
        ..GatewayOptions::new(folder.path().to_owned(), "127.0.0.1:0".parse().unwrap())
    };
    let mut gateway = Gateway::start_with(options).await;
    let mut table = hedging(&[&app], 5000);
    let web = web(&mut table);
    web.routes[0].rules.response_headers = [("x-edge".to_owned(), "1".to_owned())].into();
    web.routes.push(Route {
        rules: Rules {
            rate_limit: Some(RateLimit { requests: 1, per: Millis::seconds(3600), burst: 1 }),
            ..web.routes[0].rules.clone()
        },
        ..Route::new(None, "/rare", name("http"))
    });
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let mut client = Client::new(gateway.http, Kind::Http2);
    let cookies =
        Request::builder().uri("/headers?q").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    let got = client.request(cookies, "".into()).await.unwrap();
    assert!(
        got.body.contains(r#""cookie": "a=1; b=2""#) && got.body.contains(r#""host": "any.example""#),
        "{}",
        got.body
    );
    assert!(got.body.contains(r#""x-forwarded-for": "127.0.0.1""#) && !got.body.contains("connection"), "{}", got.body);
    assert_eq!((got.status, got.headers["x-edge"].to_str().unwrap()), (200, "1"));
    assert!(!got.headers.contains_key("connection"), "{got:?}");
    assert_eq!(client.get("/text").await.unwrap().body.len(), 22_000);
    assert_eq!(client.send(Method::HEAD, "/text", "".into()).await.unwrap().body, "");
    app.behaviour.status.store(503, SeqCst);
    assert_eq!(client.get("/").await.unwrap().status, 503);
    app.behaviour.status.store(0, SeqCst);
    assert_eq!(client.get("/rare").await.unwrap().status, 200);
    assert_eq!(client.get("/rare").await.unwrap().status, 429);
    // A client that leaves is no longer waited for.
    app.behaviour.delay.store(20_000, SeqCst);
    let id = "web-1-1".parse().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), client.get("/")).await.is_err());
    gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
    gateway.stop().await;
    let text = std::fs::read_to_string(folder.path().join("logs/access.log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> =
        lines.iter().map(|line| (line["protocol"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    // The last is the client that has left: it got no answer.
    let statuses = [200, 200, 200, 503, 200, 429, 0];
    assert_eq!(said, statuses.map(|status| ("HTTP/2.0", status)), "{text}");
    assert_eq!(
        (&lines[0]["target"], &lines[0]["client"], &lines[1]["sent"]),
        (&"/headers?q".into(), &"127.0.0.1".into(), &22_000.into())
    );
}
