//! Where the gateway shows what it has counted: `GET /metrics` on `DATA/run/metrics.sock`, and on an address if asked for.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;

use crate::metrics;
use crate::plane::Plane;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two attempts to listen.
const BINDING: Duration = Duration::from_millis(100);
/// Pause after a failure to accept: descriptors may be short, and come back by themselves.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the socket of a data directory until the task is ended.
pub(crate) async fn serve_unix(data: &Path, plane: Arc<Plane>) {
    let path = data.join("run/metrics.sock");
    let listen = || -> io::Result<UnixListener> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(&path),
        }
    };
    let listener = match listen() {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("no metrics on `{}`: {error}", path.display()),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, plane.clone()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Serves an address until the task is ended.
pub(crate) async fn serve_tcp(address: SocketAddr, plane: Arc<Plane>) {
    // A gateway that hands over to this one may have it for a moment longer.
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let problem = format!("can't show metrics on `{address}`: {error}");
                plane.set_problem("metrics".to_owned(), Some(problem));
            }
        }
        sleep(BINDING).await;
    };
    plane.set_problem("metrics".to_owned(), None);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, plane.clone()),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, plane: Arc<Plane>) {
    tokio::spawn(async move {
        let answer = service_fn(move |request| {
            let plane = plane.clone();
            async move { Ok::<_, Infallible>(answer(&request, &plane)) }
        });
        let mut server = http1::Builder::new();
        // Who asks again may be meant for the successor of this gateway.
        server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
        // Whoever leaves early has what it wanted.
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    });
}

fn answer(request: &Request<Incoming>, plane: &Arc<Plane>) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| (status, "text/plain", Bytes::from_static(text.as_bytes()));
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            // Other forms are for those who ask for them; the older text is for everybody, tools and people.
            let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
            let asks = |kind: &str| accept.is_some_and(|accept| accept.contains(kind));
            let (kind, body) = if asks("proto=io.prometheus.client.MetricFamily") {
                (metrics::PROMETHEUS_PROTOBUF, metrics::render_protobuf(plane).into())
            } else if request.uri().query() == Some("buckets=fine") {
                (metrics::OPENMETRICS, metrics::render_finely(plane).into())
            } else if asks("application/openmetrics-text") {
                (metrics::OPENMETRICS, metrics::render(plane).into())
            } else {
                (metrics::PROMETHEUS_TEXT, metrics::as_prometheus_text(&metrics::render(plane)).into())
            };
            (StatusCode::OK, kind, body)
        }
        (_, "/metrics") => plain(StatusCode::METHOD_NOT_ALLOWED, "ask by GET\n"),
        _ => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
