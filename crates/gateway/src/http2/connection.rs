//! A client's connection on which HTTP/2 is spoken: its streams are served by tasks of their own.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use h2::Reason;
use h2::server::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use super::piece::{Piece, Pieces};
use super::{LARGEST_HEAD, WINDOW, stream};
use crate::connections::Shared;
use crate::edge::Secured;
use crate::http1::client::{Client, Ends, Stall, Transport};
use crate::limits::Grants;
use crate::refusals::Refusal;

/// Streams that a client may have open on one connection: what RFC 9113 §6.5.2 recommends at least.
const STREAMS: u32 = 100;
/// Streams that a client may have opened and reset before they were looked at (CVE-2023-44487): honest clients have few.
const RESETS: usize = 50;
/// Streams of a connection that may be refused in a row, and ones that `h2` may refuse or reset for a fault: each costs an answer. Honest
/// clients can have some, too: who knows nothing yet of [`STREAMS`], goes on with bodies that nobody wanted, or shares an address with many.
const FAULTS: usize = 1000;
/// Streams that a client may have reset before they were answered, if it has not waited for as many answers: what one page of a
/// browser may have under way when its user goes elsewhere.
const UNANSWERED: u32 = 100;
/// How much of all bodies of a connection may wait here: some may be slow without holding up the others.
const CONNECTION_WINDOW: u32 = 32 * WINDOW;
/// How much of a connection's small frames may wait here, as `h2` counts it (256 bytes less their length each): what one stream may send
/// at once in pieces of 8 bytes, before anybody looks.
const SMALL_FRAMES: usize = 4 << 20;
/// How much of an answer may wait for a client that is slow to take it.
const SENDING: usize = 128 << 10;
/// How long a client may take to see that its connection ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the streams of a connection come from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) ends: Ends,
    pub(crate) secured: Option<Arc<Secured>>,
    pub(crate) grants: Grants,
    /// Streams that were answered, and ones that the client has reset before.
    answered: AtomicU32,
    reset: AtomicU32,
    /// When the last stream ended.
    quiet_since: Mutex<Instant>,
}

