//! A request that only reads goes to a second instance too while the first is silent: whichever answers first counts.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::replace;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;

use super::asker::Asker;
use super::attempt::{self, Failure, Try};
use super::client::Stall;
use super::exchange::{Progress, Request};
use super::response::Response;
use super::upload::BadBody;
use crate::connections::Shared;
use crate::plane::Begun;
use crate::routing::{Destination, Routing};

/// A second try that was sent; or why not: `None` if an idle connection was closed, which says nothing about its instance.
type Opened = Result<Try, Option<(Begun, io::Error)>>;

/// The second try.
enum Second<'r> {
    NotYet,
    Opening(Pin<Box<dyn Future<Output = Opened> + Send + 'r>>),
    Asked(Try),
    /// It has failed, there is nobody to try, or the budget is spent.
    Never,
}

/// What happens next.
enum Event {
    /// It is time for a second try.
    Due,
    Opened(Opened),
    First(Result<Response, Failure>),
    Second(Result<Response, Failure>),
    /// Nothing more is waited for.
    Over(Failure),
}

impl Second<'_> {
    fn poll(&mut self, request: &Request, cx: &mut Context<'_>, mut due: Pin<&mut impl Future>) -> Poll<Event> {
        match self {
            Self::NotYet => due.as_mut().poll(cx).map(|_| Event::Due),
            Self::Opening(opening) => opening.as_mut().poll(cx).map(Event::Opened),
            Self::Asked(other) => attempt::poll_head(&mut other.upstream, request, cx).map(Event::Second),
            Self::Never => Poll::Pending,
        }
    }
}

/// Sends a request and reads the head of its answer, as without a hedge. `one` is the try that has answered in the end: the
/// other is given up, and its instance not blamed.
pub(crate) async fn ask(
    shared: &Shared,
    client: &mut impl Asker,
    request: &Request,
    find: impl Fn(&Routing) -> Option<Destination>,
    progress: &mut Progress,
    one: &mut Try,
    after: Duration,
) -> Result<Response, Failure> {
    attempt::send(&mut one.upstream, request).await?;
    let mut due = pin!(sleep(after));
    let (mut silence, mut informed) = (Stall::default(), 0);
    let mut second = Second::NotYet;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(asked) = attempt::poll_head(&mut one.upstream, request, cx) {
                return Poll::Ready(Event::First(asked));
            }
            if let Poll::Ready(event) = second.poll(request, cx, due.as_mut()) {
                return Poll::Ready(event);
            }
            if request.timeout().is_some_and(|patience| silence.poll(cx, patience).is_ready()) {
                return Poll::Ready(Event::Over(Failure::Silent));
            }
            client.poll_left(cx).map(|()| Event::Over(Failure::Body(BadBody::Left)))
        });
        match event.await {
            Event::Over(failure) => {
                if let Second::Asked(other) = second {
                    give_up(other);
                }
                return Err(failure);
            }
            Event::Due => second = begin(shared, client, request, &find, progress, one),
            Event::Opened(Ok(other)) => second = Second::Asked(other),
            Event::Opened(Err(refused)) => {
                if let Some((begun, error)) = refused {
                    attempt::note_refused(&begun, &mut progress.attempts, &error, true);
                }
                second = Second::Never;
            }
            Event::First(Ok(response)) if !attempt::is_final(&response) => {
                attempt::inform(client, &mut one.upstream, request, &response, &mut informed).await?;
            }
            Event::First(asked) => match replace(&mut second, Second::Never) {
                // The second may still do better.
                Second::Asked(other) if is_bad(&asked) => {
                    fail(shared, progress, &replace(one, other), &asked);
                    client.seen().instance = Some(one.instance().clone());
                }
                Second::Asked(other) => {
                    give_up(other);
                    return asked;
                }
                _ => return asked,
            },
            Event::Second(asked) => {
                let Second::Asked(mut other) = replace(&mut second, Second::Never) else { continue };
                match asked {
                    Ok(response) if !attempt::is_final(&response) => {
                        match attempt::inform(client, &mut other.upstream, request, &response, &mut informed).await {
                            Ok(()) => second = Second::Asked(other),
                            Err(Failure::Bad) => fail(shared, progress, &other, &Err(Failure::Bad)),
                            Err(failure) => return Err(failure),
                        }
                    }
                    Ok(response) if response.status < 500 => {
                        give_up(replace(one, other));
                        client.seen().instance = Some(one.instance().clone());
                        return Ok(response);
                    }
                    asked => fail(shared, progress, &other, &asked),
                }
            }
        }
    }
}

/// Begins the second try at another instance of the same release, if there is one and the budget allows it. Another release
/// may have no traffic yet, and the shares of releases are exact.
fn begin<'r>(
    shared: &Shared,
    client: &mut impl Asker,
    request: &'r Request,
    find: &impl Fn(&Routing) -> Option<Destination>,
    progress: &Progress,
    one: &Try,
) -> Second<'r> {
    let routing = shared.plane.routing();
    let sibling = find(&routing).is_some_and(|to| routing.has_sibling(to, &progress.attempts, one.instance()));
    if !sibling {
        return Second::Never;
    }
    let release = one.instance().id.release();
    let mut attempts = progress.attempts.clone();
    attempts.release = Some(release);
    attempts.failed.push(one.instance().clone());
    let Ok(begun) = shared.plane.begin(find, &mut attempts) else { return Second::Never };
    let same = begun.in_flight.instance().id.release() == release;
    if !same || !one.instance().service.budget.withdraw() {
        begun.in_flight.give_back();
        return Second::Never;
    }
    client.seen().hedges += 1;
    Second::Opening(Box::pin(async move {
        let mut other = attempt::open(begun, request.is_idempotent(), false).await.map_err(Some)?;
        attempt::send(&mut other.upstream, request).await.map_err(|_| None)?;
        Ok(other)
    }))
}

fn is_bad(asked: &Result<Response, Failure>) -> bool {
    asked.as_ref().is_ok_and(|response| response.status >= 500) || asked.is_err()
}

/// Notes that one of two has failed.
fn fail(shared: &Shared, progress: &mut Progress, failed: &Try, asked: &Result<Response, Failure>) {
    attempt::judge(shared, failed, asked, false);
    if !asked.as_ref().is_err_and(|failure| failed.was_idle(*failure)) {
        progress.attempts.failed.push(failed.instance().clone());
    }
}

/// Gives up the slower of two. Its connection is closed, which is how an instance is told so.
fn give_up(slower: Try) {
    let mut in_flight = slower.begun.in_flight;
    in_flight.count_given_up(slower.asked.elapsed());
}
