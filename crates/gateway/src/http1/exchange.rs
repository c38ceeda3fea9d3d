//! One request and its answer, passed on over HTTP/1 on both sides.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::body::Body;
use super::client::{Client, Stall, poll_piece};
use super::pool::Upstream;
use super::response::{self, BadResponse, Response};
use super::{rewrite, tunnel};
use crate::answer::Answer;
use crate::choice::Attempts;
use crate::connections::Shared;
use crate::ejection;
use crate::plane::Begun;
use crate::proxy::{ATTEMPTS, CONNECT, IDLE, IDLE_UNSAFE, LOOK, MOST_RETRIES};
use crate::refusals::Refusal;
use crate::routing::{Destination, Routing};
use crate::stats::Reason;
use crate::waiting::{self, Stranded};

/// How much a client may send ahead of its next request.
const AHEAD: usize = 64 << 10;

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    /// Head and body as instances get them.
    pub(crate) bytes: Vec<u8>,
    /// Whether it may be sent twice (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
    /// Whether it only reads: a `GET` or `HEAD`.
    pub(crate) reads: bool,
    /// Whether it is a `HEAD`, whose answer has no body.
    pub(crate) head: bool,
    /// Whether the client wants another protocol.
    pub(crate) upgrade: bool,
    /// Whether that is WebSocket.
    pub(crate) websocket: bool,
    /// Whether the connection ends after it.
    pub(crate) close: bool,
}

/// What becomes of the client's connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    Next,
    /// It ends; what was written is to arrive.
    Close,
    /// It is broken, or has become a tunnel that has ended.
    Over,
}

/// What can go wrong with an instance.
#[derive(Debug)]
enum Failure {
    /// The instance broke the connection before it answered.
    Broken,
    /// It did not answer in HTTP.
    Bad,
    /// The client has left.
    Left,
}

impl From<BadResponse> for Failure {
    fn from(_: BadResponse) -> Self {
        Self::Bad
    }
}

/// The retries of one request so far.
#[derive(Debug, Default)]
struct Progress {
    attempts: Attempts,
    until: Option<Instant>,
    retries: u32,
}

/// Passes a request on and its answer back. `find` says where it goes in a table.
pub(crate) async fn run(
    shared: &Shared,
    client: &mut Client,
    request: &Request,
    find: impl Fn(&Routing) -> Option<Destination> + Send + Sync,
) -> After {
    let mut progress = Progress::default();
    for _ in 0..ATTEMPTS {
        let begun = waiting::begin(&shared.plane, &find, &mut progress.attempts, &mut progress.until).await;
        let begun = match begun {
            Ok(begun) => begun,
            Err(Stranded::NoRoute) => return answer(shared, client, request, &Answer::no_route()).await,
            Err(Stranded::NoInstance(service)) => {
                shared.plane.edge.refusals.count(Reason::NoInstance);
                return answer(shared, client, request, &Answer::no_instance(service.name.as_str())).await;
            }
        };
        begun.in_flight.count_request();
        client.seen.release = begun.in_flight.instance().id.release();
        client.seen.retries = progress.retries;
        let another = |progress: &Progress| {
            let routing = shared.plane.routing();
            let instance = begun.in_flight.instance();
            find(&routing).is_some_and(|to| routing.has_another(to, &progress.attempts, instance))
        };
        let fresh = if request.idempotent { IDLE } else { IDLE_UNSAFE };
        let mut upstream = match begun.in_flight.instance().pool.take(begun.address.port(), fresh) {
            Some(upstream) => upstream,
            None => match connect(begun.address).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    let another = another(&progress);
                    if !may_connect_again(&begun, &mut progress, &error, another) {
                        let status = if error.kind() == io::ErrorKind::TimedOut { 504 } else { 502 };
                        return answer(shared, client, request, &Answer::of(status)).await;
                    }
                    continue;
                }
            },
        };
        let asked = Instant::now();
        let asking = ask(client, &mut upstream, request).await;
        let failed = match &asking {
            Ok(response) => Some(matches!(response.status, 502..=504)),
            // An idle connection that was closed says nothing about its instance, nor does a client that leaves.
            Err(Failure::Left) => None,
            Err(_) => (!upstream.reused).then_some(true),
        };
        if failed.is_some_and(|failed| begun.in_flight.count_outcome(failed, asked.elapsed())) {
            ejection::failed(&shared.plane, begun.in_flight.instance());
        }
        let failure = match asking {
            Ok(response) if response.status < 500 => {
                return pass_on(shared, client, request, upstream, response, begun).await;
            }
            Ok(response) => {
                begun.in_flight.count_error();
                let worth_it = match response.status {
                    502..=504 => request.idempotent,
                    500 => request.reads,
                    _ => false,
                };
                let again = worth_it && progress.retries < MOST_RETRIES && another(&progress);
                if !(again && begun.in_flight.instance().service.budget.withdraw()) {
                    return pass_on(shared, client, request, upstream, response, begun).await;
                }
                progress.retries += 1;
                progress.attempts.failed.push(begun.in_flight.instance().clone());
                continue;
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Left) {
            return After::Over;
        }
        begun.in_flight.count_error();
        // It may have died: look at once. In-flight requests tell it before the next check does.
        begun.in_flight.instance().suspected.notify_one();
        let another = another(&progress);
        let mut again = request.idempotent && progress.retries < MOST_RETRIES;
        if again && another {
            again = begun.in_flight.instance().service.budget.withdraw();
        } else if !another && request.idempotent && progress.retries == MOST_RETRIES {
            // Nobody else is left who could be harmed: one more, for whoever comes next.
            again = true;
        }
        if !again {
            return answer(shared, client, request, &Answer::of(502)).await;
        }
        progress.retries += 1;
        // An idle connection that was closed says nothing about its instance. Otherwise another one is tried; without
        // another, waiting for this one or its successor is what is left.
        if !upstream.reused {
            progress.attempts.failed.push(begun.in_flight.instance().clone());
            drop(begun);
            if !another {
                sleep(LOOK).await;
            }
        }
    }
    answer(shared, client, request, &Answer::of(502)).await
}

