//! One try of a request at one instance: a connection, the request on it, and the head of the answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::asker::Asker;
use super::client::{Stall, poll_piece};
use super::exchange::Request;
use super::pool::Upstream;
use super::response::{self, BadResponse, Response};
use super::upload::{BadBody, Need, Upload};
use crate::choice::Attempts;
use crate::connections::Shared;
use crate::ejection;
use crate::instance::{InFlight, Instance};
use crate::plane::Begun;

/// An instance on the same machine accepts within microseconds; a second is for one whose queue is full.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// How long an idle connection may be used again: below the 5 s after which common servers (Node.js) close theirs, so
/// that few requests meet a connection that is just being closed. Also bounds how long an instance that is to stop sees them.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// The same for requests that can't be sent twice: only connections that have just been used.
const IDLE_UNSAFE: Duration = Duration::from_secs(1);
/// How long an instance is silent before it is asked whether it is still there, and how long it may take to answer, three times.
const SILENT: Duration = Duration::from_secs(10);
const ASKING: Duration = Duration::from_secs(5);
/// How often one request is tried at most, connections that were refused included.
pub(crate) const ATTEMPTS: usize = 16;

/// A request under way to one instance.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) begun: Begun,
    pub(crate) upstream: Upstream,
    pub(crate) asked: Instant,
}

impl Try {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        self.begun.in_flight.instance()
    }

    /// Whether a failure says nothing about the instance: it has closed an idle connection.
    pub(crate) fn was_idle(&self, failure: Failure) -> bool {
        self.upstream.reused && failure == Failure::Broken
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The instance broke the connection before it answered.
    Broken,
    /// It did not answer in HTTP, or broke off within the head of its answer.
    Bad,
    /// It was silent for longer than its route allows.
    Silent,
    /// The client has left, or what it sends can't be passed on.
    Body(BadBody),
}

impl From<BadResponse> for Failure {
    fn from(_: BadResponse) -> Self {
        Self::Bad
    }
}

/// Opens a connection for a request, or takes one that waits for the next; not if it is sent `again`, as an instance that dies
/// breaks one after the other.
pub(crate) async fn open(begun: Begun, idempotent: bool, again: bool) -> Result<Try, (Begun, io::Error)> {
    begun.in_flight.count_request();
    let fresh = if idempotent { IDLE } else { IDLE_UNSAFE };
    let pooled = (!again).then(|| begun.in_flight.instance().pool.take(begun.address.port(), fresh)).flatten();
    let upstream = match pooled {
        Some(upstream) => upstream,
        None => match connect(begun.address).await {
            Ok(stream) => Upstream { stream, buffer: bytes::BytesMut::new(), reused: false },
            Err(error) => return Err((begun, error)),
        },
    };
    Ok(Try { begun, upstream, asked: Instant::now() })
}

/// Why an instance takes no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is not there, even if nobody else is: then requests wait for it, or for its successor.
    Gone,
    /// Its queue is full, which may be shorter soon.
    Late,
    Other,
}

impl From<&io::Error> for Refused {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_gone(error) => Self::Gone,
            io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Other,
        }
    }
}

/// Notes that an instance takes no connection. Returns whether it may be asked again, or another.
pub(crate) fn note_refused(begun: &Begun, attempts: &mut Attempts, error: &io::Error, another: bool) -> bool {
    let instance = begun.in_flight.instance();
    begun.in_flight.count_error();
    let why = Refused::from(error);
    if why == Refused::Gone || another && why == Refused::Late {
        instance.suspect(begun.at(), &error.to_string());
    }
    attempts.failed.push(instance.clone());
    another || why != Refused::Other
}

/// Whether a bad answer is worth another try, at another instance: only a request that may be sent twice is (RFC 9110 §9.2.2), and
/// what the application itself has failed at only if it reads.
pub(crate) fn is_worth_another(status: u16, method: &Method) -> bool {
    match status {
        502..=504 => method.is_idempotent(),
        500 => matches!(*method, Method::GET | Method::HEAD),
        _ => false,
    }
}

/// Connects to an instance. The kernel asks whether that is still there when it is silent: one that ends while it waits for its client
/// takes the end of its connection with it.
///
/// # Errors
/// If it takes no connection; `TimedOut` if it does not within [`CONNECT`].
pub(crate) async fn connect(address: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    SockRef::from(&stream)
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENT).with_interval(ASKING).with_retries(3))?;
    Ok(stream)
}

/// Whether an error means that an instance is not there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

/// Counts a try of which nothing is passed on to the client. `held` says whether that has held it up for long.
pub(crate) fn judge(shared: &Shared, one: &Try, asking: &Result<Response, Failure>, held: bool) {
    let status = match asking {
        Ok(response) => Some(response.status),
        Err(Failure::Body(_)) => return,
        Err(failure) => {
            // It may have died: look at once. In-flight requests tell it before the next check does.
            one.instance().suspected.notify_one();
            if one.was_idle(*failure) || *failure == Failure::Broken && held {
                return;
            }
            None
        }
    };
    count(shared, &one.begun.in_flight, status, one.asked.elapsed());
}

