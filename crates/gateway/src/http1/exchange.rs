//! One request and its answer, passed on over HTTP/1 on both sides.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep};

use super::attempt::{self, Failure, Try};
use super::body::Body;
use super::client::{Client, Stall, poll_piece};
use super::pool::Upstream;
use super::response::Response;
use super::{hedge, rewrite, tunnel};
use crate::answer::{self, Answer};
use crate::choice::Attempts;
use crate::connections::Shared;
use crate::instance::Instance;
use crate::plane::Begun;
use crate::proxy::{ATTEMPTS, LOOK};
use crate::ready::ReadyRoute;
use crate::refusals::Refusal;
use crate::routing::{Destination, Routing};
use crate::stats::Reason;
use crate::waiting::{self, Stranded};

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    /// Head and body as instances get them.
    pub(crate) bytes: Vec<u8>,
    /// Its route, if there is one.
    pub(crate) route: Option<Arc<ReadyRoute>>,
    /// Whether it came over TLS, to this gateway or to a trusted proxy before it.
    pub(crate) secure: bool,
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

impl Request {
    fn retries(&self) -> u32 {
        self.route.as_ref().map_or(0, |route| route.retries())
    }

    /// Returns how long an instance may be silent. Other protocols may be for as long as both sides like.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = self.route.as_ref().and_then(|route| route.rules.timeout)?;
        (!self.upgrade).then(|| Duration::from_millis(timeout.0))
    }

    /// Returns when it is sent to a second instance. Only if it reads: a write that is still under way at the slower instance
    /// when the client goes on could undo what comes after it.
    fn hedge_after(&self) -> Option<Duration> {
        let after = self.route.as_ref().and_then(|route| route.rules.hedge_after)?;
        (self.reads && !self.upgrade).then(|| Duration::from_millis(after.0))
    }
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

/// The retries of one request so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) attempts: Attempts,
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
            Err(Stranded::NoRoute) => return fail(shared, client, request, Answer::no_route()).await,
            Err(Stranded::NoInstance(service)) => {
                shared.plane.edge.refusals.count(Reason::NoInstance);
                return fail(shared, client, request, Answer::no_instance(service.name.as_str())).await;
            }
        };
        client.seen.instance = Some(begun.in_flight.instance().clone());
        client.seen.retries = progress.retries;
        let mut one = match attempt::open(begun, request.idempotent).await {
            Ok(one) => one,
            Err((begun, error)) => {
                let another = has_another(shared, &find, &progress.attempts, begun.in_flight.instance());
                if !may_connect_again(&begun, &mut progress, &error, another) {
                    let status = if error.kind() == io::ErrorKind::TimedOut { 504 } else { 502 };
                    return fail(shared, client, request, Answer::of(status)).await;
                }
                continue;
            }
        };
        let asking = match request.hedge_after() {
            None => attempt::ask(client, &mut one.upstream, request).await,
            Some(after) => hedge::ask(shared, client, request, &find, &mut progress, &mut one, after).await,
        };
        attempt::judge(shared, &one, &asking);
        let another = |progress: &Progress| has_another(shared, &find, &progress.attempts, one.instance());
        let budget = &one.instance().service.budget;
        let failure = match asking {
            Ok(response) if response.status < 500 => return pass_on(shared, client, request, one, response).await,
            Ok(response) => {
                let worth_it = match response.status {
                    502..=504 => request.idempotent,
                    500 => request.reads,
                    _ => false,
                };
                let again = worth_it && progress.retries < request.retries() && another(&progress);
                if !(again && budget.withdraw()) {
                    return pass_on(shared, client, request, one, response).await;
                }
                progress.retries += 1;
                progress.attempts.failed.push(one.instance().clone());
                continue;
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Left => return After::Over,
            // Time that is over for one instance is over for all.
            Failure::Silent => return fail(shared, client, request, Answer::of(504)).await,
            Failure::Broken | Failure::Bad => {}
        }
        let another = another(&progress);
        let again = request.idempotent && progress.retries < request.retries() && budget.withdraw();
        if !again {
            return fail(shared, client, request, Answer::of(502)).await;
        }
        progress.retries += 1;
        // An idle connection that was closed says nothing about its instance. Otherwise another one is tried; without
        // another, waiting for this one or its successor is what is left.
        if !one.upstream.reused {
            progress.attempts.failed.push(one.instance().clone());
            drop(one);
            if !another {
                sleep(LOOK).await;
            }
        }
    }
    fail(shared, client, request, Answer::of(502)).await
}

/// Whether another healthy instance could answer instead of one.
pub(crate) fn has_another(
    shared: &Shared,
    find: impl Fn(&Routing) -> Option<Destination>,
    attempts: &Attempts,
    but: &Arc<Instance>,
) -> bool {
    let routing = shared.plane.routing();
    find(&routing).is_some_and(|to| routing.has_another(to, attempts, but))
}

/// Says whether a request whose connection was refused goes elsewhere, and notes what that means for the instance.
fn may_connect_again(begun: &Begun, progress: &mut Progress, error: &io::Error, another: bool) -> bool {
    let again = attempt::note_refused(begun, &mut progress.attempts, error, another);
    // Nothing was sent, so any request may go elsewhere, and no instance works twice for it: the budget is spared.
    again && progress.until.is_none_or(|until| Instant::now() < until)
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

/// Passes an answer on.
async fn pass_on(shared: &Shared, client: &mut Client, request: &Request, one: Try, mut response: Response) -> After {
    let Try { mut begun, mut upstream, .. } = one;
    client.seen.status = response.status;
    let until_close = response.body == Body::UntilClose;
    let close = request.close || until_close || shared.is_finishing();
    let mut out = Vec::with_capacity(1024);
    let dress = request.route.iter().flat_map(|route| route.dress(request.secure));
    rewrite::response(&mut out, &upstream.buffer, &response, close, dress);
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
    let relayed = relay(shared, client, &mut upstream, &mut response.body, &out, request.timeout()).await;
    client.seen.sent = client.seen.sent.saturating_sub(response.body.framing());
    match relayed {
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
    timeout: Option<Duration>,
) -> io::Result<bool> {
    let patience = shared.limits.write;
    let mut silence = Stall::default();
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
                Poll::Ready(Ok(Some(Ok(())))) => silence.end(),
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
                    if timeout.is_some_and(|patience| silence.poll(cx, patience).is_ready()) {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    return attempt::watch(client, cx).map(|()| Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
    })
    .await
}

/// Answers in the gateway's own name, and in the words of the route.
async fn fail(shared: &Shared, client: &mut Client, request: &Request, with: Answer) -> After {
    answer(shared, client, request, &with.in_words_of(request.route.as_deref())).await
}

/// Answers in the gateway's own name.
pub(crate) async fn answer(shared: &Shared, client: &mut Client, request: &Request, answer: &Answer) -> After {
    let close = request.close || shared.is_finishing();
    let dress = |header: &mut _| answer::dress(header, request.route.as_deref(), request.secure);
    let bytes = answer.to_http1(close, request.head, dress);
    client.seen.status = answer.status();
    client.seen.sent = if request.head { 0 } else { answer.length() };
    match client.write(&bytes, shared.limits.write).await {
        Ok(()) if close => After::Close,
        Ok(()) => After::Next,
        Err(_) => After::Over,
    }
}
