//! Answers to clients that speak HTTP/1: heads are rewritten, and bodies mostly passed on byte by byte with their framing.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response as Header, StatusCode, header};
use tokio::io::AsyncWrite;

use super::asker::{Answered, Asker, Source};
use super::body::Body;
use super::client::{Client, Incoming, Stall, left, poll_piece};
use super::content::{self, Content};
use super::exchange::Request;
use super::response::Response;
use super::rewrite;
use super::upload::{BadBody, put_chunk, put_last_chunk};
use crate::answer::{self, Answer};
use crate::compression::Wish;
use crate::refusals::Refusal;
use crate::watched::Seen;

/// How much a client may send ahead of its next request.
const AHEAD: usize = 64 << 10;

/// Returns what a client is told of its connection.
fn connection(request: &Request, close: bool) -> &'static str {
    match close {
        true => "close",
        // Clients of HTTP/1.0 would else not know (RFC 9112 §9.3).
        false if request.old => "keep-alive",
        false => "",
    }
}

impl Source for Client {
    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// What it sends ahead is kept, up to a bound.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.buffer.len() < AHEAD {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_hung_up(cx)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<Option<HeaderMap>, BadBody>> {
        let Self { io, buffer, incoming: Some(incoming), ended, .. } = self else {
            return Poll::Ready(Err(BadBody::Left));
        };
        let Incoming { body, trailers } = &mut **incoming;
        let taken = if buffer.is_empty() {
            let piece = poll_piece(io, cx, |piece| {
                let taken = body.take_content(piece, into, trailers)?;
                // The next request.
                buffer.extend_from_slice(&piece[taken..]);
                Ok(())
            });
            match piece {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(taken))) => taken,
                Poll::Ready(Ok(None) | Err(_)) => {
                    *ended = true;
                    return Poll::Ready(Err(BadBody::Left));
                }
            }
        } else {
            body.take_content(buffer, into, trailers).map(|taken| buffer.advance(taken))
        };
        if taken.is_err() {
            return Poll::Ready(Err(BadBody::Refused(Refusal::BadFraming)));
        }
        Poll::Ready(Ok(body.is_done().then(|| rewrite::trailers(&std::mem::take(trailers)).unwrap_or_default())))
    }
}

impl Asker for Client {
    fn peer(&self) -> IpAddr {
        self.ends.peer.ip()
    }

    async fn go_on(&mut self) -> io::Result<()> {
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n", Duration::from_secs(1)).await
    }

    async fn inform(&mut self, buffer: &[u8], response: &Response) -> io::Result<()> {
        let mut out = Vec::new();
        rewrite::response(&mut out, buffer, response, "", None, std::iter::empty());
        self.write(&out, Duration::from_secs(1)).await
    }

    async fn answer(&mut self, answer: &Answer, request: &Request, close: bool, patience: Duration) -> io::Result<()> {
        let dress = |header: &mut _| answer::dress(header, request.route.as_deref(), request.secure);
        let bytes = answer.to_http1(connection(request, close), request.is_head(), dress);
        self.write(&bytes, patience).await
    }

    async fn pass_on(&mut self, mut answered: Answered<'_>) -> io::Result<bool> {
        let Answered { upstream, response, request, cookie, close, .. } = &answered;
        // Clients of HTTP/1.0 know no chunks, and are not told of any, either.
        if request.compression != Wish::None || request.old && !matches!(response.body, Body::Length(1..)) {
            let mut framed = Framed { client: self, out: BytesMut::new(), framing: Framing::default() };
            return content::pass_on(&mut framed, answered).await;
        }
        let mut out = Vec::with_capacity(1024);
        let connection = connection(request, *close);
        rewrite::response(&mut out, &upstream.buffer, response, connection, cookie.as_ref(), answered.dress());
        let Answered { upstream, response, .. } = &mut answered;
        let tail = &upstream.buffer[response.length..];
        let taken = response.body.take(tail).map_err(|_| content::BAD_FRAMING)?;
        out.extend_from_slice(&tail[..taken]);
        self.seen.sent += taken as u64;
        let clean = taken == tail.len();
        upstream.buffer.clear();
        let relayed = relay(self, &mut answered, &out).await;
        self.seen.sent = self.seen.sent.saturating_sub(answered.response.body.framing());
        Ok(!relayed? && clean)
    }

