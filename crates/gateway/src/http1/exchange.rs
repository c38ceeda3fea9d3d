//! One request and its answer, passed on over HTTP/1 to an instance.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use basalt_model::Sticky;
use http::{HeaderValue, Method};
use tokio::time::{Instant, sleep};

use super::asker::{Answered, Asker};
use super::attempt::{self, ATTEMPTS, Failure, Try};
use super::body::Body;
use super::content;
use super::response::Response;
use super::upload::{BadBody, Upload};
use super::{hedge, rewrite, tunnel};
use crate::affinity::Belongs;
use crate::answer::Answer;
use crate::choice::Attempts;
use crate::compression::Wish;
use crate::connections::Shared;
use crate::held::Held;
use crate::instance::Instance;
use crate::plane::Begun;
use crate::ready::ReadyRoute;
use crate::refusals::Refusal;
use crate::routing::{Destination, Routing};
use crate::stats::Reason;
use crate::waiting::{self, Stranded};

/// Pause before a request whose instance broke goes on while no other is healthy: its checker finds out meanwhile, and the
/// request then waits for a successor.
const LOOK: Duration = Duration::from_millis(250);

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    /// Head and body as instances get them; a body that still comes is an [`Upload`].
    pub(crate) bytes: Vec<u8>,
    /// Who has sent it, by the word of trusted proxies.
    pub(crate) client: IpAddr,
    /// Its route, if there is one.
    pub(crate) route: Option<Arc<ReadyRoute>>,
    /// Whether it came over TLS, to this gateway or to a trusted proxy before it.
    pub(crate) secure: bool,
    pub(crate) method: Method,
    /// Whether the client wants another protocol.
    pub(crate) upgrade: bool,
    /// Whether that is WebSocket.
    pub(crate) websocket: bool,
    /// Whether its client speaks HTTP/1.0.
    pub(crate) old: bool,
    /// Whether the connection ends after it.
    pub(crate) close: bool,
    /// Whether its answer is to be compressed.
    pub(crate) compression: Wish,
    /// The instance that it belongs to, and how its client is kept there.
    pub(crate) belongs: Option<Belongs>,
    pub(crate) sticky: Option<Sticky>,
}

impl Request {
    /// Whether it may be sent twice (RFC 9110 §9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// Whether it is a `HEAD`, whose answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Returns how long an instance may be silent before and within its answer. Behind an upgrade that may be as long as both sides like.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = self.route.as_ref().and_then(|route| route.rules.timeout)?;
        Some(Duration::from_millis(timeout.0))
    }

    /// Returns when it is sent to a second instance. Only if it reads: a write that is still under way at the slower instance
    /// when the client goes on could undo what comes after it. Nor if it belongs to an instance: no other would do.
    fn hedge_after(&self) -> Option<Duration> {
        let after = self.route.as_ref().and_then(|route| route.rules.hedge_after)?;
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        (reads && !self.upgrade && self.belongs.is_none()).then(|| Duration::from_millis(after.0))
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
    pub(crate) retries: u32,
}

impl Progress {
    /// Returns the progress of a request that was not tried yet.
    pub(crate) fn of(request: &Request) -> Self {
        let attempts = Attempts { belongs: request.belongs.clone(), ..Attempts::default() };
        Self { attempts, ..Self::default() }
    }

    /// Whether a request that failed may be sent again, as far as its route says.
    pub(crate) fn may_retry(&self, request: &Request) -> bool {
        self.retries < request.route.as_ref().map_or(0, |route| route.retries())
    }
}

