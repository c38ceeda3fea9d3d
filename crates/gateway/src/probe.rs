//! One health check over the network.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use basalt_model::ProxyProtocol;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy_header;

/// As much of an answer as is needed to know its status: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;
/// As much of an informational answer as is read.
const LONGEST_HEAD: usize = 64 << 10;
/// As much of an answer to a gRPC check as is read: it has seven bytes.
const LONGEST_MESSAGE: usize = 4096;

/// Where a check is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) address: SocketAddrV4,
    /// The header that connections there begin with.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

impl From<SocketAddrV4> for At {
    fn from(address: SocketAddrV4) -> Self {
        Self { address, proxy_protocol: None }
    }
}

impl At {
    async fn connect(self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        if let Some(version) = self.proxy_protocol {
            stream.write_all(&proxy_header::header(version, None)).await?;
        }
        Ok(stream)
    }
}

/// Connects. Returns how it ended, in words.
pub(crate) async fn tcp(at: At, timeout: Duration) -> Result<String, String> {
    let address = at.address;
    within(timeout, address, async {
        at.connect().await.map_err(|error| words(address, &error))?;
        Ok(format!("{address} accepts connections"))
    })
    .await
}

/// Sends `GET path` and expects a status of 200 to 399. Returns how it ended, in words.
pub(crate) async fn http(at: At, host: &str, path: &str, timeout: Duration) -> Result<String, String> {
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) || !path.starts_with('/') {
        return Err(format!("`{path}` is not a path that can be asked for"));
    }
    let address = at.address;
    within(timeout, address, async {
        let status = status(at, host, path).await.map_err(|error| words(address, &error))?;
        match status {
            Some(status @ 200..400) => Ok(format!("GET {path} answered {status}")),
            Some(status) => Err(format!("GET {path} answered {status}")),
            None => Err(format!("{address} does not answer in HTTP")),
        }
    })
    .await
}

/// Asks `grpc.health.v1.Health/Check` for a service and expects `SERVING`. Returns how it ended, in words.
///
/// The messages are two fields long (grpc/grpc-proto, `health.proto`), so they are written and read by hand.
pub(crate) async fn grpc(at: At, service: &str, timeout: Duration) -> Result<String, String> {
    let address = at.address;
    let whole = if service.is_empty() { "the server" } else { service };
    within(timeout, address, async {
        let answer = serving(at, service).await.map_err(|error| format!("{address}: {error}"))?;
        match answer {
            Ok(1) => Ok(format!("{whole} is SERVING")),
            Ok(2) => Err(format!("{whole} is NOT_SERVING")),
            Ok(_) => Err(format!("{whole} is UNKNOWN")),
            Err(status) => Err(format!("the check of {whole} ended with gRPC status {status}")),
        }
    })
    .await
}

/// Returns the status of a service, or how the call failed.
async fn serving(at: At, service: &str) -> Result<Result<u64, String>, Box<dyn std::error::Error + Send + Sync>> {
    let (address, stream) = (at.address, at.connect().await?);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    // A frame without compression: five bytes, and the message with its field 1, the service.
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 0x80).ok_or("the name is too long")?;
    let mut message = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    message.extend_from_slice(service.as_bytes());
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(bytes::Bytes::from(message)))?;
    let response = client.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, LONGEST_MESSAGE).collect().await?;
    connection.abort();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| parts.headers.get("grpc-status"));
    let status = status.and_then(|status| status.to_str().ok()).unwrap_or("none");
    if status != "0" {
        return Ok(Err(status.to_owned()));
    }
    // Field 1 of the answer; without it, it is at its default of 0.
    let message = body.to_bytes();
    let field = message.get(5..).unwrap_or_default();
    Ok(Ok(if field.first() == Some(&0x08) { field.get(1).copied().unwrap_or(0).into() } else { 0 }))
}

