//! Answers whose content is taken out of its framing: for clients that have another one, and to be compressed.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use tokio::net::TcpStream;

use super::asker::{Answered, Source};
use super::body::Body;
use super::client::{Stall, poll_piece};
use super::exchange::Request;
use super::rewrite;
use super::upload::{BadBody, Need, Upload};
use crate::compression::Encoder;

/// The error of an answer that its instance has broken off.
pub(crate) const BROKEN_OFF: io::ErrorKind = io::ErrorKind::UnexpectedEof;
/// The error of an answer within which its instance has been silent for longer than it may.
const SILENT: io::ErrorKind = io::ErrorKind::ConnectionAborted;
/// The error of an answer whose framing can't be read.
pub(crate) const BAD_FRAMING: io::ErrorKind = io::ErrorKind::InvalidData;

/// Whether an answer could not be passed on because of its instance; what goes wrong with a client has [other kinds](super::client::left).
pub(crate) fn is_of_instance(error: &io::Error) -> bool {
    [BROKEN_OFF, SILENT, BAD_FRAMING].contains(&error.kind())
}

/// Where the content of an answer goes.
pub(crate) trait Content: Source {
    /// Begins the answer to a request, which may be all of it.
    ///
    /// # Errors
    /// If the client has left.
    fn begin(&mut self, header: Response<()>, request: &Request, close: bool, bare: bool) -> io::Result<()>;

    /// Goes on with it, once all is sent that it was given before.
    ///
    /// # Errors
    /// If the client has left.
    fn give(&mut self, content: Bytes, last: bool) -> io::Result<()>;

    /// Ends it with fields behind it, if the content that was given was not the last.
    ///
    /// # Errors
    /// If the client has left.
    fn end(&mut self, trailers: HeaderMap) -> io::Result<()>;

    /// Sends what it was given, as much as the client takes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns how much of that is left.
    fn left(&self) -> usize;
}