    fn connection(&mut self) -> Option<&mut Client> {
        Some(self)
    }
}

/// Writes what has been read already, and then the rest of a body as it comes. Returns whether the instance sent more.
async fn relay(client: &mut Client, answered: &mut Answered<'_>, first: &[u8]) -> io::Result<bool> {
    let Answered { upstream, response, request, upload, patience: (patience, pause), .. } = answered;
    let (body, timeout) = (&mut response.body, request.timeout());
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
                        client.seen.held.note(false);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(left(error))),
                    Poll::Pending => {
                        client.seen.held.note(true);
                        if content::pass_rest(client, upload, &mut upstream.stream, *pause, cx)? {
                            stall.end();
                        }
                        return stall.poll_late(cx, *patience);
                    }
                }
            }
            if ended || body.is_done() {
                return match Pin::new(&mut client.io).poll_flush(cx) {
                    Poll::Pending => stall.poll_late(cx, *patience),
                    flushed => flushed.map_ok(|()| excess).map_err(left),
                };
            }
            rest.clear();
            rest_at = 0;
            let piece = poll_piece(&mut upstream.stream, cx, |piece| {
                let Ok(taken) = body.take(piece) else { return Err(content::BAD_FRAMING.into()) };
                excess |= taken < piece.len();
                client.seen.sent += taken as u64;
                rest.extend_from_slice(&piece[..taken]);
                Ok::<_, io::Error>(())
            });
            match piece {
                Poll::Ready(Ok(Some(Ok(())))) => silence.end(),
                Poll::Ready(Ok(Some(Err(error)))) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(None)) if *body == Body::UntilClose => ended = true,
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(content::BROKEN_OFF.into())),
                Poll::Pending => {
                    // What is written is to arrive before the next piece does.
                    if let Poll::Ready(Err(error)) = Pin::new(&mut client.io).poll_flush(cx) {
                        return Poll::Ready(Err(left(error)));
                    }
                    // Nothing may come for long, and then no buffer is needed.
                    rest = Vec::new();
                    let moved = content::pass_rest(client, upload, &mut upstream.stream, *pause, cx)?;
                    let held = upload.waits_for_client();
                    client.seen.held.note(held);
                    return content::poll_silence(&mut silence, moved || held, timeout, cx);
                }
            }
        }
    })
    .await
}

/// How the client is told where the content ends.
#[derive(Debug, Default, PartialEq, Eq)]
enum Framing {
    /// It was told before, or there is none.
    #[default]
    Length,
    Chunked,
    /// The connection is closed.
    Close,
}

/// A client that gets content in a framing of its own.
#[derive(Debug)]
struct Framed<'c> {
    client: &'c mut Client,
    /// What is still to be written.
    out: BytesMut,
    framing: Framing,
}

impl Content for Framed<'_> {
    fn begin(&mut self, mut header: Header<()>, request: &Request, close: bool, bare: bool) -> io::Result<()> {
        let told = header.headers().contains_key(header::CONTENT_LENGTH);
        self.framing = match (told || bare, request.old) {
            (true, _) => Framing::Length,
            (false, true) => Framing::Close,
            (false, false) => Framing::Chunked,
        };
        let empty = matches!(header.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || request.is_head();
        let headers = header.headers_mut();
        if self.framing == Framing::Chunked {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        } else if bare && !told && !empty {
            headers.insert(header::CONTENT_LENGTH, 0.into());
        }
        self.out.extend_from_slice(&rewrite::to_http1(&header, connection(request, close)));
        Ok(())
    }

    fn give(&mut self, content: Bytes, last: bool) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            put_chunk(&mut self.out, &content);
            if last {
                put_last_chunk(&mut self.out, &HeaderMap::new());
            }
        } else {
            self.out.extend_from_slice(&content);
        }
        Ok(())
    }

    fn end(&mut self, trailers: HeaderMap) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            put_last_chunk(&mut self.out, &trailers);
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.poll_write(&mut self.out, cx)
    }

    fn left(&self) -> usize {
        self.out.len()
    }
}

impl Source for Framed<'_> {
    fn seen(&mut self) -> &mut Seen {
        self.client.seen()
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_left(cx)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<Option<HeaderMap>, BadBody>> {
        self.client.poll_body(cx, into)
    }
}
