//! Clients that want to harm: each is cut off, others are served meanwhile, and memory stays bounded.

use std::ops::Range;
use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::app::{App, PORT, fresh_address};
use super::client::{Client, Kind};
use super::frames::{Frames, kind};
use super::gateway::{Gateway, all_healthy, table};
use super::grpc::{answer_in_frames, small_messages};
use crate::Limits;

/// What a flood may cost; all tests of this process share its memory, so this is far more than one needs.
const MOST_MEMORY: u64 = 96 << 20;

async fn impatient() -> (Gateway, App) {
    let limits = Limits {
        head: Duration::from_millis(500),
        body: Duration::from_millis(500),
        write: Duration::from_millis(500),
        idle: Duration::from_millis(1000),
        connections: 30,
        streams: 40,
        ..Limits::default()
    };
    let mut gateway = Gateway::start_limited(limits).await;
    let app = App::start().await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    (gateway, app)
}

/// Memory of this process in bytes: now, or the most it ever was.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Runs a flood, and checks that memory stays bounded and others are served.
async fn flood(gateway: &Gateway, flood: impl Future<Output = ()>) {
    let before = memory("VmRSS");
    timeout(Duration::from_secs(30), flood).await.expect("the flood ends");
    let most = memory("VmHWM");
    assert!(most < before + MOST_MEMORY, "{before} → {most}");
    assert_eq!(Client::new(gateway.http, Kind::Close).get("/").await.unwrap().status, 200);
}

