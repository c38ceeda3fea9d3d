//! Who has asked: the client's end of one exchange, whichever version of HTTP it speaks.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::client::Client;
use super::exchange::Request;
use super::pool::Upstream;
use super::response::Response;
use crate::answer::Answer;
use crate::watched::Seen;

/// An instance's answer on its way to the client. Its head, and maybe more, is in the buffer of `upstream`.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) upstream: &'a mut Upstream,
    pub(crate) response: Response,
    pub(crate) request: &'a Request,
    /// The cookie that keeps the client at this instance, if it is to be told.
    pub(crate) cookie: Option<HeaderValue>,
    /// Whether the client's connection ends after it.
    pub(crate) close: bool,
    /// How long the client may take nothing of it.
    pub(crate) patience: Duration,
}

impl Answered<'_> {
    /// Returns the fields that the answer gets, with their values, or must not have.
    pub(crate) fn dress(&self) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> + Clone {
        let request = self.request;
        request.route.iter().flat_map(|route| route.dress(request.secure))
    }
}

/// Who has asked.
pub(crate) trait Asker: Send {
    /// Returns who that is.
    fn peer(&self) -> IpAddr;

    /// Returns what has become of its request so far.
    fn seen(&mut self) -> &mut Seen;

    /// Is ready once it has left.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()>;

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