/// Says whether a request whose connection was refused goes elsewhere, and notes what that means for the instance.
fn may_connect_again(begun: &Begun, progress: &mut Progress, error: &io::Error, another: bool) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let instance = begun.in_flight.instance();
    begun.in_flight.count_error();
    // Who refuses connections is not there, even if nobody else is: then requests wait for it, or for its successor.
    let gone = matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable);
    // Who takes too long has a full queue, which may be shorter soon.
    let late = error.kind() == TimedOut;
    if gone || another && late {
        instance.suspect(begun.address.port(), &error.to_string());
    }
    progress.attempts.failed.push(instance.clone());
    // Nothing was sent, so any request may go elsewhere, and no instance works twice for it: the budget is spared.
    progress.until.is_none_or(|until| Instant::now() < until) && (gone || late || another)
}

/// Returns who has asked for what, for people.
fn who(client: &Client, request: &Request) -> String {
    let line = request.bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let target = String::from_utf8_lossy(line);
    let target = target.strip_suffix(" HTTP/1.1").unwrap_or(&target);
    let target = target.split('?').next().unwrap_or_default();
    let kind = if request.websocket { " websocket" } else { "" };
    format!("{}{kind} {target}", client.ends.peer.ip())
}

async fn connect(address: SocketAddrV4) -> io::Result<Upstream> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(Upstream { stream, buffer: bytes::BytesMut::new(), reused: false })
}

/// Sends a request and reads the head of its answer; informational answers are passed on.
async fn ask(client: &mut Client, upstream: &mut Upstream, request: &Request) -> Result<Response, Failure> {
    // An instance may answer before it has read everything, and then close: its answer counts.
    let sent = upstream.stream.write_all(&request.bytes).await;
    loop {
        if let Some(response) = response::read(&upstream.buffer, request.head)? {
            if response.status >= 200 || response.status == 101 && request.upgrade {
                return Ok(response);
            }
            if response.status == 101 {
                return Err(Failure::Bad);
            }
            // Nobody has asked for `100`, and old clients do not know others.
            if response.status != 100 {
                let mut out = Vec::new();
                rewrite::response(&mut out, &upstream.buffer, &response, false);
                client.write(&out, Duration::from_secs(1)).await.map_err(|_| Failure::Left)?;
            }
            bytes::Buf::advance(&mut upstream.buffer, response.length);
            continue;
        }
        if sent.is_err() && upstream.buffer.is_empty() && upstream.reused {
            return Err(Failure::Broken);
        }
        poll_fn(|cx| {
            let Upstream { stream, buffer, .. } = &mut *upstream;
            match poll_piece(stream, cx, |piece| buffer.extend_from_slice(piece)) {
                Poll::Ready(Ok(Some(()))) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(Failure::Broken)),
                Poll::Pending => {}
            }
            watch(client, cx)
        })
        .await?;
    }
}

