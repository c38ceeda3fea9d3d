//! gRPC: a call goes to an instance over HTTP/2, and both sides may speak at once.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{FlowControl, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

use super::piece::{Piece, Pieces};
use super::poll_send;
use super::stream::Stream;
use crate::answer::{self, Answer};
use crate::connections::{Room, Shared};
use crate::held::Held;
use crate::http1::asker::{Asker, Source};
use crate::http1::attempt::{self, ATTEMPTS};
use crate::http1::client::Stall;
use crate::http1::content::Content;
use crate::http1::exchange::{self, After, Progress, Request};
use crate::http1::request::SMALL;
use crate::http1::rewrite;
use crate::http1::upload::{BadBody, Upload};
use crate::instance::InFlight;
use crate::refusals::Refusal;
use crate::routing::{Destination, Routing};

/// How a call has ended that did not end well.
enum Failure {
    /// The client has left.
    Left,
    /// It sends more than its route allows.
    TooLarge,
    /// It takes nothing of its answer.
    SlowReader,
    /// The instance was silent for longer than its route allows.
    Silent,
    /// The instance broke off.
    Broken(h2::Error),
}

/// The body of a call. What has come first is kept, so that it can be sent again.
#[derive(Debug)]
struct Body {
    kept: BytesMut,
    /// How much of that was taken for this attempt.
    at: usize,
    size: u64,
    /// Room for all that has come, as long as it is kept.
    room: Option<Room>,
    /// How much there may be.
    most: u64,
    /// What is behind its end, once that has come.
    end: Option<HeaderMap>,
}

impl Body {
    /// Whether all that has come was kept.
    fn is_whole(&self) -> bool {
        self.room.is_some() || self.size == 0
    }

    /// It is not sent again.
    fn forget(&mut self) {
        self.room = None;
        // A copy: what is split off keeps all of it alive.
        self.kept = BytesMut::from(&self.kept[self.at..]);
        self.at = 0;
    }

