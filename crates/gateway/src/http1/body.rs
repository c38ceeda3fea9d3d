//! Where a body ends (RFC 9112 §6, §7). Bytes are only looked at, never changed.

use bytes::BytesMut;

/// The most bytes of a chunk's extensions, and of all trailers: nobody sends more of either.
const MOST_EXTRAS: usize = 8 << 10;

/// What is left of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All until the connection ends.
    UntilClose,
}

/// The framing of a body is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Body {
    /// Returns how many of these bytes belong to the body.
    ///
    /// # Errors
    /// If the framing is broken.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Does the same, and adds what is content to `content`, and the lines behind the last chunk to `trailers`.
    ///
    /// # Errors
    /// If the framing is broken.
    pub(crate) fn take_content(
        &mut self,
        bytes: &[u8],
        content: &mut BytesMut,
        trailers: &mut Vec<u8>,
    ) -> Result<usize, Broken> {
        if let Self::Chunked(chunks) = self {
            return chunks.walk(bytes, |part, behind| match behind {
                true => trailers.extend_from_slice(part),
                false => content.extend_from_slice(part),
            });
        }
        let taken = self.take(bytes)?;
        content.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Returns how many of the bytes so far were no content: the sizes and ends of chunks.
    pub(crate) fn framing(&self) -> u64 {
        match self {
            Self::Chunked(chunks) => chunks.framing,
            Self::Length(_) | Self::UntilClose => 0,
        }
    }

    /// Returns whether nothing more belongs to it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::UntilClose => false,
        }
    }
}

/// A walk through a chunked body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    state: State,
    size: u64,
    digits: u8,
    extras: usize,
    /// Bytes so far that were no data.
    framing: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a line behind the last chunk.
    LineStart,
    /// Within a trailer field.
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
}

impl State {
    /// Whether the last chunk is over.
    fn is_behind(self) -> bool {
        matches!(self, Self::LineStart | Self::Trailer | Self::TrailerEnd | Self::LastLf)
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        self.walk(bytes, |_, _| {})
    }

    /// Walks on. `part` gets pieces of content, and of what is behind the last chunk.
    fn walk(&mut self, bytes: &[u8], mut part: impl FnMut(&[u8], bool)) -> Result<usize, Broken> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let skipped = (bytes.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= skipped as u64;
                part(&bytes[at..at + skipped], false);
                at += skipped;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let before = self.state;
            self.state = self.step(bytes[at])?;
            if before.is_behind() {
                part(&bytes[at..at + 1], true);
            }
            self.framing += 1;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Broken> {
        let extra = |chunks: &mut Self, state: State| {
            chunks.extras += 1;
            if chunks.extras > MOST_EXTRAS { Err(Broken) } else { Ok(state) }
        };
        match (self.state, byte) {
            (State::Size, byte) if byte.is_ascii_hexdigit() => {
                // Fifteen digits: sums of sizes can't overflow.
                if self.digits == 15 {
                    return Err(Broken);
                }
                self.digits += 1;
                self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                Ok(State::Size)
            }
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeEnd),
            // RFC 9112 §7.1.1 allows whitespace before the semicolon, for bad old programs.
            (State::Size, b';' | b' ' | b'\t') if self.digits > 0 => extra(self, State::Extension),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => extra(self, State::Extension),
            (State::SizeEnd, b'\n') => {
                (self.digits, self.extras) = (0, 0);
                Ok(if self.size == 0 { State::LineStart } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::LineStart, b'\r') => Ok(State::LastLf),
            (State::LineStart, byte) if byte > b' ' && byte < 0x7f && byte != b':' => extra(self, State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerEnd),
            (State::Trailer, byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => extra(self, State::Trailer),
            (State::TrailerEnd, b'\n') => Ok(State::LineStart),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => Err(Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_bodies_end_where_they_say() {
        // What belongs to the body is before the bar.
        let check = |text: &str, expected: Result<(), Broken>| {
            let (body, rest) = text.split_once('|').unwrap_or((text, ""));
            let all = format!("{body}{rest}");
            // In one piece, and byte by byte.
            for size in [all.len().max(1), 1, 3] {
                let mut chunks = Body::Chunked(Chunks::default());
                let mut taken = Ok(0);
                for piece in all.as_bytes().chunks(size) {
                    taken = taken.and_then(|sum: usize| chunks.take(piece).map(|taken| sum + taken));
                }
                if let Ok(taken) = taken {
                    let digits = |line: &str| usize::from_str_radix(line.split([';', ' ']).next().unwrap(), 16).ok();
                    let sizes = body.split("\r\n").step_by(2).map_while(digits).sum::<usize>();
                    assert_eq!(chunks.framing(), (taken - sizes) as u64, "{text:?} by {size}");
                }
                let expected = expected.map(|()| (body.len(), true));
                assert_eq!(taken.map(|taken| (taken, chunks.is_done())), expected, "{text:?} by {size}");
            }
        };
        check("0\r\n\r\n|GET", Ok(()));
        check("5\r\nhello\r\n0\r\n\r\n|", Ok(()));
        check("5;a=b\r\nhello\r\n00\r\nTrailer: x\r\nOther: y\r\n\r\n|5\r\n", Ok(()));
        check("a \r\n0123456789\r\n0 ;x\r\n\r\n|", Ok(()));
        check("F\r\n0123456789abcde\r\n0\r\n\r\n|", Ok(()));
        check("5\nhello\r\n0\r\n\r\n", Err(Broken));
        check("5\r\nhello\n0\r\n\r\n", Err(Broken));
        check("5\r\nhello0\r\n\r\n", Err(Broken));
        check("0x5\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check("+5\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check(" 5\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check("-1\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check("\r\n0\r\n\r\n", Err(Broken));
        check("5;a\nb\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check("5;a\rb\r\nhello\r\n0\r\n\r\n", Err(Broken));
        check("0\r\n folded: x\r\n\r\n", Err(Broken));
        check("0\r\n: x\r\n\r\n", Err(Broken));
        check("10000000000000000\r\n", Err(Broken));
        check(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(9000)), Err(Broken));
        check(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(3000)), Err(Broken));
    }

    #[test]
    fn content_is_told_from_framing() {
        let check = |text: &str, content: &str, trailers: &str| {
            for size in [text.len(), 1, 3] {
                let mut body = Body::Chunked(Chunks::default());
                let (mut got, mut behind) = (BytesMut::new(), Vec::new());
                for piece in text.as_bytes().chunks(size) {
                    assert_eq!(body.take_content(piece, &mut got, &mut behind), Ok(piece.len()));
                }
                assert_eq!((&got[..], &behind[..]), (content.as_bytes(), trailers.as_bytes()), "{text:?} by {size}");
            }
        };
        check("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!", "\r\n");
        check("1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", "x", "A: b\r\nC: d\r\n\r\n");
    }

    #[test]
    fn lengths_are_counted() {
        let mut body = Body::Length(5);
        assert_eq!(body.take(b"abc"), Ok(3));
        assert!(!body.is_done());
        assert_eq!(body.take(b"defg"), Ok(2));
        assert!(body.is_done());
        assert_eq!(Body::UntilClose.take(b"abc"), Ok(3));
        assert!(!Body::UntilClose.is_done());
    }
}
