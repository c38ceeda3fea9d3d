//! The body of a request, passed on to an instance while it comes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::asker::Source;
use super::client::Stall;
use super::exchange::Request;
use super::head::{Framing, Head};
use super::request::SMALL;
use crate::connections::{Room, Shared};
use crate::limits::Grants;
use crate::refusals::Refusal;

/// How long a client that asks whether it may send its body waits for the instance's word. Many never say one: then it goes on by the
/// gateway's (RFC 9110 §10.1.1), as curl does by itself after this time.
const EXPECTING: Duration = Duration::from_secs(1);

/// Why a body can't be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// The client has left.
    Left,
    /// It breaks its framing, or pauses for too long.
    Refused(Refusal),
    /// It is larger than its route allows.
    TooLarge,
}

/// What an upload needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The client wants to be told to go on.
    GoOn,
    /// Nothing can help it.
    Bad(BadBody),
}

/// The body of a request on its way to an instance.
#[derive(Debug)]
pub(crate) struct Upload {
    framing: Framing,
    /// Framed, and not yet sent from `at` on. What is before it is kept as long as it is little.
    out: BytesMut,
    at: usize,
    /// Room for all that has come, as long as `out` has it.
    room: Option<Room>,
    /// Whether the client has sent it to its end.
    ended: bool,
    /// Whether the client waits for `100 (Continue)`.
    expects: bool,
    /// Whether the instance takes no more of it.
    refused: bool,
    /// Whether nothing more can be made of what comes.
    broken: Option<BadBody>,
    received: u64,
    most: u64,
    pause: Stall,
    /// Whether something has come, or gone on, since that was asked last.
    moved: bool,
}

impl Upload {
    /// Returns the upload of a request whose body was read already.
    pub(crate) fn none() -> Self {
        Self::with(Framing::Length(0), false, None)
    }

    /// Returns the upload of a body that is still to be read. It is kept as long as it is [`SMALL`], if there is room for that.
    pub(crate) fn new(shared: &Shared, client: &Grants, head: &Head) -> Self {
        let most = match head.framing {
            Framing::Length(length) => length.min(SMALL),
            Framing::Chunked => SMALL,
        };
        Self::with(head.framing, head.expect, shared.room(client, most))
    }

    fn with(framing: Framing, expects: bool, room: Option<Room>) -> Self {
        Self {
            framing,
            out: BytesMut::new(),
            at: 0,
            room,
            ended: framing == Framing::Length(0),
            expects,
            refused: false,
            broken: None,
            received: 0,
            most: u64::MAX,
            pause: Stall::default(),
            moved: false,
        }
    }

    /// Bounds it by the word of a request's route.
    pub(crate) fn limit(&mut self, request: &Request) {
        let limit = request.route.as_ref().and_then(|route| route.rules.body_limit);
        self.most = limit.map_or(u64::MAX, |limit| limit.0);
    }