    /// Returns its next piece, and how much of the client's window that takes; `None` at its end.
    fn poll(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<Option<(Bytes, usize)>, Failure>> {
        if self.at < self.kept.len() {
            let piece = Bytes::copy_from_slice(&self.kept[self.at..]);
            self.at = self.kept.len();
            if self.room.is_none() {
                self.forget();
            }
            return Poll::Ready(Ok(Some((piece, 0))));
        }
        if self.end.is_some() {
            return Poll::Ready(Ok(None));
        }
        match ready!(client.body.poll_data(cx)) {
            Some(Ok(piece)) => {
                self.size += piece.len() as u64;
                client.seen().received += piece.len() as u64;
                let taken = piece.len();
                if self.size > self.most {
                    return Poll::Ready(Err(Failure::TooLarge));
                }
                if self.size > SMALL {
                    self.forget();
                }
                if self.room.is_none() {
                    return Poll::Ready(Ok(Some((piece, taken))));
                }
                // A copy: the piece may keep much more alive than itself.
                self.kept.extend_from_slice(&piece);
                self.at = self.kept.len();
                // What is kept waits here in any case. If this fails the client has left.
                let _ = client.body.flow_control().release_capacity(taken);
                Poll::Ready(Ok(Some((piece, 0))))
            }
            Some(Err(_)) => Poll::Ready(Err(Failure::Left)),
            None => {
                let trailers = ready!(client.body.poll_trailers(cx)).map_err(|_| Failure::Left)?;
                self.end = Some(trailers.map(rewrite::without_framing).unwrap_or_default());
                Poll::Ready(Ok(None))
            }
        }
    }
}

/// Passes a call on, and its answer back. Its body is kept as long as there is `room`; `find` says where it goes in a table.
pub(crate) async fn run(
    shared: &Shared,
    client: &mut Stream,
    request: &Request,
    room: Option<Room>,
    find: impl Fn(&Routing) -> Option<Destination> + Send + Sync,
) -> After {
    let mut progress = Progress::of(request);
    let limit = request.route.as_ref().and_then(|route| route.rules.body_limit);
    let most = limit.map_or(u64::MAX, |limit| limit.0);
    let mut body = Body { kept: BytesMut::new(), at: 0, size: 0, room, most, end: None };
    let Some(head) = to_http2(request) else { return fail(shared, client, request, Answer::of(400)).await };
    for _ in 0..ATTEMPTS {
        let mut begun = match exchange::begin(shared, client, &find, &mut progress).await {
            Ok(begun) => begun,
            Err(None) => return After::Over,
            Err(Some(answer)) => return fail(shared, client, request, answer).await,
        };
        begun.in_flight.count_request();
        let opened = tokio::select! {
            biased;
            opened = begun.in_flight.instance().http2.take(begun.address) => opened,
            () = poll_fn(|cx| client.poll_left(cx)) => return After::Over,
        };
        let mut upstream = match opened {
            Ok(upstream) => upstream,
            Err(error) => match exchange::refused(shared, &find, &mut progress, &begun, &error) {
                Some(answer) => return fail(shared, client, request, answer).await,
                None => continue,
            },
        };
        let (response, sending) = match upstream.sender.send_request(head.clone(), false) {
            Ok(sent) => sent,
            Err(_) if upstream.fresh => return fail(shared, client, request, Answer::of(502)).await,
            // It was closed just now, before anything was sent.
            Err(_) => continue,
        };
        body.at = 0;
        client.seen().held = Held::default();
        let (asked, mut answered) = (Instant::now(), None);
        let call = Call {
            client,
            request,
            shared,
            in_flight: &begun.in_flight,
            body: &mut body,
            up: Up {
                sending,
                pieces: Arc::default(),
                piece: Bytes::new(),
                owed: 0,
                gathered: Gathered::default(),
                ended: false,
                done: false,
            },
            down: Down {
                response: Some(response),
                receiving: None,
                owed: 0,
                gathered: Gathered::default(),
                ended: None,
            },
            asked,
            answered: &mut answered,
            cookie: exchange::cookie(shared, request, &progress.attempts, begun.in_flight.instance()),
        };
        let idle = upstream.idle;
        let ended = call.run(shared.limits.write).await;
        if let Some(status) = answered {
            // Who has waited for its client is not to blame, nor is anybody for a client that has left.
            let held = client.seen().held.was_long();
            match &ended {
                Ok(()) => attempt::count_end(shared, &begun.in_flight, status, false),
                Err(Failure::Broken(error)) if error.is_io() && held => {}
                Err(Failure::Silent | Failure::Broken(_)) => {
                    attempt::count_end(shared, &begun.in_flight, status, true);
                }
                Err(_) => begun.in_flight.count_left(),
            }
        }
        let answered = answered.is_some();
        let failure = match ended {
            Ok(()) => {
                begun.in_flight.finish();
                return After::Next;
            }
            Err(failure) => failure,
        };
        begun.in_flight.identify_if_cut(|| exchange::who(request));
        let error = match failure {
            Failure::Left => return After::Over,
            Failure::TooLarge if answered => {
                exchange::note_bad(shared, client.peer(), BadBody::TooLarge);
                client.reset(Reason::CANCEL);
                return After::Over;
            }
            Failure::TooLarge => {
                return exchange::refuse(shared, client, request, &mut Upload::none(), BadBody::TooLarge).await;
            }
            Failure::SlowReader => {
                shared.refusals.count(Refusal::SlowReader, client.peer());
                return After::Over;
            }
            Failure::Silent if answered => return After::Over,
            Failure::Silent => {
                attempt::count(shared, &begun.in_flight, None, asked.elapsed());
                return fail(shared, client, request, Answer::of(504)).await;
            }
            Failure::Broken(error) if answered => {
                // The instance has nothing more to do with it.
                drop((begun, upstream));
                client.break_off(error.reason().unwrap_or(Reason::INTERNAL_ERROR)).await;
                return After::Over;
            }
            Failure::Broken(error) => error,
        };
        // The instance says that it has not looked at it (RFC 9113 §8.7).
        let untouched = error.reason() == Some(Reason::REFUSED_STREAM)
            || error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        let instance = begun.in_flight.instance().clone();
        // An idle connection that was closed says nothing about its instance, nor does one that is about to be, nor a fault of ours,
        // nor one on which it has waited for the client.
        let waited = client.seen().held.is_long();
        if !(untouched || error.is_library() || error.is_io() && (idle || waited)) {
            attempt::count(shared, &begun.in_flight, None, asked.elapsed());
        }
        instance.suspected.notify_one();
        let again = untouched && body.is_whole() && progress.may_retry(request) && instance.service.budget.withdraw();
        if !again {
            return fail(shared, client, request, Answer::of(502)).await;
        }
        progress.retries += 1;
        if !error.is_go_away() {
            progress.attempts.failed.push(instance);
        }
    }
    fail(shared, client, request, Answer::of(502)).await
}

/// Answers in the gateway's own name, and in the words of the route.
async fn fail(shared: &Shared, client: &mut Stream, request: &Request, with: Answer) -> After {
    exchange::fail(shared, client, request, &mut Upload::none(), with).await
}

/// A call under way to an instance.
struct Call<'c> {
    client: &'c mut Stream,
    request: &'c Request,
    shared: &'c Shared,
    in_flight: &'c InFlight,
    body: &'c mut Body,
    up: Up,
    down: Down,
    asked: Instant,
    /// The status of the answer, once it has begun.
    answered: &'c mut Option<u16>,
    /// Keeps the client at the instance.
    cookie: Option<HeaderValue>,
}