/// Sends what a client was given. `meanwhile` goes on with something else, and says whether that has moved.
///
/// # Errors
/// If the client has left; `TimedOut` if nothing moves for as long as `patience`.
pub(crate) async fn send<C: Content>(
    client: &mut C,
    patience: Duration,
    mut meanwhile: impl FnMut(&mut C, &mut Context<'_>) -> io::Result<bool> + Send,
) -> io::Result<()> {
    let mut stall = Stall::default();
    poll_fn(|cx| {
        let before = client.left();
        let sent = client.poll_send(cx);
        client.seen().held.note(sent.is_pending());
        if sent.is_ready() {
            return sent;
        }
        if meanwhile(client, cx)? || client.left() < before {
            stall.end();
        }
        stall.poll_late(cx, patience)
    })
    .await
}

/// What comes next from an instance.
enum Next {
    /// A piece; whether it all belonged to the answer.
    Piece(bool),
    /// The connection has ended.
    Closed,
    /// Nothing for now, while the encoder holds back what it was given.
    Paused,
}

/// Passes on an answer as it comes. Returns whether the instance has sent that and no more.
///
/// # Errors
/// If either side breaks off; `TimedOut` if the client takes nothing.
pub(crate) async fn pass_on<C: Content>(client: &mut C, mut answered: Answered<'_>) -> io::Result<bool> {
    let Answered { upstream, response, request, cookie, close, .. } = &answered;
    let header = rewrite::response_header(&upstream.buffer, response, cookie.as_ref(), answered.dress());
    let mut header = header.map_err(|_| BAD_FRAMING)?;
    let (request, close) = (*request, *close);
    let Answered { upstream, response, upload, patience: (patience, pause), encoders, .. } = &mut answered;
    let body = &mut response.body;
    let tail = &upstream.buffer[response.length..];
    let (mut content, mut trailers) = (BytesMut::new(), Vec::new());
    let taken = body.take_content(tail, &mut content, &mut trailers).map_err(|_| BAD_FRAMING)?;
    let mut clean = taken == tail.len();
    upstream.buffer.clear();
    let mut ended = body.is_done();
    let empty = ended && content.is_empty();
    // Where there is no content none must come of it; what answers a `HEAD`, or says that nothing has changed, tells of some.
    let room = encoders.try_acquire().ok();
    let wish = request.compression;
    let bodyless = empty && !request.is_head() && response.status != 304;
    let wish = if room.is_none() || bodyless { wish.without_coding() } else { wish };
    let coding = wish.apply(&mut header).filter(|_| !empty);
    let _room = room.filter(|_| coding.is_some());
    let mut encoder = coding.map(Encoder::new).transpose()?;
    let bare = empty && trailers.len() <= 2;
    client.begin(header, request, close, bare)?;
    // Whether the encoder holds something back.
    let mut holds = false;
    let mut first = true;
    loop {
        let mut meanwhile =
            |client: &mut C, cx: &mut Context<'_>| pass_rest(client, upload, &mut upstream.stream, *pause, cx);
        // More than the empty line that ends all chunks.
        let trailing = trailers.len() > 2;
        let mut ready = content.split().freeze();
        if let Some(encoder) = &mut encoder {
            holds |= !ready.is_empty();
            encoder.write(&ready)?;
            ready = encoder.take().into();
        }
        if ended && let Some(encoder) = encoder.take() {
            ready = [&ready, &encoder.finish()?[..]].concat().into();
        }
        let last = ended && !trailing;
        // The head goes out at once, even if content is long in coming.
        if std::mem::take(&mut first) || !ready.is_empty() || last {
            client.seen().sent += ready.len() as u64;
            client.give(ready, last)?;
            send(client, *patience, &mut meanwhile).await?;
        }
        if ended && trailing {
            let fields = rewrite::trailers(&trailers);
            // The content is whole without them (RFC 9110 §6.5.1).
            clean &= fields.is_ok();
            client.end(fields.unwrap_or_default())?;
            send(client, *patience, &mut meanwhile).await?;
        }
        if ended {
            return Ok(clean);
        }
        let timeout = request.timeout();
        let mut silence = Stall::default();
        let next = poll_fn(|cx| {
            let piece = poll_piece(&mut upstream.stream, cx, |piece| {
                let taken = body.take_content(piece, &mut content, &mut trailers);
                taken.map(|taken| taken == piece.len())
            });
            match piece {
                Poll::Ready(Ok(Some(Ok(all)))) => Poll::Ready(Ok(Next::Piece(all))),
                Poll::Ready(Ok(Some(Err(_)))) => Poll::Ready(Err(BAD_FRAMING.into())),
                Poll::Ready(Ok(None)) => Poll::Ready(Ok(Next::Closed)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(BROKEN_OFF.into())),
                Poll::Pending if holds => Poll::Ready(Ok(Next::Paused)),
                Poll::Pending => {
                    let moved = pass_rest(client, upload, &mut upstream.stream, *pause, cx)?;
                    let held = upload.waits_for_client();
                    client.seen().held.note(held);
                    poll_silence(&mut silence, moved || held, timeout, cx)
                }
            }
        });
        match next.await? {
            Next::Piece(all) => clean &= all,
            Next::Closed if *body == Body::UntilClose => ended = true,
            Next::Closed => return Err(BROKEN_OFF.into()),
            Next::Paused => {
                if let Some(encoder) = &mut encoder {
                    encoder.flush()?;
                }
                holds = false;
            }
        }
        ended |= body.is_done();
    }
}

/// Is ready, with an error, once an instance has been silent for longer than it may; `excused` says that it need not speak.
pub(crate) fn poll_silence<T>(
    silence: &mut Stall,
    excused: bool,
    patience: Option<Duration>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if excused {
        silence.end();
    }
    let late = patience.is_some_and(|patience| silence.poll(cx, patience).is_ready());
    if late { Poll::Ready(Err(SILENT.into())) } else { Poll::Pending }
}

/// Passes on what still comes of the request while its answer is under way. Returns whether something has moved.
///
/// # Errors
/// If the client has left.
pub(crate) fn pass_rest(
    client: &mut impl Source,
    upload: &mut Upload,
    to: &mut TcpStream,
    pause: Duration,
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    match upload.poll(client, to, pause, cx) {
        Poll::Pending | Poll::Ready(Need::GoOn) => {}
        Poll::Ready(Need::Bad(BadBody::Left)) => return Err(io::ErrorKind::BrokenPipe.into()),
        Poll::Ready(Need::Bad(bad)) => {
            upload.give_up(bad);
            // From now on it is only looked out for the client's leaving.
            cx.waker().wake_by_ref();
        }
    }
    Ok(upload.has_moved())
}