    /// Whether the client has sent all of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the instance of this attempt has got all of it.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.at == self.out.len() && !self.refused
    }

    /// Whether it can be sent again from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        self.room.is_some() || self.received == 0
    }

    /// Whether it is the client who has to say something now.
    pub(crate) fn waits_for_client(&self) -> bool {
        !self.ended && !self.refused && self.at == self.out.len()
    }

    /// Whether something has come from the client, or gone on to the instance, since this was called last.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Begins an attempt at an instance, which gets all of it from the beginning.
    pub(crate) fn begin(&mut self) {
        (self.at, self.refused) = (0, false);
    }

    /// The instance wants to have it.
    pub(crate) fn wanted(&mut self) -> bool {
        self.pause.end();
        std::mem::take(&mut self.expects)
    }

    /// The answer is there: a client that still asks whether it may send its body will not send it, and it is not sent again.
    pub(crate) fn answered(&mut self) {
        self.refused |= self.expects;
        self.room = None;
    }

    /// Nothing more of it can be passed on, and its answer goes on without it.
    pub(crate) fn give_up(&mut self, why: BadBody) {
        (self.refused, self.broken) = (true, Some(why));
    }

    /// Returns why nothing more of it can be passed on, if so.
    pub(crate) fn broken(&self) -> Option<BadBody> {
        self.broken
    }

    /// Passes on what comes, until it needs something; looks out for the client's leaving once all has come.
    pub(crate) fn poll(
        &mut self,
        client: &mut impl Source,
        to: &mut (impl AsyncWrite + Unpin),
        patience: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Need> {
        loop {
            while self.at < self.out.len() && !self.refused {
                match Pin::new(&mut *to).poll_write(cx, &self.out[self.at..]) {
                    Poll::Ready(Ok(written @ 1..)) => {
                        self.at += written;
                        self.moved = true;
                    }
                    // An instance may answer before it has read everything, and then close: its answer counts.
                    Poll::Ready(_) => self.refused = true,
                    Poll::Pending => return client.poll_left(cx).map(|()| Need::Bad(BadBody::Left)),
                }
            }
            if self.ended || self.refused {
                if !self.is_whole() {
                    // It is not sent again.
                    (self.out, self.at) = (BytesMut::new(), 0);
                }
                return client.poll_left(cx).map(|()| Need::Bad(BadBody::Left));
            }
            if self.room.is_none() || self.out.len() as u64 > SMALL {
                self.room = None;
                self.out.clear();
                self.at = 0;
            }
            match self.poll_more(client, cx) {
                Poll::Ready(Ok(())) => {
                    self.expects = false;
                    self.moved = true;
                    self.pause.end();
                }
                Poll::Ready(Err(bad)) => return Poll::Ready(Need::Bad(bad)),
                Poll::Pending if self.expects => return self.pause.poll(cx, EXPECTING).map(|()| Need::GoOn),
                Poll::Pending => {
                    if self.room.is_none() {
                        // Nothing may come for long, and then no buffer is needed.
                        self.out = BytesMut::new();
                    }
                    let late = self.pause.poll(cx, patience);
                    return late.map(|()| Need::Bad(BadBody::Refused(Refusal::SlowBody)));
                }
            }
        }
    }

    /// Reads more, and frames it.
    fn poll_more(&mut self, client: &mut impl Source, cx: &mut Context<'_>) -> Poll<Result<(), BadBody>> {
        let (mut chunk, before) = (BytesMut::new(), self.out.len());
        let chunked = self.framing == Framing::Chunked;
        let end = match client.poll_body(cx, if chunked { &mut chunk } else { &mut self.out }) {
            Poll::Ready(Ok(end)) => end,
            Poll::Ready(Err(bad)) => {
                self.broken = Some(bad);
                return Poll::Ready(Err(bad));
            }
            Poll::Pending => return Poll::Pending,
        };
        let more = if chunked { chunk.len() } else { self.out.len() - before };
        self.received += more as u64;
        client.seen().received += more as u64;
        if self.received > self.most {
            return Poll::Ready(Err(BadBody::TooLarge));
        }
        if chunked {
            put_chunk(&mut self.out, &chunk);
        }
        if let Some(trailers) = end {
            self.ended = true;
            if chunked {
                put_last_chunk(&mut self.out, &trailers);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has come already, as long as that is little, so that the connection need not end with the answer.
    pub(crate) fn take_what_is_there(&mut self, client: &mut impl Source, cx: &mut Context<'_>) {
        let mut dropped = BytesMut::new();
        while !(self.ended || self.broken.is_some() || self.expects || self.received > SMALL) {
            let Poll::Ready(end) = client.poll_body(cx, &mut dropped) else { return };
            self.received += dropped.len() as u64;
            dropped.clear();
            self.broken = end.as_ref().err().copied();
            self.ended = matches!(end, Ok(Some(_)));
        }
    }
}

/// Adds a chunk (RFC 9112 §7.1). An empty one would be the last.
pub(crate) fn put_chunk(out: &mut BytesMut, content: &[u8]) {
    if !content.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    }
}

/// Adds the last chunk, and the fields behind it.
pub(crate) fn put_last_chunk(out: &mut BytesMut, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}
