//! What decides where a request goes, and what else is asked of one in pingora's terms.

use std::net::{SocketAddr, SocketAddrV4};

use http::header;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::downstream::Downstream;
use crate::edge;
use crate::ready::Asked;
use crate::routing::{Destination, Routing};

/// What decides where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'a> {
    local: Option<SocketAddrV4>,
    pub(crate) asked: Asked<'a>,
}

impl<'a> Aim<'a> {
    /// Returns where a request goes that arrived at an address.
    pub(crate) fn new(local: Option<SocketAddr>, asked: Asked<'a>) -> Self {
        let local = match local {
            Some(SocketAddr::V4(local)) => Some(local),
            Some(SocketAddr::V6(_)) | None => None,
        };
        Self { local, asked }
    }

    /// Returns where a request of pingora's goes.
    pub(crate) fn of(session: &'a Session) -> Self {
        let request = session.req_header();
        let uri = &request.uri;
        let asked = Asked {
            host: host(request),
            path: uri.path(),
            query: uri.query(),
            method: &request.method,
            headers: &request.headers,
        };
        Self::new(session.server_addr().and_then(|address| address.as_inet()).copied(), asked)
    }

    /// Whether it arrived at a virtual address.
    pub(crate) fn is_inside(&self, routing: &Routing) -> bool {
        self.local.is_some_and(|local| routing.listener(local).is_some())
    }

    pub(crate) fn find(&self, routing: &Routing) -> Option<Destination> {
        // At a virtual address the service is fixed, whatever the host.
        let inside = self.local.and_then(|local| routing.listener(local)).map(|(to, _)| to);
        inside.or_else(|| routing.find(&self.asked))
    }
}

/// Returns the host that a request names.
pub(crate) fn host(request: &RequestHeader) -> &str {
    let named = || request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri.authority().map(|authority| authority.as_str()).or_else(named).unwrap_or("")
}

/// Returns the last line of a field, which is the one that the nearest proxy has written.
pub(crate) fn last<'s>(session: &'s Session, name: &str) -> Option<&'s str> {
    session.req_header().headers.get_all(name).iter().next_back()?.to_str().ok()
}

/// Returns the client's connection, if HTTP/1 is spoken on it.
pub(crate) fn downstream(session: &Session) -> Option<&Downstream> {
    session.stream().and_then(|stream| stream.as_any().downcast_ref())
}

/// Whether a client speaks TLS.
pub(crate) fn is_https(session: &Session) -> bool {
    downstream(session).is_some_and(Downstream::is_https) || edge::secured(session).is_some()
}

/// Whether a request may be sent twice (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(session: &Session) -> bool {
    session.req_header().method.is_idempotent()
}

/// Whether a request is gRPC, which instances take over HTTP/2 only.
pub(crate) fn is_grpc(request: &RequestHeader) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE);
    request.version == http::Version::HTTP_2
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
