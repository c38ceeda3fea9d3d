//! The short path for requests over HTTP/2: they are told in the words of HTTP/1, which instances speak, and answered on their stream.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Version, header};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::HttpSession as Http2Session;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, timeout};

use super::asker::{Answered, Asker};
use super::body::Body;
use super::client::{Client, Ends, Stall, poll_piece};
use super::exchange::{After, Request};
use super::head::Framing;
use super::response::Response;
use super::short::{self, Arrived, SMALL};
use super::{head, rewrite};
use crate::answer::{self, Answer};
use crate::connections::Shared;
use crate::edge;
use crate::proxy::RequestContext;
use crate::ready::Asked;
use crate::session::{Aim, host, is_grpc};
use crate::watched::Seen;

/// Who has asked on a stream of HTTP/2.
struct Stream<'s> {
    session: &'s mut Http2Session,
    peer: IpAddr,
    seen: Seen,
}

/// Passes a request on and its answer back, if it is one for the short path. Returns whether it was; then what has become of it was
/// written down.
///
/// # Errors
/// If the client or the instance has left.
pub(crate) async fn pass_on(shared: &Shared, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
    let bodyless = session.is_body_empty();
    let header = session.req_header();
    if header.version != Version::HTTP_2 || is_grpc(header) {
        return Ok(false);
    }
    let Some(mut text) = to_http1(header) else { return Ok(false) };
    let Ok(Some(head)) = head::read(&text) else { return Ok(false) };
    let body = match head.framing {
        Framing::Length(length) if length <= SMALL && !head.expect && (length == 0) == bodyless => length as usize,
        _ => return Ok(false),
    };
    let part = |range: &Range<usize>| String::from_utf8(text[range.clone()].to_vec()).ok();
    let (Some(ends), Some(host), Some(target)) = (ends(session), part(&head.host), part(&head.target)) else {
        return Ok(false);
    };
    let method = header.method.clone();
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let routing = shared.plane.routing();
    // Which fields matter may have changed once a body is there.
    let fields = (body > 0 || routing.asks_for_fields).then(|| header.headers.clone());
    let bare = Asked::bare(&host, path, &method);
    let asked = Asked { query, headers: fields.as_ref().unwrap_or(bare.headers), ..bare };
    let aim = Aim::new(Some(ends.local), asked);
    let found = aim.find(&routing);
    if !short::fits(&routing, &aim, found, fields.is_some()) {
        return Ok(false);
    }
    ctx.route = found.map(|to| routing.route(to).clone());
    drop(routing);
    if body > 0 {
        read_body(session.as_downstream_mut(), &mut text, shared.limits.body).await?;
    }
    let arrived = Arrived { bytes: &text, head: &head, ends, secured: edge::secured(session), target: &target, aim };
    let look = {
        let routing = shared.plane.routing();
        short::look(shared, &routing, aim.find(&routing), &arrived)
    };
    let (began, seen) = (ctx.begun.take(), Seen { received: body as u64, ..Seen::default() });
    let ServerSession::H2(session) = session.as_downstream_mut() else { return Ok(false) };
    let mut stream = Stream { session, peer: ends.peer.ip(), seen };
    let began = began.unwrap_or_else(Instant::now);
    match short::perform(shared, &mut stream, look, &aim, "HTTP/2.0", began).await {
        After::Next | After::Close => Ok(true),
        After::Over => Err(Error::new_down(ErrorType::ConnectionClosed)),
    }
}

/// Reads a body to its end.
///
/// # Errors
/// If the client has left, or pauses for longer than `patience`.
async fn read_body(session: &mut ServerSession, into: &mut Vec<u8>, patience: Duration) -> Result<()> {
    loop {
        match timeout(patience, session.read_request_body()).await {
            Ok(Ok(Some(piece))) => into.extend_from_slice(&piece),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error.into_down()),
            Err(_) => return Err(Error::new_down(ErrorType::ReadTimedout)),
        }
    }
}

/// Returns between whom a request is.
fn ends(session: &Session) -> Option<Ends> {
    let peer = *session.client_addr()?.as_inet()?;
    let local = *session.server_addr()?.as_inet()?;
    // Nothing here asks the socket itself.
    Some(Ends { peer, local, fd: -1, https: edge::secured(session).is_some() })
}

