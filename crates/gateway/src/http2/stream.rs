//! One request over HTTP/2: it is told in the words of HTTP/1, which instances speak, and answered on its stream.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Response as Header, header, request::Parts};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::connection::Origin;
use super::grpc;
use super::piece::{Piece, Pieces};
use crate::answer::{self, Answer};
use crate::connections::Shared;
use crate::http1::asker::{Answered, Asker, Source};
use crate::http1::client::Client;
use crate::http1::content::{self, Content};
use crate::http1::exchange::{self, After, Request};
use crate::http1::head::{self, Framing};
use crate::http1::request::{self, Arrived, SMALL, Texts};
use crate::http1::response::Response;
use crate::http1::rewrite;
use crate::http1::upload::{BadBody, Upload};
use crate::refusals::Refusal;
use crate::watched::Seen;

/// How long a client may take to take the last of an answer that is broken off.
const SOON: Duration = Duration::from_secs(5);

/// Who has asked on a stream.
pub(crate) struct Stream {
    respond: SendResponse<Piece>,
    pieces: Arc<Pieces>,
    /// Its body.
    pub(crate) body: RecvStream,
    /// The answer, once it has begun.
    sending: Option<SendStream<Piece>>,
    /// What of it is still to be sent.
    content: Bytes,
    /// Whether nothing comes behind that.
    ended: bool,
    peer: IpAddr,
    seen: Seen,
}

/// Serves a stream.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    origin: Arc<Origin>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Piece>,
    pieces: Arc<Pieces>,
) {
    let (parts, body) = request.into_parts();
    let peer = origin.ends.peer.ip();
    let (content, seen) = (Bytes::new(), Seen::default());
    let mut stream = Stream { respond, pieces, body, sending: None, content, ended: false, peer, seen };
    let after = answer(&shared, &origin, &mut stream, &parts).await;
    origin.ended(stream.sending.is_some());
    if after == After::Over && !stream.ended {
        stream.break_off(Reason::INTERNAL_ERROR).await;
    }
}

async fn answer(shared: &Shared, origin: &Origin, stream: &mut Stream, parts: &Parts) -> After {
    let began = Instant::now();
    let mut text = match to_http1(parts, stream.body.is_end_stream()) {
        Ok(text) => text,
        Err(why) => return stream.refuse(shared, why).await,
    };
    let head = match head::read(&text) {
        Ok(Some(head)) => head,
        // It has its end, and so it is too large.
        Ok(None) => return stream.refuse(shared, Refusal::LargeHead).await,
        Err(why) => return stream.refuse(shared, why).await,
    };
    let grpc = is_grpc(parts);
    let room = match head.framing {
        Framing::Length(length) if length <= SMALL && !head.expect && !grpc => shared.room(&origin.grants, length),
        _ => None,
    };
    let small = room.is_some();
    let read = if small { stream.read_body(&mut text, shared.limits.body).await } else { Ok(()) };
    stream.seen.received = (text.len() - head.length) as u64;
    let secured = origin.secured.as_deref();
    let arrived = Arrived { head: &head, bytes: &text, ends: origin.ends, secured, protocol: "HTTP/2.0", began };
    let texts = Texts::of(&text, &head);
    let aim = texts.aim(&arrived);
    if let Err(bad) = read {
        let why = if let BadBody::Refused(why) = bad { Some(why) } else { None };
        let status = why.and_then(Refusal::status).unwrap_or(0);
        request::write_down_unread(shared, (&arrived, &aim), Seen { status, ..std::mem::take(&mut stream.seen) });
        return match why {
            Some(why) => stream.refuse(shared, why).await,
            None => After::Over,
        };
    }
    if !grpc {
        let upload = if small { Upload::none() } else { Upload::new(shared, &origin.grants, &head) };
        return request::perform(shared, stream, (&arrived, &aim), upload).await;
    }
    let look = request::look(shared, &arrived, &aim);
    let after = match &look.answer {
        Some(answer) => exchange::answer(shared, stream, &look.request, answer, &mut Upload::none()).await,
        None => {
            if head.expect && stream.go_on().await.is_err() {
                return After::Over;
            }
            let room = shared.room(&origin.grants, SMALL);
            grpc::run(shared, stream, &look.request, room, |routing| aim.find(routing)).await
        }
    };
    look.write_down(shared, (&arrived, &aim), std::mem::take(&mut stream.seen));
    after
}

