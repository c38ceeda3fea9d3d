//! Cases of RFC 9110 and RFC 9112, as bytes on a connection.

use std::time::Duration;

use basalt_model::RouteTable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::app::{PORT, fresh_address};
use super::gateway::{Gateway, all_healthy, table};

/// What an instance answers: the request's path chooses.
fn answer(path: &str) -> &'static str {
    match path {
        "/chunked" => {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
        }
        "/until-close" => "HTTP/1.1 200 OK\r\n\r\nall of it",
        "/early" => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "/continue" => "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "/same-text" => {
            "HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nContent-Length: 9000\r\nETag: \"a\"\r\n\r\n"
        }
        "/none" => "HTTP/1.1 204 No Content\r\n\r\n",
        "/same" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        "/like-a-refusal" => {
            "HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\nHTTP/1.1 400 Bad Request\r\nServer: other\r\n\r\nxyz"
        }
        "/refused" => "HTTP/1.1 403 Forbidden\r\nServer: App\r\nContent-Length: 2\r\n\r\nno",
        "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "/nonsense" => "220 smtp.example ESMTP\r\n",
        "/both" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "/more" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "/hop" => {
            "HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nok"
        }
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    }
}

/// Answers by the path, or with what has arrived (`/echo`: head and body, once `size` bytes of body are there).
async fn instance(mut stream: TcpStream) -> std::io::Result<()> {
    let mut seen = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        if head.to_lowercase().contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            while !seen.ends_with(b"\r\n\r\n") || seen.len() == end {
                stream.read_buf(&mut seen).await?;
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        while seen.len() < end + length.unwrap_or(0usize) {
            stream.read_buf(&mut seen).await?;
        }
        if path == "/echo" {
            let text = String::from_utf8_lossy(&seen).into_owned();
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all(text.as_bytes()).await?;
        } else {
            stream.write_all(answer(&path).as_bytes()).await?;
        }
        seen.clear();
        if ["/until-close", "/short", "/nonsense"].contains(&path.as_str()) {
            return Ok(());
        }
    }
}

/// A table with such an instance, which has just been started.
pub(crate) async fn answering() -> RouteTable {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(instance(stream));
        }
    });
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    table
}

/// A gateway with such an instance.
pub(crate) async fn gateway() -> Gateway {
    let mut gateway = Gateway::start().await;
    gateway.set(&answering().await).await;
    gateway.until_healthy().await;
    gateway
}

