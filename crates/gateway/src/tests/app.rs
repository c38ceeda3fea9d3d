//! A small server that stands for an instance.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The port of all apps: they differ by address.
pub(crate) const PORT: u16 = 18_080;

/// Returns a loopback address that no other test has.
pub(crate) fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() % 200 + 16;
    let next = NEXT.fetch_add(1, SeqCst);
    Ipv4Addr::new(127, process as u8, (next / 250) as u8, (next % 250) as u8 + 1)
}

/// How an app behaves, and what it has seen.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Answers requests (not checks) with this status; 0 is 200.
    pub(crate) status: AtomicU16,
    /// Answers checks with this status; 0 is 200.
    pub(crate) check_status: AtomicU16,
    /// Takes so many milliseconds to answer.
    pub(crate) delay: AtomicU64,
    /// Requests that have arrived, checks excepted.
    pub(crate) requests: AtomicU64,
}

/// A small server that answers each request with its address, its headers, or what it was sent. It dies when it is dropped.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: Ipv4Addr,
    pub(crate) behaviour: Arc<Behaviour>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// Starts at a fresh address.
    pub(crate) async fn start() -> Self {
        Self::start_at(fresh_address()).await
    }

    /// Starts at an address.
    pub(crate) async fn start_at(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind(SocketAddrV4::new(address, PORT)).await.unwrap();
        let behaviour = Arc::new(Behaviour::default());
        let shown = behaviour.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            // Dropped first: of a process that dies, the kernel closes what it has opened first.
            let listener = listener;
            while let Ok((stream, _)) = listener.accept().await {
                let behaviour = shown.clone();
                let answer = service_fn(move |request| answer(request, address, behaviour.clone()));
                let server = hyper::server::conn::http1::Builder::new();
                connections.spawn(server.serve_connection(TokioIo::new(stream), answer).with_upgrades());
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, behaviour, task }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.behaviour.requests.load(SeqCst)
    }

    /// Dies at once, with all its connections.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn answer(
    request: Request<Incoming>,
    address: Ipv4Addr,
    behaviour: Arc<Behaviour>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = |status: &AtomicU16| match status.load(SeqCst) {
        0 => 200,
        status => status,
    };
    let answer = |status: u16, body: Bytes| Ok(Response::builder().status(status).body(Full::new(body)).unwrap());
    let path = request.uri().path().to_owned();
    if path == "/check" {
        return answer(status(&behaviour.check_status), Bytes::new());
    }
    behaviour.requests.fetch_add(1, SeqCst);
    let headers = format!("{:#?}", request.headers());
    let Ok(body) = request.into_body().collect().await else { return answer(400, Bytes::new()) };
    let delay = behaviour.delay.load(SeqCst);
    if delay > 0 {
        sleep(Duration::from_millis(delay)).await;
    }
    let body = match path.as_str() {
        "/echo" => body.to_bytes(),
        "/headers" => headers.into(),
        _ => address.to_string().into(),
    };
    let kind = match path.as_str() {
        "/text" => "text/plain",
        "/events" => "text/event-stream",
        _ => return answer(status(&behaviour.status), body),
    };
    let body = "what repeats is short ".repeat(1000);
    Ok(Response::builder()
        .status(status(&behaviour.status))
        .header("content-type", kind)
        .body(Full::new(body.into()))
        .unwrap())
}
