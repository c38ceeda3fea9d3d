//! One connection of a load's client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::load::{Kind, Load};

/// An open connection.
pub(crate) enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// The connection was just ending, and nothing was done about the request: any client sends it on another one.
    NotTaken,
    Failed(String),
}

/// Whether nothing was done about a request: it was never sent, or came after the last stream that a GOAWAY
/// without an error took (RFC 9113 section 6.8; h2 gives that error to such streams alone).
pub fn was_not_taken(error: &hyper::Error) -> bool {
    let away = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_canceled()
        || away.is_some_and(|away| away.is_go_away() && away.is_remote() && away.reason() == Some(h2::Reason::NO_ERROR))
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr, two: bool) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {}", chain(&error)))?;
        stream.set_nodelay(true).map_err(|error| chain(&error))?;
        let io = TokioIo::new(stream);
        // The connections' own tasks end with an error that the request under way is told as well.
        if two {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(|error| format!("handshake: {}", chain(&error)))?;
            tokio::spawn(connection);
            Ok(Self::Two(sender))
        } else {
            let (sender, connection) =
                http1::handshake(io).await.map_err(|error| format!("handshake: {}", chain(&error)))?;
            tokio::spawn(connection);
            Ok(Self::One(sender))
        }
    }

    /// Returns whether another request may be sent: the server has not closed it or asked for a new one.
    pub(crate) async fn is_usable(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) async fn send(&mut self, load: &Load, body: Vec<u8>) -> Result<Answer, Failure> {
        let method = if load.kind == Kind::Post { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method);
        request = match self {
            Self::One(_) => request.uri(&load.path).header(header::HOST, &load.host),
            Self::Two(_) => request.uri(format!("http://{}{}", load.host, load.path)).version(Version::HTTP_2),
        };
        if load.kind == Kind::Close {
            request = request.header(header::CONNECTION, "close");
        }
        let failed = |what, error: &dyn std::error::Error| Failure::Failed(format!("{what}: {}", chain(error)));
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed("request", &error))?;
        let answer: Result<http::Response<Incoming>, _> = match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        };
        let answer = answer.map_err(|error| match was_not_taken(&error) {
            true => Failure::NotTaken,
            false => failed("sending", &error),
        })?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| failed("reading", &error))?;
        Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    }
}

/// Returns an error with everything that it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
