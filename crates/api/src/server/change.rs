//! Calls that change something, and the plan that says what they would.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use basalt_model::Name;
use basalt_plan::{Desired, Plan};
use basalt_rollout::Command;

use super::app::App;
use super::extract::{Body, Service};
use super::refusal::Refusal;
use crate::{Apply, Failure, Rollback, Scale};

/// Says what an apply of this desired stack would do. Changes nothing.
#[utoipa::path(post, path = "/v1/plan", tag = "stack",
    request_body(content = Desired, description = "The desired stack, with image digests and secret versions pinned."),
    responses(
        (status = 200, description = "What an apply would do.", body = Plan),
        (status = 400, description = "The body can't be understood.", body = Failure),
        (status = 409, description = "The stack can't be compared with what is recorded.", body = Failure),
    ))]
pub(super) async fn plan(State(app): State<App>, Body(desired): Body<Desired>) -> Result<Json<Plan>, Refusal> {
    Ok(Json(app.controller.plan(desired).await?))
}

/// Makes this desired stack the recorded one. If nothing changes, nothing is written.
#[utoipa::path(post, path = "/v1/apply", tag = "stack", request_body = Apply,
    responses(
        (status = 200, description = "What it does. It is recorded; that it is done is seen in the status.", body = Plan),
        (status = 400, description = "The body can't be understood.", body = Failure),
        (status = 409, description = "The stack can't be compared with what is recorded, or that has changed since the plan was made.", body = Failure),
    ))]
pub(super) async fn apply(State(app): State<App>, Body(apply): Body<Apply>) -> Result<Json<Plan>, Refusal> {
    let plan = app.controller.apply(apply.desired, apply.base).await?;
    Ok(Json(plan))
}

/// Removes all services and jobs.
#[utoipa::path(post, path = "/v1/down", tag = "stack",
    responses(
        (status = 200, description = "What it removes.", body = Plan),
        (status = 409, description = "Nothing is applied.", body = Failure),
    ))]
pub(super) async fn down(State(app): State<App>) -> Result<Json<Plan>, Refusal> {
    let plan = app.controller.down().await?;
    Ok(Json(plan))
}

/// Stops a rollout where it stands. Failures still bring it back.
#[utoipa::path(post, path = "/v1/services/{name}/pause", tag = "services",
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "It does not fit where the service stands.", body = Failure),
    ))]
pub(super) async fn pause(State(app): State<App>, Service(name): Service) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Pause).await
}

/// Lets a paused rollout go on.
#[utoipa::path(post, path = "/v1/services/{name}/resume", tag = "services",
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "It does not fit where the service stands.", body = Failure),
    ))]
pub(super) async fn resume(State(app): State<App>, Service(name): Service) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Resume).await
}

/// Takes a rollout to its next step now.
#[utoipa::path(post, path = "/v1/services/{name}/promote", tag = "services",
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "It does not fit where the service stands.", body = Failure),
    ))]
pub(super) async fn promote(State(app): State<App>, Service(name): Service) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Promote).await
}

/// Gives a rollout up: the baseline serves as before.
#[utoipa::path(post, path = "/v1/services/{name}/abort", tag = "services",
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "It does not fit where the service stands.", body = Failure),
    ))]
pub(super) async fn abort(State(app): State<App>, Service(name): Service) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Abort).await
}

/// Goes back to an earlier release as a whole: image, configuration, secret versions and routes.
#[utoipa::path(post, path = "/v1/services/{name}/rollback", tag = "services", request_body = Rollback,
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 400, description = "The body can't be understood.", body = Failure),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "There is no such release, or it serves already.", body = Failure),
    ))]
pub(super) async fn rollback(
    State(app): State<App>,
    Service(name): Service,
    Body(body): Body<Rollback>,
) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Rollback { to: body.to }).await
}

/// Sets how many instances are wanted.
#[utoipa::path(post, path = "/v1/services/{name}/scale", tag = "services", request_body = Scale,
    params(("name" = String, Path, description = "The service.")),
    responses(
        (status = 204, description = "It is recorded."),
        (status = 400, description = "The body can't be understood.", body = Failure),
        (status = 404, description = "There is no such service.", body = Failure),
        (status = 409, description = "It does not fit where the service stands.", body = Failure),
    ))]
pub(super) async fn scale(
    State(app): State<App>,
    Service(name): Service,
    Body(body): Body<Scale>,
) -> Result<StatusCode, Refusal> {
    command(app, name, Command::Scale { instances: body.instances }).await
}

/// Ends the controller's process. Instances, gateway and keeper go on.
#[utoipa::path(post, path = "/v1/shutdown", tag = "server",
    responses((status = 202, description = "It ends once this answer is sent.")))]
pub(super) async fn shutdown(State(app): State<App>) -> StatusCode {
    (app.hooks.shutdown)();
    StatusCode::ACCEPTED
}

async fn command(app: App, name: Name, command: Command) -> Result<StatusCode, Refusal> {
    app.controller.command(name, command).await?;
    Ok(StatusCode::NO_CONTENT)
}