/// Sends bytes on a fresh connection. Returns what comes back until nothing more does, and whether the connection was ended.
pub(crate) async fn speak(gateway: &Gateway, bytes: &str) -> (String, bool) {
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(bytes.as_bytes()).await.unwrap();
    let mut back = Vec::new();
    let ended = loop {
        // The first answer may need some attempts; others follow soon.
        let patience = if back.is_empty() { 8000 } else { 500 };
        match tokio::time::timeout(Duration::from_millis(patience), client.read_buf(&mut back)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(_)) => {}
            Err(_) => break false,
        }
    };
    (String::from_utf8_lossy(&back).into_owned(), ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_passed_on_as_they_are_meant() {
    let gateway = &gateway().await;
    // What is asked for, what must come back, in this order, and whether the connection is then closed.
    let check = async |request: &str, expected: &[&str], closed: bool| {
        let (back, ended) = speak(gateway, request).await;
        let mut rest = back.as_str();
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{request:?}: no {part:?} in {back:?}"));
            rest = &rest[at + part.len()..];
        }
        assert_eq!(rest, "", "{request:?}: {back:?}");
        assert_eq!(ended, closed, "{request:?}: {back:?}");
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    check(&get("/"), &[ok], false).await;
    check(&format!("\r\n{}", get("/")), &[ok], false).await;
    // Pipelined (RFC 9112 §9.3.2): answers come in order.
    check(
        &format!("{}{}{}", get("/"), get("/none"), get("/early")),
        &[ok, "204", "\r\n\r\n", "103", "</a>", ok],
        false,
    )
    .await;
    check("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &["200 OK", "Connection: close\r\n\r\nok"], true)
        .await;
    // Clients of HTTP/1.0 know no chunks, nor informational answers, and want to be told that their connection stays.
    check("GET / HTTP/1.0\r\n\r\n", &["200 OK", "\r\n\r\nok"], true).await;
    check(
        "GET /early HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        &[&ok.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n")],
        false,
    )
    .await;
    check(
        "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        &["HTTP/1.1 200 OK\r\nTrailer: T\r\nConnection: close\r\n\r\nabc"],
        true,
    )
    .await;
    check(&get("/chunked"), &["chunked\r\n", "Trailer: T\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"], false).await;
    check(&get("/until-close"), &["Connection: close\r\n\r\nall of it"], true).await;
    check(&get("/continue"), &[ok], false).await;
    check(&get("/same"), &["304 Not Modified\r\nContent-Length: 9\r\n\r\n"], false).await;
    check(&get("/like-a-refusal"), &["200 OK", "\r\n\r\nHTTP/1.1 400 Bad Request\r\nServer: other\r\n\r\nxyz"], false)
        .await;
    check(&get("/refused"), &["403 Forbidden\r\nServer: App\r\n", "\r\n\r\nno"], false).await;
    check(&get("/hop"), &["200 OK\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nok"], false).await;
    check("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &["Content-Length: 2\r\n\r\n"], false).await;
    // What follows an answer is nobody's answer.
    check(&format!("{}{}", get("/more"), get("/")), &[ok, ok], false).await;
    // An answer that breaks off, and ones that can be read in two ways.
    check(&get("/short"), &["Content-Length: 100\r\n\r\nonly this"], true).await;
    check(
        &get("/nonsense"),
        &["502 Bad Gateway", "\r\n\r\n", "the instance gave no answer that can be passed on\n"],
        false,
    )
    .await;
    check(
        &get("/both"),
        &["502 Bad Gateway", "\r\n\r\n", "the instance gave no answer that can be passed on\n"],
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_arrive_whole_and_once() {
    let gateway = &gateway().await;
    let check = async |request: &str, expected: &[&str]| {
        let (back, _) = speak(gateway, request).await;
        let body = back.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        for part in expected {
            assert!(body.contains(part), "{request:?}: no {part:?} in {back:?}");
        }
    };
    check(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &["POST /echo HTTP/1.1\r\n", "\r\n\r\nhello"],
    )
    .await;
    check("GET http://a/echo HTTP/1.1\r\nHost: b\r\n\r\n", &["GET /echo HTTP/1.1\r\nHost: a\r\n"]).await;
    check(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        &["chunked", "hello", "!"],
    )
    .await;
    // RFC 9110 §10.1.1: who has sent its body need not be told to go on.
    let expecting = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok";
    check(expecting, &["POST /echo HTTP/1.1", "\r\n\r\nok"]).await;
    check("POST /echo HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", &["POST /echo HTTP/1.1", "\r\n\r\nok"])
        .await;
    // A chunked body and the request behind it.
    let (back, _) = speak(
        gateway,
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert_eq!(back.matches("HTTP/1.1 200 OK").count(), 2, "{back}");
    assert!(back.ends_with("\r\n\r\nok"), "{back}");
    // Trailers of an upload stay behind it, without those that may not stand there (RFC 9110 §6.5.1), and are no head of the next.
    let upload = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Late: 1\r\nContent-Length: 7\r\n\r\n";
    let (back, _) = speak(gateway, &format!("{upload}GET / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(back.matches("HTTP/1.1 200 OK").count(), 2, "{back}");
    assert!(back.ends_with("\r\n\r\nok") && back.contains("\r\n\r\n1\r\na\r\n0\r\nx-late: 1\r\n\r\nHTTP"), "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let gateway = gateway().await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut back = Vec::new();
    let told = async {
        while !back.windows(12).any(|window| window == b"HTTP/1.1 100") {
            assert!(client.read_buf(&mut back).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(Duration::from_secs(5), told).await.expect("it is told");
    client.write_all(b"hello").await.unwrap();
    while !back.ends_with(b"hello") {
        assert!(client.read_buf(&mut back).await.unwrap() > 0, "{}", String::from_utf8_lossy(&back));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_ends_the_connection_with_its_status() {
    let gateway = &gateway().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405"),
    ] {
        let (back, ended) = speak(gateway, &format!("{request}GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(back.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {back:?}");
        assert!(ended && back.matches("HTTP/1.1").count() == 1, "{request:?}: {back:?}");
        assert!(!back.to_lowercase().contains("server:"), "{back:?}");
    }
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20 << 10));
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(120));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(40 << 10));
    for (request, status) in [(target, "414"), (fields, "431"), (large, "431")] {
        let (back, ended) = speak(gateway, &request).await;
        assert!(ended && back.starts_with(&format!("HTTP/1.1 {status} ")), "{back:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_lines_before_a_request_are_passed_over_however_they_come() {
    let gateway = &gateway().await;
    for pieces in [&["\r\n"][..], &["\r", "\n"], &["\r\n\r", "\n"], &["\r\n", "\r\n"]] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.set_nodelay(true).unwrap();
        for _ in 0..2 {
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut back = Vec::new();
            while !back.ends_with(b"ok") {
                assert!(client.read_buf(&mut back).await.unwrap() > 0, "{pieces:?}");
            }
            assert!(back.starts_with(b"HTTP/1.1 200"), "{pieces:?}: {}", String::from_utf8_lossy(&back));
        }
    }
}
