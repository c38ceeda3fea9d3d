//! Cases of RFC 9113, frame by frame.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::app::App;
use super::client::{Client, Kind};
use super::frames::{Frames, kind};
use super::gateway::{Gateway, table};
use super::http1;

/// What must follow.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// The answer of the instance.
    Answered,
    /// A bad status, or the stream is reset; other streams go on.
    StreamError,
    /// The connection is ended.
    ConnectionError,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_heads_are_judged_as_the_rfc_says() {
    use Then::{Answered, ConnectionError, StreamError};
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    let frame = Frames::frame;
    // `:method: GET`, `:path: /`, `:scheme: http`, `:authority: a`.
    let get = [0x82, 0x84, 0x86, 0x41, 0x01, b'a'];
    let post = [0x83, 0x84, 0x86, 0x41, 0x01, b'a'];
    let with = |head: &[u8], more: &[u8]| [head, more].concat();
    // A field that is not put into the table.
    let field = |name: &str, value: &str| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let head = |block: &[u8]| frame(kind::HEADERS, 0x5, 1, block);
    let open = |block: &[u8]| frame(kind::HEADERS, 0x4, 1, block);
    let rows: Vec<(&str, Vec<u8>, Then)> = vec![
        ("a request", head(&get), Answered),
        ("§4.1: unknown frames are passed over", [frame(0xbb, 0, 0, &[1]), head(&get)].concat(), Answered),
        ("§4.2: a frame larger than SETTINGS_MAX_FRAME_SIZE", frame(kind::DATA, 0, 0, &[0; 20_000]), ConnectionError),
        ("§4.3: a head that can't be unpacked", head(&[0xff, 0xff, 0xff, 0xff, 0xff]), ConnectionError),
        ("§5.1: DATA on an idle stream", frame(kind::DATA, 0, 1, &[1]), ConnectionError),
        ("§5.1: RST_STREAM on an idle stream", frame(kind::RST_STREAM, 0, 1, &[0; 4]), ConnectionError),
        ("§5.1: WINDOW_UPDATE on an idle stream", frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), ConnectionError),
        ("§5.1.1: an even stream", frame(kind::HEADERS, 0x5, 2, &get), ConnectionError),
        ("§6.1: DATA on stream 0", frame(kind::DATA, 0, 0, &[1]), ConnectionError),
        (
            "§6.1: padding beyond the frame",
            [open(&post), frame(kind::DATA, 0x8, 1, &[200, 1])].concat(),
            ConnectionError,
        ),
        ("§6.2: HEADERS on stream 0", frame(kind::HEADERS, 0x5, 0, &get), ConnectionError),
        (
            "§6.2: a head in two frames",
            { [frame(kind::HEADERS, 0x1, 1, &get[..3]), frame(kind::CONTINUATION, 0x4, 1, &get[3..])].concat() },
            Answered,
        ),
        (
            "§6.2: another frame within a head",
            { [frame(kind::HEADERS, 0x1, 1, &get[..3]), frame(kind::PING, 0, 0, &[0; 8])].concat() },
            ConnectionError,
        ),
        ("§6.3: PRIORITY on stream 0", frame(kind::PRIORITY, 0, 0, &[0; 5]), ConnectionError),
        ("§6.4: RST_STREAM on stream 0", frame(kind::RST_STREAM, 0, 0, &[0; 4]), ConnectionError),
        (
            "§6.4: RST_STREAM of a wrong size",
            [open(&post), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            ConnectionError,
        ),
        ("§6.5: SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, &[]), ConnectionError),
        ("§6.5: SETTINGS of a wrong size", frame(kind::SETTINGS, 0, 0, &[0; 3]), ConnectionError),
        ("§6.5: an acknowledgement with content", frame(kind::SETTINGS, 1, 0, &[0; 6]), ConnectionError),
        ("§6.5.2: ENABLE_PUSH of 2", frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), ConnectionError),
        ("§6.5.2: a window too large", frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), ConnectionError),
        ("§6.5.2: MAX_FRAME_SIZE too small", frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), ConnectionError),
        ("§6.6: PUSH_PROMISE of a client", frame(kind::PUSH_PROMISE, 0x4, 1, &[0, 0, 0, 2]), ConnectionError),
        ("§6.7: PING of a wrong size", frame(kind::PING, 0, 0, &[0; 7]), ConnectionError),
        ("§6.7: PING on a stream", frame(kind::PING, 0, 1, &[0; 8]), ConnectionError),
        ("§6.8: GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), ConnectionError),
        ("§6.9: WINDOW_UPDATE of 0", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), ConnectionError),
        (
            "§6.9.1: a window beyond its bound",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            ConnectionError,
        ),
        ("§6.10: CONTINUATION of nothing", frame(kind::CONTINUATION, 0x4, 1, &get), ConnectionError),
        ("§8.1: a body", [open(&post), frame(kind::DATA, 0x1, 1, b"hello")].concat(), Answered),
        ("§8.1: trailers", [open(&post), frame(kind::DATA, 0, 1, b"x"), head(&field("t", "1"))].concat(), Answered),
        (
            "§8.1.1: a body shorter than its length",
            { [open(&with(&post, &field("content-length", "5"))), frame(kind::DATA, 0x1, 1, b"x")].concat() },
            StreamError,
        ),
        (
            "§8.1.1: a body longer than its length",
            { [open(&with(&post, &field("content-length", "1"))), frame(kind::DATA, 0x1, 1, b"hello")].concat() },
            StreamError,
        ),
        ("§8.2.1: a name in capitals", head(&with(&get, &field("Name", "x"))), StreamError),
        ("§8.2.1: a line break in a value", head(&with(&get, &field("a", "b\r\nc: d"))), StreamError),
        ("§8.2.2: `connection`", head(&with(&get, &field("connection", "close"))), StreamError),
        ("§8.2.2: `transfer-encoding`", head(&with(&get, &field("transfer-encoding", "chunked"))), StreamError),
        ("§8.2.2: `te` other than trailers", head(&with(&get, &field("te", "gzip"))), StreamError),
        ("§8.3: an unknown pseudo-header", head(&with(&get, &field(":x", "y"))), StreamError),
        ("§8.3: a pseudo-header behind a field", head(&with(&field("a", "b"), &get)), StreamError),
        ("§8.3: a pseudo-header twice", head(&with(&get, &[0x82])), StreamError),
        ("§8.3: a response's pseudo-header", head(&with(&get, &[0x88])), StreamError),
        ("§8.3.1: no method", head(&get[1..]), StreamError),
        ("§8.3.1: no path", head(&[0x82, 0x86, 0x41, 0x01, b'a']), StreamError),
        ("§8.3.1: two hosts", head(&[&get[..3], &field("host", "a"), &field("host", "b")].concat()), StreamError),
        ("§8.3.1: an empty path", head(&[0x82, 0x86, 0x04, 0x00, 0x41, 0x01, b'a']), StreamError),
        ("§8.3.1: `host` other than `:authority`", head(&with(&get, &field("host", "b"))), StreamError),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expected) in rows {
        let mut client = Frames::connect(gateway.http).await;
        // It may be closed while we write.
        let _ = client.write(&bytes).await;
        let (first, _, _, payload) = client.answer(1).await;
        let got = match first {
            kind::GOAWAY => ConnectionError,
            // `:status: 200` by the table.
            kind::HEADERS if payload.starts_with(&[0x88]) => Answered,
            _ => StreamError,
        };
        // RFC 9113 §5.4.2: a stream error may be treated as one of the connection.
        if got != expected && (got, expected) != (ConnectionError, StreamError) {
            wrong.push((name, got));
        } else if got == StreamError {
            let _ = client.write(&Frames::frame(kind::HEADERS, 0x5, 3, &get)).await;
            let after = client.answer(3).await;
            assert!(after.0 == kind::HEADERS && after.3.starts_with(&[0x88]), "{name}: the next stream: {after:?}");
        }
    }
    assert_eq!(wrong, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_instances_come_back_without_the_framing_of_http1() {
    let gateway = http1::gateway().await;
    let mut client = Client::new(gateway.http, Kind::Http2);
    // Status, body, and a trailer; or the stream is reset.
    let rows = [
        ("/a", Some((200, "ok", None))),
        ("/chunked", Some((200, "abc", Some("1")))),
        ("/until-close", Some((200, "all of it", None))),
        ("/early", Some((200, "ok", None))),
        ("/continue", Some((200, "ok", None))),
        ("/none", Some((204, "", None))),
        ("/same", Some((304, "", None))),
        ("/refused", Some((403, "no", None))),
        ("/short", None),
        ("/more", Some((200, "ok", None))),
        ("/hop", Some((200, "ok", None))),
        ("/a", Some((200, "ok", None))),
    ];
    for (path, expected) in rows {
        let got = client.get(path).await;
        let Some((status, body, trailer)) = expected else {
            assert!(got.is_err(), "{path}: {got:?}");
            continue;
        };
        let got = got.unwrap();
        let told = got.trailers.get("t").map(|value| value.to_str().unwrap());
        assert_eq!((got.status, got.body.as_str(), told), (status, body, trailer), "{path}");
        for name in ["connection", "keep-alive", "transfer-encoding", "x-hop"] {
            assert!(!got.headers.contains_key(name), "{path}: {got:?}");
        }
        if path == "/hop" {
            assert_eq!(got.headers["x-end"], "1");
        }
    }
    assert_eq!(client.get("/nonsense").await.unwrap().status, 502);

    // `:method: GET`, `:path: /early`, `:scheme: http`, `:authority: a`.
    let mut client = Frames::connect(gateway.http).await;
    let head = [&[0x82, 0x04, 0x06][..], b"/early", &[0x86, 0x41, 0x01, b'a']].concat();
    client.write(&Frames::frame(kind::HEADERS, 0x5, 1, &head)).await.unwrap();
    let (_, flags, _, hints) = client.answer(1).await;
    // `:status` in three letters, and not the end of the stream.
    assert!(hints.starts_with(&[0x48, 0x03]) || hints.starts_with(&[0x48, 0x82]), "103: {hints:x?}");
    assert_eq!(flags & 1, 0);
    let (_, _, _, answer) = client.answer(1).await;
    assert_eq!(answer[0], 0x88, "200: {answer:x?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_hello_while_the_gateway_ends_is_answered_and_told_to_go() {
    let mut gateway = Gateway::start().await;
    let app = App::start().await;
    gateway.set(&table(1, &[(1, 100, &[app.address])])).await;
    gateway.until_healthy().await;
    let (http, preface) = (gateway.http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(&preface[..10]).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let stopped = tokio::spawn(gateway.stop());
    sleep(Duration::from_millis(50)).await;
    stream.write_all(&[&preface[10..], &Frames::frame(kind::SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut client = Frames { stream };
    client.write(&client.get(1)).await.unwrap();
    let mut kinds = Vec::new();
    let until_closed = async {
        while let Ok((kind, flags, _, payload)) = client.read().await {
            kinds.push(kind);
            if kind == kind::PING && flags == 0 {
                client.write(&Frames::frame(kind::PING, 1, 0, &payload)).await.unwrap();
            }
        }
    };
    // Without GOAWAY, the gateway waits for the client, and the client for its next request.
    timeout(Duration::from_secs(5), until_closed).await.expect("it is closed");
    assert!(kinds.contains(&kind::HEADERS) && kinds.contains(&kind::GOAWAY), "{kinds:?}");
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_nothing_is_healthy_waits_no_longer() {
    let mut gateway = Gateway::start().await;
    // Nobody is there.
    gateway.set(&table(1, &[(1, 100, &[Ipv4Addr::new(127, 9, 9, 9)])])).await;
    let mut first = Frames::connect(gateway.http).await;
    first.write(&first.get(1)).await.unwrap();
    let mut second = TcpStream::connect(gateway.http).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    drop((first, second));
    // They would wait for ten seconds, and the gateway for them.
    timeout(Duration::from_secs(5), gateway.stop()).await.expect("nobody waits");
}
