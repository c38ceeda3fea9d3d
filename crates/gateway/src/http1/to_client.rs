//! Answers to clients that speak HTTP/1: heads are rewritten, bodies passed on byte by byte with their framing.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::asker::{Answered, Asker};
use super::body::Body;
use super::client::{Client, Stall, poll_piece};
use super::exchange::Request;
use super::pool::Upstream;
use super::response::Response;
use super::rewrite;
use crate::answer::{self, Answer};
use crate::watched::Seen;

/// How much a client may send ahead of its next request.
const AHEAD: usize = 64 << 10;

impl Asker for Client {
    fn peer(&self) -> IpAddr {
        self.ends.peer.ip()
    }

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
        Poll::Pending
    }

    async fn inform(&mut self, buffer: &[u8], response: &Response) -> io::Result<()> {
        let mut out = Vec::new();
        rewrite::response(&mut out, buffer, response, false, None, std::iter::empty());
        self.write(&out, Duration::from_secs(1)).await
    }

    async fn answer(&mut self, answer: &Answer, request: &Request, close: bool, patience: Duration) -> io::Result<()> {
        let dress = |header: &mut _| answer::dress(header, request.route.as_deref(), request.secure);
        let bytes = answer.to_http1(close, request.is_head(), dress);
        self.write(&bytes, patience).await
    }

    async fn pass_on(&mut self, mut answered: Answered<'_>) -> io::Result<bool> {
        let mut out = Vec::with_capacity(1024);
        let Answered { upstream, response, cookie, close, .. } = &answered;
        rewrite::response(&mut out, &upstream.buffer, response, *close, cookie.as_ref(), answered.dress());
        let Answered { upstream, response, request, patience, .. } = &mut answered;
        let tail = &upstream.buffer[response.length..];
        let taken = response.body.take(tail).map_err(|_| io::ErrorKind::InvalidData)?;
        out.extend_from_slice(&tail[..taken]);
        self.seen.sent += taken as u64;
        let clean = taken == tail.len();
        upstream.buffer.clear();
        let relayed = relay(self, upstream, &mut response.body, &out, *patience, request.timeout()).await;
        self.seen.sent = self.seen.sent.saturating_sub(response.body.framing());
        Ok(!relayed? && clean)
    }

    fn connection(&mut self) -> Option<&mut Client> {
        Some(self)
    }
}

/// Writes what has been read already, and then the rest of a body as it comes. Returns whether the instance sent more.
async fn relay(
    client: &mut Client,
    upstream: &mut Upstream,
    body: &mut Body,
    first: &[u8],
    patience: Duration,
    timeout: Option<Duration>,
) -> io::Result<bool> {
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
                    return client.poll_left(cx).map(|()| Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
    })
    .await
}
