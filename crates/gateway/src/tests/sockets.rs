//! Connections that become WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use basalt_model::{Millis, Sticky, Traffic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::app::{App, PORT, fresh_address};
use super::gateway::{Gateway, table, web};
use crate::http1::websocket::GOING_AWAY;

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// An instance that takes WebSockets, says a frame in two parts, and then echoes bytes.
pub(crate) async fn instance() -> std::net::Ipv4Addr {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = [0; 4096];
                let read = stream.read(&mut seen).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&seen[..read]).to_lowercase();
                let wanted = head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n");
                let status = if wanted { "101 Switching Protocols" } else { "400 Bad Request" };
                let head = format!("HTTP/1.1 {status}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                // The frame that has begun goes on only after something has come.
                let _ = stream.write_all(b"\x81\x0ahello").await;
                let read = stream.read(&mut seen).await.unwrap_or(0);
                let _ = stream.write_all(b"world").await;
                let _ = stream.write_all(&seen[..read]).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// `belongs` says whether it is to have a cookie.
pub(crate) async fn open(http: SocketAddr, belongs: bool) -> TcpStream {
    let mut client = TcpStream::connect(http).await.unwrap();
    client.write_all(UPGRADE).await.unwrap();
    let mut back = Vec::new();
    while !back.ends_with(b"\x81\x0ahello") {
        assert!(client.read_buf(&mut back).await.unwrap() > 0, "{}", String::from_utf8_lossy(&back));
    }
    assert!(back.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(String::from_utf8_lossy(&back).to_lowercase().contains("set-cookie: at="), belongs);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_pass_and_are_told_when_their_instance_goes() {
    pass_and_are_told(Traffic::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_that_belong_to_an_instance_are_told_too() {
    let sticky = Sticky { cookie: "at".into(), lasts: Millis::ZERO };
    pass_and_are_told(Traffic { sticky: Some(sticky), ..Traffic::default() }).await;
}

async fn pass_and_are_told(traffic: Traffic) {
    let (old, new) = (instance().await, App::start().await);
    let mut gateway = Gateway::start().await;
    let mut first = table(1, &[(1, 100, &[old])]);
    web(&mut first).traffic = traffic.clone();
    for release in web(&mut first).releases.values_mut() {
        release.health.check = basalt_model::HealthCheck::Tcp { port: "http".parse().unwrap() };
    }
    gateway.set(&first).await;
    gateway.until_healthy().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(open(gateway.http, traffic.sticky.is_some()).await);
    }
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 4).await;
    // Three have read their frame to its end; the fourth is in the midst of it.
    for client in &mut clients[..3] {
        client.write_all(b"\x81\x02ok").await.unwrap();
        let mut back = [0; 9];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"world\x81\x02ok");
    }
    gateway.set(&table(2, &[(2, 100, &[new.address])])).await;
    let start = Instant::now();
    let mut last = clients.pop().unwrap();
    let mut farewells = tokio::task::JoinSet::new();
    for mut client in clients {
        farewells.spawn(async move {
            let mut back = vec![0; GOING_AWAY.len()];
            timeout(Duration::from_secs(5), client.read_exact(&mut back)).await.unwrap().unwrap();
            assert_eq!(back, GOING_AWAY, "told between frames");
            let told = start.elapsed();
            // A close frame of the client, and its end.
            client.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
            client.shutdown().await.unwrap();
            told
        });
    }
    let mut told = farewells.join_all().await;
    told.sort();
    assert!(told[2] - told[0] > Duration::from_millis(200), "one after the other: {told:?}");
    // By now its turn has come too: half of the drain is over.
    tokio::time::sleep(Duration::from_millis(2500).saturating_sub(start.elapsed())).await;
    last.write_all(b"\x81\x02ok").await.unwrap();
    let mut back = vec![0; 5 + GOING_AWAY.len()];
    timeout(Duration::from_secs(5), last.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back[..5], b"world", "a frame that has begun is finished");
    assert_eq!(&back[5..], GOING_AWAY);
    drop(last);
    gateway.until(|seen| !seen.instances.contains_key(&id)).await;
}
