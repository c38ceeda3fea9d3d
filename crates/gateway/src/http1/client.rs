//! A connection from a client, with what has been read of it and not yet used.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::body::Body;
use crate::edge::Secured;
use crate::limits::Counted;
use crate::watched::Seen;

/// What is read at once: a large body then takes one system call for each 64 KiB, the default of a pipe and of nginx.
const PIECE: usize = 64 << 10;

/// How long a client may take to see the end of its connection.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// Where bytes are read to before it is known how many there are: connections that are idle then hold no buffer.
    static PIECES: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// A byte stream: TCP, or TLS over it.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug {
    /// Returns the connection that it comes by.
    fn tcp(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Whether TLS is spoken.
    pub(crate) https: bool,
}

/// A connection from a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) io: Box<dyn Transport>,
    pub(crate) ends: Ends,
    pub(crate) counted: Counted,
    /// What has been read and not yet used.
    pub(crate) buffer: BytesMut,
    /// Whether the client has said its last.
    pub(crate) ended: bool,
    /// What is known of it over TLS.
    pub(crate) secured: Option<Arc<Secured>>,
    /// The body of its request, if that is passed on while it comes.
    pub(crate) incoming: Option<Box<Incoming>>,
    /// What has become of its request so far.
    pub(crate) seen: Seen,
    /// When it is looked at again, while nothing is read of it.
    pub(crate) look: Stall,
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// What is left of it.
    pub(crate) body: Body,
    /// What has come behind it.
    pub(crate) trailers: Vec<u8>,
}

/// Reads a piece and does something with it; `None` at the end of the stream.
pub(crate) fn poll_piece<T>(
    io: &mut (impl AsyncRead + Unpin + ?Sized),
    cx: &mut Context<'_>,
    then: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<Option<T>>> {
    PIECES.with_borrow_mut(|piece| {
        let mut into = ReadBuf::new(piece);
        ready!(Pin::new(io).poll_read(cx, &mut into))?;
        let filled = into.filled();
        Poll::Ready(Ok(if filled.is_empty() { None } else { Some(then(filled)) }))
    })
}

impl Client {
    pub(crate) fn new(io: Box<dyn Transport>, ends: Ends, counted: Counted) -> Self {
        let (buffer, seen, look) = (BytesMut::new(), Seen::default(), Stall::default());
        Self { io, ends, counted, buffer, ended: false, secured: None, incoming: None, seen, look }
    }

    /// Reads more into the buffer. Returns whether there was more.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Self { io, buffer, ended, .. } = self;
        let more = ready!(poll_piece(io, cx, |piece| buffer.extend_from_slice(piece)))?.is_some();
        *ended |= !more;
        Poll::Ready(Ok(more))
    }

    /// Reads more into the buffer. Returns whether there was more.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Writes all, as long as the client takes some of it within each `patience`.
    ///
    /// # Errors
    /// If the client has left; `TimedOut` if it takes nothing.
    pub(crate) async fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let (mut left, mut stall) = (bytes, Stall::default());
        poll_fn(|cx| {
            let before = left.len();
            let written = self.poll_write(&mut left, cx);
            if written.is_ready() {
                return written;
            }
            if left.len() < before {
                stall.end();
            }
            stall.poll_late(cx, patience)
        })
        .await
    }

    /// Writes as much as the client takes; all of it, once ready.
    pub(crate) fn poll_write(&mut self, bytes: &mut impl Buf, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = Pin::new(&mut self.io);
        while bytes.has_remaining() {
            match ready!(io.as_mut().poll_write(cx, bytes.chunk())).map_err(left)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => bytes.advance(written),
            }
        }
        io.poll_flush(cx).map_err(left)
    }

    /// Is ready once it has left, which nobody would notice who reads nothing: it is looked at from time to time.
    pub(crate) fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_gone(self.io.tcp(), PollFlags::RDHUP, &mut self.look, cx)
    }

    /// Says that nothing more comes; without TLS, closing says that.
    pub(crate) async fn say_farewell(&mut self) {
        if self.ends.https {
            // Whoever takes nothing is cut off.
            let _ = tokio::time::timeout(LINGER, poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx))).await;
        }
    }

    /// Ends the connection so that the client still gets what was written before: unread bytes would break it
    /// (RFC 9112 §9.6).
    pub(crate) async fn linger(&mut self) {
        /// How much is read meanwhile.
        const MOST: usize = 1 << 20;
        let read = async {
            let _ = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
            let mut read = 0;
            while read < MOST && !self.ended && self.fill().await.unwrap_or(false) {
                read += self.buffer.len();
                self.buffer.clear();
            }
        };
        // Whoever does not close is cut off.
        let _ = tokio::time::timeout(LINGER, read).await;
    }
}

/// Is ready once a connection is broken, or `also` something else; it is looked at each second. One that both sides have ended is not
/// broken: something may still be there to be read.
pub(crate) fn poll_gone(tcp: &TcpStream, also: PollFlags, look: &mut Stall, cx: &mut Context<'_>) -> Poll<()> {
    /// Time between two looks.
    const LOOKING: Duration = Duration::from_secs(1);
    loop {
        ready!(look.poll(cx, LOOKING));
        look.end();
        let mut looked = [PollFd::new(tcp, also)];
        let seen = poll(&mut looked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if seen.is_ok() && looked[0].revents().intersects(also | PollFlags::ERR) {
            return Poll::Ready(());
        }
    }
}

/// Returns the error of a client that takes no more, whatever its transport calls that.
pub(crate) fn left(_: io::Error) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// Measures how long nothing moves. Costs nothing while all moves.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Something has moved.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    /// Is ready, with `TimedOut`, once nothing has moved for so long.
    pub(crate) fn poll_late<T>(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<io::Result<T>> {
        self.poll(cx, patience).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Is ready once nothing has moved for so long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx)
    }
}
