//! The head of a request, read strictly (RFC 9112 §2–§5).

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Header;

use super::rewrite;
use crate::refusals::Refusal;

/// The most header fields of a request: browsers send some twenty, nginx and Apache allow about a hundred.
const MOST_FIELDS: usize = 100;
/// The longest request target: RFC 9112 §3 asks for 8,000 octets at least.
const LONGEST_TARGET: usize = 16 << 10;
/// The largest head: what nginx allows (four buffers of 8 KiB), and cookies of browsers fit.
pub(crate) const LARGEST_HEAD: usize = 32 << 10;
/// The largest content length: beyond it, sums of lengths could overflow.
const LONGEST_LENGTH: u64 = 1 << 60;

/// How long the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Told in chunks.
    Chunked,
}

/// The head of a request. Ranges lie in the buffer that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its length with the empty line behind it.
    pub(crate) length: usize,
    pub(crate) method: Range<usize>,
    /// The path and query, whatever form the target had; `*` for `OPTIONS *`. Empty stands for `/`, as in `http://host`.
    pub(crate) target: Range<usize>,
    /// The host and port; empty if none is named.
    pub(crate) host: Range<usize>,
    /// Whether the version is 1.0.
    pub(crate) old: bool,
    pub(crate) framing: Framing,
    /// Whether the client wants another protocol, such as WebSocket.
    pub(crate) upgrade: bool,
    /// Whether that is WebSocket.
    pub(crate) websocket: bool,
    /// Whether the client waits for `100 (Continue)`.
    pub(crate) expect: bool,
    /// Whether the client wants the connection to end after this request.
    pub(crate) close: bool,
    /// Whether `Connection` names fields that end here, other than the usual.
    pub(crate) nominates: bool,
}

/// Returns the fields of a head that was read from a buffer, for whoever looks for some of them. Values that could not be sent on
/// in HTTP/2 are not there.
pub(crate) fn fields(buffer: &[u8], head: &Head) -> HeaderMap {
    let field = |field: &Header<'_>| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        // The target may have named another.
        let value = if name == http::header::HOST { &buffer[head.host.clone()] } else { field.value };
        Some((name, HeaderValue::from_bytes(value).ok()?))
    };
    with_fields(buffer, head, |fields| {
        // What ends here is not what an instance sees.
        let stays = |field: &&Header<'_>| !(head.nominates && rewrite::is_nominated(fields, field.name));
        fields.iter().filter(stays).filter_map(field).collect()
    })
}

/// Calls `then` with the fields of a head that was read from a buffer.
pub(crate) fn with_fields<'b, T>(buffer: &'b [u8], head: &Head, then: impl FnOnce(&[Header<'b>]) -> T) -> T {
    let mut space: Space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    // It was read before, so this succeeds.
    let _ = parsed.parse_with_uninit_headers(&buffer[..head.length], &mut space);
    then(parsed.headers)
}

/// Space for header fields, on the stack.
type Space<'b> = [MaybeUninit<Header<'b>>; MOST_FIELDS];

/// Reads the head of a request; `None` if the buffer does not have all of it yet.
///
/// # Errors
/// If it breaks the grammar, is too large, or leaves open where the request ends.
pub(crate) fn read(buffer: &[u8]) -> Result<Option<Head>, Refusal> {
    let Some(length) = find_end(buffer)? else { return Ok(None) };
    let mut space: Space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&buffer[..length], &mut space) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::BadHead),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::LargeHead),
        Err(httparse::Error::Version) => return Err(Refusal::UnknownVersion),
        Err(_) => return Err(Refusal::BadHead),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::BadHead);
    };
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    let place = |part: &[u8]| place(buffer, part);
    let old = minor == 0;
    let (authority, path) = split_target(method, target)?;
    let mut fields = Fields::default();
    for field in parsed.headers.iter() {
        fields.take(field)?;
    }
    let host = match (fields.host, authority) {
        // RFC 9112 §3.2: a request of 1.1 without `Host` is refused, with an empty one it is not.
        (None, _) if !old => return Err(Refusal::BadHead),
        // RFC 9112 §3.2.2.
        (_, Some(authority)) => authority,
        (Some(host), None) => host,
        (None, None) => &[],
    };
    let framing = match (fields.length, fields.chunked) {
        (Some(_), true) => return Err(Refusal::BadFraming),
        (None, true) if old => return Err(Refusal::BadFraming),
        (_, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Some(Head {
        length,
        method: place(method.as_bytes()),
        target: place(path.as_bytes()),
        host: place(host),
        old,
        framing,
        upgrade: fields.upgrade && fields.connection_upgrade && !old,
        websocket: fields.websocket,
        // RFC 9110 §10.1.1.
        expect: fields.expect && !old,
        close: fields.close || old && !fields.keep_alive,
        nominates: fields.nominates,
    }))
}

