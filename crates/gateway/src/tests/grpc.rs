//! gRPC: calls to instances over HTTP/2, with both sides speaking.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::app::{PORT, fresh_address};
use super::frames::{Frames, kind};
use super::gateway::{Gateway, all_healthy, table, web};

/// What an instance has done.
#[derive(Debug, Default)]
struct Done {
    calls: AtomicU64,
    /// So many first calls are refused before they are looked at.
    refuses: AtomicU64,
    /// Whether answers are broken off.
    breaks: AtomicBool,
}

/// Starts an instance that gives each piece of a call back at once, and says why calls were given up. Its answers end with trailers.
async fn listen(address: Ipv4Addr) -> (Arc<Done>, mpsc::Receiver<Option<Reason>>) {
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let (done, (given_up, why)) = (Arc::new(Done::default()), mpsc::channel(8));
    let told = done.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (done, given_up) = (told.clone(), given_up.clone());
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if done.refuses.load(SeqCst) > 0 {
                        done.refuses.fetch_sub(1, SeqCst);
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    }
                    done.calls.fetch_add(1, SeqCst);
                    let te = request.headers().get("te").cloned();
                    let answer = Response::builder().header("content-type", "application/grpc");
                    let answer = answer.header("x-te", te.unwrap_or_else(|| "none".parse().unwrap()));
                    let mut sending = respond.send_response(answer.body(()).unwrap(), false).unwrap();
                    if done.breaks.load(SeqCst) {
                        tokio::spawn(async move {
                            // The head is to be on its way.
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            sending.send_reset(Reason::INTERNAL_ERROR);
                        });
                        continue;
                    }
                    tokio::spawn(echo(request.into_body(), sending, given_up.clone()));
                }
            });
        }
    });
    (done, why)
}

async fn echo(mut body: RecvStream, mut sending: SendStream<Bytes>, given_up: mpsc::Sender<Option<Reason>>) {
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                body.flow_control().release_capacity(piece.len()).unwrap();
                sending.send_data(piece, false).unwrap();
            }
            Err(error) => return given_up.send(error.reason()).await.unwrap(),
        }
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", 0.into());
    sending.send_trailers(trailers).unwrap();
}

/// Starts an instance that answers each call with frames. It says when it has.
pub(crate) async fn answer_in_frames(
    address: Ipv4Addr,
    frames: impl Fn(u32) -> Vec<u8> + Send + Copy + 'static,
) -> mpsc::Receiver<()> {
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let (sent, all_sent) = mpsc::channel(1000);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sent = sent.clone();
            tokio::spawn(async move {
                stream.read_exact(&mut [0; 24]).await.unwrap();
                let mut gateway = Frames { stream };
                for flags in [0, 1] {
                    gateway.write(&Frames::frame(kind::SETTINGS, flags, 0, &[])).await.unwrap();
                }
                while let Ok((kind, _, stream, _)) = gateway.read().await {
                    if kind == kind::HEADERS {
                        gateway.write(&frames(stream)).await.unwrap();
                        sent.send(()).await.unwrap();
                    }
                }
            });
        }
    });
    all_sent
}

/// An answer of many small messages, without its end.
pub(crate) fn small_messages(stream: u32, count: usize) -> Vec<u8> {
    let message = Frames::frame(kind::DATA, 0, stream, &[b'x'; 20]);
    [Frames::frame(kind::HEADERS, 0x4, stream, &[0x88]), message.repeat(count)].concat()
}

async fn gateway(instances: &[Ipv4Addr]) -> Gateway {
    let mut gateway = Gateway::start().await;
    let mut table = table(1, &[(1, 100, instances)]);
    let rules = &mut web(&mut table).routes[0].rules;
    rules.body_limit = Some(basalt_model::Bytes(4 << 20));
    rules.timeout = Some(basalt_model::Millis(500));
    all_healthy(&mut table);
    gateway.set(&table).await;
    gateway.until_healthy().await;
    gateway
}

/// Begins a call.
async fn call(gateway: &Gateway) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let stream = TcpStream::connect(gateway.http).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://a.example/a.B/C").header("content-type", "application/grpc");
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

