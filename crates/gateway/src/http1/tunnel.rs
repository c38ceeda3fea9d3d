//! A connection that has become something else than HTTP, such as a WebSocket: bytes are passed on both ways.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::client::{Client, Stall, Transport, poll_gone, poll_piece};
use super::exchange::After;
use super::websocket::{Frames, GOING_AWAY};
use crate::connections::{FINISH, Shared};
use crate::plane::Begun;

/// How long a client may take to answer that its WebSocket ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// One direction of a tunnel.
#[derive(Debug, Default)]
struct Direction {
    /// What was read and is not yet written.
    waiting: Vec<u8>,
    at: usize,
    /// Whether its source has ended.
    ended: bool,
    /// Whether its end was passed on.
    done: bool,
    /// The frames of a WebSocket.
    frames: Option<Frames>,
    /// Whether it is to end with the message that is under way.
    leaving: bool,
    /// Whether the last frame was sent: what comes now is dropped.
    left: bool,
}

impl Direction {
    /// Passes on what comes, until nothing moves or all is done.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Poll<io::Result<()>> {
        loop {
            while self.at < self.waiting.len() {
                match Pin::new(&mut *to).poll_write(cx, &self.waiting[self.at..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => self.at += written,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.ended {
                if !self.done {
                    match Pin::new(&mut *to).poll_shutdown(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(_) => self.done = true,
                    }
                }
                return Poll::Ready(Ok(()));
            }
            // An idle tunnel holds no buffer.
            self.waiting = Vec::new();
            self.at = 0;
            if self.leaving && !self.left && self.frames.as_ref().is_some_and(Frames::is_between) {
                self.waiting = GOING_AWAY.to_vec();
                self.left = true;
                continue;
            }
            match poll_piece(from, cx, |piece| piece.to_vec()) {
                Poll::Ready(Ok(Some(piece))) => self.take(piece),
                Poll::Ready(Ok(None)) => self.ended = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    return match Pin::new(&mut *to).poll_flush(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }

    fn take(&mut self, mut piece: Vec<u8>) {
        match &mut self.frames {
            _ if self.left => return,
            Some(frames) if self.leaving => {
                let last = frames.pass_one(&piece);
                piece.truncate(last);
            }
            Some(frames) => frames.pass(&piece),
            None => {}
        }
        self.waiting = piece;
    }

    /// Whether it waits for its source.
    fn reads(&self) -> bool {
        !self.ended && !self.is_stuck()
    }

    fn is_stuck(&self) -> bool {
        self.at < self.waiting.len()
    }
}

/// Both directions.
#[derive(Debug, Default)]
pub(crate) struct Both {
    down: Direction,
    up: Direction,
    /// When the client is looked at again, while nothing is read of it.
    look: Stall,
}

impl Both {
    /// Passes on what comes. Is ready once both sides have ended, or one is gone.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut (impl Transport + ?Sized),
        instance: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let ended = match self.down.poll(cx, instance, client) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            ended => ended.is_ready(),
        };
        match self.up.poll(cx, client, instance) {
            Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            _ => {}
        }
        if self.up.reads() {
            return Poll::Pending;
        }
        // Nobody reads from it, who would notice.
        poll_gone(client.tcp(), PollFlags::empty(), &mut self.look, cx).map(|()| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Passes bytes on until both sides have ended. `first` goes to the client before all else; what of it is behind the head of
/// the answer, and so belongs to the new protocol, begins at `behind`.
///
/// When the instance is to stop, or the gateway, the clients of WebSockets are told so one after the other over the first half
/// of the time that there is, so that they do not all come back at once.
pub(crate) async fn run(
    shared: &Shared,
    client: &mut Client,
    mut instance: TcpStream,
    (first, behind): (Vec<u8>, usize),
    websocket: bool,
    begun: Begun,
) -> After {
    let mut frames = websocket.then(Frames::default);
    if let Some(frames) = &mut frames {
        frames.pass(&first[behind..]);
    }
    let mut both = Both {
        down: Direction { waiting: first, frames, ..Direction::default() },
        up: Direction { waiting: std::mem::take(&mut client.buffer).into(), ..Direction::default() },
        look: Stall::default(),
    };
    let mut stall = Stall::default();
    let mut farewell = Stall::default();
    let mut leaving = pin!(leave(shared, &begun));
    let mut cut = pin!(begun.in_flight.instance().cut());
    // Either side may break the connection at any time: that is theirs to deal with.
    let _ = poll_fn(|cx| {
        if !both.down.leaving && websocket && leaving.as_mut().poll(cx).is_ready() {
            both.down.leaving = true;
        }
        let before = (both.down.at, both.up.at);
        if let Poll::Ready(over) = both.poll(cx, &mut *client.io, &mut instance) {
            return Poll::Ready(over);
        }
        let Both { down, up, .. } = &both;
        if down.left && farewell.poll(cx, FAREWELL).is_ready() || cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if before != (down.at, up.at) || !(down.is_stuck() || up.is_stuck()) {
            stall.end();
        }
        if down.is_stuck() || up.is_stuck() {
            return stall.poll_late(cx, shared.limits.write);
        }
        Poll::Pending
    })
    .await;
    if both.down.left {
        // It was told to go, and so it has ended by itself.
        let _ = timeout(FAREWELL, poll_fn(|cx| Pin::new(&mut client.io).poll_shutdown(cx))).await;
    }
    After::Over
}

/// Returns when it is this tunnel's turn to end.
async fn leave(shared: &Shared, begun: &Begun) {
    let mut finishing = shared.finishing.subscribe();
    let instance = begun.in_flight.instance();
    // One turn, whichever comes first: the instance may have to stop while the gateway finishes.
    let turn = OnceLock::new();
    let wait = |within: Duration| sleep((within / 2).mul_f64(*turn.get_or_init(|| instance.turn_to_leave())));
    let instance_stops = async {
        instance.left().await;
        wait(instance.drain()).await;
    };
    let gateway_ends = async {
        // An error means that the gateway is gone.
        let _ = finishing.wait_for(|finishing| *finishing).await;
        wait(FINISH).await;
    };
    tokio::select! {
        () = instance_stops => {}
        () = gateway_ends => {}
    }
}
