//! Who has asked: the client's end of one exchange, whichever version of HTTP it speaks.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::client::Client;
use super::exchange::Request;
use super::pool::Upstream;
use super::response::Response;
use super::upload::{BadBody, Upload};
use crate::answer::Answer;
use crate::watched::Seen;

/// An instance's answer on its way to the client. Its head, and maybe more, is in the buffer of `upstream`.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) upstream: &'a mut Upstream,
    pub(crate) response: Response,
    pub(crate) request: &'a Request,
    /// What is left of the request's body.
    pub(crate) upload: &'a mut Upload,
    /// The cookie that keeps the client at this instance, if it is to be told.
    pub(crate) cookie: Option<HeaderValue>,
    /// Whether the client's connection ends after it.
    pub(crate) close: bool,
    /// How long the client may take nothing of it, and pause within the request's body.
    pub(crate) patience: (Duration, Duration),
    /// Room for answers that are compressed.
    pub(crate) encoders: &'a Semaphore,
}

impl Answered<'_> {
    /// Returns the fields that the answer gets, with their values, or must not have.
    pub(crate) fn dress(&self) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> + Clone {
        let request = self.request;
        request.route.iter().flat_map(|route| route.dress(request.secure))
    }
}

/// Who sends the body of a request.
pub(crate) trait Source: Send {
    /// Returns what has become of the request so far.
    fn seen(&mut self) -> &mut Seen;

    /// Is ready once the client has left.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Adds what comes of the body, without framing. Returns the fields behind the body at its end.
    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<Result<Option<HeaderMap>, BadBody>>;
}

/// Who has asked.
pub(crate) trait Asker: Source {
    /// Returns who that is.
    fn peer(&self) -> IpAddr;

    /// Says that it may send its body (RFC 9110 §15.2.1).
    ///
    /// # Errors
    /// If it has left.
    fn go_on(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Passes on an informational answer, whose head is in a buffer.
    ///
    /// # Errors
    /// If it has left.
    fn inform(&mut self, buffer: &[u8], response: &Response) -> impl Future<Output = io::Result<()>> + Send;

    /// Gives an answer of the gateway itself.
    ///
    /// # Errors
    /// If it has left; `TimedOut` if it takes nothing.
    fn answer(
        &mut self,
        answer: &Answer,
        request: &Request,
        close: bool,
        patience: Duration,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Passes on an answer as it comes. Returns whether the instance has sent that and no more.
    ///
    /// # Errors
    /// If either side breaks off; `TimedOut` if it takes nothing.
    fn pass_on(&mut self, answered: Answered<'_>) -> impl Future<Output = io::Result<bool>> + Send;

    /// Returns its connection, if that can become something else than HTTP.
    fn connection(&mut self) -> Option<&mut Client>;
}