impl Origin {
    /// Notes how a stream has ended.
    pub(crate) fn ended(&self, answered: bool) {
        if answered { &self.answered } else { &self.reset }.fetch_add(1, Relaxed);
        *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn quiet_since(&self) -> Instant {
        *self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client lets us work for nothing.
    fn wastes(&self) -> bool {
        let reset = self.reset.load(Relaxed);
        reset > UNANSWERED && reset > self.answered.load(Relaxed)
    }
}

/// What happens on a connection.
enum Event {
    /// A request has come.
    Request,
    Broken(h2::Error),
    /// The client takes nothing.
    Stalled,
    /// It has ended.
    Over,
    /// The gateway is about to end.
    Finish,
    /// It is time to look whether anything goes on.
    Look,
}

/// Serves a connection from its preface on, which is in the client's buffer.
pub(crate) async fn serve(client: &mut Client, shared: &Arc<Shared>) {
    let (first, secured, ends) = (std::mem::take(&mut client.buffer), client.secured.take(), client.ends);
    let (io, grants, blocked) = (&mut client.io, client.counted.grants.clone(), Blocked::default());
    // Whoever passes on what others send is not the one to blame for it.
    let trusted = shared.trust.has(ends.peer.ip());
    let mut builder = Builder::new();
    // What floods of CONTINUATION, SETTINGS, PING and of empty frames cost is bounded by `h2` itself.
    builder
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams((!trusted).then_some(FAULTS))
        // What is larger than it may be is mostly read all the same, so that it is counted as with HTTP/1.
        .max_header_list_size(2 * LARGEST_HEAD)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        .max_send_buffer_size(SENDING);
    let hello = timeout(shared.limits.head, builder.handshake::<_, Piece>(Prefixed { first, io, blocked: &blocked }));
    let Ok(Ok(mut connection)) = hello.await else { return };
    let quiet_since = Mutex::new(Instant::now());
    let (answered, reset) = Default::default();
    let origin = Arc::new(Origin { ends, secured, grants, answered, reset, quiet_since });
    let mut ending = pin!(shared.ending());
    let mut look = pin!(sleep(shared.limits.idle));
    // When the client was told that the connection ends, and whether nothing more is owed to it.
    let (mut leaving, mut cut) = (None, false);
    let (mut arrived, mut refused, mut stall) = (None, 0, Stall::default());
    loop {
        let event = poll_fn(|cx| {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    arrived = Some(request);
                    return Poll::Ready(Event::Request);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Broken(error)),
                Poll::Ready(None) => return Poll::Ready(Event::Over),
                Poll::Pending => {}
            }
            if blocked.is_late(&mut stall, shared.limits.write, cx) {
                return Poll::Ready(Event::Stalled);
            }
            if leaving.is_none() && ending.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Finish);
            }
            look.as_mut().poll(cx).map(|()| Event::Look)
        });
        match event.await {
            Event::Request if cut => arrived = None,
            Event::Request if !trusted && (origin.wastes() || refused > FAULTS) => {
                arrived = None;
                shared.refusals.count(Refusal::BadHttp2, ends.peer.ip());
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                (leaving, cut) = (Some(Instant::now()), true);
                look.as_mut().reset(Instant::now() + FAREWELL);
            }
            Event::Request => {
                let Some((request, mut respond)) = arrived.take() else { continue };
                let Ok(place) = origin.grants.streams.clone().try_acquire_owned() else {
                    shared.refusals.count(Refusal::ManyStreams, ends.peer.ip());
                    // It may be sent again (RFC 9113 §8.7).
                    respond.send_reset(Reason::REFUSED_STREAM);
                    refused += 1;
                    continue;
                };
                refused = 0;
                tokio::spawn(stream::serve(shared.clone(), origin.clone(), request, respond, Pieces::of(place)));
            }
            Event::Broken(error) => {
                if error.is_library() && (error.is_go_away() || error.is_reset()) {
                    shared.refusals.count(Refusal::BadHttp2, ends.peer.ip());
                }
                return;
            }
            Event::Stalled => {
                shared.refusals.count(Refusal::SlowReader, ends.peer.ip());
                return;
            }
            Event::Over => return,
            Event::Finish => {
                connection.graceful_shutdown();
                leaving = Some(Instant::now());
                look.as_mut().reset(Instant::now() + FAREWELL);
            }
            Event::Look if cut => return,
            Event::Look => {
                // A client that does not take the rest of its answers is not waited for without end.
                let serves = Arc::strong_count(&origin) > 1;
                let now = Instant::now();
                let deadline = match leaving {
                    Some(_) if !connection.has_streams() => return,
                    Some(since) if !serves && now >= since + shared.limits.write => {
                        shared.refusals.count(Refusal::SlowReader, ends.peer.ip());
                        return;
                    }
                    Some(_) => now + FAREWELL,
                    None if serves => now + shared.limits.idle,
                    None => origin.quiet_since() + shared.limits.idle,
                };
                if now < deadline {
                    look.as_mut().reset(deadline);
                } else {
                    connection.graceful_shutdown();
                    leaving = Some(now);
                    look.as_mut().reset(now + FAREWELL);
                }
            }
        }
    }
}

/// Whether a client holds up what is sent to it. Only its own task asks.
#[derive(Debug, Default)]
struct Blocked {
    blocked: AtomicBool,
    /// Whether it has taken something since that was asked last.
    moved: AtomicBool,
}

impl Blocked {
    fn note<T>(&self, sent: Poll<T>) -> Poll<T> {
        self.blocked.store(sent.is_pending(), Relaxed);
        if sent.is_ready() {
            self.moved.store(true, Relaxed);
        }
        sent
    }

    /// Whether it has taken nothing for as long as `patience`, whatever is served meanwhile.
    fn is_late(&self, stall: &mut Stall, patience: Duration, cx: &mut Context<'_>) -> bool {
        let blocked = self.blocked.load(Relaxed);
        if self.moved.swap(false, Relaxed) || !blocked {
            stall.end();
        }
        blocked && stall.poll(cx, patience).is_ready()
    }
}

/// A connection of which something was read already.
#[derive(Debug)]
struct Prefixed<'c> {
    first: BytesMut,
    io: &'c mut Box<dyn Transport>,
    blocked: &'c Blocked,
}

impl AsyncRead for Prefixed<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut *self.io).poll_read(cx, buf);
        }
        let given = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..given]);
        self.first.advance(given);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, blocked, .. } = &mut *self;
        blocked.note(Pin::new(io).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, blocked, .. } = &mut *self;
        blocked.note(Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, blocked, .. } = &mut *self;
        blocked.note(Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