/// Counts how a request went for its instance until it was answered with a status, or was not, and takes that out if it fails too often.
pub(crate) fn count(shared: &Shared, in_flight: &InFlight, status: Option<u16>, took: Duration) {
    if status.is_none_or(|status| status >= 500) {
        in_flight.count_error();
    }
    let failed = status.is_none_or(|status| matches!(status, 502..=504));
    in_flight.count_outcome(failed, took);
    if failed {
        ejection::failed(&shared.plane, in_flight.instance());
    }
}

/// Counts how the instance went on with an answer of this status, and takes it out if it breaks off too often.
pub(crate) fn count_end(shared: &Shared, in_flight: &InFlight, status: u16, broke_off: bool) {
    // With a status of an error, it was counted already.
    if broke_off && status < 500 {
        in_flight.count_error();
    }
    in_flight.count_end(broke_off);
    if broke_off {
        ejection::failed(&shared.plane, in_flight.instance());
    }
}

/// Sends a request and reads the head of its answer; informational answers are passed on. The client may pause for `patience` within
/// its body.
pub(crate) async fn ask(
    client: &mut impl Asker,
    upstream: &mut Upstream,
    request: &Request,
    upload: &mut Upload,
    patience: Duration,
) -> Result<Response, Failure> {
    tokio::select! {
        biased;
        sent = send(upstream, request) => sent?,
        () = poll_fn(|cx| client.poll_left(cx)) => return Err(Failure::Body(BadBody::Left)),
    }
    let (mut silence, mut informed) = (Stall::default(), 0);
    loop {
        let heard = poll_fn(|cx| {
            if let Poll::Ready(response) = poll_head(upstream, request, cx) {
                return Poll::Ready(response.map(Ok));
            }
            if let Poll::Ready(need) = upload.poll(client, &mut upstream.stream, patience, cx) {
                return Poll::Ready(Ok(Err(need)));
            }
            let held = upload.waits_for_client();
            client.seen().held.note(held);
            // Who has just got something, or waits for more, is not to blame.
            if upload.has_moved() || held {
                silence.end();
            }
            if request.timeout().is_some_and(|patience| silence.poll(cx, patience).is_ready()) {
                return Poll::Ready(Err(Failure::Silent));
            }
            Poll::Pending
        });
        let response = match heard.await? {
            Ok(response) => response,
            Err(Need::Bad(bad)) => return Err(Failure::Body(bad)),
            Err(Need::GoOn) => {
                upload.wanted();
                client.go_on().await.map_err(|_| Failure::Body(BadBody::Left))?;
                continue;
            }
        };
        if is_final(&response) {
            return Ok(response);
        }
        if response.status == 100 && upload.wanted() {
            client.go_on().await.map_err(|_| Failure::Body(BadBody::Left))?;
        }
        inform(client, upstream, request, &response, &mut informed).await?;
    }
}

/// Sends a request.
pub(crate) async fn send(upstream: &mut Upstream, request: &Request) -> Result<(), Failure> {
    match upstream.stream.write_all(&request.bytes).await {
        Err(_) if upstream.reused => Err(Failure::Broken),
        // An instance may answer before it has read everything, and then close: its answer counts.
        _ => Ok(()),
    }
}

/// Is ready once the head of an answer is there, informational or not.
pub(crate) fn poll_head(
    upstream: &mut Upstream,
    request: &Request,
    cx: &mut Context<'_>,
) -> Poll<Result<Response, Failure>> {
    let Upstream { stream, buffer, .. } = upstream;
    loop {
        if let Some(response) = response::read(buffer, request.is_head())? {
            let unwanted = response.status == 101 && !request.upgrade;
            return Poll::Ready(if unwanted { Err(Failure::Bad) } else { Ok(response) });
        }
        match poll_piece(stream, cx, |piece| buffer.extend_from_slice(piece)) {
            Poll::Ready(Ok(Some(()))) => {}
            Poll::Ready(Ok(None) | Err(_)) if buffer.is_empty() => return Poll::Ready(Err(Failure::Broken)),
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(Failure::Bad)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Whether an answer is the one that was asked for, and no informational one before it.
pub(crate) fn is_final(response: &Response) -> bool {
    response.status >= 200 || response.status == 101
}

/// Passes an informational answer on. `informed` counts the bytes of all of a request's: without an end to them, neither time nor a
/// client that takes nothing would end it.
pub(crate) async fn inform(
    client: &mut impl Asker,
    upstream: &mut Upstream,
    request: &Request,
    response: &Response,
    informed: &mut usize,
) -> Result<(), Failure> {
    // Who has said anything has not just closed an idle connection.
    upstream.reused = false;
    *informed += response.length;
    if *informed > response::LARGEST_HEAD {
        return Err(Failure::Bad);
    }
    // `100` is for whoever has asked for it, and old clients do not know others.
    if response.status != 100 && !request.old {
        client.inform(&upstream.buffer, response).await.map_err(|_| Failure::Body(BadBody::Left))?;
    }
    bytes::Buf::advance(&mut upstream.buffer, response.length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn instances_are_asked_whether_they_are_there() {
        let instance = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(at) = instance.local_addr().unwrap() else { unreachable!("it is one of IPv4") };
        let connected = connect(at).await.unwrap();
        let is = SockRef::from(&connected);
        assert!(is.keepalive().unwrap() && is.tcp_keepalive_time().unwrap() == SILENT);
    }
}
