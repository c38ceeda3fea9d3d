//! Clients of all kinds, and load from them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: hyper::HeaderMap,
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Many requests on one connection.
    KeepAlive,
    /// One request on each connection.
    Close,
    /// Many requests on one HTTP/2 connection.
    Http2,
}

/// A client with at most one connection.
#[derive(Debug)]
pub(crate) struct Client {
    to: SocketAddr,
    kind: Kind,
    one: Option<http1::SendRequest<Full<Bytes>>>,
    two: Option<http2::SendRequest<Full<Bytes>>>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(crate) fn new(to: SocketAddr, kind: Kind) -> Self {
        Self { to, kind, one: None, two: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Got, Failure> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Got, Failure> {
        self.request(Request::builder().method(method).uri(path), body).await
    }

    pub(crate) async fn request(&mut self, request: http::request::Builder, body: Bytes) -> Result<Got, Failure> {
        let response = match self.kind {
            Kind::Http2 => {
                let uri = request.uri_ref().unwrap().clone();
                let uri = format!("http://any.example{uri}");
                let two = self.two().await?;
                two.send_request(request.uri(uri).body(Full::new(body))?).await?
            }
            kind => {
                let request = if kind == Kind::Close { request.header("connection", "close") } else { request };
                let has_host = request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
                let request = if has_host { request } else { request.header("host", "any.example") };
                self.one().await?.send_request(request.body(Full::new(body))?).await?
            }
        };
        let got = read(response).await?;
        if self.kind == Kind::Close || got.headers.get("connection").is_some_and(|value| value == "close") {
            self.one = None;
        }
        Ok(got)
    }

    async fn one(&mut self) -> Result<&mut http1::SendRequest<Full<Bytes>>, Failure> {
        // A connection that was closed while idle is not used again, as in any client.
        if let Some(one) = &mut self.one
            && one.ready().await.is_err()
        {
            self.one = None;
        }
        if self.one.is_none() {
            let stream = TcpStream::connect(self.to).await?;
            let (one, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.one = Some(one);
        }
        Ok(self.one.as_mut().unwrap())
    }

    async fn two(&mut self) -> Result<&mut http2::SendRequest<Full<Bytes>>, Failure> {
        if let Some(two) = &mut self.two
            && two.ready().await.is_err()
        {
            self.two = None;
        }
        if self.two.is_none() {
            let stream = TcpStream::connect(self.to).await?;
            let (two, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.two = Some(two);
        }
        Ok(self.two.as_mut().unwrap())
    }
}

async fn read(response: Response<Incoming>) -> Result<Got, Failure> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// Load that goes on until it is ended.
#[derive(Debug)]
pub(crate) struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// Starts clients that each send one request after the other; a method and a path each.
    pub(crate) fn start(to: SocketAddr, clients: &[(Kind, Method, &'static str)]) -> Self {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for (kind, method, path) in clients.iter().cloned() {
            let (end, answered) = (end.clone(), answered.clone());
            tasks.spawn(async move {
                let mut client = Client::new(to, kind);
                let mut failures = Vec::new();
                while !end.load(SeqCst) {
                    let body = if method == Method::GET { "" } else { "some content" };
                    match client.send(method.clone(), path, body.into()).await {
                        Ok(got) if got.status == 200 => {
                            answered.fetch_add(1, SeqCst);
                        }
                        Ok(got) => failures.push(format!("{kind:?} {method} {path}: {} {}", got.status, got.body)),
                        // The connection was just ending: any client sends the request on another.
                        Err(error) if error.downcast_ref().is_some_and(basalt_testkit::was_not_taken) => {}
                        Err(error) => failures.push(format!("{kind:?} {method} {path}: {error:?}")),
                    }
                }
                failures
            });
        }
        Self { end, answered, clients: tasks }
    }

    /// Returns how many requests were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn more(&self, requests: u64) {
        let goal = self.answered() + requests;
        while self.answered() < goal {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Ends; returns how many requests were answered and what has failed.
    pub(crate) async fn end(self) -> (u64, Vec<String>) {
        self.end.store(true, SeqCst);
        let failures = self.clients.join_all().await.concat();
        (self.answered.load(SeqCst), failures)
    }
}

/// Clients of all kinds with requests that may be sent twice, and such that may not.
pub(crate) fn all_kinds() -> Vec<(Kind, Method, &'static str)> {
    let kinds = [Kind::KeepAlive, Kind::Close, Kind::Http2];
    let requests = [(Method::GET, "/"), (Method::POST, "/echo"), (Method::GET, "/"), (Method::PUT, "/echo")];
    kinds.into_iter().flat_map(|kind| requests.clone().map(|(method, path)| (kind, method, path))).collect()
}