/// What goes to the instance.
struct Up {
    sending: SendStream<Piece>,
    pieces: Arc<Pieces>,
    piece: Bytes,
    /// How much of the client's window it takes.
    owed: usize,
    gathered: Gathered,
    /// Whether nothing comes behind that.
    ended: bool,
    done: bool,
}

/// What has come from one side and was not yet sent to the other. It does not wait in `h2`, where small frames cost much more than they
/// hold, and is sent as one piece.
#[derive(Debug, Default)]
struct Gathered {
    bytes: BytesMut,
    /// How much of its sender's window it takes, which bounds it.
    owed: usize,
}

impl Gathered {
    fn add(&mut self, piece: &[u8], owed: usize) {
        self.bytes.extend_from_slice(piece);
        self.owed += owed;
    }

    /// Returns all of it, with how much of the window it takes, if there is any.
    fn take(&mut self) -> Option<(Bytes, usize)> {
        // Not a part of it: that would keep room for all.
        (!self.bytes.is_empty()).then(|| (std::mem::take(&mut self.bytes).freeze(), std::mem::take(&mut self.owed)))
    }
}

/// Gives a sender back what it is owed of its window, but for the piece that is `left`. If this fails it has left.
fn release(window: &mut FlowControl, owed: &mut usize, left: usize) {
    let taken = owed.saturating_sub(left);
    *owed -= taken;
    let _ = window.release_capacity(taken);
}

/// What comes back.
struct Down {
    response: Option<ResponseFuture>,
    receiving: Option<RecvStream>,
    /// How much of the instance's window is taken by what was given to the client.
    owed: usize,
    gathered: Gathered,
    /// What is behind its end, once that has come.
    ended: Option<Result<HeaderMap, h2::Error>>,
}