async fn next(body: &mut RecvStream) -> Bytes {
    let piece = timeout(Duration::from_secs(5), body.data()).await.expect("it comes").unwrap().unwrap();
    body.flow_control().release_capacity(piece.len()).unwrap();
    piece
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_call_speak_and_trailers_pass() {
    let address = fresh_address();
    let (_done, _why) = listen(address).await;
    let gateway = gateway(&[address]).await;
    let (answer, mut sending) = call(&gateway).await;
    // The answer is there before anything was said.
    let answer = timeout(Duration::from_secs(5), answer).await.expect("it answers").unwrap();
    assert_eq!(answer.headers()["x-te"], "trailers");
    let mut body = answer.into_body();
    for piece in ["one", "two"] {
        sending.send_data(piece.into(), false).unwrap();
        assert_eq!(next(&mut body).await, piece);
    }
    // More than fits into the windows on the way.
    let large = Bytes::from(vec![b'x'; 3 << 20]);
    sending.send_data(large.clone(), false).unwrap();
    let mut back = 0;
    while back < large.len() {
        back += next(&mut body).await.len();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-last", "1".parse().unwrap());
    // What only the gateway says.
    trailers.insert("client-cert", "1".parse().unwrap());
    trailers.insert("x-forwarded-for", "1".parse().unwrap());
    sending.send_trailers(trailers).unwrap();
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!((&trailers["grpc-status"], &trailers["x-last"]), (&"0".parse().unwrap(), &"1".parse().unwrap()));
    assert_eq!(trailers.len(), 2, "{trailers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_a_call_up_is_heard_by_the_instance() {
    let address = fresh_address();
    let (_done, mut why) = listen(address).await;
    let gateway = gateway(&[address]).await;
    let (answer, mut sending) = call(&gateway).await;
    sending.send_data("one".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(next(&mut body).await, "one");
    sending.send_reset(Reason::CANCEL);
    assert_eq!(timeout(Duration::from_secs(5), why.recv()).await.expect("it hears"), Some(Some(Reason::CANCEL)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_not_looked_at_is_sent_again() {
    let (first, second) = (fresh_address(), fresh_address());
    let ((one, _), (other, _)) = (listen(first).await, listen(second).await);
    one.refuses.store(1, SeqCst);
    other.refuses.store(1, SeqCst);
    let gateway = gateway(&[first, second]).await;
    let (answer, mut sending) = call(&gateway).await;
    sending.send_data("hello".into(), true).unwrap();
    let answer = timeout(Duration::from_secs(5), answer).await.expect("it answers").unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(next(&mut answer.into_body()).await, "hello");
    assert_eq!(one.calls.load(SeqCst) + other.calls.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_calls_off_is_left_out_for_a_while() {
    let (first, second) = (fresh_address(), fresh_address());
    let ((broken, _), (_whole, _)) = (listen(first).await, listen(second).await);
    broken.breaks.store(true, SeqCst);
    let gateway = gateway(&[first, second]).await;
    for _ in 0..40 {
        let (answer, mut sending) = call(&gateway).await;
        let _ = sending.send_data("hello".into(), true);
        if let Ok(answer) = timeout(Duration::from_secs(5), answer).await.expect("it answers or breaks") {
            let _ = answer.into_body().data().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(broken.calls.load(SeqCst), u64::from(basalt_model::Eject::default().consecutive));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_for_a_call_is_not_to_blame() {
    let address = fresh_address();
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let (patience, wait) = tokio::sync::watch::channel(Duration::ZERO);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let _call = connection.accept().await;
            let patience = *wait.borrow();
            tokio::time::sleep(patience).await;
        }
    });
    let mut gateway = gateway(&[address]).await;
    let id = "web-1-1".parse().unwrap();
    for (at, (millis, errors)) in [(2200, 0), (0, 1)].into_iter().enumerate() {
        patience.send_replace(Duration::from_millis(millis));
        let (answer, _sending) = call(&gateway).await;
        let answer = timeout(Duration::from_secs(5), answer).await.expect("it is answered").unwrap();
        assert_eq!(answer.status(), 502);
        let over = |requests: u64| requests == at as u64 + 1;
        let seen = gateway.until(|seen| over(seen.instances[&id].requests) && seen.instances[&id].in_flight == 0).await;
        assert_eq!(seen.instances[&id].errors, errors, "after {millis} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_a_reset_comes_before_it() {
    let address = fresh_address();
    let _told = answer_in_frames(address, |stream| {
        let reset = Frames::frame(kind::RST_STREAM, 0, stream, &13u32.to_be_bytes());
        [small_messages(stream, 100), reset].concat()
    })
    .await;
    let gateway = gateway(&[address]).await;
    for _ in 0..5 {
        let (answer, _sending) = call(&gateway).await;
        let mut body = answer.await.unwrap().into_body();
        let mut got = 0;
        let ended = loop {
            match timeout(Duration::from_secs(5), body.data()).await.expect("it comes").unwrap() {
                Ok(piece) => {
                    body.flow_control().release_capacity(piece.len()).unwrap();
                    got += piece.len();
                }
                Err(error) => break error.reason(),
            }
        };
        assert_eq!((got, ended), (2000, Some(Reason::HTTP_1_1_REQUIRED)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_end_no_others() {
    let address = fresh_address();
    let mut told = answer_in_frames(address, |stream| small_messages(stream, 6000)).await;
    let gateway = gateway(&[address]).await;
    let (answer, mut sending) = call(&gateway).await;
    let _answer = answer.await.unwrap();
    told.recv().await.unwrap();
    let mut client = Frames::connect(gateway.http).await;
    for at in 0..40 {
        client.write(&Frames::call(2 * at + 1)).await.unwrap();
        told.recv().await.unwrap();
        client.write(&Frames::frame(kind::RST_STREAM, 0, 2 * at + 1, &8u32.to_be_bytes())).await.unwrap();
    }
    let reset = std::future::poll_fn(|cx| sending.poll_reset(cx));
    assert!(timeout(Duration::from_millis(500), reset).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_messages_may_come_at_once() {
    let address = fresh_address();
    let _instance = listen(address).await;
    let gateway = gateway(&[address]).await;
    const COUNT: usize = 12_000;
    for _ in 0..10 {
        let mut client = Frames::connect(gateway.http).await;
        let message = Frames::frame(kind::DATA, 0, 1, b"12345");
        client.write(&[Frames::call(1), message.repeat(COUNT)].concat()).await.unwrap();
        let read = async {
            let mut back = 0;
            while back < 5 * COUNT {
                match client.read().await.unwrap() {
                    (kind::DATA, _, 1, payload) => back += payload.len(),
                    (kind::GOAWAY, .., why) => panic!("{}", String::from_utf8_lossy(&why)),
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(10), read).await.expect("all come back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_as_large_as_its_route_allows() {
    let address = fresh_address();
    let _instance = listen(address).await;
    let gateway = gateway(&[address]).await;
    let (answer, mut sending) = call(&gateway).await;
    let mut body = answer.await.unwrap().into_body();
    let mut ended = Ok(());
    for _ in 0..9 {
        sending.reserve_capacity(512 << 10);
        ended = sending.send_data(vec![b'x'; 512 << 10].into(), false);
        while ended.is_ok() {
            match timeout(Duration::from_millis(300), body.data()).await {
                Ok(Some(Ok(piece))) => body.flow_control().release_capacity(piece.len()).unwrap(),
                Ok(Some(Err(error))) => return assert_eq!(error.reason(), Some(Reason::CANCEL)),
                Ok(None) => panic!("it is not ended well"),
                Err(_) => break,
            }
        }
    }
    panic!("all of it was taken: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_nothing_hold_up_no_other_call() {
    let address = fresh_address();
    let _instance = listen(address).await;
    let gateway = gateway(&[address]).await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let (answer, mut sending) = call(&gateway).await;
        let body = answer.await.unwrap().into_body();
        // Nobody takes what comes back.
        sending.send_data(vec![b'x'; 1 << 20].into(), false).unwrap();
        stuck.push((body, sending));
    }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    // Nor is it their instance that is silent.
    for (_, sending) in &mut stuck {
        let reset = std::future::poll_fn(|cx| sending.poll_reset(cx));
        assert!(timeout(Duration::from_millis(1), reset).await.is_err());
    }
    let (answer, mut sending) = call(&gateway).await;
    sending.send_data("hello".into(), true).unwrap();
    let answer = timeout(Duration::from_secs(5), answer).await.expect("it answers").unwrap();
    assert_eq!(next(&mut answer.into_body()).await, "hello");
}
