//! A connection from a client, in the shape that pingora takes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How pingora signs its own answers.
const SIGNATURE: &[u8] = b"Server: Pingora\r\n";
/// How much is gathered before it is written: a response header and a small body go out together, while large bodies
/// gain nothing from being copied.
const GATHERED: usize = 8 << 10;
/// How long a client may take to say which protocol it speaks; nginx gives a request header 60 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause while only a part of the preface has arrived: the rest is on its way, and a readable socket does not tell.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection from a client. Small writes are gathered until they are flushed.
#[derive(Debug)]
pub(crate) struct Downstream {
    stream: TcpStream,
    /// Whether anything has been written.
    wrote: bool,
    gathered: BytesMut,
    http2: bool,
    digest: Arc<SocketDigest>,
}

impl Downstream {
    /// Takes a connection, and waits until the client has said which protocol it speaks.
    ///
    /// # Errors
    /// If the client leaves or says nothing for too long.
    pub(crate) async fn accept(stream: TcpStream, peer: SocketAddr, local: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let http2 = tokio::time::timeout(PATIENCE, speaks_http2(&stream)).await.map_err(io::Error::other)??;
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Nothing else has had the digest yet, so both are empty.
        let _ = digest.peer_addr.set(Some(PingoraAddress::Inet(peer)));
        let _ = digest.local_addr.set(Some(PingoraAddress::Inet(local)));
        Ok(Self { stream, wrote: false, gathered: BytesMut::new(), http2, digest: Arc::new(digest) })
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns what is to be written in two parts: pingora answers a request that it can't read before it asks us, and signs that
/// answer; nobody needs to know what the gateway is made of.
fn without_signature(buf: &[u8]) -> [&[u8]; 2] {
    if !buf.starts_with(b"HTTP/1.1 40") {
        return [buf, b""];
    }
    match buf.windows(SIGNATURE.len()).position(|window| window == SIGNATURE) {
        Some(at) => [&buf[..at], &buf[at + SIGNATURE.len()..]],
        None => [buf, b""],
    }
}

/// Looks at what the client says first, and leaves it to be read.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl AsyncRead for Downstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() + buf.len() <= GATHERED {
            // Only the first thing written can be such an answer: a body is never that.
            let parts = if self.wrote { [buf, b"".as_slice()] } else { without_signature(buf) };
            self.wrote = true;
            for part in parts {
                self.gathered.extend_from_slice(part);
            }
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.gathered.len() + total <= GATHERED {
            bufs.iter().for_each(|buf| self.gathered.extend_from_slice(buf));
            return Poll::Ready(Ok(total));
        }
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        // The client may have left already, and then there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl Ssl for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

#[async_trait]
impl Peek for Downstream {
    /// Shows the preface or something else: what the client has said is known since [`Downstream::accept`].
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        buf.fill(0);
        if self.http2 && buf.len() == PREFACE.len() {
            buf.copy_from_slice(PREFACE);
        }
        Ok(true)
    }
}
