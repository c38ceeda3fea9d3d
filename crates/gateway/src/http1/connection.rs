//! One connection, on which HTTP/1 is spoken until it turns out to be HTTP/2: request after request is read, judged and passed on.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::body::{Body, Chunks};
use super::client::{Client, Incoming};
use super::exchange::After;
use super::head::{self, Framing, Head};
use super::request::{self, Arrived, SMALL, Texts};
use super::upload::Upload;
use crate::answer::Answer;
use crate::connections::Shared;
use crate::http2;
use crate::refusals::Refusal;
use crate::watched::Seen;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why there is no request to be read.
enum End {
    /// The client has left, is idle for too long, or the gateway ends.
    Quiet,
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(client: &mut Client, shared: &Arc<Shared>) {
    let mut ending = pin!(shared.ending());
    // A timer that is set anew with each request would cost more than it is worth: it is looked at when it fires.
    let mut timer = pin!(sleep_until(Instant::now() + shared.limits.head));
    let mut first = true;
    // Until when a request is waited for; empty lines before it do not make that longer.
    let mut until = None;
    loop {
        if client.buffer.is_empty() {
            let limit = if first { shared.limits.head } else { shared.limits.idle };
            let deadline = *until.get_or_insert_with(|| Instant::now() + limit);
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            let arrived = poll_fn(|cx| {
                if let Poll::Ready(more) = client.poll_fill(cx) {
                    return Poll::Ready(more.unwrap_or(false));
                }
                if ending.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                while timer.as_mut().poll(cx).is_ready() {
                    if timer.deadline() >= deadline {
                        return Poll::Ready(false);
                    }
                    timer.as_mut().reset(deadline);
                }
                Poll::Pending
            });
            if !arrived.await {
                return;
            }
        }
        if first && could_be_http2(client, shared).await {
            return Box::pin(http2::connection::serve(client, shared)).await;
        }
        first = false;
        let head = match read_head(client, shared).await {
            Ok(Some(head)) => head,
            Ok(None) => continue,
            Err(End::Quiet) => return,
            Err(End::Refused(why)) => return Box::pin(refuse(client, shared, why)).await,
        };
        until = None;
        // What a request needs is there only as long as the request: connections are idle most of the time.
        let after = match Box::pin(pass_on(client, &head, shared)).await {
            Ok(after) => after,
            Err(End::Quiet) => return,
            Err(End::Refused(why)) => return Box::pin(refuse(client, shared, why)).await,
        };
        match after {
            After::Next => {}
            After::Close => return Box::pin(client.linger()).await,
            After::Over => return,
        }
    }
}

/// Whether the client speaks HTTP/2. Waits while it can't be told.
async fn could_be_http2(client: &mut Client, shared: &Shared) -> bool {
    let deadline = Instant::now() + shared.limits.head;
    loop {
        let seen = client.buffer.len().min(PREFACE.len());
        if client.buffer[..seen] != PREFACE[..seen] {
            return false;
        }
        if seen == PREFACE.len() {
            return true;
        }
        if !matches!(Box::pin(timeout_at(deadline, client.fill())).await, Ok(Ok(true))) {
            return false;
        }
    }
}

/// Reads the head of a request to the front of the buffer; `None` if there was an empty line and nothing more.
async fn read_head(client: &mut Client, shared: &Shared) -> Result<Option<Head>, End> {
    let mut deadline = None;
    loop {
        // RFC 9112 §2.2: empty lines before a request are passed over; old clients send one behind a body.
        while client.buffer.starts_with(b"\r\n") {
            client.buffer.advance(2);
        }
        if client.buffer.is_empty() {
            return Ok(None);
        }
        if let Some(head) = head::read(&client.buffer)? {
            return Ok(Some(head));
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + shared.limits.head);
        // Most heads come whole.
        match Box::pin(timeout_at(deadline, client.fill())).await {
            Ok(Ok(true)) => {}
            Ok(_) => return Err(End::Quiet),
            Err(_) => return Err(End::Refused(Refusal::SlowHead)),
        }
    }
}

/// Passes on the request at the front of the buffer.
async fn pass_on(client: &mut Client, head: &Head, shared: &Shared) -> Result<After, End> {
    let began = Instant::now();
    client.seen = Seen::default();
    let (told, most) = match head.framing {
        Framing::Length(length) => (length, SMALL),
        Framing::Chunked => (u64::MAX, 0),
    };
    let there = (client.buffer.len() - head.length) as u64;
    // Who waits for our word would wait for ever.
    let may_wait = told <= there.max(most) && (told <= there || !head.expect);
    let room = may_wait.then(|| shared.room(&client.counted.grants, told)).flatten();
    let small = room.is_some();
    let whole = head.length + if small { told as usize } else { 0 };
    let read = if small { read_body(client, whole, shared).await } else { Ok(()) };
    let bytes = split(&mut client.buffer, whole);
    let texts = Texts::of(&bytes, head);
    let secured = client.secured.clone();
    let protocol = if head.old { "HTTP/1.0" } else { "HTTP/1.1" };
    let arrived = Arrived { head, bytes: &bytes, ends: client.ends, secured: secured.as_deref(), protocol, began };
    let aim = texts.aim(&arrived);
    client.seen.received = (bytes.len() - head.length) as u64;
    if let Err(end) = read {
        let status = if let End::Refused(why) = &end { why.status().unwrap_or(0) } else { 0 };
        request::write_down_unread(shared, (&arrived, &aim), Seen { status, ..std::mem::take(&mut client.seen) });
        return Err(end);
    }
    let upload = if small {
        Upload::none()
    } else {
        let body = match head.framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunks::default()),
        };
        client.incoming = Some(Box::new(Incoming { body, trailers: Vec::new() }));
        Upload::new(shared, &client.counted.grants, head)
    };
    let after = request::perform(shared, client, (&arrived, &aim), upload).await;
    client.incoming = None;
    // Who has said that this is its last request sends nothing more, and is not waited for.
    if after == After::Close && head.close && small && client.buffer.is_empty() {
        client.say_farewell().await;
        return Ok(After::Over);
    }
    Ok(after)
}

/// Reads until the buffer has a whole request.
async fn read_body(client: &mut Client, whole: usize, shared: &Shared) -> Result<(), End> {
    while client.buffer.len() < whole {
        match timeout(shared.limits.body, client.fill()).await {
            Ok(Ok(true)) => {}
            Ok(_) => return Err(End::Quiet),
            Err(_) => return Err(End::Refused(Refusal::SlowBody)),
        }
    }
    Ok(())
}

/// Takes so much off the front of a buffer, or all. One that is empty then has no space: connections are idle most of the time.
fn split(buffer: &mut BytesMut, at: usize) -> BytesMut {
    if buffer.len() <= at { std::mem::take(buffer) } else { buffer.split_to(at) }
}

/// Answers what can't be passed on, and ends.
async fn refuse(client: &mut Client, shared: &Shared, why: Refusal) {
    shared.refusals.count(why, client.ends.peer.ip());
    let Some(status) = why.status() else { return };
    if client.write(&Answer::of(status).to_http1("close", false, |_| {}), shared.limits.write).await.is_ok() {
        client.linger().await;
    }
}
