//! Heads as they are passed on: without what belongs to one connection only (RFC 9110 §7.6.1).

use std::mem::MaybeUninit;

use httparse::Header;

use super::head::Head;
use super::response::{self, Response};
use crate::forwarded::{Claimed, Forwarded};

/// Fields that end here, whoever sends them.
fn ends_here(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is("te"),
        6 => is("expect"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        // What a handshake has shown is not for a client to claim (RFC 9440 §4).
        11 => is("client-cert"),
        16 => is("proxy-connection"),
        17 if is("client-cert-chain") => true,
        17 => is("transfer-encoding"),
        _ => false,
    }
}

/// Fields that tell of the client.
fn tells_of_client(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        9 => is("forwarded"),
        15 => is("x-forwarded-for"),
        16 => is("x-forwarded-host"),
        17 => is("x-forwarded-proto"),
        _ => false,
    }
}

/// Whether `Connection` says that a field ends here. Framing and `Host` never do, whatever a client says.
fn is_nominated(fields: &[Header<'_>], name: &str) -> bool {
    let stays = |name: &str| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("host");
    let lists = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection"));
    let mut tokens = lists.flat_map(|field| field.value.split(|b| *b == b',').map(<[u8]>::trim_ascii));
    !stays(name) && tokens.any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Returns a request's head for an instance. `forwarded` makes what it is told of the client.
pub(crate) fn request(buffer: &[u8], head: &Head, forwarded: impl FnOnce(Claimed<'_>) -> Forwarded) -> Vec<u8> {
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; 128];
    let mut parsed = httparse::Request::new(&mut []);
    // It was read before, so this succeeds; otherwise an empty request is answered with an error by the instance.
    let _ = parsed.parse_with_uninit_headers(&buffer[..head.length], &mut space);
    let fields: &[Header<'_>] = parsed.headers;
    let mut claimed = Claimed::default();
    let mut out = Vec::with_capacity(head.length + 160);
    out.extend_from_slice(&buffer[head.method.clone()]);
    out.push(b' ');
    out.extend_from_slice(if head.target.is_empty() { b"/" } else { &buffer[head.target.clone()] });
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut upgrade = None;
    let mut has_host = false;
    for field in fields {
        has_host |= field.name.eq_ignore_ascii_case("host");
        if tells_of_client(field.name) {
            let value = std::str::from_utf8(field.value).unwrap_or_default();
            match field.name.len() {
                9 => claimed.standard = value,
                15 => claimed.for_ = value,
                16 => claimed.host = value,
                _ => claimed.proto = value,
            }
        } else if ends_here(field.name) {
            if field.name.len() == 7 {
                upgrade = Some(field.value);
            }
        } else if !(head.nominates && is_nominated(fields, field.name)) {
            put_field(&mut out, field.name, field.value);
        }
    }
    if !has_host {
        put_field(&mut out, "Host", &buffer[head.host.clone()]);
    }
    let forwarded = forwarded(claimed);
    put_field(&mut out, "X-Forwarded-For", forwarded.for_.as_bytes());
    put_field(&mut out, "X-Forwarded-Proto", forwarded.proto.as_bytes());
    if !forwarded.host.is_empty() {
        put_field(&mut out, "X-Forwarded-Host", forwarded.host.as_bytes());
    }
    if !forwarded.standard.is_empty() {
        put_field(&mut out, "Forwarded", forwarded.standard.as_bytes());
    }
    if let Some(upgrade) = upgrade.filter(|_| head.upgrade) {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        put_field(&mut out, "Upgrade", upgrade);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Appends an answer's head for a client. With `close`, the client is told that the connection ends after it.
pub(crate) fn response(out: &mut Vec<u8>, buffer: &[u8], head: &Response, close: bool) {
    let written = response::with_fields(buffer, |status, _, _, fields| {
        // The reason is the rest of the first line.
        let line = buffer.split(|b| *b == b'\r' || *b == b'\n').next().unwrap_or_default();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line.get(9..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        for field in fields {
            let framing = field.name.len() == 17 && field.name.eq_ignore_ascii_case("transfer-encoding");
            let upgrade = field.name.len() == 7 && field.name.eq_ignore_ascii_case("upgrade");
            let stays = framing || upgrade && (status == 101 || status == 426) || !ends_here(field.name);
            if stays && !(head.nominates && is_nominated(fields, field.name)) {
                put_field(out, field.name, field.value);
            }
        }
        if status == 101 {
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        } else if close && status >= 200 {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    });
    debug_assert!(matches!(written, Ok(Some(()))), "it was read before");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head;

    #[test]
    fn requests_are_passed_on_without_what_ends_here() {
        let check = |request_: &str, expected: &str| {
            let head = head::read(request_.as_bytes()).unwrap().unwrap();
            let forwarded = |claimed: Claimed<'_>| {
                Forwarded::of("192.0.2.1:5".parse().unwrap(), false, "a.example", claimed, false)
            };
            let got = String::from_utf8(request(request_.as_bytes(), &head, forwarded)).unwrap();
            let expected = format!(
                "{expected}X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n"
            );
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
             X-Secret: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n",
        );
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let head = head::read(text.as_bytes()).unwrap().unwrap();
        let got = String::from_utf8(request(text.as_bytes(), &head, |_| Forwarded::default())).unwrap();
        assert!(got.ends_with("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{got}");
    }

    #[test]
    fn answers_are_passed_on_without_what_ends_here() {
        let check = |answer: &str, close: bool, expected: &str| {
            let head = response::read(answer.as_bytes(), false).unwrap().unwrap();
            let mut out = Vec::new();
            response(&mut out, answer.as_bytes(), &head, close);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            "HTTP/1.1 200 Fine\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok",
            false,
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n",
        );
        check(
            "HTTP/1.0 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n".replace("1.0", "1.1").as_str(),
            true,
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        );
        check(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            true,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        );
    }
}