async fn read_all(client: &mut TcpStream) -> String {
    let mut back = Vec::new();
    let read = async { while client.read_buf(&mut back).await.unwrap_or(0) > 0 {} };
    timeout(Duration::from_secs(10), read).await.expect("the connection is ended");
    String::from_utf8_lossy(&back).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_answered_with_408() {
    let (gateway, _app) = impatient().await;
    for begin in [
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.write_all(begin.as_bytes()).await.unwrap();
        let back = read_all(&mut client).await;
        assert!(back.starts_with("HTTP/1.1 408 "), "{begin:?}: {back:?}");
    }
    // A head that comes byte by byte is late all the same.
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    let (mut read, mut write) = client.split();
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nA: ".bytes().chain(std::iter::repeat(b'x')) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut back = [0; 12];
    tokio::select! {
        () = drip => {}
        read = timeout(Duration::from_secs(10), read.read_exact(&mut back)) => drop(read.unwrap().unwrap()),
    }
    assert_eq!(&back, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_idle_connections_are_closed_without_a_word() {
    let (gateway, _app) = impatient().await;
    let mut silent = TcpStream::connect(gateway.http).await.unwrap();
    assert_eq!(read_all(&mut silent).await, "");
    let mut idle = TcpStream::connect(gateway.http).await.unwrap();
    idle.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let back = read_all(&mut idle).await;
    assert!(back.starts_with("HTTP/1.1 200") && back.matches("HTTP/1.1").count() == 1, "{back}");
    let mut http2 = Frames::connect(gateway.http).await;
    assert!(http2.until_closed().await.iter().all(|(kind, ..)| *kind != kind::HEADERS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_cut_off_and_holds_no_instance() {
    let (mut gateway, _app) = impatient().await;
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            });
        }
    });
    let mut table = table(2, &[(2, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    let before = memory("VmRSS");
    let mut clients = Vec::new();
    for version in ["1.1", "1.0"] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.write_all(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        clients.push(client);
    }
    let id = "web-2-1".parse().unwrap();
    gateway.until(|seen| seen.instances.get(&id).is_some_and(|one| one.requests == 2 && one.in_flight == 0)).await;
    assert!(memory("VmHWM") < before + MOST_MEMORY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_empty_lines_is_idle_all_the_same() {
    let (gateway, _app) = impatient().await;
    for begin in ["", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let client = TcpStream::connect(gateway.http).await.unwrap();
        let (mut read, mut write) = client.into_split();
        write.write_all(begin.as_bytes()).await.unwrap();
        let drip = tokio::spawn(async move {
            while write.write_all(b"\r\n").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let mut back = Vec::new();
        let ended = async { while read.read_buf(&mut back).await.unwrap_or(0) > 0 {} };
        timeout(Duration::from_secs(3), ended).await.expect("the connection is ended");
        assert_eq!(String::from_utf8_lossy(&back).matches("HTTP/1.1 200").count(), usize::from(!begin.is_empty()));
        drip.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informational_answers_without_end_are_no_answer() {
    let (mut gateway, _app) = impatient().await;
    for (version, head) in
        [(2, "100 Continue\r\n".to_owned()), (3, format!("103 Early Hints\r\nA: {}\r\n", "x".repeat(2_000)))]
    {
        let address = fresh_address();
        let listener = TcpListener::bind((address, PORT)).await.unwrap();
        let informing = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = format!("HTTP/1.1 {head}\r\n");
                tokio::spawn(async move { while stream.write_all(head.as_bytes()).await.is_ok() {} });
            }
        });
        let mut table = table(version, &[(1, 100, &[address])]);
        all_healthy(&mut table);
        gateway.set(&table).await;
        gateway.until_healthy().await;
        for kind in [Kind::KeepAlive, Kind::Http2] {
            let mut client = Client::new(gateway.http, kind);
            let got = timeout(Duration::from_secs(10), client.send(Method::POST, "/", "".into()));
            assert_eq!(got.await.expect("an answer").unwrap().status, 502, "{kind:?}");
        }
        informing.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_only_so_many_connections() {
    let (gateway, _app) = impatient().await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(TcpStream::connect(gateway.http).await.unwrap());
    }
    let mut refused = TcpStream::connect(gateway.http).await.unwrap();
    assert_eq!(read_all(&mut refused).await, "");
    drop(held);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(Client::new(gateway.http, Kind::Close).get("/").await.unwrap().status, 200);
}

/// Opens streams, and returns how many were answered, and how many refused, once all are.
async fn open(client: &mut Frames, streams: Range<u32>) -> (usize, usize) {
    let all: Vec<_> = streams.clone().flat_map(|at| client.get(2 * at + 1)).collect();
    client.write(&all).await.unwrap();
    let (mut answered, mut refused) = (0, 0);
    let read = async {
        while answered + refused < streams.len() {
            let (kind, _, _, payload) = client.read().await.expect("the connection goes on");
            answered += usize::from(kind == kind::HEADERS);
            refused += usize::from(kind == kind::RST_STREAM && payload == 7u32.to_be_bytes());
        }
    };
    timeout(Duration::from_secs(10), read).await.expect("all are answered");
    (answered, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_only_so_many_requests_over_http2() {
    let (gateway, app) = impatient().await;
    app.behaviour.delay.store(1000, std::sync::atomic::Ordering::SeqCst);
    let mut clients = [Frames::connect(gateway.http).await, Frames::connect(gateway.http).await];
    let [first, second] = &mut clients;
    let other = async {
        while app.requests() < 30 {
            sleep(Duration::from_millis(1)).await;
        }
        open(second, 0..30).await
    };
    assert_eq!(tokio::join!(open(first, 0..30), other), ((30, 0), (10, 20)));
    // They have ended.
    let mut third = Frames::connect(gateway.http).await;
    assert_eq!(open(&mut third, 0..40).await, (40, 0));
    // Who is refused again and again because of others keeps what it has.
    let (mut other, mut one) = (Frames::connect(gateway.http).await, Frames::connect(gateway.http).await);
    let before = app.requests();
    other.write(&other.get(1)).await.unwrap();
    let again = async {
        while app.requests() < before + 40 {
            sleep(Duration::from_millis(1)).await;
        }
        for at in 0..3 {
            assert_eq!(open(&mut other, 50 * at + 1..50 * at + 51).await, (0, 50));
        }
        other.answer(1).await.0
    };
    assert_eq!(tokio::join!(open(&mut one, 0..39), again), ((39, 0), kind::HEADERS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_too_many_streams_before_it_is_told_keeps_the_others() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    app.behaviour.delay.store(500, std::sync::atomic::Ordering::SeqCst);
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    let mut client = Frames::connect(gateway.http).await;
    assert_eq!(open(&mut client, 0..180).await, (100, 80));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_have_their_place_until_their_client_has_all() {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut asked).await {
                    if !asked[..read].starts_with(b"POST") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 120000\r\n\r\n").await;
                        let _ = stream.write_all(&[b'x'; 120_000]).await;
                    }
                }
            });
        }
    });
    let limits = Limits { streams: 100, write: Duration::from_secs(2), ..Limits::default() };
    let mut gateway = Gateway::start_limited(limits).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    // It has room for everything, and takes nothing; one of its requests is not answered.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut greedy = Frames { stream: socket.connect(gateway.http).await.unwrap() };
    greedy.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    greedy.write(&Frames::frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0])).await.unwrap();
    greedy.write(&Frames::frame(kind::WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes())).await.unwrap();
    greedy.write(&Frames::frame(kind::HEADERS, 0x5, 1, &[0x83, 0x84, 0x86, 0x41, 0x01, b'a'])).await.unwrap();
    let all: Vec<_> = (1..100).flat_map(|at| greedy.get(2 * at + 1)).collect();
    greedy.write(&all).await.unwrap();
    // All but that one have ended for the instance.
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].requests == 100 && seen.instances[&id].in_flight == 1).await;
    let refused = async || open(&mut Frames::connect(gateway.http).await, 0..100).await.1;
    // Some of them are with the kernel.
    assert!(refused().await > 20);
    let free = async {
        while refused().await > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(10), free).await.expect("it is cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_that_nobody_takes_cost_little() {
    const STREAMS: u32 = 100;
    // An instance that sends as much as it may, in very small frames.
    let address = fresh_address();
    let mut all_sent = answer_in_frames(address, |stream| small_messages(stream, 6500)).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    // A client that allows everything and takes nothing, and one that allows nothing.
    for window in [1_u32 << 30, 0] {
        let mut gateway = Gateway::start().await;
        gateway.set(&table).await;
        let before = memory("VmRSS");
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = Frames { stream: socket.connect(gateway.http).await.unwrap() };
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
        client.write(&Frames::frame(kind::SETTINGS, 0, 0, &setting)).await.unwrap();
        client.write(&Frames::frame(kind::WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes())).await.unwrap();
        for at in 0..STREAMS {
            client.write(&Frames::call(2 * at + 1)).await.unwrap();
            timeout(Duration::from_secs(10), all_sent.recv()).await.expect("it is sent").unwrap();
        }
        sleep(Duration::from_millis(500)).await;
        let after = memory("VmRSS");
        assert!(after < before + MOST_MEMORY / 2, "{window}: {before} → {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_sent_much_ahead_is_noticed_when_it_leaves() {
    let (mut gateway, app) = impatient().await;
    app.behaviour.delay.store(60_000, std::sync::atomic::Ordering::SeqCst);
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    drop(client);
    gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_in_bursts_end_the_connection() {
    let (gateway, app) = impatient().await;
    app.behaviour.delay.store(50, std::sync::atomic::Ordering::SeqCst);
    let mut client = Frames::connect(gateway.http).await;
    flood(&gateway, async {
        for stream in (1..40_000).step_by(2) {
            let request = client.get(stream);
            let reset = Frames::frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes());
            if client.write(&[request, reset].concat()).await.is_err() {
                break;
            }
        }
        let seen = client.until_closed().await;
        let goaway = seen.iter().find(|(kind, ..)| *kind == kind::GOAWAY).map(|(.., payload)| payload[4..8].to_vec());
        assert_eq!(goaway, Some(11u32.to_be_bytes().to_vec()), "ENHANCE_YOUR_CALM: {seen:?}");
    })
    .await;
    assert!(app.requests() < 5000, "{} requests have reached the instance", app.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_an_end_end_the_connection() {
    let (gateway, _app) = impatient().await;
    flood(&gateway, async {
        let mut client = Frames::connect(gateway.http).await;
        // `:method: GET`, and fields for ever.
        client.write(&Frames::frame(kind::HEADERS, 0, 1, &[0x82])).await.unwrap();
        let field = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x1f][..], &[b'x'; 4096]].concat();
        for _ in 0..100_000 {
            if client.write(&Frames::frame(kind::CONTINUATION, 0, 1, &field)).await.is_err() {
                break;
            }
        }
        client.until_closed().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_heads_that_unpack_to_large_ones_are_refused() {
    let (gateway, app) = impatient().await;
    flood(&gateway, async {
        let mut client = Frames::connect(gateway.http).await;
        // A field of 4,000 bytes goes into the table, and is then named again and again with a byte each.
        let mut head = vec![0x82, 0x84, 0x86, 0x41, 0x01, b'a', 0x40, 0x01, b'x', 0x7f, 0xa1, 0x1e];
        head.extend_from_slice(&[b'x'; 4000]);
        head.extend_from_slice(&[0xbe; 12_000]);
        client.write(&Frames::frame(kind::HEADERS, 0x5, 1, &head)).await.unwrap();
        let (kind, _, _, payload) = client.answer(1).await;
        let refused = kind == kind::HEADERS && !payload.starts_with(&[0x88]);
        assert!(refused || kind == kind::RST_STREAM || kind == kind::GOAWAY, "{kind} {payload:x?}");
    })
    .await;
    assert_eq!(app.requests(), 1, "only that of the other client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_want_an_answer_cost_no_memory() {
    let (gateway, _app) = impatient().await;
    for frame in [
        Frames::frame(kind::PING, 0, 0, &[0; 8]),
        Frames::frame(kind::SETTINGS, 0, 0, &[]),
        Frames::frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        Frames::frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        Frames::frame(kind::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        Frames::frame(0xfa, 0, 0, &[0; 64]),
    ] {
        flood(&gateway, async {
            let mut client = Frames::connect(gateway.http).await;
            let many = frame.repeat(1000);
            // Whoever does not read its answers can't write for ever.
            for _ in 0..300 {
                match timeout(Duration::from_millis(300), client.write(&many)).await {
                    Ok(Ok(())) => {}
                    _ => break,
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_once_they_have_reached_an_instance_end_the_connection_too() {
    let (gateway, app) = impatient().await;
    app.behaviour.delay.store(10_000, std::sync::atomic::Ordering::SeqCst);
    let mut client = Frames::connect(gateway.http).await;
    let wasted = async {
        for stream in (1..4000).step_by(2) {
            let before = app.requests();
            if client.write(&client.get(stream)).await.is_err() {
                break;
            }
            // Each is given the time to cause work.
            for _ in 0..50 {
                if app.requests() > before {
                    break;
                }
                sleep(Duration::from_millis(1)).await;
            }
            if client.write(&Frames::frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())).await.is_err() {
                break;
            }
        }
        client.until_closed().await
    };
    let seen = timeout(Duration::from_secs(30), wasted).await.expect("the connection is ended");
    let goaway = seen.iter().find(|(kind, ..)| *kind == kind::GOAWAY).map(|(.., payload)| payload[4..8].to_vec());
    assert_eq!(goaway, Some(11u32.to_be_bytes().to_vec()), "ENHANCE_YOUR_CALM: {seen:?}");
    assert!(app.requests() < 200, "{} requests have reached the instance", app.requests());
}
