//! Compression of answers, for routes that ask for it (RFC 9110 §8.4): what is worth it, and in which coding.

use std::io::{self, Write};

use http::{HeaderValue, Response, StatusCode, header};

/// Bodies below this fit in one packet in any case.
const SMALLEST: u64 = 1024;

/// How an answer is compressed. The greater is better: as small in less time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

/// Whether the answer to a request is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Its route does not ask for it.
    None,
    /// Its route does, and the client takes this, or nothing of what there is.
    For(Option<Coding>),
}

impl Coding {
    const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// Returns its name.
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the one that a client likes best by the lines of its `Accept-Encoding` (RFC 9110 §12.5.3).
    pub(crate) fn chosen<'a>(accepted: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let lines = accepted.filter_map(|line| str::from_utf8(line).ok());
        let items: Vec<(&str, f32)> = lines.flat_map(|line| line.split(',')).map(weighed).collect();
        let weight = |coding: Self| {
            let is = |name: &str| {
                let name = name.strip_prefix("x-").or(name.strip_prefix("X-")).unwrap_or(name);
                name.eq_ignore_ascii_case(coding.name())
            };
            let named = items.iter().find(|(name, _)| is(name));
            named.or_else(|| items.iter().find(|(name, _)| *name == "*")).map_or(0.0, |(_, weight)| *weight)
        };
        let taken = Self::ALL.into_iter().map(|coding| (weight(coding), coding)).filter(|(weight, _)| *weight > 0.0);
        taken.max_by(|(a, one), (b, other)| a.total_cmp(b).then(one.cmp(other))).map(|(_, coding)| coding)
    }
}

/// Returns the name of a coding in a list, and how much it is liked. What can't be read is not taken.
fn weighed(item: &str) -> (&str, f32) {
    let (name, parameter) = item.split_once(';').unwrap_or((item, "q=1"));
    let weight = parameter.trim().strip_prefix("q=").or(parameter.trim().strip_prefix("Q="));
    let weight = weight.and_then(|weight| weight.trim().parse().ok()).filter(|weight| (0.0..=1.0).contains(weight));
    (name.trim(), weight.unwrap_or(0.0))
}

impl Wish {
    /// Returns the wish for an answer that has no content.
    pub(crate) fn without_coding(self) -> Self {
        if self == Self::None { self } else { Self::For(None) }
    }

