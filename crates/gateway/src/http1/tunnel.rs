//! A connection that has become something else than HTTP, such as a WebSocket: bytes are passed on both ways.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::client::{Client, Stall, poll_piece};
use super::exchange::After;
use crate::connections::Shared;
use crate::plane::Begun;

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
            let waiting = &mut self.waiting;
            match poll_piece(from, cx, |piece| waiting.extend_from_slice(piece)) {
                Poll::Ready(Ok(Some(()))) => {}
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

    fn is_stuck(&self) -> bool {
        self.at < self.waiting.len()
    }
}

/// Passes bytes on until both sides have ended. `first` goes to the client before all else.
pub(crate) async fn run(
    shared: &Shared,
    client: &mut Client,
    mut instance: TcpStream,
    first: Vec<u8>,
    begun: Begun,
) -> After {
    let mut down = Direction { waiting: first, ..Direction::default() };
    let mut up = Direction { waiting: std::mem::take(&mut client.buffer).into(), ..Direction::default() };
    let mut stall = Stall::default();
    // Either side may break the connection at any time: that is theirs to deal with.
    let _ = poll_fn(|cx| {
        let before = (down.at, up.at);
        let ended = match down.poll(cx, &mut instance, &mut client.io) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            ended => ended.is_ready(),
        };
        match up.poll(cx, &mut client.io, &mut instance) {
            Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            _ => {}
        }
        if before != (down.at, up.at) || !(down.is_stuck() || up.is_stuck()) {
            stall.end();
        }
        if down.is_stuck() || up.is_stuck() {
            return stall.poll(cx, shared.limits.write).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    })
    .await;
    drop(begun);
    After::Over
}