/// Whether a request is gRPC, which instances take over HTTP/2 only.
fn is_grpc(request: &Parts) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Returns a request's head in the words of HTTP/1.
///
/// # Errors
/// If those have no place for it.
fn to_http1(request: &Parts, bodyless: bool) -> Result<Vec<u8>, Refusal> {
    if request.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    // RFC 9113 §8.3.1: there is a path, and whoever names the host names the same.
    let target = request.uri.path_and_query().ok_or(Refusal::BadHead)?.as_str();
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts =
        authority.into_iter().chain(request.headers.get_all(header::HOST).iter().map(|host| host.as_bytes()));
    let host = hosts.next().unwrap_or_default();
    if hosts.any(|other| !other.eq_ignore_ascii_case(host)) {
        return Err(Refusal::BadHead);
    }
    let mut out = Vec::with_capacity(512);
    let put = |out: &mut Vec<u8>, parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(
        &mut out,
        &[request.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: ", host, b"\r\n"],
    );
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
    if !bodyless && !request.headers.contains_key(header::CONTENT_LENGTH) {
        put(&mut out, &[b"transfer-encoding: chunked\r\n"]);
    }
    put(&mut out, &[b"\r\n"]);
    Ok(out)
}

impl Stream {
    /// Ends it without an answer, or with a part of one.
    pub(crate) fn reset(&mut self, why: Reason) {
        self.ended = true;
        match &mut self.sending {
            Some(sending) => sending.send_reset(why),
            None => self.respond.send_reset(why),
        }
    }

    /// Ends its answer before its end, once the client has taken what there is of it, if it does so soon: a reset drops what waits.
    pub(crate) async fn break_off(&mut self, why: Reason) {
        if self.sending.is_some() {
            // Its head is on its way then.
            yield_now().await;
            let taken = poll_fn(|cx| match self.poll_left(cx) {
                Poll::Pending => self.pieces.poll_none(cx),
                left => left,
            });
            let _ = timeout(SOON, taken).await;
        }
        self.reset(why);
    }

    /// Begins the answer, which may be all of it.
    ///
    /// # Errors
    /// If the client has left.
    pub(crate) fn respond(&mut self, header: Header<()>, bare: bool) -> io::Result<()> {
        self.seen.status = header.status().as_u16();
        let sending = self.respond.send_response(header, bare).map_err(to_io)?;
        self.ended = bare;
        self.sending = Some(sending);
        Ok(())
    }

    /// Reads its body to the end.
    ///
    /// # Errors
    /// If the client leaves, or pauses for longer than `patience`.
    async fn read_body(&mut self, into: &mut Vec<u8>, patience: Duration) -> Result<(), BadBody> {
        let mut content = BytesMut::new();
        let mut end = self.body.is_end_stream();
        while !end {
            let more = timeout(patience, poll_fn(|cx| self.poll_body(cx, &mut content)));
            end = more.await.map_err(|_| BadBody::Refused(Refusal::SlowBody))??.is_some();
        }
        into.extend_from_slice(&content);
        Ok(())
    }

    /// Answers what can't be passed on.
    async fn refuse(&mut self, shared: &Shared, why: Refusal) -> After {
        shared.refusals.count(why, self.peer);
        let Some(status) = why.status() else { return After::Over };
        let answer = Answer::of(status);
        match self.send(answer.header(), answer.body(), shared.limits.write).await {
            Ok(()) => After::Next,
            Err(_) => After::Over,
        }
    }

    /// Sends a whole answer.
    async fn send(&mut self, header: Header<()>, body: Bytes, patience: Duration) -> io::Result<()> {
        self.respond(header, body.is_empty())?;
        self.give(body, true)?;
        content::send(self, patience, |_, _| Ok(false)).await
    }
}

impl Source for Stream {
    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sending {
            Some(sending) => sending.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<Option<HeaderMap>, BadBody>> {
        let end = match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                into.extend_from_slice(&data);
                // If this fails the stream is gone, as the next call will say.
                let _ = self.body.flow_control().release_capacity(data.len());
                self.body.is_end_stream().then(HeaderMap::new)
            }
            Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
            None => match ready!(self.body.poll_trailers(cx)) {
                Ok(trailers) => Some(trailers.map(rewrite::without_framing).unwrap_or_default()),
                Err(error) => return Poll::Ready(Err(broken(&error))),
            },
        };
        Poll::Ready(Ok(end))
    }
}

impl Asker for Stream {
    fn peer(&self) -> IpAddr {
        self.peer
    }

    async fn go_on(&mut self) -> io::Result<()> {
        let mut header = Header::new(());
        *header.status_mut() = http::StatusCode::CONTINUE;
        self.respond.send_informational(header).map_err(to_io)
    }

    async fn inform(&mut self, buffer: &[u8], response: &Response) -> io::Result<()> {
        let header = rewrite::response_header(buffer, response, None, std::iter::empty());
        self.respond.send_informational(header.map_err(|_| io::ErrorKind::InvalidData)?).map_err(to_io)
    }

    async fn answer(&mut self, answer: &Answer, request: &Request, _: bool, patience: Duration) -> io::Result<()> {
        let mut header = answer.header();
        answer::dress(&mut header, request.route.as_deref(), request.secure);
        let body = if request.is_head() { Bytes::new() } else { answer.body() };
        self.send(header, body, patience).await
    }

    async fn pass_on(&mut self, answered: Answered<'_>) -> io::Result<bool> {
        content::pass_on(self, answered).await
    }

    fn connection(&mut self) -> Option<&mut Client> {
        None
    }
}

impl Content for Stream {
    fn begin(&mut self, header: Header<()>, _: &Request, _: bool, bare: bool) -> io::Result<()> {
        self.respond(header, bare)
    }

    fn give(&mut self, content: Bytes, last: bool) -> io::Result<()> {
        let Self { sending: Some(sending), ended: false, pieces, .. } = self else { return Ok(()) };
        self.ended = last;
        if content.is_empty() && last {
            return sending.send_data(Piece::new(content, pieces), true).map_err(to_io);
        }
        self.content = content;
        Ok(())
    }

    fn end(&mut self, trailers: HeaderMap) -> io::Result<()> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        self.ended = true;
        let ended = match trailers.is_empty() {
            true => sending.send_data(Piece::new(Bytes::new(), &self.pieces), true),
            false => sending.send_trailers(trailers),
        };
        ended.map_err(to_io)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { sending: Some(sending), pieces, content, .. } = self else { return Poll::Ready(Ok(())) };
        super::poll_send(sending, pieces, content, self.ended, cx).map_err(to_io)
    }

    fn left(&self) -> usize {
        self.content.len()
    }
}

/// Why no more of a body comes: the client has left, or `h2` has found fault with it, such as with its length.
fn broken(error: &h2::Error) -> BadBody {
    if error.is_library() && error.is_reset() { BadBody::Refused(Refusal::BadHttp2) } else { BadBody::Left }
}

fn to_io(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
