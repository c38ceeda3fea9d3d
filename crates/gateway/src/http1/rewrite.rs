//! Heads as they are passed on: without what belongs to one connection only (RFC 9110 §7.6.1).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use httparse::Header;

use super::head::{self, Framing, Head};
use super::response::{self, BadResponse, Response};
use crate::forwarded::{Claimed, Forwarded};
use crate::trace::TraceContext;

/// Fields that end here, whoever sends them.
pub(crate) fn ends_here(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is("te"),
        6 => is("expect"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        // What a handshake has shown is not for a client to claim (RFC 9440 §4).
        11 => is_for_programs(name, "client-cert"),
        16 => is("proxy-connection"),
        17 if is_for_programs(name, "client-cert-chain") => true,
        17 => is("transfer-encoding"),
        _ => false,
    }
}

/// Fields that tell of the client: they are written anew. What more a proxy may say of it stays if that is `trusted`.
fn tells_of_client(name: &str, trusted: bool) -> bool {
    match name.len() {
        9 => is_for_programs(name, "forwarded"),
        13.. if !trusted => name.get(..12).is_some_and(|begin| is_for_programs(begin, "x-forwarded-")),
        15 => is_for_programs(name, "x-forwarded-for"),
        16 => is_for_programs(name, "x-forwarded-host"),
        17 => is_for_programs(name, "x-forwarded-proto"),
        _ => false,
    }
}