    /// Changes an answer's head by it. Returns in which coding the body is to follow, if in one.
    pub(crate) fn apply(self, answer: &mut Response<()>) -> Option<Coding> {
        let Self::For(coding) = self else { return None };
        let is_still_good = answer.status() == StatusCode::NOT_MODIFIED;
        if !is_still_good && !is_worth_it(answer) {
            return None;
        }
        let headers = answer.headers_mut();
        let varies = |line: &HeaderValue| {
            let mut names = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
            names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
        };
        if !headers.get_all(header::VARY).iter().any(varies) {
            headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let coding = coding?;
        headers.remove(header::CONTENT_LENGTH);
        if is_still_good {
            // That may be the compressed one, of another length (RFC 9110 §8.6).
            return None;
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        // Parts and bytes are now others (RFC 9110 §8.8.1, §14.3).
        headers.remove(header::ACCEPT_RANGES);
        for digest in ["content-digest", "repr-digest", "digest", "content-md5"] {
            headers.remove(digest);
        }
        if let Some(tag) = headers.get_mut(header::ETAG)
            && !tag.as_bytes().starts_with(b"W/")
            && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
        {
            *tag = weak;
        }
        Some(coding)
    }
}

/// Compresses a body piece by piece. The levels are those after which more time saves few bytes.
pub(crate) enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Returns one that has had nothing yet.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(crate) fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5))),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 4, 19))),
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 3)?),
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// If it can't be compressed.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.writer().write_all(piece)
    }

    /// Lets all that it was given be read, at the cost of some bytes.
    ///
    /// # Errors
    /// If it can't be compressed.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }

    /// Returns what is ready.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// If it can't be compressed.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn is_worth_it(response: &Response<()>) -> bool {
    let field = |name: header::HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
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
    let fixed = response.headers().get_all(header::CACHE_CONTROL).iter().any(|line| {
        let mut directives = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    });
    let whole = !matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    text && whole && !fixed && field(header::CONTENT_ENCODING).is_none() && small.is_none_or(|small| small >= SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_texts_are_worth_it() {
        let check = |status: u16, fields: &[(&'static str, &str)], expected: bool| {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            assert_eq!(is_worth_it(&response.body(()).unwrap()), expected, "{status} {fields:?}");
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
        check(200, &[("content-type", "text/html"), ("cache-control", "private, No-Transform")], false);
        check(200, &[("content-type", "text/html"), ("cache-control", "a"), ("cache-control", "no-transform")], false);
        check(200, &[("content-type", "text/html"), ("cache-control", "no-transform-at-all")], true);
        check(200, &[], false);
    }

    #[test]
    fn the_best_that_a_client_takes_is_chosen() {
        // Lines are told apart by `|`.
        let check = |text: &str, expected: Option<Coding>| {
            assert_eq!(Coding::chosen(text.split('|').map(str::as_bytes)), expected, "{text}");
        };
        check("gzip", Some(Coding::Gzip));
        check("X-GZIP", Some(Coding::Gzip));
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("gzip;q=1.0, br; q=0.5", Some(Coding::Gzip));
        check("br;q=0, GZIP ; q=0.1", Some(Coding::Gzip));
        check("*;q=0.1, zstd;q=0", Some(Coding::Brotli));
        check("zstd|gzip", Some(Coding::Zstd));
        check("\u{e9}|gzip", Some(Coding::Gzip));
        for none in
            ["", "identity", "gzip;q=0", "*;q=0", "gzip;q=0.000", "gzip;q=x", "gzip;q=inf", "gzip;q=1.5", "\u{e9}"]
        {
            check(none, None);
        }
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        use std::io::Read;
        let pieces: Vec<Vec<u8>> = (0..50).map(|at| format!("piece {at} ").repeat(at * 7).into_bytes()).collect();
        for coding in [Coding::Gzip, Coding::Brotli, Coding::Zstd] {
            let (mut encoder, mut out) = (Encoder::new(coding).unwrap(), Vec::new());
            for (at, piece) in pieces.iter().enumerate() {
                encoder.write(piece).unwrap();
                if at % 10 == 3 {
                    encoder.flush().unwrap();
                }
                out.extend(encoder.take());
            }
            out.extend(encoder.finish().unwrap());
            let mut back = Vec::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*out).read_to_end(&mut back).unwrap(),
                Coding::Brotli => brotli::Decompressor::new(&*out, 4096).read_to_end(&mut back).unwrap(),
                Coding::Zstd => zstd::Decoder::new(&*out).unwrap().read_to_end(&mut back).unwrap(),
            };
            assert!(back == pieces.concat() && out.len() < back.len() / 4, "{coding:?}");
        }
    }

    #[test]
    fn an_answer_says_what_was_done_to_it() {
        let answer = || {
            let answer = Response::builder().header("content-type", "text/html").header("content-length", "5000");
            answer.header("etag", "\"a\"").header("accept-ranges", "bytes").body(()).unwrap()
        };
        let mut plain = answer();
        assert_eq!(Wish::None.apply(&mut plain), None);
        assert_eq!(plain.headers(), answer().headers());
        assert_eq!(Wish::For(None).apply(&mut plain), None);
        assert_eq!((plain.headers().len(), &plain.headers()["vary"]), (5, &"accept-encoding".parse().unwrap()));
        let mut short = answer();
        short.headers_mut().insert("vary", "Origin, Accept-Encoding".parse().unwrap());
        short.headers_mut().insert("repr-digest", "sha-256=:AA==:".parse().unwrap());
        assert_eq!(Wish::For(Some(Coding::Gzip)).apply(&mut short), Some(Coding::Gzip));
        let fields: Vec<_> =
            short.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields.len(), 4, "{fields:?}");
        for field in [("content-encoding", "gzip"), ("etag", "W/\"a\""), ("vary", "Origin, Accept-Encoding")] {
            assert!(fields.contains(&field), "{fields:?}");
        }
        let mut same = answer();
        *same.status_mut() = StatusCode::NOT_MODIFIED;
        assert_eq!(Wish::For(None).apply(&mut same), None);
        assert!(same.headers()["etag"] == "\"a\"" && same.headers().contains_key("content-length"));
        assert_eq!(Wish::For(Some(Coding::Gzip)).apply(&mut same), None);
        assert!(same.headers()["etag"] == "\"a\"" && !same.headers().contains_key("content-length"));
        assert!(same.headers()["vary"] == "accept-encoding" && !same.headers().contains_key("content-encoding"));
    }
}
