//! One request on one connection of its own: on a unix socket that costs next to nothing.

use std::error::Error;
use std::path::Path;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{ClientError, Failure};

/// Sends a request and returns the answer if it is a success.
pub(super) async fn send<B: Serialize>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&B>,
    last_seq: Option<u64>,
) -> Result<Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Unreachable { socket: socket.to_owned(), source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection ends when its answer has been read or dropped; its errors reach the reader as well.
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "basalt");
    if let Some(seq) = last_seq {
        request = request.header("last-event-id", seq);
    }
    let content = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            serde_json::to_vec(body).map_err(unreadable)?
        }
        None => Vec::new(),
    };
    let request = request.body(Full::new(Bytes::from(content))).map_err(unreadable)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
}

/// Reads the whole answer.
pub(super) async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ClientError> {
    let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
    // An answer without content stands for null.
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(unreadable)
}

async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    match read::<Failure>(answer).await {
        Ok(Failure { error, help }) => ClientError::Refused { status: status.as_u16(), error, help },
        Err(broken @ ClientError::Broken { .. }) => broken,
        Err(_) if status == StatusCode::NOT_FOUND => unreadable("this controller does not know that call"),
        Err(_) => ClientError::Refused { status: status.as_u16(), error: format!("HTTP status {status}"), help: None },
    }
}

pub(super) fn broken(source: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Broken { source: source.into() }
}

pub(super) fn unreadable(source: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Unreadable { source: source.into() }
}
