//! The short path for requests over HTTP/2 that may be hedged: it reads them from, and answers on, a connection in memory.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::io::{DuplexStream, duplex};

use super::client::{Client, Ends};
use super::head;
use super::response::MOST_FIELDS;
use super::short::{self, Passed};
use crate::connections::Shared;
use crate::edge;
use crate::session::Aim;

/// How much of an answer may wait in memory: one large read of the short path.
const WAITING: usize = 64 << 10;

/// Why there is no answer: `None` if the general proxy has to pass the request on.
type Failure = Option<Box<Error>>;

/// Passes a request on and its answer back, if it is one that may be hedged. Returns whether it was.
///
/// # Errors
/// If the client or the instance has left.
pub(crate) async fn pass_on(shared: &Shared, session: &mut Session) -> Result<bool> {
    let Some((ends, request)) = hedgeable(shared, session) else { return Ok(false) };
    let secured = edge::secured(session).cloned().map(Arc::new);
    let (ours, theirs) = duplex(WAITING);
    let client = Client { secured, protocol: "HTTP/2.0", ..Client::new(Box::new(theirs), ends) };
    // Both to their end: when the client leaves, what has become of its request is still written down.
    match tokio::join!(serve(client, shared), ask(session, request, ours)) {
        (Ok(()), Ok(())) => Ok(true),
        (Err(None), _) | (_, Err(None)) => Ok(false),
        (Err(Some(error)), _) | (_, Err(Some(error))) => Err(error),
    }
}

/// Returns a request as HTTP/1 says it, and between whom it is, if it may be hedged.
fn hedgeable(shared: &Shared, session: &mut Session) -> Option<(Ends, Request<Empty<Bytes>>)> {
    let bodyless = session.is_body_empty();
    let header = session.req_header();
    if header.version != Version::HTTP_2 || !matches!(header.method, Method::GET | Method::HEAD) || !bodyless {
        return None;
    }
    let routing = shared.plane.routing();
    if !routing.hedges {
        return None;
    }
    let aim = Aim::of(session);
    let to = aim.find(&routing).filter(|to| routing.passes_plainly(*to) && !aim.is_inside(&routing))?;
    routing.route(to).rules.hedge_after?;
    let peer = *session.client_addr()?.as_inet()?;
    let local = *session.server_addr()?.as_inet()?;
    // Nothing here asks the socket itself.
    let ends = Ends { peer, local, fd: -1, https: edge::secured(session).is_some() };
    Some((ends, to_http1(header, aim.asked.host)?))
}

fn to_http1(header: &RequestHeader, host: &str) -> Option<Request<Empty<Bytes>>> {
    let target = header.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(&header.method).uri(target).body(Empty::new()).ok()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.parse().ok()?);
    for (name, value) in header.headers.iter().filter(|(name, _)| *name != header::HOST && *name != header::COOKIE) {
        headers.append(name, value.clone());
    }
    // HTTP/2 may split what is one line in HTTP/1 (RFC 9113 §8.2.3).
    let cookies: Vec<&[u8]> = header.headers.get_all(header::COOKIE).iter().map(|value| value.as_bytes()).collect();
    if !cookies.is_empty() {
        headers.insert(header::COOKIE, http::HeaderValue::from_bytes(&cookies.join(&b"; "[..])).ok()?);
    }
    headers.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    Some(request)
}

/// Serves the connection in memory.
async fn serve(mut client: Client, shared: &Shared) -> Result<(), Failure> {
    let head = loop {
        match head::read(&client.buffer) {
            Ok(Some(head)) => break head,
            Ok(None) => match client.fill().await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Err(None),
            },
            Err(_) => return Err(None),
        }
    };
    match short::pass_on(client, &head, shared).await {
        Passed::NotHere(_) | Passed::Refused(..) => Err(None),
        // What was written is still read at the other end.
        Passed::Done(..) | Passed::Left => Ok(()),
    }
}

/// Asks over the connection in memory, and writes the answer to the client.
async fn ask(session: &mut Session, request: Request<Empty<Bytes>>, ours: DuplexStream) -> Result<(), Failure> {
    let broken = |error: hyper::Error| Some(Error::because(ErrorType::HTTPStatus(502), "on the short path", error));
    let mut builder = http1::Builder::new();
    // As many as the short path takes of an instance.
    builder.max_headers(MOST_FIELDS);
    let (mut sender, connection) = builder.handshake(TokioIo::new(ours)).await.map_err(broken)?;
    let connection = async { connection.await.map_err(broken) };
    let answered = async {
        let response = tokio::select! {
            response = sender.send_request(request) => response.map_err(broken)?,
            _ = session.as_downstream_mut().read_body_or_idle(true) => {
                return Err(Some(Error::new_down(ErrorType::ConnectionClosed)));
            }
        };
        drop(sender);
        answer(session, response).await
    };
    tokio::try_join!(connection, answered).map(drop)
}

async fn answer(session: &mut Session, response: Response<Incoming>) -> Result<(), Failure> {
    let (parts, mut body) = response.into_parts();
    let mut header = ResponseHeader::build(parts.status, Some(parts.headers.len())).map_err(Some)?;
    for (name, value) in without_framing(&parts.headers) {
        header.append_header(name, value).map_err(Some)?;
    }
    let empty = body.is_end_stream();
    session.write_response_header(Box::new(header), empty).await.map_err(Some)?;
    if empty {
        return Ok(());
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Some(Error::because(ErrorType::ReadError, "on the short path", error)))?;
        if let Ok(data) = frame.into_data() {
            session.write_response_body(Some(data), false).await.map_err(Some)?;
        }
    }
    session.write_response_body(None, true).await.map_err(Some)
}

/// Returns the fields that are not about the connection in memory (RFC 9113 §8.2.2).
fn without_framing(headers: &HeaderMap) -> impl Iterator<Item = (&header::HeaderName, &header::HeaderValue)> {
    headers.iter().filter(|(name, _)| **name != header::CONNECTION && **name != header::TRANSFER_ENCODING)
}