/// Returns a request's head in the words of HTTP/1; `None` if those have no place for it.
fn to_http1(request: &RequestHeader) -> Option<Vec<u8>> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.starts_with('/') {
        return None;
    }
    let mut out = Vec::with_capacity(512);
    for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\nhost: ", host(request), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let put = |out: &mut Vec<u8>, parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    let mut cookies = None;
    for (name, value) in &request.headers {
        match name {
            &header::HOST => {}
            // HTTP/2 may split what is one line in HTTP/1 (RFC 9113 §8.2.3).
            &header::COOKIE => {
                let line = cookies.get_or_insert_with(Vec::new);
                put(line, if line.is_empty() { &[b"cookie: "] } else { &[b"; "] });
                put(line, &[value.as_bytes()]);
            }
            name => put(&mut out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]),
        }
    }
    if let Some(line) = cookies {
        put(&mut out, &[&line, b"\r\n"]);
    }
    put(&mut out, &[b"\r\n"]);
    Some(out)
}

impl Asker for Stream<'_> {
    fn peer(&self) -> IpAddr {
        self.peer
    }

    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.session.idle()).poll(cx).map(drop)
    }

    /// Drops it: the general proxy, whose stream this is, can begin one answer only.
    async fn inform(&mut self, _: &[u8], _: &Response) -> io::Result<()> {
        Ok(())
    }

    async fn answer(&mut self, answer: &Answer, request: &Request, _: bool, _: Duration) -> io::Result<()> {
        let mut header = answer.header().map_err(|error| to_io(&error))?;
        answer::dress(&mut header, request.route.as_deref(), request.secure);
        let body = if request.is_head() { Bytes::new() } else { answer.body() };
        self.session.write_response_header(Box::new(header), body.is_empty()).map_err(|error| to_io(&error))?;
        if body.is_empty() { Ok(()) } else { self.session.write_body(body, true).await.map_err(|error| to_io(&error)) }
    }

    async fn pass_on(&mut self, mut answered: Answered<'_>) -> io::Result<bool> {
        let Answered { upstream, response, cookie, .. } = &answered;
        let header = rewrite::response_header(&upstream.buffer, response, cookie.as_ref(), answered.dress());
        let header = header.map_err(|_| io::ErrorKind::InvalidData)?;
        let Answered { upstream, response, request, .. } = &mut answered;
        let body = &mut response.body;
        let tail = &upstream.buffer[response.length..];
        let (mut content, mut trailers) = (BytesMut::new(), Vec::new());
        let taken = body.take_content(tail, &mut content, &mut trailers).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut clean = taken == tail.len();
        upstream.buffer.clear();
        let timeout = request.timeout();
        let mut ended = body.is_done();
        let bare = ended && content.is_empty() && trailers.len() <= 2;
        self.session.write_response_header(Box::new(header), bare).map_err(|error| to_io(&error))?;
        if bare {
            return Ok(clean);
        }
        loop {
            // More than the empty line that ends all chunks.
            let trailing = trailers.len() > 2;
            self.seen.sent += content.len() as u64;
            if !content.is_empty() {
                let end = ended && !trailing;
                self.session.write_body(content.split().freeze(), end).await.map_err(|error| to_io(&error))?;
            }
            if ended && trailing {
                match rewrite::trailers(&trailers) {
                    Ok(trailers) => self.session.write_trailers(trailers).map_err(|error| to_io(&error))?,
                    // The content is whole without them (RFC 9110 §6.5.1).
                    Err(_) => clean = false,
                }
            }
            if ended {
                // Does nothing if the end was told.
                self.session.finish().map_err(|error| to_io(&error))?;
                return Ok(clean);
            }
            let mut silence = Stall::default();
            let more = poll_fn(|cx| {
                let piece = poll_piece(&mut upstream.stream, cx, |piece| {
                    let taken = body.take_content(piece, &mut content, &mut trailers);
                    taken.map(|taken| taken == piece.len())
                });
                match piece {
                    Poll::Pending if timeout.is_some_and(|patience| silence.poll(cx, patience).is_ready()) => {
                        Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                    }
                    Poll::Pending => self.poll_left(cx).map(|()| Err(io::ErrorKind::BrokenPipe.into())),
                    ready => ready,
                }
            });
            match more.await? {
                Some(Ok(all)) => clean &= all,
                Some(Err(_)) => return Err(io::ErrorKind::InvalidData.into()),
                None if *body == Body::UntilClose => ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            ended |= body.is_done();
        }
    }

    fn connection(&mut self) -> Option<&mut Client> {
        None
    }
}

fn to_io(error: &Error) -> io::Error {
    match error.etype() {
        ErrorType::WriteTimedout => io::ErrorKind::TimedOut.into(),
        _ => io::ErrorKind::BrokenPipe.into(),
    }
}
