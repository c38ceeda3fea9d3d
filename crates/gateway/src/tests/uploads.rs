//! What an instance sees of an upload, byte by byte.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::app::{PORT, fresh_address};
use super::frames::{Frames, kind};
use super::gateway::{Gateway, all_healthy, table, web};
use super::http1::speak;
use crate::Limits;

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

/// Starts a server that speaks by a script: it waits for one text after the other, and says what belongs to each. Then it closes.
pub(crate) async fn scripted(
    address: Ipv4Addr,
    script: &'static [(&'static str, &'static str)],
) -> mpsc::Receiver<String> {
    let listener = TcpListener::bind(SocketAddrV4::new(address, PORT)).await.unwrap();
    let (tell, told) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            for (wanted, said) in script {
                while !String::from_utf8_lossy(&seen).contains(wanted) {
                    if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                        break;
                    }
                }
                let _ = stream.write_all(said.as_bytes()).await;
            }
            // Checks of health say nothing.
            if !seen.is_empty() {
                // Not every test asks.
                let _ = tell.try_send(String::from_utf8_lossy(&seen).into_owned());
            }
        }
    });
    told
}

/// Returns a gateway with such a server.
async fn with_script(script: &'static [(&'static str, &'static str)]) -> (Gateway, mpsc::Receiver<String>) {
    let mut gateway = Gateway::start().await;
    let address = fresh_address();
    let told = scripted(address, script).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    route(&mut table).timeout = Some(basalt_model::Millis(400));
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    (gateway, told)
}

/// Reads until a text has come.
async fn until(client: &mut TcpStream, wanted: &str) -> String {
    let mut back = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&back).contains(wanted) {
            assert!(client.read_buf(&mut back).await.unwrap() > 0, "{}", String::from_utf8_lossy(&back));
        }
    };
    if timeout(Duration::from_secs(5), read).await.is_err() {
        panic!("no {wanted:?} in {:?}", String::from_utf8_lossy(&back));
    }
    String::from_utf8_lossy(&back).into_owned()
}

/// What an instance says once it has got the first of an upload.
const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n";

/// Begins an upload, and waits for the beginning of its answer.
async fn begin(gateway: &Gateway) -> TcpStream {
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await.unwrap();
    until(&mut client, "A\r\n").await;
    client
}

/// Returns the rules of the only route.
fn route(table: &mut basalt_model::RouteTable) -> &mut basalt_model::Rules {
    &mut web(table).routes[0].rules
}