/// Is ready once the client has left. What it sends ahead is kept, up to a bound.
fn watch(client: &mut Client, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
    while client.buffer.len() < AHEAD {
        match client.poll_fill(cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Err(Failure::Left)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Pending
}

/// Passes an answer on.
async fn pass_on(
    shared: &Shared,
    client: &mut Client,
    request: &Request,
    mut upstream: Upstream,
    mut response: Response,
    mut begun: Begun,
) -> After {
    client.seen.status = response.status;
    let until_close = response.body == Body::UntilClose;
    let close = request.close || until_close || shared.is_finishing();
    let mut out = Vec::with_capacity(1024);
    rewrite::response(&mut out, &upstream.buffer, &response, close);
    let tail = &upstream.buffer[response.length..];
    if response.status == 101 {
        let behind = out.len();
        out.extend_from_slice(tail);
        begun.in_flight.identify(|| who(client, request));
        return tunnel::run(shared, client, upstream.stream, (out, behind), request.websocket, begun).await;
    }
    let Ok(taken) = response.body.take(tail) else { return After::Over };
    out.extend_from_slice(&tail[..taken]);
    client.seen.sent += taken as u64;
    // Who sends more than an answer is not asked again.
    let mut clean = taken == tail.len() && response.keeps;
    upstream.buffer.clear();
    match relay(shared, client, &mut upstream, &mut response.body, &out).await {
        Ok(excess) => clean &= !excess,
        Err(error) => {
            begun.in_flight.identify_if_cut(|| who(client, request));
            if error.kind() == io::ErrorKind::TimedOut {
                shared.refusals.count(Refusal::SlowReader, client.ends.peer.ip());
            }
            return After::Over;
        }
    }
    begun.in_flight.finish();
    if clean {
        begun.in_flight.instance().pool.put(upstream.stream, begun.address.port());
    }
    if close { After::Close } else { After::Next }
}

/// Writes what has been read already, and then the rest of a body as it comes. Returns whether the instance sent more.
async fn relay(
    shared: &Shared,
    client: &mut Client,
    upstream: &mut Upstream,
    body: &mut Body,
    first: &[u8],
) -> io::Result<bool> {
    let patience = shared.limits.write;
    // What the client has not taken yet: `first`, and then what is left of a piece.
    let (mut first_at, mut rest, mut rest_at) = (0, Vec::new(), 0);
    let mut stall = Stall::default();
    let mut excess = false;
    let mut ended = false;
    poll_fn(|cx| {
        loop {
            let waiting = if first_at < first.len() { &first[first_at..] } else { &rest[rest_at..] };
            if !waiting.is_empty() {
                match Pin::new(&mut client.io).poll_write(cx, waiting) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => {
                        if first_at < first.len() {
                            first_at += written;
                        } else {
                            rest_at += written;
                        }
                        stall.end();
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return stall.poll(cx, patience).map(|()| Err(io::ErrorKind::TimedOut.into())),
                }
            }
            if ended || body.is_done() {
                return Pin::new(&mut client.io).poll_flush(cx).map_ok(|()| excess);
            }
            rest.clear();
            rest_at = 0;
            let piece = poll_piece(&mut upstream.stream, cx, |piece| {
                let Ok(taken) = body.take(piece) else { return Err(io::ErrorKind::InvalidData.into()) };
                excess |= taken < piece.len();
                client.seen.sent += taken as u64;
                rest.extend_from_slice(&piece[..taken]);
                Ok::<_, io::Error>(())
            });
            match piece {
                Poll::Ready(Ok(Some(Ok(())))) => {}
                Poll::Ready(Ok(Some(Err(error))) | Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(None)) if *body == Body::UntilClose => ended = true,
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Pending => {
                    // What is written is to arrive before the next piece does.
                    if let Poll::Ready(Err(error)) = Pin::new(&mut client.io).poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                    // Nothing may come for long, and then no buffer is needed.
                    rest = Vec::new();
                    return watch(client, cx).map(|_| Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
    })
    .await
}

/// Answers in the gateway's own name.
pub(crate) async fn answer(shared: &Shared, client: &mut Client, request: &Request, answer: &Answer) -> After {
    let close = request.close || shared.is_finishing();
    let bytes = answer.to_http1(close, request.head);
    client.seen.status = answer.status();
    match client.write(&bytes, shared.limits.write).await {
        Ok(()) if close => After::Close,
        Ok(()) => After::Next,
        Err(_) => After::Over,
    }
}
