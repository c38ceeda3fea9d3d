//! Compression of answers, for routes that ask for it. The coding itself is pingora's; here is decided what is worth it.

use http::{HeaderMap, StatusCode, Version, header};
use pingora_core::protocols::http::compression::{Algorithm, ResponseCompressionCtx};
use pingora_http::{RequestHeader, ResponseHeader};

/// What is compressed, and how hard: the levels after which more time saves few bytes.
const CODINGS: [(Algorithm, &str, u32); 3] =
    [(Algorithm::Gzip, "gzip", 5), (Algorithm::Brotli, "br", 4), (Algorithm::Zstd, "zstd", 3)];
/// Bodies below this fit in one packet in any case.
const SMALLEST: u64 = 1024;

/// Returns what compresses the answer of one attempt, with what the client takes. Each attempt has its own: one that has seen
/// an answer already can't begin again.
pub(crate) fn begin(request: &RequestHeader) -> ResponseCompressionCtx {
    let mut compression = ResponseCompressionCtx::new(0, false, false);
    // HTTP/1.0 has no chunks, and so no answer of unknown length on a connection that stays.
    if request.version != Version::HTTP_10 {
        for (algorithm, _, level) in CODINGS.into_iter().filter(|(_, name, _)| !is_refused(&request.headers, name)) {
            compression.adjust_algorithm_level(algorithm, level);
        }
    }
    compression
}

/// Turns compression off again for an answer that is not worth it, or must stay as it is.
pub(crate) fn judge(compression: &mut ResponseCompressionCtx, response: &ResponseHeader) {
    if compression.is_enabled() && compression.is_header_phase() && !is_worth_it(response) {
        compression.adjust_level(0);
    }
}

/// Whether a client has said that it does not take a coding: `gzip;q=0` (RFC 9110 §12.5.3).
fn is_refused(headers: &HeaderMap, coding: &str) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case(coding) && weight == Some(0.0)
    })
}

fn is_worth_it(response: &ResponseHeader) -> bool {
    let field = |name: header::HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
    let kind = field(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let text = match kind.split_once('/') {
        // Events are to arrive one by one, not when a block of them is full.
        Some(("text", what)) => what != "event-stream",
        Some(("application", what)) => {
            ["json", "javascript", "xml", "wasm", "manifest+json"].contains(&what)
                || what.ends_with("+json")
                || what.ends_with("+xml")
        }
        Some(("image", what)) => what == "svg+xml",
        _ => false,
    };
    let small = field(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    // RFC 9111 §5.2.2.6.
    let fixed = field(header::CACHE_CONTROL).is_some_and(|control| control.contains("no-transform"));
    let part = response.status == StatusCode::PARTIAL_CONTENT;
    text && !part && !fixed && field(header::CONTENT_ENCODING).is_none() && small.is_none_or(|small| small >= SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_texts_are_worth_it() {
        let check = |status: u16, fields: &[(&'static str, &str)], expected: bool| {
            let mut response = ResponseHeader::build(status, None).unwrap();
            for (name, value) in fields {
                response.insert_header(*name, *value).unwrap();
            }
            assert_eq!(is_worth_it(&response), expected, "{status} {fields:?}");
        };
        check(200, &[("content-type", "text/html; charset=utf-8")], true);
        check(200, &[("content-type", "application/problem+json"), ("content-length", "1024")], true);
        check(200, &[("content-type", "application/json"), ("content-length", "1023")], false);
        check(200, &[("content-type", "text/event-stream")], false);
        check(200, &[("content-type", "application/grpc")], false);
        check(200, &[("content-type", "image/png")], false);
        check(200, &[("content-type", "image/svg+xml")], true);
        check(206, &[("content-type", "text/html")], false);
        check(200, &[("content-type", "text/html"), ("content-encoding", "br")], false);
        check(200, &[("content-type", "text/html"), ("cache-control", "private, no-transform")], false);
        check(200, &[], false);
    }

    #[test]
    fn clients_may_refuse() {
        let headers = |text: &str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, text.parse().unwrap())]);
        assert!(is_refused(&headers("br, gzip;q=0"), "gzip") && is_refused(&headers("GZIP ; q=0.0"), "gzip"));
        assert!(!is_refused(&headers("br;q=0, gzip;q=0.1"), "gzip") && !is_refused(&headers("x"), "gzip"));
    }
}