/// Whether a name is another for programs that tell `_` from `-` no more than capitals (CGI, RFC 3875 §4.1.18).
fn is_for_programs(name: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Whether `Connection` says that a field ends here. Framing and `Host` never do, whoever says so.
pub(crate) fn is_nominated(fields: &[Header<'_>], name: &str) -> bool {
    let stays = |name: &str| {
        ["content-length", "transfer-encoding", "host"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let lists = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
    let mut tokens = lists.flat_map(|field| field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii));
    !stays(name) && tokens.any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
}

fn is_tracestate(field: &Header<'_>) -> bool {
    field.name.len() == 10 && field.name.eq_ignore_ascii_case("tracestate")
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What changes in a request's head on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changes<'a> {
    /// The path and query.
    pub(crate) target: &'a str,
    /// Fields that get another value, or go.
    pub(crate) headers: &'a [(HeaderName, Option<HeaderValue>)],
    /// The client's certificate.
    pub(crate) certificate: Option<&'a HeaderValue>,
    /// Whether the peer is believed in what it says of the client.
    pub(crate) trusted: bool,
    /// Whether it gets a new place in its trace.
    pub(crate) traced: bool,
    /// Whether the client waits for the instance's word before it sends its body.
    pub(crate) expects: bool,
}

/// What a request says that others than its instance want to know. Lists may come on several lines (RFC 9110 §5.3); of other lines with
/// the same name, the last tells of the client: it is the one that the nearest proxy has written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Said<'a> {
    pub(crate) claimed: Claimed<'a>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) referrer: Option<&'a [u8]>,
    pub(crate) user_agent: Option<&'a [u8]>,
}

/// What an instance is told beside what the client says.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) forwarded: Forwarded,
    pub(crate) trace: Option<TraceContext>,
}

/// Returns a request's head for an instance. `tell` makes what that is told.
pub(crate) fn request(
    buffer: &[u8],
    head: &Head,
    changes: Changes<'_>,
    tell: impl FnOnce(Said<'_>) -> Told,
) -> Vec<u8> {
    head::with_fields(buffer, head, |fields| request_with(buffer, head, fields, changes, tell))
}

fn request_with(
    buffer: &[u8],
    head: &Head,
    fields: &[Header<'_>],
    changes: Changes<'_>,
    tell: impl FnOnce(Said<'_>) -> Told,
) -> Vec<u8> {
    let is_changed = |name: &str| changes.headers.iter().any(|(changed, _)| is_for_programs(name, changed.as_str()));
    let mut said = Said::default();
    let mut out = Vec::with_capacity(head.length + 256);
    out.extend_from_slice(&buffer[head.method.clone()]);
    out.push(b' ');
    out.extend_from_slice(changes.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !is_changed("host") {
        put_field(&mut out, "Host", &buffer[head.host.clone()]);
    }
    let mut upgrade = None;
    for field in fields {
        // The target may name another, which then counts.
        if field.name.len() == 4 && field.name.eq_ignore_ascii_case("host") {
            continue;
        }
        let traceparent = said.take(field) && changes.traced;
        if field.name.len() == 7 && field.name.eq_ignore_ascii_case("upgrade") {
            upgrade = Some(field.value);
        }
        let tracestate = changes.traced && is_tracestate(field);
        let ends = traceparent || tracestate || tells_of_client(field.name, changes.trusted) || ends_here(field.name);
        if !(ends || is_changed(field.name) || head.nominates && is_nominated(fields, field.name)) {
            put_field(&mut out, field.name, field.value);
        }
    }
    let Told { forwarded, trace } = tell(said);
    // What others have noted of a trace is of no use in a new one.
    for field in fields.iter().filter(|field| is_tracestate(field) && trace.is_some_and(|trace| trace.goes_on())) {
        if !(is_changed(field.name) || head.nominates && is_nominated(fields, field.name)) {
            put_field(&mut out, field.name, field.value);
        }
    }
    let trace = trace.map(|trace| trace.header()).unwrap_or_default();
    let told = [
        ("X-Forwarded-For", forwarded.for_.as_bytes()),
        ("X-Forwarded-Proto", forwarded.proto.as_bytes()),
        ("X-Forwarded-Host", forwarded.host.as_bytes()),
        ("Forwarded", forwarded.standard.as_bytes()),
        ("traceparent", trace.as_bytes()),
        ("Client-Cert", changes.certificate.map_or(b"", HeaderValue::as_bytes)),
    ];
    for (name, value) in told {
        if !value.is_empty() && !is_changed(name) {
            put_field(&mut out, name, value);
        }
    }
    for (name, value) in changes.headers {
        if let Some(value) = value {
            put_field(&mut out, name.as_str(), value.as_bytes());
        }
    }
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if changes.expects {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if let Some(upgrade) = upgrade.filter(|_| head.upgrade) {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        put_field(&mut out, "Upgrade", upgrade);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Returns what a request says, without anything for an instance.
pub(crate) fn said<'b>(buffer: &'b [u8], head: &Head) -> Said<'b> {
    head::with_fields(buffer, head, |fields| {
        let mut said = Said::default();
        for field in fields {
            said.take(field);
        }
        said
    })
}

impl<'a> Said<'a> {
    /// Takes what a field says. Returns whether it says where the request is in a trace.
    fn take(&mut self, field: &Header<'a>) -> bool {
        let is = |other: &str| field.name.eq_ignore_ascii_case(other);
        let text = || std::str::from_utf8(field.value).unwrap_or_default();
        let add = |list: &mut Cow<'a, str>| match list.is_empty() {
            true => *list = text().into(),
            false => *list = format!("{list}, {}", text()).into(),
        };
        match field.name.len() {
            7 if is("referer") => self.referrer = self.referrer.or(Some(field.value)),
            9 if is("forwarded") => add(&mut self.claimed.standard),
            10 if is("user-agent") => self.user_agent = self.user_agent.or(Some(field.value)),
            11 if is("traceparent") => {
                // Two of them are none (W3C Trace Context §3.2).
                self.traceparent = Some(if self.traceparent.is_some() { "" } else { text() });
                return true;
            }
            15 if is("x-forwarded-for") => add(&mut self.claimed.for_),
            16 if is("x-forwarded-host") => self.claimed.host = text().into(),
            17 if is("x-forwarded-proto") => self.claimed.proto = text().into(),
            _ => {}
        }
        false
    }
}

/// Whether a field of an answer is better not there: without content it has no framing (RFC 9112 §6.1, RFC 9110 §8.6), and equal
/// lengths, which may stand there twice (RFC 9112 §6.3), say no more than one.
fn is_superfluous(name: &str, status: u16, has_length: &mut bool) -> bool {
    let bare = status < 200 || status == 204;
    match name.len() {
        14 if name.eq_ignore_ascii_case("content-length") => std::mem::replace(has_length, true) || bare,
        17 if name.eq_ignore_ascii_case("transfer-encoding") => bare,
        _ => false,
    }
}

/// Appends an answer's head for a client. `connection` is what that is told of its connection, if anything. `dress` is what all
/// answers of its route have, or must not have; `cookie` keeps the client at its instance.
pub(crate) fn response<'d>(
    out: &mut Vec<u8>,
    buffer: &[u8],
    head: &Response,
    connection: &str,
    cookie: Option<&HeaderValue>,
    dress: impl Iterator<Item = (&'d HeaderName, Option<&'d HeaderValue>)> + Clone,
) {
    let is_dressed = |name: &str| dress.clone().any(|(dressed, _)| dressed.as_str().eq_ignore_ascii_case(name));
    let written = response::with_fields(buffer, |status, _, _, fields| {
        // The reason is the rest of the first line.
        let line = buffer.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or_default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line.get(9..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        let mut has_length = false;
        for field in fields {
            if is_superfluous(field.name, status, &mut has_length) {
                continue;
            }
            let framing = field.name.len() == 17 && field.name.eq_ignore_ascii_case("transfer-encoding");
            let upgrade = field.name.len() == 7 && field.name.eq_ignore_ascii_case("upgrade");
            let stays = framing || upgrade && (status == 101 || status == 426) || !ends_here(field.name);
            if stays && !(head.nominates && is_nominated(fields, field.name)) && !is_dressed(field.name) {
                put_field(out, field.name, field.value);
            }
        }
        for (name, value) in dress.clone() {
            if let Some(value) = value {
                put_field(out, name.as_str(), value.as_bytes());
            }
        }
        if let Some(cookie) = cookie {
            put_field(out, "Set-Cookie", cookie.as_bytes());
        }
        if !connection.is_empty() {
            put_field(out, "Connection", connection.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    });
    debug_assert!(matches!(written, Ok(Some(()))), "it was read before");
}

/// Returns an answer's head without what is about a connection and its framing; HTTP/2 has no such fields (RFC 9113 §8.2.2). The
/// rest is as for [`response`].
///
/// # Errors
/// If a field is not one of HTTP.
pub(crate) fn response_header<'d>(
    buffer: &[u8],
    head: &Response,
    cookie: Option<&HeaderValue>,
    dress: impl Iterator<Item = (&'d HeaderName, Option<&'d HeaderValue>)> + Clone,
) -> Result<http::Response<()>, BadResponse> {
    let header = response::with_fields(buffer, |status, _, _, fields| {
        let mut header = http::Response::new(());
        *header.status_mut() = http::StatusCode::from_u16(status).map_err(|_| BadResponse)?;
        let headers = header.headers_mut();
        headers.reserve(fields.len() + 4);
        let mut has_length = false;
        for field in fields {
            let superfluous = is_superfluous(field.name, status, &mut has_length);
            if superfluous || ends_here(field.name) || head.nominates && is_nominated(fields, field.name) {
                continue;
            }
            let (name, value) = to_field(field)?;
            if !dress.clone().any(|(dressed, _)| *dressed == name) {
                headers.append(name, value);
            }
        }
        for (name, value) in dress.clone() {
            if let Some(value) = value {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(cookie) = cookie {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
        Ok(header)
    });
    header?.ok_or(BadResponse)
}

/// Returns a head in the words of HTTP/1, with what the client is told of its connection, if anything. Names are written as people are
/// used to see them.
pub(crate) fn to_http1(header: &http::Response<()>, connection: &str) -> Vec<u8> {
    let status = header.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in header.headers() {
        let start = out.len();
        put_field(&mut out, name.as_str(), value.as_bytes());
        let mut first = true;
        for byte in &mut out[start..start + name.as_str().len()] {
            if std::mem::replace(&mut first, *byte == b'-') {
                byte.make_ascii_uppercase();
            }
        }
    }
    if !connection.is_empty() {
        put_field(&mut out, "Connection", connection.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Returns the fields behind a chunked body (RFC 9112 §7.1.2).
///
/// # Errors
/// If they are none of HTTP.
pub(crate) fn trailers(text: &[u8]) -> Result<HeaderMap, BadResponse> {
    let mut space = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(text, &mut space) {
        Ok(httparse::Status::Complete((_, fields))) => fields.iter().map(to_field).collect::<Result<_, _>>(),
        Ok(httparse::Status::Partial) | Err(_) => Err(BadResponse),
    }
    .map(without_framing)
}

/// Returns the fields behind a body without those that must not stand there (RFC 9110 §6.5.1).
pub(crate) fn without_framing(trailers: HeaderMap) -> HeaderMap {
    let stays = |name: &HeaderName| {
        let frames = [header::CONTENT_LENGTH, header::HOST, header::TRAILER].contains(name);
        !(frames || ends_here(name.as_str()) || tells_of_client(name.as_str(), false))
    };
    let mut last = None;
    let named = trailers.into_iter().filter_map(|(name, value)| {
        // A field that stands there again has no name.
        last = name.or(last.take());
        Some((last.clone()?, value))
    });
    named.filter(|(name, _)| stays(name)).collect()
}

fn to_field(field: &Header<'_>) -> Result<(HeaderName, HeaderValue), BadResponse> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadResponse)?;
    Ok((name, HeaderValue::from_bytes(field.value).map_err(|_| BadResponse)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head;

    /// Returns a request as an instance gets it.
    fn rewritten(text: &str, headers: &[(HeaderName, Option<HeaderValue>)], traced: bool) -> String {
        let head = head::read(text.as_bytes()).unwrap().unwrap();
        let target = &text[head.target.clone()];
        let target = if target.is_empty() { "/" } else { target };
        let tell = |said: Said<'_>| Told {
            forwarded: Forwarded::of("192.0.2.1:5".parse().unwrap(), false, "a.example", &Claimed::default()),
            trace: traced.then(|| TraceContext::of(said.traceparent)),
        };
        let changes = Changes { target, headers, certificate: None, trusted: false, traced, expects: head.expect };
        String::from_utf8(request(text.as_bytes(), &head, changes, tell)).unwrap()
    }

    #[test]
    fn fields_change_by_the_word_of_a_route() {
        let set = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), (!value.is_empty()).then(|| HeaderValue::from_static(value)))
        };
        let headers = [set("host", "inner"), set("x-gone", ""), set("x-forwarded-host", "front"), set("x-new", "1")];
        let got = rewritten(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\nX_Gone: 1\r\nX-NEW: 0\r\nX-Stays: 1\r\n\r\n",
            &headers,
            false,
        );
        assert_eq!(
            got,
            "GET / HTTP/1.1\r\nX-Stays: 1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nhost: inner\r\n\
             x-forwarded-host: front\r\nx-new: 1\r\n\r\n"
        );
    }

    #[test]
    fn a_trace_goes_on_if_requests_are_traced() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nTraceparent: {parent}\r\n\r\n");
        assert!(rewritten(&text, &[], false).contains(&format!("Traceparent: {parent}\r\n")));
        let traced = rewritten(&text, &[], true);
        assert!(traced.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-"), "{traced}");
        assert!(!traced.contains("b7ad6b7169203331"), "{traced}");

        // What others have noted goes with it, and not with a new one.
        let with_state = |parents: &[&str]| {
            let parents: String = parents.iter().map(|parent| format!("traceparent: {parent}\r\n")).collect();
            rewritten(&format!("GET / HTTP/1.1\r\nHost: a\r\nTracestate: a=b\r\n{parents}\r\n"), &[], true)
        };
        assert!(with_state(&[parent]).contains("Tracestate: a=b\r\n"));
        for none in [&["00-bad"][..], &[], &[parent, parent]] {
            let got = with_state(none);
            assert!(!got.contains("a=b") && !got.contains("b7ad6b7169203331"), "{got}");
        }
    }

    #[test]
    fn requests_are_passed_on_without_what_ends_here() {
        let check = |request: &str, expected: &str| {
            let expected = format!(
                "{expected}X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n"
            );
            let got = rewritten(request, &[], false);
            assert!(got.starts_with(&expected), "{got}\n{expected}");
        };
        check(
            "GET /x?y HTTP/1.1\r\nHost: a.example\r\nA:b \r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: a.example\r\nA: b\r\n",
        );
        check("GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n");
        check(
            "PUT http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n",
            "PUT /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n",
        );
        check(
            "GET / HTTP/1.1\r\nConnection: X-Secret, Content-Length, Host, close\r\nHost: a.example\r\nContent-Length: 0\r\n\
             X-Secret: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=x\r\n\
             X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\nX_Forwarded_For: 1.1.1.1\r\nClient_Cert: :x:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n",
        );
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let got = rewritten(text, &[], false);
        assert!(got.ends_with("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{got}");

        for http2 in ["h2c", "H2C", "h2", "websocket , h2c", "h2c/1"] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {http2}\r\n\r\n");
            let head = head::read(text.as_bytes()).unwrap().unwrap();
            let got = rewritten(&text, &[], false);
            assert!(!head.upgrade && !got.contains("pgrade"), "{got}");
        }
    }

    #[test]
    fn what_can_be_read_of_an_answer_can_be_passed_on_in_every_version() {
        for byte in 0..=255_u8 {
            for head in [&b"HTTP/1.1 200 OK\r\nA"[..], b"HTTP/1.1 999 \r\nA: ", b"HTTP/1.1 103 E\r\n"] {
                let answer = [head, &[byte], b"b: c\r\n\r\n"].concat();
                if let Ok(Some(head)) = response::read(&answer, false) {
                    assert!(response_header(&answer, &head, None, std::iter::empty()).is_ok(), "{answer:?}");
                }
            }
        }
    }

    #[test]
    fn answers_are_passed_on_without_what_ends_here() {
        let check = |answer: &str, connection: &str, expected: &str| {
            let head = response::read(answer.as_bytes(), false).unwrap().unwrap();
            let mut out = Vec::new();
            response(&mut out, answer.as_bytes(), &head, connection, None, std::iter::empty());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            "HTTP/1.1 200 Fine\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok",
            "",
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n",
        );
        check(
            // Framing stays, whoever names it.
            "HTTP/1.1 404 Not Found\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n",
            "close",
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        );
        for bare in ["204 No Content", "103 Early Hints"] {
            let framed = format!("HTTP/1.1 {bare}\r\nContent-Length: 0\r\nA: b\r\n\r\n");
            let bare = format!("HTTP/1.1 {bare}\r\nA: b\r\n\r\n");
            check(&framed, "", &bare);
            check(&framed.replace("Content-Length: 0", "Transfer-Encoding: chunked"), "", &bare);
        }
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\ncontent-length: 2\r\n\r\nok",
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\n",
        );
        check(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "Upgrade",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        );
    }
}
