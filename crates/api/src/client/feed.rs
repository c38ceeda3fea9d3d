//! Server-sent events (HTML Living Standard §9.2), read as typed values.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;

use super::transport::{broken, unreadable};
use crate::{ClientError, Failure};

/// The longest message that is read; a status of 10,000 instances has about 4 MiB.
const LONGEST_MESSAGE: usize = 256 << 20;

/// Values as they come, until it is dropped or the controller ends.
#[derive(Debug)]
pub struct Feed<T> {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Message>,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Feed<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default(), ready: VecDeque::new(), ended: false, of: PhantomData }
    }

    /// Waits for the next value; `None` when the controller has ended the stream. Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        StreamExt::next(self).await
    }

    fn fail(&mut self, error: ClientError) -> Poll<Option<Result<T, ClientError>>> {
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl<T: DeserializeOwned> Stream for Feed<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let feed = self.get_mut();
        loop {
            if feed.ended {
                return Poll::Ready(None);
            }
            if let Some(message) = feed.ready.pop_front() {
                return match message.read() {
                    Ok(value) => Poll::Ready(Some(Ok(value))),
                    Err(error) => feed.fail(error),
                };
            }
            match ready!(Pin::new(&mut feed.body).poll_frame(context)) {
                None => feed.ended = true,
                Some(Err(error)) => return feed.fail(broken(error)),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if !feed.parser.push(&data, &mut feed.ready) {
                        return feed.fail(unreadable("a message without end"));
                    }
                }
            }
        }
    }
}

/// One message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    kind: String,
    data: String,
}

impl Message {
    fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        if self.kind == "error" {
            let Failure { error, help } = serde_json::from_str(&self.data).map_err(unreadable)?;
            return Err(ClientError::Refused { status: 500, error, help });
        }
        serde_json::from_str(&self.data).map_err(unreadable)
    }
}

/// Makes messages of bytes, wherever these are cut.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    /// Takes bytes and puts the messages that they complete behind `out`; false if a message is too long.
    fn push(&mut self, bytes: &[u8], out: &mut VecDeque<Message>) -> bool {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.end_line(out);
        }
        self.line.extend_from_slice(rest);
        self.line.len() + self.message.data.len() <= LONGEST_MESSAGE
    }

    fn end_line(&mut self, out: &mut VecDeque<Message>) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let message = std::mem::take(&mut self.message);
                if !message.data.is_empty() {
                    out.push_back(message);
                }
            }
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.message.kind),
            // Comments keep the connection alive; ids and retry times are of no use here.
            _ => {}
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        for chunk in chunks {
            assert!(parser.push(chunk, &mut out));
        }
        out.into_iter().map(|m| (m.kind, m.data)).collect()
    }

    #[test]
    fn messages() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let expected: Vec<_> = expected.iter().map(|(k, d)| ((*k).to_owned(), (*d).to_owned())).collect();
            assert_eq!(parse([text.as_bytes()]), expected, "{text:?}");
            let bytes = text.as_bytes().chunks(1);
            assert_eq!(parse(bytes), expected, "{text:?} byte by byte");
        };
        check("", &[]);
        check("data: 1\n\n", &[("", "1")]);
        check("data:1\r\n\r\ndata: 2\n\n", &[("", "1"), ("", "2")]);
        check(":\n\n: still here\n\nid: 7\ndata: 1\n\n", &[("", "1")]);
        check("event: error\ndata: {}\n\n", &[("error", "{}")]);
        check("data: a\ndata: b\n\n", &[("", "a\nb")]);
        check("data: \u{1f980}\n\n", &[("", "\u{1f980}")]);
        check("data: unfinished\n", &[]);
    }

    #[test]
    fn errors_end_a_feed_with_what_was_said() {
        let message = Message { kind: "error".into(), data: r#"{"error": "no", "help": "yes"}"#.into() };
        match message.read::<u32>() {
            Err(ClientError::Refused { error, help, .. }) => {
                assert_eq!((error.as_str(), help.as_deref()), ("no", Some("yes")));
            }
            other => panic!("{other:?}"),
        }
        let message = Message { kind: String::new(), data: "x".into() };
        assert!(matches!(message.read::<u32>(), Err(ClientError::Unreadable { .. })));
    }
}