/// Returns the position behind the empty line that ends the head; `None` if that has not arrived.
///
/// # Errors
/// If a line does not end in CR LF, or the head is too large.
fn find_end(buffer: &[u8]) -> Result<Option<usize>, Refusal> {
    let (mut start, mut lines) = (0, 0);
    let limit = &buffer[..buffer.len().min(LARGEST_HEAD)];
    while let Some(at) = memchr::memchr(b'\n', &limit[start..]) {
        // A line that ends in LF alone is one line for some programs and two for others.
        if at == 0 || limit[start + at - 1] != b'\r' {
            return Err(Refusal::BadHead);
        }
        if at == 1 {
            return if start == 0 { Err(Refusal::BadHead) } else { Ok(Some(start + 2)) };
        }
        if start == 0 && at > LONGEST_TARGET + 32 {
            return Err(Refusal::LongTarget);
        }
        lines += 1;
        // The first is none of a field. Beyond that, a client that sends slowly would have very many read again and again.
        if lines > MOST_FIELDS + 1 {
            return Err(Refusal::LargeHead);
        }
        start += at + 1;
    }
    match buffer.len() {
        _ if start == 0 && limit.len() > LONGEST_TARGET + 32 => Err(Refusal::LongTarget),
        0..LARGEST_HEAD => Ok(None),
        _ => Err(Refusal::LargeHead),
    }
}

/// Returns where a part of the buffer lies in it. A part that is none lies at its start, with no length.
fn place(buffer: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(buffer.as_ptr() as usize);
    if start + part.len() <= buffer.len() { start..start + part.len() } else { 0..0 }
}

/// Returns the authority of a target, if it has one, and its path with its query (RFC 9112 §3.2).
fn split_target<'t>(method: &str, target: &'t str) -> Result<(Option<&'t [u8]>, &'t str), Refusal> {
    if target.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
        return Err(Refusal::BadHead);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((None, target)) } else { Err(Refusal::BadHead) };
    }
    let colon = target.find("://").ok_or(Refusal::BadHead)?;
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::BadHead);
    }
    let rest = &target[colon + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A path would have to be made up for `http://host?query`: nobody sends that.
    if authority.is_empty() || path.starts_with('?') || !is_host(authority.as_bytes()) {
        return Err(Refusal::BadHead);
    }
    Ok((Some(authority.as_bytes()), path))
}

/// Whether this may stand in `Host`: a name, an address in brackets, and a port (RFC 3986 §3.2.2, without user information).
fn is_host(host: &[u8]) -> bool {
    let digits = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    if let Some(six) = host.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', six) else { return false };
        let (address, behind) = (&six[..end], &six[end + 1..]);
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b":.%".contains(b);
        return address.iter().all(allowed) && (behind.is_empty() || behind.strip_prefix(b":").is_some_and(digits));
    }
    let (name, port) = memchr::memchr(b':', host).map_or((host, &host[..0]), |at| (&host[..at], &host[at + 1..]));
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b);
    name.iter().all(allowed) && digits(port)
}

/// What header fields say that matters to the gateway.
#[derive(Debug, Default)]
struct Fields<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    websocket: bool,
    connection_upgrade: bool,
    expect: bool,
    close: bool,
    keep_alive: bool,
    nominates: bool,
}

impl<'b> Fields<'b> {
    fn take(&mut self, field: &Header<'b>) -> Result<(), Refusal> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // Most names are told apart by their length alone.
        match field.name.len() {
            4 if is("host") => {
                if self.host.is_some() || !is_host(field.value) {
                    return Err(Refusal::BadHead);
                }
                self.host = Some(field.value);
            }
            6 if is("expect") => self.expect = true,
            7 if is("upgrade") => {
                self.upgrade = !is_http2(field.value);
                self.websocket = field.value.eq_ignore_ascii_case(b"websocket");
            }
            10 if is("connection") => self.take_connection(field.value),
            14 if is("content-length") => {
                let length = content_length(field.value).ok_or(Refusal::BadFraming)?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::BadFraming);
                }
            }
            17 if is("transfer-encoding") => {
                if self.chunked {
                    return Err(Refusal::BadFraming);
                }
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(unknown_coding(field.value));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.connection_upgrade = true;
            } else if !token.is_empty() {
                self.nominates = true;
            }
        }
    }
}

