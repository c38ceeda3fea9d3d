//! A client's connection in the shape that pingora takes, for one request or for all of HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddress;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::edge::Secured;
use crate::http1::body::{Body, Chunks};
use crate::http1::client::Client;
use crate::http1::head::{Framing, Head};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How pingora signs its own answers.
const SIGNATURE: &[u8] = b"Server: Pingora\r\n";
/// How much is gathered before it is written: a response header and a small body go out together, while large bodies
/// gain nothing from being copied.
const GATHERED: usize = 8 << 10;
/// How much a client may send ahead of its next request.
const AHEAD: usize = 64 << 10;

/// A client's connection. Small writes are gathered until they are flushed.
#[derive(Debug)]
pub(crate) struct Downstream {
    client: Client,
    /// What may be read.
    reading: Reading,
    /// Whether the request's body breaks its framing.
    broken: bool,
    /// Whether anything has been written.
    wrote: bool,
    gathered: BytesMut,
    digest: Arc<SocketDigest>,
}

/// What may be read.
#[derive(Debug)]
enum Reading {
    /// The rest of a head, and then a body: not one byte of the next request.
    Request { head: usize, body: Body },
    /// All.
    All { http2: bool },
}

impl Downstream {
    /// Returns a connection for the request that is at the front of the client's buffer.
    pub(crate) fn for_request(client: Client, head: &Head) -> Self {
        let body = match head.framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunks::default()),
        };
        let reading =
            if head.upgrade { Reading::All { http2: false } } else { Reading::Request { head: head.length, body } };
        Self::new(client, reading)
    }

    /// Returns a connection on which HTTP/2 is spoken.
    pub(crate) fn for_http2(client: Client) -> Self {
        Self::new(client, Reading::All { http2: true })
    }

    fn new(client: Client, reading: Reading) -> Self {
        let digest = SocketDigest::from_raw_fd(client.ends.fd);
        // Nothing else has had the digest yet, so both are empty.
        let _ = digest.peer_addr.set(Some(PingoraAddress::Inet(client.ends.peer)));
        let _ = digest.local_addr.set(Some(PingoraAddress::Inet(client.ends.local)));
        Self { client, reading, broken: false, wrote: false, gathered: BytesMut::new(), digest: Arc::new(digest) }
    }

    /// Returns whether TLS is spoken.
    pub(crate) fn is_https(&self) -> bool {
        self.client.ends.https
    }

    /// Returns whether the request's body has turned out to break its framing.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Returns the client for its next request; `None` if there can't be one.
    pub(crate) fn into_client(self) -> Option<Client> {
        let done = matches!(&self.reading, Reading::Request { head: 0, body } if body.is_done());
        (done && self.gathered.is_empty()).then_some(self.client)
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.client.io).poll_write(cx, &self.gathered))?;
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

impl AsyncRead for Downstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { client, reading, broken, .. } = &mut *self;
        if let Reading::Request { head: 0, body } = reading
            && body.is_done()
        {
            // Only the client's leaving is of interest now. What it sends ahead waits, up to a bound.
            while client.buffer.len() < AHEAD {
                if !ready!(client.poll_fill(cx))? {
                    return Poll::Ready(Ok(()));
                }
            }
            return Poll::Pending;
        }
        if client.buffer.is_empty() {
            // HTTP/2 and other protocols need no copy.
            if let Reading::All { .. } = reading {
                return Pin::new(&mut client.io).poll_read(cx, buf);
            }
            if !ready!(client.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
        let most = client.buffer.len().min(buf.remaining());
        let given = match reading {
            Reading::Request { head: 0, body } => {
                let taken = body.take(&client.buffer[..most]);
                *broken = taken.is_err();
                taken.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the body's chunks are broken"))?
            }
            Reading::Request { head, .. } => {
                let given = most.min(*head);
                *head -= given;
                given
            }
            Reading::All { .. } => most,
        };
        buf.put_slice(&client.buffer[..given]);
        client.buffer.advance(given);
        Poll::Ready(Ok(()))
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
        Pin::new(&mut self.client.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.client.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.client.io).poll_shutdown(cx)
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
        Pin::new(&mut self.client.io).poll_write_vectored(cx, bufs)
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
        self.client.ends.fd
    }
}

impl Ssl for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Downstream {
    /// Carries what is known of a connection over TLS: pingora has no better place for it.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        let secured = Secured::clone(self.client.secured.as_deref()?);
        let header = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(header), Some(Box::new(secured)))))
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

#[async_trait]
impl Peek for Downstream {
    /// Shows the preface or something else: what the client speaks is known before.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        buf.fill(0);
        if matches!(self.reading, Reading::All { http2: true }) && buf.len() == PREFACE.len() {
            buf.copy_from_slice(PREFACE);
        }
        Ok(true)
    }
}
