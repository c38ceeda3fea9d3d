//! Answers that the gateway itself gives: short plain text.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// An answer that the gateway itself gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: StatusCode,
    text: String,
    /// Whether trying again soon makes sense.
    again: bool,
}

impl Answer {
    /// Says that no route leads anywhere.
    pub(crate) fn no_route() -> Self {
        let text = "no route matches this host and path\n".to_owned();
        Self { status: StatusCode::NOT_FOUND, text, again: false }
    }

    /// Says that a service has no healthy instance.
    pub(crate) fn no_instance(service: &str) -> Self {
        let text = format!("no healthy instance of `{service}` to answer this request\n");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text, again: true }
    }

    /// Says in general words what a status means.
    pub(crate) fn of(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = match status {
            StatusCode::BAD_GATEWAY => "the instance broke the connection before it answered\n".to_owned(),
            StatusCode::GATEWAY_TIMEOUT => "the instance did not answer in time\n".to_owned(),
            other => format!("{}\n", other.canonical_reason().unwrap_or("error").to_ascii_lowercase()),
        };
        Self { status, text, again: false }
    }

    /// Returns it in the words of HTTP/1; without its text if it answers a `HEAD`.
    pub(crate) fn to_http1(&self, close: bool, to_head: bool) -> Vec<u8> {
        let status = self.status;
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{}{}\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            self.text.len(),
            if self.again { "Retry-After: 1\r\n" } else { "" },
            if close { "Connection: close\r\n" } else { "" },
        );
        if !to_head {
            out.push_str(&self.text);
        }
        out.into_bytes()
    }

    /// Sends it. With `close`, the client is told that the connection ends after it.
    ///
    /// # Errors
    /// If the client has left.
    pub(crate) async fn send(self, session: &mut Session, close: bool) -> Result<()> {
        let mut header = ResponseHeader::build(self.status, Some(4))?;
        header.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        header.insert_header(header::CONTENT_LENGTH, self.text.len())?;
        if self.again {
            header.insert_header(header::RETRY_AFTER, "1")?;
        }
        if close {
            session.set_keepalive(None);
        }
        let bodyless = session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(header), bodyless).await?;
        if bodyless {
            return Ok(());
        }
        session.write_response_body(Some(Bytes::from(self.text)), true).await
    }
}