/// Passes a request on and its answer back. `find` says where it goes in a table.
pub(crate) async fn run(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    upload: &mut Upload,
    find: impl Fn(&Routing) -> Option<Destination> + Send + Sync,
) -> After {
    let mut progress = Progress::of(request);
    for _ in 0..ATTEMPTS {
        let begun = match begin(shared, client, &find, &mut progress).await {
            Ok(begun) => begun,
            Err(None) => return After::Over,
            Err(Some(answer)) => return fail(shared, client, request, upload, answer).await,
        };
        let opened = tokio::select! {
            biased;
            opened = attempt::open(begun, request.is_idempotent(), progress.retries > 0) => opened,
            () = poll_fn(|cx| client.poll_left(cx)) => return After::Over,
        };
        let mut one = match opened {
            Ok(one) => one,
            Err((begun, error)) => match refused(shared, &find, &mut progress, &begun, &error) {
                Some(answer) => return fail(shared, client, request, upload, answer).await,
                None => continue,
            },
        };
        upload.begin();
        client.seen().held = Held::default();
        let asking = match request.hedge_after().filter(|_| upload.is_done()) {
            None => attempt::ask(client, &mut one.upstream, request, upload, shared.limits.body).await,
            Some(after) => hedge::ask(shared, client, request, &find, &mut progress, &mut one, after).await,
        };
        let another = |progress: &Progress, one: &Try| has_another(shared, &find, &progress.attempts, one.instance());
        let afford = |one: &Try| one.instance().service.budget.withdraw();
        let failure = match asking {
            Ok(response) => {
                let worth_it = attempt::is_worth_another(response.status, &request.method) && upload.is_whole();
                let again = worth_it && progress.may_retry(request) && another(&progress, &one);
                if !(again && afford(&one)) {
                    return pass_on(shared, client, request, upload, &progress.attempts, one, response).await;
                }
                attempt::judge(shared, &one, &Ok(response), false);
                progress.retries += 1;
                progress.attempts.failed.push(one.instance().clone());
                continue;
            }
            Err(failure) => failure,
        };
        one.begun.in_flight.identify_if_cut(|| who(request));
        attempt::judge(shared, &one, &Err(failure), client.seen().held.is_long());
        match failure {
            Failure::Body(bad) => return refuse(shared, client, request, upload, bad).await,
            // Time that is over for one instance is over for all.
            Failure::Silent => return fail(shared, client, request, upload, Answer::of(504)).await,
            Failure::Broken | Failure::Bad => {}
        }
        let another = another(&progress, &one);
        let again = request.is_idempotent() && upload.is_whole() && progress.may_retry(request) && afford(&one);
        if !again {
            return fail(shared, client, request, upload, Answer::of(502)).await;
        }
        progress.retries += 1;
        // Another one is tried; without another, waiting for this one or its successor is what is left.
        if !one.was_idle(failure) {
            progress.attempts.failed.push(one.instance().clone());
            drop(one);
            if !another {
                sleep(LOOK).await;
            }
        }
    }
    fail(shared, client, request, upload, Answer::of(502)).await
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

/// Chooses an instance; waits while none is healthy.
///
/// # Errors
/// With the answer if there is none in the end; with `None` if the client has left.
pub(crate) async fn begin(
    shared: &Shared,
    client: &mut impl Asker,
    find: impl Fn(&Routing) -> Option<Destination> + Send + Sync,
    progress: &mut Progress,
) -> Result<Begun, Option<Answer>> {
    // A client that leaves gives up its place: those who wait are bounded in number.
    let begun = tokio::select! {
        biased;
        begun = waiting::begin(&shared.plane, find, &mut progress.attempts, &mut progress.until) => begun,
        () = poll_fn(|cx| client.poll_left(cx)) => return Err(None),
    };
    let begun = begun.map_err(|stranded| match stranded {
        Stranded::NoRoute => Answer::no_route(shared.plane.routing().version),
        Stranded::NoInstance(service) => {
            shared.plane.edge.refusals.count(Reason::NoInstance);
            Answer::no_instance(service.name.as_str())
        }
    })?;
    client.seen().instance = Some(begun.in_flight.instance().clone());
    client.seen().retries = progress.retries;
    Ok(begun)
}

/// Notes that an instance has taken no connection. Returns the answer, if the request does not go elsewhere.
pub(crate) fn refused(
    shared: &Shared,
    find: impl Fn(&Routing) -> Option<Destination>,
    progress: &mut Progress,
    begun: &Begun,
    error: &io::Error,
) -> Option<Answer> {
    let another = has_another(shared, find, &progress.attempts, begun.in_flight.instance());
    // Nothing was sent, so any request may go elsewhere, and no instance works twice for it: the budget is spared.
    let again = attempt::note_refused(begun, &mut progress.attempts, error, another)
        && progress.until.is_none_or(|until| Instant::now() < until);
    let status = if error.kind() == io::ErrorKind::TimedOut { 504 } else { 502 };
    (!again).then(|| Answer::of(status))
}

/// Returns who has asked for what, for people.
pub(crate) fn who(request: &Request) -> String {
    let line = request.bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let target = String::from_utf8_lossy(line);
    let target = target.strip_suffix(" HTTP/1.1").unwrap_or(&target);
    let target = target.split('?').next().unwrap_or_default();
    let kind = if request.websocket { " websocket" } else { "" };
    format!("{}{kind} {target}", request.client)
}

/// Passes an answer on.
async fn pass_on(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    upload: &mut Upload,
    attempts: &Attempts,
    one: Try,
    response: Response,
) -> After {
    let Try { mut begun, mut upstream, asked } = one;
    attempt::count(shared, &begun.in_flight, Some(response.status), asked.elapsed());
    client.seen().status = response.status;
    let peer = client.peer();
    if response.status == 101 {
        attempt::count_end(shared, &begun.in_flight, 101, false);
        // Only who has a connection of its own, and has said all of its request on it, is let through with an upgrade.
        let Some(connection) = client.connection().filter(|_| upload.is_done()) else { return After::Over };
        let mut out = Vec::with_capacity(1024);
        let dress = request.route.iter().flat_map(|route| route.dress(request.secure));
        let cookie = cookie(shared, request, attempts, begun.in_flight.instance());
        rewrite::response(&mut out, &upstream.buffer, &response, "Upgrade", cookie.as_ref(), dress);
        let behind = out.len();
        out.extend_from_slice(&upstream.buffer[response.length..]);
        begun.in_flight.identify(|| who(request));
        return tunnel::run(shared, connection, upstream.stream, (out, behind), request.websocket, begun).await;
    }
    upload.answered();
    client.seen().held = Held::default();
    let until_close = response.body == Body::UntilClose;
    let endless = until_close || request.old && !matches!(response.body, Body::Length(_));
    // Who is still sending when its answer begins may go on for as long as that takes, and no longer.
    let close = request.close || endless || !upload.has_ended() || shared.is_finishing();
    let (keeps, status) = (response.keeps, response.status);
    let answered = Answered {
        upstream: &mut upstream,
        response,
        request,
        upload,
        cookie: cookie(shared, request, attempts, begun.in_flight.instance()),
        close,
        patience: (shared.limits.write, shared.limits.body),
        encoders: &shared.encoders,
    };
    let passed = client.pass_on(answered).await;
    match &passed {
        Ok(_) => attempt::count_end(shared, &begun.in_flight, status, false),
        Err(error) if content::is_of_instance(error) => {
            // Who did not get all of a request that is broken is not the one to blame for what it makes of that, nor is who has waited.
            let held = error.kind() == content::BROKEN_OFF && client.seen().held.was_long();
            if upload.broken().is_none() && !held {
                attempt::count_end(shared, &begun.in_flight, status, true);
            }
        }
        Err(_) => begun.in_flight.count_left(),
    }
    if let Some(bad) = upload.broken() {
        note_bad(shared, peer, bad);
    }
    // Who sends more than an answer is not asked again.
    let clean = match passed {
        Ok(clean) => clean && keeps,
        Err(error) => {
            begun.in_flight.identify_if_cut(|| who(request));
            if error.kind() == io::ErrorKind::TimedOut {
                shared.refusals.count(Refusal::SlowReader, peer);
            }
            return After::Over;
        }
    };
    match until_close {
        // The end of its instance looks like its own.
        true => begun.in_flight.identify_if_cut(|| who(request)),
        false => begun.in_flight.finish(),
    }
    if clean && upload.is_done() {
        begun.in_flight.instance().pool.put(upstream.stream, begun.address.port());
    }
    if close { After::Close } else { After::Next }
}

/// Returns the cookie that keeps a client at an instance, if it does not have it yet.
pub(crate) fn cookie(shared: &Shared, request: &Request, attempts: &Attempts, at: &Instance) -> Option<HeaderValue> {
    let sticky = request.sticky.as_ref()?;
    if matches!(&attempts.belongs, Some(Belongs::To(id)) if *id == at.id) {
        return None;
    }
    HeaderValue::from_str(&shared.plane.edge.signer().cookie(sticky, &at.id, request.secure)).ok()
}

/// Answers in the gateway's own name, and in the words of the route.
pub(crate) async fn fail(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    upload: &mut Upload,
    with: Answer,
) -> After {
    answer(shared, client, request, &with.in_words_of(request.route.as_deref()), upload).await
}

/// Counts a body that can't be passed on.
pub(crate) fn note_bad(shared: &Shared, peer: IpAddr, bad: BadBody) {
    match bad {
        BadBody::Left => {}
        BadBody::Refused(why) => shared.refusals.count(why, peer),
        BadBody::TooLarge => shared.plane.edge.refusals.count(Reason::TooLarge),
    }
}

/// Answers a request whose body can't be passed on.
pub(crate) async fn refuse(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    upload: &mut Upload,
    bad: BadBody,
) -> After {
    note_bad(shared, client.peer(), bad);
    let status = match bad {
        BadBody::Left => return After::Over,
        BadBody::Refused(why) => why.status().unwrap_or(400),
        BadBody::TooLarge => 413,
    };
    fail(shared, client, request, upload, Answer::of(status)).await
}

/// Answers in the gateway's own name.
pub(crate) async fn answer(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    answer: &Answer,
    upload: &mut Upload,
) -> After {
    poll_fn(|cx| {
        upload.take_what_is_there(client, cx);
        Poll::Ready(())
    })
    .await;
    let close = request.close || !upload.has_ended() || shared.is_finishing();
    let seen = client.seen();
    seen.status = answer.status();
    seen.sent = if request.is_head() { 0 } else { answer.length() };
    match client.answer(answer, request, close, shared.limits.write).await {
        Ok(()) if close => After::Close,
        Ok(()) => After::Next,
        Err(_) => After::Over,
    }
}
