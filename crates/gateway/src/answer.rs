//! Answers that the gateway itself gives: short plain text, or what a route says.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::http1::rewrite;
use crate::ready::ReadyRoute;

/// An answer that the gateway itself gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: HeaderValue,
    text: String,
    /// After so many seconds trying again makes sense.
    again: Option<u64>,
    location: Option<HeaderValue>,
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Answer {
    fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: PLAIN, text: text.into(), again: None, location: None }
    }

    /// Returns an answer with a body of its own. A media type that is no header is left out of it.
    pub(crate) fn page(status: u16, content_type: &str, body: &str) -> Self {
        let content_type = HeaderValue::from_str(content_type).unwrap_or(PLAIN);
        Self { content_type, ..Self::plain(code(status), body) }
    }

    /// Says that no route of a table leads anywhere. Version 0 is none: nobody has sent one yet, and there was no copy that
    /// could be read.
    pub(crate) fn no_route(version: u64) -> Self {
        if version == 0 {
            let text = "no routes are known yet\n";
            return Self { again: Some(1), ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, text) };
        }
        Self::plain(StatusCode::NOT_FOUND, "no route matches this host and path\n")
    }

    /// Says that a service has no healthy instance.
    pub(crate) fn no_instance(service: &str) -> Self {
        let text = format!("no healthy instance of `{service}` to answer this request\n");
        Self { again: Some(1), ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    /// Says that a service is closed for now, in its own words if it has some.
    pub(crate) fn maintenance(text: &str) -> Self {
        let answer = match text {
            "" => Self::plain(StatusCode::SERVICE_UNAVAILABLE, "closed for maintenance\n"),
            page if page.trim_start().starts_with('<') => Self::page(503, "text/html; charset=utf-8", page),
            text => Self::plain(StatusCode::SERVICE_UNAVAILABLE, text),
        };
        Self { again: Some(60), ..answer }
    }

    /// Says that a client has sent too many requests.
    pub(crate) fn too_many(seconds: u64) -> Self {
        let text = "too many requests: wait before the next\n";
        Self { again: Some(seconds.max(1)), ..Self::plain(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    /// Sends the client elsewhere.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        // A location that is no header came from a path that is none; there is nowhere to send the client.
        match HeaderValue::from_str(location) {
            Ok(to) => Self { location: Some(to), ..Self::plain(code(status), format!("see {location}\n")) },
            Err(_) => Self::of(400),
        }
    }

    /// Says in general words what a status means.
    pub(crate) fn of(status: u16) -> Self {
        let status = code(status);
        let text = match status {
            StatusCode::BAD_GATEWAY => "the instance gave no answer that can be passed on\n".to_owned(),
            StatusCode::GATEWAY_TIMEOUT => "the instance did not answer in time\n".to_owned(),
            other => format!("{}\n", other.canonical_reason().unwrap_or("error").to_ascii_lowercase()),
        };
        Self::plain(status, text)
    }

    /// Returns it in the words of HTTP/1; without its text if it answers a `HEAD`. `connection` is what the client is told of that, if
    /// anything; `dress` adds what every answer of its route has.
    pub(crate) fn to_http1(&self, connection: &str, to_head: bool, dress: impl FnOnce(&mut Response<()>)) -> Vec<u8> {
        let mut header = self.header();
        dress(&mut header);
        let mut out = rewrite::to_http1(&header, connection);
        if !to_head && !self.is_empty() {
            out.extend_from_slice(self.text.as_bytes());
        }
        out
    }

    /// Whether its status has no content, and says nothing of its length (RFC 9110 §8.6).
    fn is_empty(&self) -> bool {
        matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// Returns its head.
    pub(crate) fn header(&self) -> Response<()> {
        let mut header = Response::new(());
        *header.status_mut() = self.status;
        let headers = header.headers_mut();
        if !self.is_empty() {
            headers.insert(header::CONTENT_TYPE, self.content_type.clone());
            headers.insert(header::CONTENT_LENGTH, self.text.len().into());
        }
        if let Some(again) = self.again {
            headers.insert(header::RETRY_AFTER, again.into());
        }
        if let Some(location) = &self.location {
            headers.insert(header::LOCATION, location.clone());
        }
        header
    }

    /// Returns its status.
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Returns how long its body is.
    pub(crate) fn length(&self) -> u64 {
        if self.is_empty() { 0 } else { self.text.len() as u64 }
    }

    /// Returns its body.
    pub(crate) fn body(&self) -> Bytes {
        if self.is_empty() { Bytes::new() } else { Bytes::from(self.text.clone()) }
    }

    /// Takes the words of a route for an error, if it has some.
    pub(crate) fn in_words_of(self, route: Option<&ReadyRoute>) -> Self {
        match route.and_then(|route| route.error_page(self.status.as_u16())) {
            Some(page) => {
                let said = Self::page(self.status.as_u16(), &page.content_type, &page.body);
                Self { again: self.again, location: self.location, ..said }
            }
            None => self,
        }
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Adds what every answer of a route has.
pub(crate) fn dress(header: &mut Response<()>, route: Option<&ReadyRoute>, secure: bool) {
    for (name, value) in route.into_iter().flat_map(|route| route.dress(secure)) {
        match value {
            Some(value) => drop(header.headers_mut().insert(name, value.clone())),
            None => drop(header.headers_mut().remove(name)),
        }
    }
}
