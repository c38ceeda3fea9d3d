//! Calls that read once.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use basalt_model::{InstanceId, Name};
use serde::Deserialize;
use utoipa::IntoParams;

use super::app::{App, blocking};
use super::extract::Params;
use super::refusal::Refusal;
use super::{docs, live};
use crate::{Event, Failure, Health, LogFilter, LogLine, ReleaseView, Status, show};

/// Events given when the caller does not say how many, and the most that are given at once: a bound on memory.
const EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// Returns what is recorded and seen now.
#[utoipa::path(get, path = "/v1/status", tag = "stack",
    responses((status = 200, description = "What is recorded and seen now.", body = Status)))]
pub(super) async fn status(State(app): State<App>) -> Json<Status> {
    Json(show::status(&app.controller.view(), &app.hooks.info))
}

/// Returns who answers, and whether it can work.
#[utoipa::path(get, path = "/v1/health", tag = "server",
    responses((status = 200, description = "Who answers, and whether it can work.", body = Health)))]
pub(super) async fn health(State(app): State<App>) -> Json<Health> {
    let view = app.controller.view();
    let mut problems = view.problems.clone();
    if !view.backend_connected {
        problems.push("the keeper can't be reached".to_owned());
    }
    if !view.router.connected {
        problems.push("the gateway can't be reached".to_owned());
    }
    Json(Health { healthy: problems.is_empty(), problems, server: show::server(&view, &app.hooks.info) })
}

/// Returns the description of this API.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "server",
    responses((status = 200, description = "The description of this API (OpenAPI 3.1).", body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(docs::openapi())
}

/// Which releases are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReleaseParams {
    /// Of this service alone.
    service: Option<String>,
}

/// Returns the kept releases, by service and number.
#[utoipa::path(get, path = "/v1/releases", tag = "services", params(ReleaseParams),
    responses(
        (status = 200, description = "The kept releases.", body = [ReleaseView]),
        (status = 404, description = "There is no such service.", body = Failure),
    ))]
pub(super) async fn releases(
    State(app): State<App>,
    Params(params): Params<ReleaseParams>,
) -> Result<Json<Vec<ReleaseView>>, Refusal> {
    let view = app.controller.view();
    let service = match params.service {
        Some(text) => {
            let name = text.parse::<Name>().ok().filter(|name| view.state.services.contains_key(name));
            Some(name.ok_or_else(|| Refusal::unknown(format!("there is no service `{text}`")))?)
        }
        None => None,
    };
    let created = app.created().await?;
    Ok(Json(show::releases(&view, service.as_ref(), &created.times)))
}

/// Which events are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Those with a number above this one. 0 unless given.
    after: Option<u64>,
    /// At most so many: 1,000 unless given, and never more than 10,000.
    limit: Option<usize>,
}

/// Returns events, in order.
#[utoipa::path(get, path = "/v1/events", tag = "stack", params(EventParams),
    responses((status = 200, description = "The events, in order.", body = [Event])))]
pub(super) async fn events(
    State(app): State<App>,
    Params(params): Params<EventParams>,
) -> Result<Json<Vec<Event>>, Refusal> {
    let limit = params.limit.unwrap_or(EVENTS).min(MOST_EVENTS);
    let rows = app.rows(params.after.unwrap_or(0), limit).await?;
    Ok(Json(rows.iter().map(show::event).collect()))
}

/// Which lines are asked for, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Of this service or job alone.
    service: Option<String>,
    /// Of this instance alone.
    instance: Option<String>,
    /// Only so many of the last lines, all instances together.
    tail: Option<usize>,
    /// Whether the lines that come are to follow, as server-sent events.
    follow: Option<bool>,
}

/// Returns the lines that instances have written, by time; when following, as server-sent events.
#[utoipa::path(get, path = "/v1/logs", tag = "services", params(LogParams),
    responses(
        (status = 200, description = "The lines, by time; when following, one message each.",
            content(([LogLine] = "application/json"), (LogLine = "text/event-stream"))),
        (status = 400, description = "That is not the name of a service or instance.", body = Failure),
    ))]
pub(super) async fn logs(State(app): State<App>, Params(params): Params<LogParams>) -> Result<Response, Refusal> {
    let follow = params.follow.unwrap_or(false);
    let filter = filter(params)?;
    if follow {
        return Ok(live::logs(app, filter)?.into_response());
    }
    let logs = app.hooks.logs.clone();
    let lines = blocking(move || logs.lines(&filter).map_err(|error| Refusal::internal(&error))).await?;
    Ok(Json(lines).into_response())
}

/// Checks that names are names: they become parts of paths.
fn filter(params: LogParams) -> Result<LogFilter, Refusal> {
    if let Some(service) = &params.service {
        service.parse::<Name>().map_err(Refusal::malformed)?;
    }
    if let Some(instance) = &params.instance {
        instance.parse::<InstanceId>().map_err(Refusal::malformed)?;
    }
    Ok(LogFilter { service: params.service, instance: params.instance, tail: params.tail })
}