const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_may_refuse_a_body_before_it_comes() {
    const REFUSAL: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let script = &[("Expect: 100-continue", REFUSAL)];
    let (gateway, mut told) = with_script(script).await;
    // The next request must not be taken for the body that the client was never asked for.
    let (back, ended) = speak(&gateway, EXPECTING).await;
    assert!(back.starts_with("HTTP/1.1 403") && back.ends_with("Connection: close\r\n\r\nno") && ended, "{back}");
    assert!(told.recv().await.unwrap().ends_with("\r\n\r\n"), "no body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_expects_to_be_told_is_told_in_any_case() {
    let (gateway, mut told) = with_script(&[("hello", DONE)]).await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(EXPECTING.as_bytes()).await.unwrap();
    // The instance says nothing of it.
    assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    until(&mut client, "HTTP/1.1 200").await;
    assert!(told.recv().await.unwrap().ends_with("\r\n\r\nhello"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_may_speak_at_once() {
    let script: &'static [_] = &[("1\r\na\r\n", BEGUN), ("1\r\nb\r\n", "1\r\nB\r\n"), ("0\r\n\r\n", "0\r\n\r\n")];
    let (gateway, _told) = with_script(script).await;
    let mut client = begin(&gateway).await;
    // Meanwhile the instance has nothing to say.
    let pause = || tokio::time::sleep(Duration::from_millis(800));
    pause().await;
    client.write_all(b"1\r\nb\r\n").await.unwrap();
    until(&mut client, "B\r\n").await;
    client.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut client, "0\r\n\r\n").await;

    let mut client = Frames::connect(gateway.http).await;
    let data = |text: &[u8], flags: u8| Frames::frame(kind::DATA, flags, 1, text);
    client.write(&Frames::frame(kind::HEADERS, 0x4, 1, &[0x83, 0x84, 0x86, 0x41, 0x01, b'a'])).await.unwrap();
    for (said, flags, wanted) in [("a", 0, "A"), ("b", 0, "B"), ("", 1, "")] {
        client.write(&data(said.as_bytes(), flags)).await.unwrap();
        pause().await;
        let got = loop {
            let (kind, _, stream, payload) = client.read().await.unwrap();
            if kind == kind::DATA && stream == 1 {
                break payload;
            }
        };
        assert_eq!(got, wanted.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_upload_is_its_clients_fault() {
    let (mut gateway, _told) = with_script(&[("1\r\na\r\n", BEGUN), ("never", "")]).await;
    for _ in 0..2 {
        let mut client = begin(&gateway).await;
        client.write_all(b"zz\r\n").await.unwrap();
        let ended = timeout(Duration::from_secs(5), client.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the instance says nothing more");
    }
    let id = "web-1-1".parse().unwrap();
    let seen = gateway.until(|seen| seen.instances[&id].requests == 2 && seen.instances[&id].in_flight == 0).await;
    assert_eq!(seen.instances[&id].errors, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_come_of_an_upload_is_sent_again() {
    sends_again(&mut Gateway::start().await, 1, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_no_room_for_is_sent_once() {
    let little = (64 << 10) - 1;
    let limits = Limits::default();
    for limits in [Limits { ahead: little, ..limits.clone() }, Limits { ahead_each: little, ..limits }] {
        sends_again(&mut Gateway::start_limited(limits).await, 1, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_body_needs_no_room() {
    let mut gateway = Gateway::start_limited(Limits { ahead: 0, ..Limits::default() }).await;
    let addresses = [fresh_address(), fresh_address()];
    let _broken = scripted(addresses[0], &[("0\r\n\r\n", "")]).await;
    let _whole = scripted(addresses[1], &[("0\r\n\r\n", DONE)]).await;
    let mut table = table(1, &[(1, 100, &addresses[..1]), (2, 0, &addresses[1..])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await.unwrap();
    until(&mut client, "HTTP/1.1 200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_for_its_client_is_not_to_blame() {
    const PATIENCE: Duration = Duration::from_millis(2500);
    const LARGE: usize = 16 << 20;
    let mut gateway = Gateway::start().await;
    let address = fresh_address();
    let listener = TcpListener::bind(SocketAddrV4::new(address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                match asked[..read].starts_with(b"GET") {
                    true => {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * LARGE);
                        let _ = stream.write_all(&[head.as_bytes(), &[b'x'; LARGE]].concat()).await;
                    }
                    false => drop(timeout(PATIENCE, stream.read(&mut [0; 1])).await),
                }
            });
        }
    });
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let late = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (none, moment) = (Duration::ZERO, Duration::from_millis(2200));
    // The last two do not wait: one's client takes all at once, the other has all of its request.
    for (at, (request, pause, rest, errors)) in
        [(post, PATIENCE, "", 0), (get, PATIENCE, "", 0), (get, none, "", 1), (late, moment, "1\r\na\r\n0\r\n\r\n", 2)]
            .into_iter()
            .enumerate()
    {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(pause).await;
        client.write_all(rest.as_bytes()).await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        let id = "web-1-1".parse().unwrap();
        let over = |requests: u64| requests == at as u64 + 1;
        let seen = gateway.until(|seen| over(seen.instances[&id].requests) && seen.instances[&id].in_flight == 0).await;
        assert_eq!(seen.instances[&id].errors, errors, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_takes_room_only_until_its_answer_begins() {
    let mut gateway = Gateway::start_limited(Limits { ahead: 64 << 10, ..Limits::default() }).await;
    let address = fresh_address();
    let _told = scripted(address, &[("1\r\na\r\n", BEGUN), ("never", "")]).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let _client = begin(&gateway).await;
    // Both it and its answer go on.
    sends_again(&mut gateway, 2, true).await;
}

/// Whether an upload is sent again once its instance has broken.
async fn sends_again(gateway: &mut Gateway, version: u64, kept: bool) {
    let (first, second) = (fresh_address(), fresh_address());
    // It reads a part, and breaks.
    let mut broken = scripted(first, &[("ab", "")]).await;
    let mut whole = scripted(second, &[("2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", DONE)]).await;
    let mut table = table(version, &[(2, 100, &[first]), (3, 0, &[second])]);
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await.unwrap();
    assert!(broken.recv().await.unwrap().contains("ab"));
    client.write_all(b"2\r\ncd\r\n0\r\n\r\n").await.unwrap();
    if !kept {
        until(&mut client, "HTTP/1.1 502").await;
        return;
    }
    until(&mut client, "HTTP/1.1 200").await;
    assert_eq!(whole.recv().await.unwrap().matches("ab").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_ends_the_connection_of_who_still_sends() {
    const EARLY: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    let (gateway, _told) = with_script(&[("POST", EARLY)]).await;
    let part = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1000));
    let (back, ended) = speak(&gateway, &part).await;
    assert!(back.starts_with("HTTP/1.1 413") && back.contains("Connection: close") && ended, "{back}");
    // A request behind a body that is there already is still answered, even if nobody wants that body.
    let unknown = "POST /x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[]);
    table.services.clear();
    gateway.set(&table).await;
    let (back, ended) = speak(&gateway, &format!("{unknown}{unknown}")).await;
    assert!(back.matches("HTTP/1.1 404").count() == 2 && !ended, "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_goes_with_every_attempt_of_a_hedged_read() {
    const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let mut gateway = Gateway::start().await;
    let (first, second) = (fresh_address(), fresh_address());
    let mut told = [scripted(first, &[("0\r\n\r\n", BAD)]).await, scripted(second, &[("0\r\n\r\n", BAD)]).await];
    let mut table = table(1, &[(1, 100, &[first, second])]);
    route(&mut table).hedge_after = Some(basalt_model::Millis(2000));
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await
        .unwrap();
    until(&mut client, "HTTP/1.1 503").await;
    for told in &mut told {
        assert!(told.recv().await.unwrap().ends_with("3\r\nabc\r\n0\r\n\r\n"));
    }
}

/// Starts a gateway whose instance may be silent for two seconds. It reads so much ten times a second, and answers `late`.
async fn with_reader(each: usize, late: Duration) -> Gateway {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.ends_with(b"done\r\n0\r\n\r\n") {
                    let Ok(1..) = stream.read_buf(&mut seen).await else { return };
                    if seen.len() > each {
                        seen.drain(..seen.len() - 16);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                tokio::time::sleep(late).await;
                let _ = stream.write_all(DONE.as_bytes()).await;
            });
        }
    });
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[(1, 100, &[address])]);
    route(&mut table).timeout = Some(basalt_model::Millis(2000));
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_not_silent_while_its_client_is() {
    let gateway = with_reader(1024, Duration::from_millis(1400)).await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    // Its time begins anew with the last that it gets.
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.write_all(b"4\r\ndone\r\n0\r\n\r\n").await.unwrap();
    until(&mut client, "HTTP/1.1 200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_not_silent_while_it_reads() {
    let gateway = with_reader(1 << 20, Duration::ZERO).await;
    let mut client = TcpStream::connect(gateway.http).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    for _ in 0..40 {
        client.write_all(format!("{:x}\r\n", 1 << 20).as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
        client.write_all(b"\r\n").await.unwrap();
    }
    client.write_all(b"4\r\ndone\r\n0\r\n\r\n").await.unwrap();
    until(&mut client, "HTTP/1.1 200").await;
}

/// The content of an answer that fits into no buffer, compressed or not.
fn much() -> Vec<u8> {
    let mut state = 1_u64;
    let digit = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'!' + (state >> 58) as u8
    };
    (0..24 << 20).map(digit).collect()
}

/// How an upload is split: the pieces are more than a window together, and take longer than a client may take nothing.
const PIECES: usize = 6;
const PIECE: usize = 64 << 10;

async fn pause() {
    tokio::time::sleep(Duration::from_millis(250)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_once_all_is_sent_is_not_cut_off() {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    // It answers at once, and reads meanwhile.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.into_split();
            tokio::spawn(async move {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
                let content = much();
                for part in [head.as_bytes(), format!("{:x}\r\n", content.len()).as_bytes(), &content, b"\r\n0\r\n\r\n"]
                {
                    write.write_all(part).await?;
                }
                std::io::Result::Ok(())
            });
            tokio::spawn(async move { while let Ok(1..) = read.read(&mut [0; 4096]).await {} });
        }
    });
    let limits = crate::Limits { write: Duration::from_secs(1), ..crate::Limits::default() };
    let mut gateway = Gateway::start_limited(limits).await;
    let mut table = table(1, &[(1, 100, &[address])]);
    route(&mut table).compress = true;
    all_healthy(&mut table);
    gateway.set(&table).await;

    for coding in ["identity", "zstd"] {
        let mut client = TcpStream::connect(gateway.http).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            PIECES * PIECE
        );
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..PIECES {
            pause().await;
            client.write_all(&[b'x'; PIECE]).await.unwrap();
        }
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert!(back.starts_with(b"HTTP/1.1 200") && back.ends_with(b"0\r\n\r\n"), "{coding}: {} bytes", back.len());
    }

    for coding in ["identity", "zstd"] {
        let client = TcpStream::connect(gateway.http).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://a/").header("accept-encoding", coding).body(()).unwrap();
        let (answer, mut sending) = sender.send_request(request, false).unwrap();
        for at in 1..=PIECES {
            pause().await;
            sending.reserve_capacity(PIECE);
            while sending.capacity() < PIECE {
                std::future::poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
            }
            sending.send_data(vec![b'x'; PIECE].into(), at == PIECES).unwrap();
        }
        let mut body = answer.await.unwrap().into_body();
        while let Some(piece) = body.data().await {
            let length = piece.unwrap_or_else(|error| panic!("{coding}: {error}")).len();
            body.flow_control().release_capacity(length).unwrap();
        }
    }
}
