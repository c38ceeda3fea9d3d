//! Every call, in one table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodRouter, get, post};
use basalt_controller::Controller;
use tokio::sync::watch;

use super::app::App;
use super::refusal::Refusal;
use super::{change, live, read};
use crate::Hooks;

/// The largest body: a desired stack of 10,000 services has about 20 MB.
const LARGEST_BODY: usize = 64 << 20;

/// Returns the API of a controller. Its streams go on until the caller ends them.
pub fn router(controller: Controller, hooks: Hooks) -> Router {
    let (_, stopping) = watch::channel(false);
    routes(App::new(controller, hooks, stopping))
}

pub(super) fn routes(app: App) -> Router {
    endpoints()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .fallback(async || Refusal::unknown("there is no such call; see /v1/openapi.json"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this call has another method; see /v1/openapi.json")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(app)
}

pub(super) fn endpoints() -> Vec<(Method, &'static str, MethodRouter<App>)> {
    vec![
        (Method::GET, "/v1/health", get(read::health)),
        (Method::GET, "/v1/openapi.json", get(read::openapi)),
        (Method::POST, "/v1/shutdown", post(change::shutdown)),
        (Method::GET, "/v1/status", get(read::status)),
        (Method::GET, "/v1/status/stream", get(live::status_stream)),
        (Method::GET, "/v1/events", get(read::events)),
        (Method::GET, "/v1/events/stream", get(live::event_stream)),
        (Method::POST, "/v1/plan", post(change::plan)),
        (Method::POST, "/v1/apply", post(change::apply)),
        (Method::POST, "/v1/down", post(change::down)),
        (Method::GET, "/v1/releases", get(read::releases)),
        (Method::GET, "/v1/logs", get(read::logs)),
        (Method::POST, "/v1/services/{name}/pause", post(change::pause)),
        (Method::POST, "/v1/services/{name}/resume", post(change::resume)),
        (Method::POST, "/v1/services/{name}/promote", post(change::promote)),
        (Method::POST, "/v1/services/{name}/abort", post(change::abort)),
        (Method::POST, "/v1/services/{name}/rollback", post(change::rollback)),
        (Method::POST, "/v1/services/{name}/scale", post(change::scale)),
    ]
}