impl Call<'_> {
    /// Passes on what both sides say; the client may take nothing for `patience`.
    async fn run(mut self, patience: Duration) -> Result<(), Failure> {
        let (mut silence, mut stall) = (Stall::default(), Stall::default());
        let (mut moved, mut taken) = (0, 0);
        poll_fn(|cx| {
            if let Poll::Ready(Err(failure)) = self.poll_up(cx) {
                return Poll::Ready(Err(failure));
            }
            if let Poll::Ready(ended) = self.poll_down(cx) {
                return Poll::Ready(ended);
            }
            if self.client.poll_left(cx).is_ready() {
                return Poll::Ready(Err(Failure::Left));
            }
            let seen = self.client.seen();
            // What is only gathered has not moved.
            let waiting = self.up.gathered.bytes.len() as u64;
            let (both, sent) = (seen.received + seen.sent - waiting, seen.sent);
            // Who is silent while the client has the word, or takes nothing, is not to blame.
            let says_nothing = !self.up.done && self.up.piece.is_empty();
            let takes_nothing = self.client.left() > 0;
            let waits_for_client = says_nothing || takes_nothing;
            let unanswered = self.down.response.is_some();
            self.client.seen().held.note(if unanswered { says_nothing } else { takes_nothing });
            if std::mem::replace(&mut moved, both) != both || waits_for_client {
                silence.end();
            }
            // Only what waits for the client shows that it takes nothing.
            if std::mem::replace(&mut taken, sent) != sent || self.client.left() == 0 {
                stall.end();
            }
            if self.client.left() > 0 && stall.poll(cx, patience).is_ready() {
                return Poll::Ready(Err(Failure::SlowReader));
            }
            let late = self.request.timeout().is_some_and(|patience| silence.poll(cx, patience).is_ready());
            if late { Poll::Ready(Err(Failure::Silent)) } else { Poll::Pending }
        })
        .await
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Up { sending, pieces, piece, owed, gathered, ended, done } = &mut self.up;
        while !*done {
            while !*ended && let Poll::Ready(next) = self.body.poll(self.client, cx) {
                match next? {
                    Some((next, owed)) => gathered.add(&next, owed),
                    None => *ended = true,
                }
            }
            // An instance may answer before it has read everything, and take no more: its answer counts.
            let sent = poll_send(sending, pieces, piece, false, cx);
            release(self.client.body.flow_control(), owed, piece.len());
            *done = ready!(sent).is_err();
            if let Some(next) = gathered.take() {
                (*piece, *owed) = next;
                continue;
            }
            if !*ended {
                return Poll::Pending;
            }
            *done = true;
            let _ = match &self.body.end {
                Some(trailers) if !trailers.is_empty() => sending.send_trailers(trailers.clone()),
                _ => sending.send_data(Piece::new(Bytes::new(), pieces), true),
            };
        }
        Poll::Ready(Ok(()))
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Some(response) = &mut self.down.response {
            let response = ready!(std::pin::Pin::new(response).poll(cx)).map_err(Failure::Broken)?;
            self.down.response = None;
            let (parts, receiving) = response.into_parts();
            // Nothing is sent again from now on.
            self.body.forget();
            self.client.seen().held = Held::default();
            let status = parts.status.as_u16();
            attempt::count(self.shared, self.in_flight, Some(status), self.asked.elapsed());
            *self.answered = Some(status);
            let mut header = http::Response::from_parts(parts, ());
            answer::dress(&mut header, self.request.route.as_deref(), self.request.secure);
            if let Some(cookie) = self.cookie.take() {
                header.headers_mut().append(header::SET_COOKIE, cookie);
            }
            let bare = receiving.is_end_stream();
            self.client.respond(header, bare).map_err(|_| Failure::Left)?;
            if bare {
                return Poll::Ready(Ok(()));
            }
            self.down.receiving = Some(receiving);
        }
        let Down { receiving: Some(receiving), gathered, owed, ended, .. } = &mut self.down else {
            return Poll::Ready(Ok(()));
        };
        let left = |_: io::Error| Failure::Left;
        loop {
            while ended.is_none() {
                match receiving.poll_data(cx) {
                    Poll::Ready(Some(Ok(piece))) => gathered.add(&piece, piece.len()),
                    Poll::Ready(Some(Err(error))) => *ended = Some(Err(error)),
                    Poll::Ready(None) => match receiving.poll_trailers(cx) {
                        Poll::Ready(trailers) => *ended = Some(trailers.map(Option::unwrap_or_default)),
                        Poll::Pending => break,
                    },
                    Poll::Pending => break,
                }
            }
            let before = self.client.left();
            let sent = self.client.poll_send(cx);
            self.client.seen().sent += (before - self.client.left()) as u64;
            release(receiving.flow_control(), owed, self.client.left());
            ready!(sent).map_err(left)?;
            if let Some((next, taken)) = gathered.take() {
                *owed = taken;
                self.client.give(next, false).map_err(left)?;
                continue;
            }
            let Some(ended) = ended.take() else { return Poll::Pending };
            let trailers = ended.map_err(Failure::Broken)?;
            return Poll::Ready(self.client.end(trailers).map_err(left));
        }
    }
}

/// Returns a request's head in the words of HTTP/2; `None` if those have no place for it.
fn to_http2(request: &Request) -> Option<http::Request<()>> {
    let mut space = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut space);
    parsed.parse(&request.bytes).ok()?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.version_mut() = http::Version::HTTP_2;
    let (mut host, mut headers) = (&b""[..], HeaderMap::with_capacity(parsed.headers.len() + 1));
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("host") {
            host = field.value;
        } else if !rewrite::ends_here(field.name) {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
    }
    // Servers take its absence for a proxy that drops trailers.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    *head.headers_mut() = headers;
    *head.uri_mut() = http::Uri::builder().scheme("http").authority(host).path_and_query(parsed.path?).build().ok()?;
    Some(head)
}
