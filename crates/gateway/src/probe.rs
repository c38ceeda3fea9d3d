//! One health check over the network.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As much of an answer as is needed to know its status: `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// Connects. Returns how it ended, in words.
pub(crate) async fn tcp(address: SocketAddrV4, timeout: Duration) -> Result<String, String> {
    within(timeout, address, async {
        TcpStream::connect(address).await.map_err(|error| words(address, &error))?;
        Ok(format!("{address} accepts connections"))
    })
    .await
}

/// Sends `GET path` and expects a status of 200 to 399. Returns how it ended, in words.
pub(crate) async fn http(address: SocketAddrV4, host: &str, path: &str, timeout: Duration) -> Result<String, String> {
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) || !path.starts_with('/') {
        return Err(format!("`{path}` is not a path that can be asked for"));
    }
    within(timeout, address, async {
        let status = status(address, host, path).await.map_err(|error| words(address, &error))?;
        match status {
            Some(status @ 200..400) => Ok(format!("GET {path} answered {status}")),
            Some(status) => Err(format!("GET {path} answered {status}")),
            None => Err(format!("{address} does not answer in HTTP")),
        }
    })
    .await
}

async fn status(address: SocketAddrV4, host: &str, path: &str) -> io::Result<Option<u16>> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: basalt-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS_LINE];
    stream.read_exact(&mut line).await?;
    let digits = line.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(&rest[1..]).ok());
    Ok(digits.and_then(|digits| digits.trim_start().parse().ok()))
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
            let result = http(address, "web", "/up", Duration::from_secs(2)).await;
            let expected = expected.map(str::to_owned).map_err(|text| text.replace("ADDR", &address.to_string()));
            assert_eq!(result, expected, "{answer:?}");
        };
        check("HTTP/1.1 200 OK\r\n\r\n", Ok("GET /up answered 200")).await;
        check("HTTP/1.0 204\r\n\r\n", Ok("GET /up answered 204")).await;
        check("HTTP/1.1 399 Odd\r\n\r\n", Ok("GET /up answered 399")).await;
        check("HTTP/1.1 400 Bad\r\n\r\n", Err("GET /up answered 400")).await;
        check("HTTP/1.1 503 No\r\n\r\n", Err("GET /up answered 503")).await;
        check("SSH-2.0-OpenSSH_9.2p1\r\n", Err("ADDR does not answer in HTTP")).await;
        check("HTTP/1.1 xyz\r\n", Err("ADDR does not answer in HTTP")).await;
        check("", Err("ADDR closed the connection without an answer")).await;
    }

    #[tokio::test]
    async fn silence_and_refusal() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = silent.local_addr().unwrap() else { unreachable!() };
        let late = http(address, "web", "/", Duration::from_millis(50)).await;
        assert_eq!(late, Err(format!("{address} did not answer within 50 ms")));
        assert_eq!(tcp(address, Duration::from_secs(1)).await, Ok(format!("{address} accepts connections")));
        drop(silent);
        assert_eq!(tcp(address, Duration::from_secs(1)).await, Err(format!("{address} refuses connections")));
        assert!(http(address, "web", "/x\r\nEvil: 1", Duration::from_secs(1)).await.is_err());
    }
}
