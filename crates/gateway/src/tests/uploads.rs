//! What an instance sees of an upload, byte by byte.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::app::{PORT, fresh_address};
use super::frames::{Frames, kind};
use super::gateway::{Gateway, table};

/// How long an instance waits for what might come after the end of a body.
const MOMENT: Duration = Duration::from_millis(200);

/// Starts a server that answers each connection's first request, and tells all bytes that came on it if it was a `POST`.
async fn listen(address: Ipv4Addr) -> mpsc::Receiver<String> {
    let listener = TcpListener::bind(SocketAddrV4::new(address, PORT)).await.unwrap();
    let (tell, told) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, tell.clone()));
        }
    });
    told
}

async fn serve(mut stream: TcpStream, tell: mpsc::Sender<String>) {
    let mut seen = Vec::new();
    while let Ok(Ok(1..)) = timeout(MOMENT, stream.read_buf(&mut seen)).await {}
    if seen.starts_with(b"POST") {
        tell.send(String::from_utf8_lossy(&seen).into_owned()).await.unwrap();
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_chunk_comes_once() {
    let mut gateway = Gateway::start().await;
    let address = fresh_address();
    let mut told = listen(address).await;
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    gateway.until_healthy().await;
    // `:method: POST`, `:path: /`, `:scheme: http`, `:authority: a`; the length is not told.
    let head = Frames::frame(kind::HEADERS, 0x4, 1, &[0x83, 0x84, 0x86, 0x41, 0x01, b'a']);
    let data = |text: &[u8], flags: u8| Frames::frame(kind::DATA, flags, 1, text);
    for (body, expected) in [
        (data(b"abc", 1), "3\r\nabc\r\n0\r\n\r\n"),
        ([data(b"abc", 0), data(b"", 1)].concat(), "3\r\nabc\r\n0\r\n\r\n"),
        ([data(b"", 0), data(b"abc", 0), data(b"", 0), data(b"", 1)].concat(), "3\r\nabc\r\n0\r\n\r\n"),
        (data(b"", 1), "0\r\n\r\n"),
    ] {
        let mut client = Frames::connect(gateway.http).await;
        client.write(&[head.clone(), body].concat()).await.unwrap();
        let (answer, _, _, payload) = client.answer(1).await;
        assert!(answer == kind::HEADERS && payload.starts_with(&[0x88]), "{answer} {payload:?}");
        let seen = told.recv().await.unwrap();
        assert_eq!(seen.split_once("\r\n\r\n").map(|(_, body)| body), Some(expected), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_instance_is_asked_to_change_to_http2() {
    let mut gateway = Gateway::start().await;
    let address = fresh_address();
    let mut told = listen(address).await;
    gateway.set(&table(1, &[(1, 100, &[address])])).await;
    gateway.until_healthy().await;
    let ask = "Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    for body in ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.write_all(format!("POST / HTTP/1.1\r\n{ask}{body}").as_bytes()).await.unwrap();
        let seen = told.recv().await.unwrap().to_ascii_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings") && seen.contains("abc"), "{seen}");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