async fn status(at: At, host: &str, path: &str) -> io::Result<Option<u16>> {
    let mut stream = at.connect().await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: basalt-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::new();
    loop {
        while seen.len() < STATUS_LINE {
            if stream.read_buf(&mut seen).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let digits = seen[..STATUS_LINE].strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(&rest[1..]).ok());
        let status = digits.and_then(|digits| digits.trim_start().parse().ok());
        if !matches!(status, Some(100 | 102..200)) {
            return Ok(status);
        }
        // An informational answer, which another follows (RFC 9110 §15.2).
        let end = loop {
            if let Some(at) = memchr::memmem::find(&seen, b"\r\n\r\n") {
                break at + 4;
            }
            if seen.len() > LONGEST_HEAD || stream.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
        };
        seen.drain(..end);
    }
}

async fn within<T>(
    timeout: Duration,
    address: SocketAddrV4,
    check: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = || Err(format!("{address} did not answer within {} ms", timeout.as_millis()));
    tokio::time::timeout(timeout, check).await.unwrap_or_else(|_| late())
}

fn words(address: SocketAddrV4, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{address} refuses connections"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("{address} closed the connection without an answer")
        }
        _ => format!("{address}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answering(answer: &'static str) -> SocketAddrV4 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn answers() {
        let check = async |answer: &'static str, expected: Result<&str, &str>| {
            let address = answering(answer).await;
            let result = http(address.into(), "web", "/up", Duration::from_secs(2)).await;
            let expected = expected.map(str::to_owned).map_err(|text| text.replace("ADDR", &address.to_string()));
            assert_eq!(result, expected, "{answer:?}");
        };
        check("HTTP/1.1 200 OK\r\n\r\n", Ok("GET /up answered 200")).await;
        check("HTTP/1.0 204\r\n\r\n", Ok("GET /up answered 204")).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        check(format!("{hints}HTTP/1.1 200 OK\r\n\r\n").leak(), Ok("GET /up answered 200")).await;
        check(format!("{hints}HTTP/1.1 500 No\r\n\r\n").leak(), Err("GET /up answered 500")).await;
        check(hints, Err("ADDR closed the connection without an answer")).await;
        check("HTTP/1.1 399 Odd\r\n\r\n", Ok("GET /up answered 399")).await;
        check("HTTP/1.1 400 Bad\r\n\r\n", Err("GET /up answered 400")).await;
        check("HTTP/1.1 503 No\r\n\r\n", Err("GET /up answered 503")).await;
        check("SSH-2.0-OpenSSH_9.2p1\r\n", Err("ADDR does not answer in HTTP")).await;
        check("HTTP/1.1 xyz\r\n", Err("ADDR does not answer in HTTP")).await;
        check("", Err("ADDR closed the connection without an answer")).await;
    }

    #[tokio::test]
    async fn grpc_health() {
        let check = async |answer: &'static [u8], status: &'static str, expected: Result<&str, &str>| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = hyper::service::service_fn(async move |request: http::Request<hyper::body::Incoming>| {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&sent[..], b"\0\0\0\0\x05\x0a\x03a.B");
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", status.parse().unwrap());
                    let body = Full::new(bytes::Bytes::from_static(answer))
                        .with_trailers(async move { Some(Ok::<_, std::convert::Infallible>(trailers)) });
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
            let result = grpc(address.into(), "a.B", Duration::from_secs(5)).await;
            assert_eq!(result, expected.map(str::to_owned).map_err(str::to_owned));
            server.abort();
        };
        check(b"\0\0\0\0\x02\x08\x01", "0", Ok("a.B is SERVING")).await;
        check(b"\0\0\0\0\x02\x08\x02", "0", Err("a.B is NOT_SERVING")).await;
        check(b"\0\0\0\0\0", "0", Err("a.B is UNKNOWN")).await;
        check(b"", "5", Err("the check of a.B ended with gRPC status 5")).await;
    }

    #[tokio::test]
    async fn silence_and_refusal() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = silent.local_addr().unwrap() else { unreachable!() };
        let late = http(address.into(), "web", "/", Duration::from_millis(50)).await;
        assert_eq!(late, Err(format!("{address} did not answer within 50 ms")));
        assert_eq!(tcp(address.into(), Duration::from_secs(1)).await, Ok(format!("{address} accepts connections")));
        drop(silent);
        assert_eq!(tcp(address.into(), Duration::from_secs(1)).await, Err(format!("{address} refuses connections")));
        assert!(http(address.into(), "web", "/x\r\nEvil: 1", Duration::from_secs(1)).await.is_err());
    }
}
