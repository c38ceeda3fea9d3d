//! What happens to single requests.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use basalt_seam::Router;
use hyper::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::app::{App, PORT, fresh_address};
use super::client::{Client, Kind};
use super::gateway::{Gateway, all_healthy, table, web};
use crate::Limits;

async fn one_instance() -> (Gateway, App) {
    one_instance_limited(Limits::default()).await
}

async fn one_instance_limited(limits: Limits) -> (Gateway, App) {
    let mut gateway = Gateway::start_limited(limits).await;
    let app = App::start().await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    (gateway, app)
}

const KINDS: [Kind; 3] = [Kind::KeepAlive, Kind::Close, Kind::Http2];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_any_size_pass_in_both_directions() {
    // With room for all bodies, for one at a time, and for none.
    for (kind, ahead) in
        KINDS.into_iter().flat_map(|kind| [Limits::default().ahead, 64 << 10, 0].map(|ahead| (kind, ahead)))
    {
        let (gateway, _app) = one_instance_limited(Limits { ahead, ..Limits::default() }).await;
        let mut client = Client::new(gateway.http, kind);
        for size in [0, 1, 8 << 10, 64 << 10, (64 << 10) + 1, 3 << 20] {
            let body = "x".repeat(size);
            let got = client.send(Method::POST, "/echo", body.clone().into()).await.unwrap();
            assert_eq!(got.status, 200);
            assert!(got.body == body, "{kind:?} {size}: {} bytes came back", got.body.len());
        }
        let got = client.send(Method::HEAD, "/", "".into()).await.unwrap();
        assert_eq!((got.status, got.body.as_str()), (200, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_claims_of_itself_is_replaced() {
    let (gateway, _app) = one_instance().await;
    for kind in KINDS {
        let mut client = Client::new(gateway.http, kind);
        let request = Request::builder()
            .uri("/headers")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "for=6.6.6.6");
        let got = client.request(request, "".into()).await.unwrap();
        for expected in [
            r#""x-forwarded-for": "127.0.0.1""#,
            r#""x-forwarded-proto": "http""#,
            r#""x-forwarded-host": "any.example""#,
            r#""host": "any.example""#,
        ] {
            assert!(got.body.contains(expected), "{kind:?}: {expected} is not in {}", got.body);
        }
        assert!(!got.body.contains("6.6.6.6") && !got.body.contains("evil"), "{}", got.body);
        assert_eq!(got.headers.get("server"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_route_there_is_a_plain_answer_and_the_connection_stays() {
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[]);
    web(&mut table).routes[0].path = "/web".into();
    gateway.set(&table).await;
    for kind in KINDS {
        let mut client = Client::new(gateway.http, kind);
        for _ in 0..3 {
            let got = client.send(Method::POST, "/other", "content".into()).await.unwrap();
            assert_eq!((got.status, got.body.as_str()), (404, "no route matches this host and path\n"));
            assert_eq!(got.headers["content-type"], "text/plain; charset=utf-8");
            assert_eq!(got.headers.get("server"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_exact() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (App::start().await, App::start().await);
    gateway.set(&table(1, &[(1, 95, &[old.address]), (2, 5, &[new.address])])).await;
    gateway.until_healthy().await;
    let mut clients: Vec<_> = KINDS.into_iter().map(|kind| Client::new(gateway.http, kind)).collect();
    for at in 0..1000 {
        clients[at % 3].get("/").await.unwrap();
    }
    assert_eq!((old.requests(), new.requests()), (950, 50));
}

/// Sends ten requests to one bad and one good instance; returns the statuses seen and how many the bad one got.
async fn with_one_bad(status: u16, method: Method) -> (Vec<u16>, u64) {
    let mut gateway = Gateway::start().await;
    let (good, bad) = (App::start().await, App::start().await);
    gateway.set(&table(1, &[(1, 100, &[good.address, bad.address])])).await;
    gateway.until_healthy().await;
    bad.behaviour.status.store(status, SeqCst);
    let mut statuses = Vec::new();
    for kind in [Kind::KeepAlive, Kind::Http2] {
        let mut client = Client::new(gateway.http, kind);
        for _ in 0..5 {
            statuses.push(client.send(method.clone(), "/echo", "hello".into()).await.unwrap().status);
        }
    }
    statuses.sort();
    statuses.dedup();
    (statuses, bad.requests())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_answers_are_retried_where_that_is_safe() {
    let check = async |status, method: Method, expected: &[u16]| {
        let (statuses, bad) = with_one_bad(status, method.clone()).await;
        assert!(bad > 0, "the bad instance was asked at least once");
        assert_eq!(statuses, expected, "{method} {status}");
    };
    check(503, Method::GET, &[200]).await;
    check(502, Method::PUT, &[200]).await;
    check(504, Method::DELETE, &[200]).await;
    check(500, Method::GET, &[200]).await;
    check(500, Method::PUT, &[200, 500]).await;
    check(503, Method::POST, &[200, 503]).await;
    check(501, Method::GET, &[200, 501]).await;
    check(404, Method::GET, &[200, 404]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_end_when_the_budget_does() {
    let mut gateway = Gateway::start().await;
    let (one, two) = (App::start().await, App::start().await);
    let mut table = table(1, &[(1, 100, &[one.address, two.address])]);
    web(&mut table).traffic.eject.consecutive = 0;
    gateway.set(&table).await;
    gateway.until_healthy().await;
    one.behaviour.status.store(503, SeqCst);
    two.behaviour.status.store(503, SeqCst);
    let mut client = Client::new(gateway.http, Kind::KeepAlive);
    for _ in 0..1000 {
        assert_eq!(client.get("/").await.unwrap().status, 503);
    }
    let retries = one.requests() + two.requests() - 1000;
    // 100 at first, 200 for 1,000 requests, and ten for each second that this takes.
    assert!((290..500).contains(&retries), "{retries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_instances_close_while_idle_cost_nothing() {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    // It promises to keep the connection, and closes it after each answer.
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            });
        }
    });
    let mut gateway = Gateway::start().await;
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    gateway.until_healthy().await;
    for kind in KINDS {
        let mut client = Client::new(gateway.http, kind);
        for _ in 0..200 {
            let got = client.get("/").await.unwrap();
            assert_eq!((got.status, got.body.as_str()), (200, "ok"), "{kind:?}");
        }
        for _ in 0..20 {
            let got = client.send(Method::POST, "/", "hello".into()).await.unwrap();
            assert_eq!((got.status, got.body.as_str()), (200, "ok"), "{kind:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    app.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_can_be_upgraded() {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let size = stream.read(&mut request).await.unwrap_or(0);
                if request[..size].starts_with(b"GET /check") {
                    return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(switch.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.map(drop)
            });
        }
    });
    let mut gateway = Gateway::start().await;
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    gateway.until_healthy().await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let size = client.read(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer[..size]));
    for word in ["one", "two"] {
        client.write_all(word.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word.as_bytes());
    }
    let id = "web-1-1".parse().unwrap();
    gateway.until(|seen| seen.instances[&id].in_flight == 1).await;
    drop(client);
    gateway.until(|seen| seen.instances[&id].in_flight == 0).await;
    app.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shortest_request_is_answered() {
    let (gateway, app) = one_instance().await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    // In pieces, the first of which could still become HTTP/2.
    for piece in ["P", "UT / HTT", "P/1.0\r\n\r\n"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with(&app.address.to_string()), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_reaches_instances_over_http2() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let app = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                let version = format!("{:?}", request.version());
                Ok::<_, std::convert::Infallible>(hyper::Response::new(
                    http_body_util::Full::<hyper::body::Bytes>::from(version),
                ))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[(1, 100, &[address])]);
    for release in web(&mut table).releases.values_mut() {
        release.health.check = basalt_model::HealthCheck::Tcp { port: "http".parse().unwrap() };
    }
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let mut client = Client::new(gateway.http, Kind::Http2);
    for _ in 0..5 {
        let request =
            Request::builder().method(Method::POST).uri("/a.B/C").header("content-type", "application/grpc+proto");
        let got = client.request(request, "hello".into()).await.unwrap();
        assert_eq!((got.status, got.body.as_str()), (200, "HTTP/2.0"));
    }
    app.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_only_instance_whose_queue_is_full_is_asked_again() {
    let address = fresh_address();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address, PORT).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    // They fill the queue; what comes after them is dropped by the kernel.
    let _queue: Vec<_> = (0..4).map(|_| tokio::spawn(TcpStream::connect((address, PORT)))).collect();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    let http = gateway.http;
    let request =
        tokio::spawn(async move { Client::new(http, Kind::KeepAlive).send(Method::POST, "/", "x".into()).await });
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!request.is_finished());
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            });
        }
    });
    assert_eq!(request.await.unwrap().unwrap().status, 200);
    app.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_can_not_be_read_is_answered_without_a_signature() {
    let (gateway, _app) = one_instance().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nBad Header\r\n\r\n", "400"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
    ] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains("\r\n\r\n") && !answer.to_lowercase().contains("server:"), "{answer}");
    }
}

/// Starts a server that breaks each connection at the second request on it. The first is answered only once so many have come.
async fn breaking(together: u32) -> Ipv4Addr {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let come = Arc::new(tokio::sync::Semaphore::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let come = come.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(1..) = stream.read_buf(&mut head).await else { return };
                }
                come.add_permits(1);
                drop(come.acquire_many(together).await);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                let _ = stream.read_buf(&mut head).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_met_a_broken_connection_gets_a_fresh_one() {
    let mut gateway = Gateway::start().await;
    let address = breaking(5).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let http = gateway.http;
    let ask = || async move {
        let mut client = TcpStream::connect(http).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut back = String::new();
        client.read_to_string(&mut back).await.unwrap();
        back
    };
    for back in [ask(), ask(), ask(), ask(), ask()].map(tokio::spawn) {
        assert!(back.await.unwrap().ends_with("ok"));
    }
    // Five connections wait now, and not one of them is of use.
    let back = ask().await;
    assert!(back.ends_with("ok"), "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_a_kept_connection_is_counted() {
    let mut gateway = Gateway::start().await;
    let id = "web-1-1".parse().unwrap();
    for (version, bad, status) in [
        (1, "what is this?\r\n\r\n", Some(502)),
        (2, "HTTP/1.1 200", Some(502)),
        (3, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", None),
        (4, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk", None),
    ] {
        let address = fresh_address();
        let listener = TcpListener::bind((address, PORT)).await.unwrap();
        let app = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    for said in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", bad] {
                        let mut request = [0; 4096];
                        let Ok(1..) = stream.read(&mut request).await else { return };
                        let _ = stream.write_all(said.as_bytes()).await;
                    }
                });
            }
        });
        let mut table = table(version, &[(1, 100, &[address])]);
        all_healthy(&mut table);
        gateway.set(&table).await;
        gateway.until_healthy().await;
        let before = gateway.router.seen().instances[&id].errors;
        let mut client = Client::new(gateway.http, Kind::KeepAlive);
        assert_eq!(client.send(Method::POST, "/", "".into()).await.unwrap().status, 200);
        let got = client.send(Method::POST, "/", "".into()).await;
        assert_eq!(got.as_ref().ok().map(|got| got.status), status, "{bad:?}: {got:?}");
        gateway.until(|seen| seen.instances[&id].errors == before + 1).await;
        app.abort();
    }
}
