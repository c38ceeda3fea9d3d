//! Server-sent events: calls that go on until the caller or the server ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::IntoParams;

use super::app::App;
use super::extract::Params;
use super::refusal::Refusal;
use crate::{Event, Failure, LogFilter, Status, show};

/// The shortest time between two statuses: ten a second is more than eyes can follow.
const STATUS_PAUSE: Duration = Duration::from_millis(100);

/// Rows of the journal read at once.
const PAGE: usize = 500;

/// What a stream of events may be told.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowParams {
    /// Begins behind the event with this number. 0 unless given; the header `Last-Event-ID` wins.
    after: Option<u64>,
}

/// Returns the status now and at every change, at most ten times a second.
#[utoipa::path(get, path = "/v1/status/stream", tag = "stack",
    responses((status = 200, description = "A status at every change, one message each.",
        body = Status, content_type = "text/event-stream")))]
pub(super) async fn status_stream(State(app): State<App>) -> Sse<impl Stream<Item = Result<Message, Infallible>>> {
    let seen = app.controller.watch();
    let last: Option<Status> = None;
    sse(
        app.stopping.clone(),
        stream::unfold((app, seen, last), async |(app, mut seen, mut last)| {
            loop {
                if last.is_some() {
                    tokio::time::sleep(STATUS_PAUSE).await;
                    seen.changed().await.ok()?;
                }
                let view = seen.borrow_and_update().clone();
                let status = show::status(&view, &app.hooks.info);
                // That time has passed is no change.
                let same = last.as_mut().is_some_and(|last| {
                    last.at = status.at;
                    *last == status
                });
                if !same {
                    let message = message(&status);
                    return Some((message, (app, seen, Some(status))));
                }
            }
        }),
    )
}

/// Returns events from a number on, and then those that come.
#[utoipa::path(get, path = "/v1/events/stream", tag = "stack",
    params(FollowParams, ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that was received.")),
    responses((status = 200, description = "The events, one message each, whose id is the event's number.",
        body = Event, content_type = "text/event-stream")))]
pub(super) async fn event_stream(
    State(app): State<App>,
    Params(params): Params<FollowParams>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Message, Infallible>>> {
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let after: u64 = last_id.or(params.after).unwrap_or(0);
    let (seen, page, stopping) = (app.controller.watch(), VecDeque::new(), app.stopping.clone());
    sse(
        stopping,
        stream::unfold(Some((app, seen, page, after)), async |following| {
            let (app, mut seen, mut page, mut after) = following?;
            loop {
                if let Some(row) = page.pop_front() {
                    let event: Event = show::event(&row);
                    after = event.seq;
                    let message = message(&event).id(after.to_string());
                    return Some((message, Some((app, seen, page, after))));
                }
                match app.rows(after, PAGE).await {
                    Ok(rows) if rows.is_empty() => {
                        seen.wait_for(|view| view.seq > after).await.ok()?;
                    }
                    Ok(rows) => page = rows.into(),
                    Err(refusal) => return Some((failed(&refusal.failure), None)),
                }
            }
        }),
    )
}

/// Returns lines of output and then those that come.
pub(super) fn logs(
    app: App,
    filter: LogFilter,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Refusal> {
    let lines = app.hooks.logs.follow(filter).map_err(|error| Refusal::internal(&error))?;
    let messages = lines.map(|line| match line {
        Ok(line) => message(&line),
        Err(error) => failed(&Refusal::internal(&error).failure),
    });
    Ok(sse(app.stopping, messages))
}

/// Sends messages until the server ends; a comment every 15 seconds (axum's default) shows that the line is alive.
fn sse<M>(mut stopping: watch::Receiver<bool>, messages: M) -> Sse<impl Stream<Item = Result<Message, Infallible>>>
where
    M: Stream<Item = Message> + Send + 'static,
{
    let stopped = async move {
        if stopping.wait_for(|stopping| *stopping).await.is_err() {
            // Nobody is left who could end the server: the connection alone does.
            std::future::pending::<()>().await;
        }
    };
    Sse::new(messages.take_until(Box::pin(stopped)).map(Ok)).keep_alive(KeepAlive::default())
}

fn message(value: &impl Serialize) -> Message {
    Message::default().json_data(value).expect("the public types always have a JSON form")
}

fn failed(failure: &Failure) -> Message {
    message(failure).event("error")
}
