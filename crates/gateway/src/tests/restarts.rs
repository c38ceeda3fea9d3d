//! Restarts of the gateway.

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use basalt_seam::Router;
use basalt_wire::fdstore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::app::App;
use super::client::{Client, Kind, Load, all_kinds};
use super::gateway::{Gateway, all_healthy, table, web};
use super::sockets;
use crate::http1::websocket::GOING_AWAY;

/// Keeps descriptors as the keeper does, until the process ends.
fn keep_descriptors(data: &Path) {
    std::fs::create_dir_all(data.join("run")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(data.join("run/fdstore.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let kept = Rc::new(fdstore::Kept::default());
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(fdstore::serve(stream, kept.clone()));
            }
        });
    });
}

/// Starts a gateway whose sockets are kept, with a table of version 7 that leads to an app.
async fn serving(data: &Path) -> (App, Gateway) {
    keep_descriptors(data);
    let app = App::start().await;
    let mut gateway = Gateway::start_in(data, "127.0.0.1:0".parse().unwrap()).await;
    gateway.set(&table(7, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    (app, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_comes_back_alone_and_refuses_no_connection() {
    let data = tempfile::tempdir().unwrap();
    let (_app, gateway) = serving(data.path()).await;
    let http = gateway.http;
    assert_eq!(Client::new(http, Kind::Close).get("/").await.unwrap().status, 200);
    gateway.kill().await;
    // Nobody serves now, but the socket is there: who connects waits.
    let waiting: Vec<_> = (0..20)
        .map(|_| tokio::spawn(async move { Client::new(http, Kind::Close).get("/").await.unwrap().status }))
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gateway = Gateway::start_in(data.path(), http).await;
    assert_eq!(gateway.router.seen().version, 7, "it has come back with its table");
    assert_eq!(gateway.http, http);
    for request in waiting {
        assert_eq!(request.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_sends_its_newest_table_to_a_gateway_that_has_lost_it() {
    let data = tempfile::tempdir().unwrap();
    let app = App::start().await;
    let mut first = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    first.set(&table(3, &[(1, 100, &[app.address])])).await;
    let (http, router) = (first.http, first.router.clone());
    first.kill().await;
    std::fs::remove_dir_all(data.path().join("gateway")).unwrap();
    let mut second = Gateway::start_in(data.path(), http).await;
    second.until(|seen| seen.version == 3).await;
    second.until_healthy().await;
    assert!(router.seen().connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_asked_to_end_finishes_what_it_has_begun() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    let http = gateway.http;
    // Clients that are idle, or have said nothing yet, are not waited for.
    let mut idle: Vec<_> = [Kind::KeepAlive, Kind::Http2].map(|kind| Client::new(http, kind)).into();
    for client in &mut idle {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let _silent = tokio::net::TcpStream::connect(http).await.unwrap();
    app.behaviour.delay.store(600, SeqCst);
    let slow: Vec<_> = [Kind::KeepAlive, Kind::Close, Kind::Http2, Kind::KeepAlive]
        .map(|kind| tokio::spawn(async move { Client::new(http, kind).get("/").await.unwrap() }))
        .into();
    while app.requests() < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::timeout(Duration::from_secs(5), gateway.stop()).await.expect("it ends soon");
    for request in slow {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert!(Client::new(http, Kind::Close).get("/").await.is_err(), "it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_successors_under_load_lose_nothing() {
    let data = tempfile::tempdir().unwrap();
    keep_descriptors(data.path());
    let apps = [App::start().await, App::start().await];
    let mut gateway = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let http = gateway.http;
    gateway.set(&table(1, &[(1, 100, &[apps[0].address, apps[1].address])])).await;
    gateway.until_healthy().await;
    let load = Load::start(http, &all_kinds());
    let mut leaving = Vec::new();
    for _ in 0..20 {
        load.more(60).await;
        gateway.hand_over().await;
        leaving.push(std::mem::replace(&mut gateway, Gateway::start_in(data.path(), http).await));
        gateway.until_healthy().await;
    }
    load.more(60).await;
    let (_, failures) = load.end().await;
    assert_eq!(failures, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_where_nobody_listens_any_more_are_served() {
    let data = tempfile::tempdir().unwrap();
    let (_app, gateway) = serving(data.path()).await;
    let before = gateway.http;
    gateway.kill().await;
    let waiting = tokio::spawn(async move { Client::new(before, Kind::Close).get("/").await.unwrap().status });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gateway = Gateway::start_in(data.path(), "127.0.0.2:0".parse().unwrap()).await;
    assert_ne!(gateway.http, before);
    assert_eq!(waiting.await.unwrap(), 200);
    let refused = async {
        while Client::new(before, Kind::Close).get("/").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("nobody listens there in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_lost_its_table_keeps_its_sockets_until_it_gets_one() {
    let data = tempfile::tempdir().unwrap();
    keep_descriptors(data.path());
    let app = App::start().await;
    let mut first = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let http = first.http;
    let virtual_address = format!("{}:7000", super::app::fresh_address());
    let mut one = table(3, &[(1, 100, &[app.address])]);
    super::gateway::listen(&mut one, &virtual_address, basalt_model::Protocol::Http);
    first.set(&one).await;
    first.kill().await;
    std::fs::remove_dir_all(data.path().join("gateway")).unwrap();
    // More than once.
    Gateway::start_in(data.path(), http).await.kill().await;
    let mut second = Gateway::start_in(data.path(), http).await;
    let answer = Client::new(http, Kind::Close).get("/").await.unwrap();
    assert_eq!((answer.status, &*answer.body), (503.try_into().unwrap(), "no routes are known yet\n"));
    let waiting = tokio::net::TcpStream::connect(&virtual_address).await;
    assert!(waiting.is_ok(), "it waits for the table");
    let seen = second.set(&one).await;
    assert_eq!(seen.problems, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_one_lets_go_of_instances_that_are_to_stop() {
    let data = tempfile::tempdir().unwrap();
    keep_descriptors(data.path());
    let instance = sockets::instance().await;
    let mut old = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let http = old.http;
    let mut first = table(1, &[(1, 100, &[instance])]);
    all_healthy(&mut first);
    old.set(&first).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(sockets::open(http, false).await);
    }
    // It has read its frame to its end.
    let mut told = clients.pop().unwrap();
    told.write_all(b"\x81\x02ok").await.unwrap();
    told.read_exact(&mut [0; 9]).await.unwrap();
    let id = "web-1-1".parse().unwrap();
    old.until(|seen| seen.instances[&id].in_flight == 4).await;
    old.hand_over().await;
    let _new = Gateway::start_in(data.path(), http).await;
    let kept = || std::fs::read_to_string(data.path().join("gateway/routes.json")).unwrap();
    web(&mut first).releases.get_mut(&1).unwrap().drain = basalt_model::Millis(1000);
    first.version = 2;
    old.set(&first).await;
    let mut second = first.clone();
    second.version = 3;
    web(&mut second).releases.clear();
    old.set(&second).await;
    let before = kept();
    // Told within the drain, although the gateway itself would take longer; who is not done is cut at its end.
    let mut back = vec![0; GOING_AWAY.len()];
    let read = told.read_exact(&mut back);
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("it is told").unwrap();
    assert_eq!(back, GOING_AWAY);
    drop(told);
    for mut client in clients {
        let ended = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await;
        assert!(ended.expect("it is cut").is_err());
    }
    old.until(|seen| !seen.instances.contains_key(&id)).await;
    assert_eq!(kept(), before, "only one of them keeps the table");
    drop(old);
    let receipt = async {
        loop {
            match std::fs::read_to_string(data.path().join("logs/drains.log")) {
                Ok(text) if text.contains("\"ended\":1,\"cut\":3") => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), receipt).await.expect("there is a receipt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_one_has_in_flight_is_seen_until_it_has_ended() {
    let data = tempfile::tempdir().unwrap();
    keep_descriptors(data.path());
    let apps = [App::start().await, App::start().await];
    let mut old = Gateway::start_in(data.path(), "127.0.0.1:0".parse().unwrap()).await;
    let http = old.http;
    old.set(&table(1, &[(1, 100, &[apps[0].address])])).await;
    old.until_healthy().await;
    apps[0].behaviour.delay.store(2000, SeqCst);
    let slow = tokio::spawn(async move { Client::new(http, Kind::Close).get("/").await.unwrap() });
    while apps[0].requests() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    old.hand_over().await;
    let _new = Gateway::start_in(data.path(), http).await;
    // The controller follows the new one at once, although the old one is still there.
    old.set(&table(2, &[(2, 100, &[apps[1].address])])).await;
    let seen = old.until(|seen| seen.instances.contains_key(&"web-2-1".parse().unwrap())).await;
    let first = seen.instances.get(&"web-1-1".parse().unwrap());
    assert!(first.is_some_and(|first| !first.named && first.in_flight > 0), "{seen:#?}");
    assert!(!slow.is_finished());
    let slow = tokio::join!(slow, old.until(|seen| !seen.instances.contains_key(&"web-1-1".parse().unwrap()))).0;
    assert_eq!(slow.unwrap().status, 200);
    let left = std::fs::read_dir(data.path().join("run")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with("leaving-")), "{left:?}");
}