/// Whether an `Upgrade` asks for HTTP/2. That is not passed on: what a client then says would be between it and the instance alone, past
/// all rules of routes. Such an upgrade is for one connection, and may be ignored (RFC 9110 §7.8; RFC 9113 §3.1 no longer knows it).
pub(crate) fn is_http2(upgrade: &[u8]) -> bool {
    let token = |token: &[u8]| token.trim_ascii().get(..2).is_some_and(|two| two.eq_ignore_ascii_case(b"h2"));
    upgrade.split(|b| *b == b',').any(token)
}

/// Returns a content length; `None` if it is anything but digits (RFC 9110 §8.6).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(value).ok()?.parse().ok()?;
    (length <= LONGEST_LENGTH).then_some(length)
}

/// Returns why a list of transfer codings is refused (RFC 9112 §6.1, §6.3): it does not end in `chunked`, or it has others.
fn unknown_coding(value: &[u8]) -> Refusal {
    let last = value.rsplit(|b| *b == b',').next().map(<[u8]>::trim_ascii);
    let known = |coding: &[u8]| {
        [&b"gzip"[..], b"x-gzip", b"compress", b"x-compress", b"deflate", b"identity"]
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known))
    };
    let before = || value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let ends_chunked = last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let once = before().filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count() == 1;
    let others = before().all(|coding| coding.eq_ignore_ascii_case(b"chunked") || known(coding));
    let alone =
        before().count() == 1 && last.is_some_and(|last| !last.is_empty() && last.iter().all(u8::is_ascii_graphic));
    if ends_chunked && once && others || alone && !ends_chunked { Refusal::UnknownCoding } else { Refusal::BadFraming }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, target, host, framing of a whole head; or why it is refused.
    fn check(text: &str, expected: Result<(&str, &str, &str, Framing), Refusal>) {
        let got = read(text.as_bytes()).map(|head| {
            let head = head.unwrap_or_else(|| panic!("{text:?} is not whole"));
            let part = |range: Range<usize>| text[range].to_owned();
            (part(head.method), part(head.target), part(head.host), head.framing)
        });
        let owned = |(method, target, host, framing): (&str, &str, &str, _)| {
            (method.to_owned(), target.to_owned(), host.to_owned(), framing)
        };
        assert_eq!(got, expected.map(owned), "{text:?}");
    }

    const NONE: Framing = Framing::Length(0);

    #[test]
    fn what_the_grammar_allows_is_read() {
        let ok = |text: &str, method, target, host, framing| check(text, Ok((method, target, host, framing)));
        ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", "a", NONE);
        ok("GET /a?b=%20|\"<> HTTP/1.1\r\nHost:a:80 \r\n\r\nrest", "GET", "/a?b=%20|\"<>", "a:80", NONE);
        ok("GET /é HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET", "/é", "[::1]:80", NONE);
        ok("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET", "/", "", NONE);
        ok("GET / HTTP/1.0\r\n\r\n", "GET", "/", "", NONE);
        ok("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", "a", NONE);
        ok("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH", "/", "a", NONE);
        ok("GET http://a.b:1/x HTTP/1.1\r\nHost: c\r\n\r\n", "GET", "/x", "a.b:1", NONE);
        ok("GET HTTP://a HTTP/1.0\r\n\r\n", "GET", "", "a", NONE);
        ok("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", "PUT", "/", "a", Framing::Length(7));
        ok("PUT / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tchunKED \r\n\r\n", "PUT", "/", "a", Framing::Chunked);
        ok("GET / HTTP/1.1\r\nHost: a\r\nX: caf\u{e9}\t \"x\"\r\nY:\r\n\r\n", "GET", "/", "a", NONE);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use Refusal::{BadFraming, BadHead, Connect, LargeHead, LongTarget, UnknownCoding, UnknownVersion};
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let no = |text: &str, why| check(text, Err(why));
        // Lengths (RFC 9112 §6.3; RFC 9110 §8.6).
        for length in [
            "+1",
            "-1",
            "1 1",
            "0x1",
            "1,1",
            "1, 2",
            "",
            "\u{0663}",
            "1.0",
            "18446744073709551616",
            "9223372036854775808",
        ] {
            no(&with(&format!("Content-Length: {length}")), BadFraming);
        }
        no(&with("Content-Length: 1\r\nContent-Length: 1"), BadFraming);
        no(&with("Content-Length: 1\r\nContent-Length: 2"), BadFraming);
        no(&with("Content-Length : 1"), BadHead);
        no(&with(" Content-Length: 1"), BadHead);
        // CL.TE, TE.CL, TE.TE.
        no(&with("Content-Length: 1\r\nTransfer-Encoding: chunked"), BadFraming);
        no(&with("Transfer-Encoding: chunked\r\nContent-Length: 1"), BadFraming);
        no(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), BadFraming);
        no(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), BadFraming);
        no(&with("Transfer-Encoding: chunked, identity"), BadFraming);
        no(&with("Transfer-Encoding: chunked, chunked"), BadFraming);
        no(&with("Transfer-Encoding: gzip, chunked"), UnknownCoding);
        no(&with("Transfer-Encoding: gzip"), UnknownCoding);
        no(&with("Transfer-Encoding: xchunked"), UnknownCoding);
        no(&with("Transfer-Encoding: \"chunked\""), UnknownCoding);
        no(&with("Transfer-Encoding: chunked;x"), UnknownCoding);
        no(&with("Transfer-Encoding:"), BadFraming);
        no(&with("Transfer-Encoding: \u{b}chunked"), BadHead);
        no(&with("Transfer-Encoding : chunked"), BadHead);
        no(&with("Transfer-Encoding\t: chunked"), BadHead);
        no(&with("Transfer-Encoding:\r\n chunked"), BadHead);
        no("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", BadFraming);
        // Lines (RFC 9112 §2.2, §5.2).
        no("GET / HTTP/1.1\nHost: a\n\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", BadHead);
        no("\r\n\r\n", BadHead);
        // Request lines (RFC 9112 §3).
        no("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", UnknownVersion);
        no("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET x HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET /\r\n\r\n", BadHead);
        no("GET / HTTP/1.2\r\nHost: a\r\n\r\n", UnknownVersion);
        no("GET / HTTP/2.0\r\nHost: a\r\n\r\n", UnknownVersion);
        no("GET / http/1.1\r\nHost: a\r\n\r\n", UnknownVersion);
        no("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", Connect);
        // Whom it is for (RFC 9112 §3.2).
        no("GET / HTTP/1.1\r\n\r\n", BadHead);
        no("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadHead);
        for host in ["a b", "a/b", "u@a", "a,b", "a\\b", "a?b", "[::1", "a:1:2", "a]b[", "[::1]x", "[::1]:x", "a:b"] {
            no(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), BadHead);
        }
        no("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        no("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHead);
        // Sizes.
        no(&with(&"a: b\r\n".repeat(100)), LargeHead);
        // Whether or not the rest has come.
        no(&format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(101)), LargeHead);
        no(&with(&format!("A: {}", "x".repeat(LARGEST_HEAD))), LargeHead);
        no(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(LONGEST_TARGET + 40)), LongTarget);
        no(&format!("GET /{}", "x".repeat(LONGEST_TARGET + 40)), LongTarget);
    }

    #[test]
    fn every_part_of_a_head_is_only_a_part() {
        let text = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..end]), Ok(None), "{:?}", &text[..end]);
        }
        let head = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.length, head.close, head.upgrade, head.old), (text.len(), true, false, false));
    }

    #[test]
    fn no_bytes_cause_a_panic() {
        // A small generator: all short heads of a few bytes that matter, behind a good beginning.
        let bytes = *b"\r\n: ,;a0\0\x7f\xff";
        for begin in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost:"] {
            for number in 0..bytes.len().pow(4) {
                let mut text = begin.as_bytes().to_vec();
                text.extend((0..4).map(|at| bytes[number / bytes.len().pow(at) % bytes.len()]));
                text.extend_from_slice(b"\r\n\r\n");
                let _ = read(&text);
            }
        }
    }

    #[test]
    fn the_target_names_the_host() {
        let text = b"GET http://a.b/x HTTP/1.1\r\nHost: c\r\n\r\n";
        let fields = fields(text, &read(text).unwrap().unwrap());
        assert_eq!(fields.get_all("host").iter().collect::<Vec<_>>(), ["a.b"]);
    }
}
