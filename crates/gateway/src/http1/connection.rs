//! One HTTP/1 connection: request after request is read, judged, and passed on here or by the general proxy.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::client::Client;
use super::exchange::After;
use super::head::{self, Head};
use super::short::{self, Passed};
use crate::answer::Answer;
use crate::connections::Shared;
use crate::downstream::{Downstream, PREFACE};
use crate::refusals::Refusal;

/// At the end, time in which clients that are just sending a request on an open connection still get their answer.
const LINGER: Duration = Duration::from_millis(250);

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
pub(crate) async fn serve(mut client: Client, shared: &Arc<Shared>) {
    let mut finishing = shared.finishing.subscribe();
    let mut ending = pin!(async move {
        // An error means that nobody is left to begin the end, which is its end.
        let _ = finishing.wait_for(|finishing| *finishing).await;
        sleep(LINGER).await;
    });
    // A timer that is set anew with each request would cost more than it is worth: it is looked at when it fires.
    let mut timer = pin!(sleep_until(Instant::now() + shared.limits.head));
    let mut first = true;
    loop {
        if client.buffer.is_empty() {
            let limit = if first { shared.limits.head } else { shared.limits.idle };
            let deadline = Instant::now() + limit;
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
        if first && could_be_http2(&mut client, shared).await {
            return serve_http2(client, shared).await;
        }
        first = false;
        let head = match read_head(&mut client, shared).await {
            Ok(head) => head,
            Err(End::Quiet) => return,
            Err(End::Refused(why)) => return Box::pin(refuse(client, shared, why)).await,
        };
        // What a request needs is there only as long as the request: connections are idle most of the time.
        let after = match Box::pin(pass_on(client, &head, shared)).await {
            Ok((back, after)) => {
                client = back;
                after
            }
            Err(None) => return,
            Err(Some((client, why))) => return Box::pin(refuse(client, shared, why)).await,
        };
        match after {
            After::Next => {}
            After::Close => return client.linger().await,
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
        if !matches!(timeout_at(deadline, client.fill()).await, Ok(Ok(true))) {
            return false;
        }
    }
}

/// Serves a connection on which HTTP/2 is spoken, from its preface on.
async fn serve_http2(client: Client, shared: &Arc<Shared>) {
    let mut finishing = shared.finishing.subscribe();
    if *finishing.borrow() {
        // It began while this client was still saying hello: pingora waits for the next change only.
        finishing.mark_changed();
    }
    let stream = Box::new(Downstream::for_http2(client));
    pingora_core::apps::ServerApp::process_new(shared.proxy(), stream, &finishing).await;
}

/// Reads the head of a request to the front of the buffer.
async fn read_head(client: &mut Client, shared: &Shared) -> Result<Head, End> {
    // RFC 9112 §2.2: an empty line before a request is passed over; old clients send one behind a body.
    if client.buffer.starts_with(b"\r\n") {
        client.buffer.advance(2);
    }
    let mut deadline = None;
    loop {
        if let Some(head) = head::read(&client.buffer)? {
            return Ok(head);
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + shared.limits.head);
        match timeout_at(deadline, client.fill()).await {
            Ok(Ok(true)) => {}
            Ok(_) => return Err(End::Quiet),
            Err(_) => return Err(End::Refused(Refusal::SlowHead)),
        }
    }
}

type Next = Result<(Client, After), Option<(Client, Refusal)>>;

/// Passes on the request at the front of the buffer. Returns the client for its next request, if there can be one.
async fn pass_on(client: Client, head: &Head, shared: &Arc<Shared>) -> Next {
    match short::pass_on(client, head, shared).await {
        Passed::Done(client, after) => Ok((client, after)),
        Passed::NotHere(client) => general(client, head, shared).await,
        Passed::Refused(client, why) => Err(Some((client, why))),
        Passed::Left => Err(None),
    }
}

/// Has the general proxy pass on the request at the front of the buffer.
async fn general(client: Client, head: &Head, shared: &Arc<Shared>) -> Next {
    let finishing = shared.finishing.subscribe();
    let mut session = ServerSession::new_http1(Box::new(Downstream::for_request(client, head)));
    session.set_keepalive((!shared.is_finishing()).then_some(shared.limits.idle.as_secs()));
    let reused = shared.proxy().process_new_http(session, &finishing).await.ok_or(None)?;
    let (stream, _) = reused.consume();
    let stream = stream.into_any().downcast::<Downstream>().map_err(|_| None)?;
    Ok((stream.into_client().ok_or(None)?, After::Next))
}

/// Answers what can't be passed on, and ends.
async fn refuse(mut client: Client, shared: &Shared, why: Refusal) {
    shared.refusals.count(why, client.ends.peer.ip());
    let Some(status) = why.status() else { return };
    if client.write(&Answer::of(status).to_http1(true, false, |_| {}), shared.limits.write).await.is_ok() {
        client.linger().await;
    }
}
