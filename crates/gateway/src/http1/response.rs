//! The head of an instance's answer (RFC 9112 §4, §6).

use std::mem::MaybeUninit;

use httparse::Header;

use super::body::{Body, Chunks};
use super::head::content_length;

/// The most header fields of an answer: more generous than with clients, since an instance is no stranger.
pub(crate) const MOST_FIELDS: usize = 256;
/// The largest head of an answer: what Envoy allows (60 KiB), rounded up.
pub(crate) const LARGEST_HEAD: usize = 64 << 10;

/// What the gateway needs to know of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its length with the empty line behind it.
    pub(crate) length: usize,
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// Whether the instance goes on with the connection.
    pub(crate) keeps: bool,
    /// Whether `Connection` names fields that end here, other than the usual.
    pub(crate) nominates: bool,
}

/// An answer can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instance did not answer in HTTP")]
pub(crate) struct BadResponse;

/// Reads the head of an answer to a request, which was a `HEAD` or not; `None` if the buffer does not have all of it yet.
///
/// # Errors
/// If it is not HTTP/1, is too large, or leaves open where the answer ends.
pub(crate) fn read(buffer: &[u8], to_head: bool) -> Result<Option<Response>, BadResponse> {
    with_fields(buffer, |status, old, length, fields| {
        let (mut content, mut chunked, mut close, mut keep_alive, mut nominates) = (None, false, false, false, false);
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                10 if is("connection") => {
                    for token in field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                        let is = |name: &[u8]| token.eq_ignore_ascii_case(name);
                        close |= is(b"close");
                        keep_alive |= is(b"keep-alive");
                        nominates |= !(token.is_empty() || is(b"close") || is(b"keep-alive") || is(b"upgrade"));
                    }
                }
                14 if is("content-length") => {
                    let length = content_length(field.value).ok_or(BadResponse)?;
                    if content.replace(length).is_some_and(|other| other != length) {
                        return Err(BadResponse);
                    }
                }
                17 if is("transfer-encoding") => {
                    if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadResponse);
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        if chunked && (content.is_some() || old) {
            return Err(BadResponse);
        }
        let bodyless = to_head || status < 200 || status == 204 || status == 304;
        let body = match content {
            _ if bodyless => Body::Length(0),
            _ if chunked => Body::Chunked(Chunks::default()),
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let keeps = body != Body::UntilClose && !close && (!old || keep_alive);
        Ok(Response { length, status, body, keeps, nominates })
    })
}

/// Calls `then` with status, whether the version is 1.0, length and header fields of a whole head.
pub(crate) fn with_fields<T>(
    buffer: &[u8],
    then: impl FnOnce(u16, bool, usize, &[Header<'_>]) -> Result<T, BadResponse>,
) -> Result<Option<T>, BadResponse> {
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut space) {
        // The first line is the status line: no empty ones stand before it.
        _ if buffer.starts_with(b"\r") || buffer.starts_with(b"\n") => return Err(BadResponse),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() < LARGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(BadResponse),
    };
    match (parsed.code, parsed.version) {
        (Some(status @ 100..), Some(minor)) => then(status, minor == 0, length, parsed.headers).map(Some),
        _ => Err(BadResponse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let check = |text: &str, to_head: bool, expected: Result<Option<(u16, Body, bool)>, BadResponse>| {
            let got = read(text.as_bytes(), to_head).map(|head| head.map(|one| (one.status, one.body, one.keeps)));
            assert_eq!(got, expected, "{text:?}");
        };
        let ok = |status, body, keeps| Ok(Some((status, body, keeps)));
        let chunked = || Body::Chunked(Chunks::default());
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, ok(200, Body::Length(3), true));
        check("HTTP/1.1 200\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", true, ok(200, Body::Length(0), true));
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, ok(200, chunked(), true));
        check("HTTP/1.1 200 OK\r\n\r\n", false, ok(200, Body::UntilClose, false));
        check("HTTP/1.1 304 OK\r\nContent-Length: 3\r\n\r\n", false, ok(304, Body::Length(0), true));
        check("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", false, ok(200, Body::Length(3), false));
        check("HTTP/1.0 204 OK\r\nConnection: Keep-Alive\r\n\r\n", false, ok(204, Body::Length(0), true));
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\n\r\n",
            false,
            ok(200, Body::Length(0), false),
        );
        check("HTTP/1.1 200 OK\r\nContent-Le", false, Ok(None));
        for bad in [
            "SSH-2.0-OpenSSH\r\n",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        ] {
            check(bad, false, Err(BadResponse));
        }
        check(&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(LARGEST_HEAD)), false, Err(BadResponse));
    }
}
