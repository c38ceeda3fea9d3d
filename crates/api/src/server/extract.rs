//! What comes with a request, with refusals in JSON.

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use basalt_model::Name;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// The body, as JSON. No body is the same as an empty object.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let rejected = |rejection: axum::extract::rejection::BytesRejection| {
            Refusal::new(rejection.status(), format!("the body can't be read: {}", rejection.body_text()))
        };
        let bytes = Bytes::from_request(request, state).await.map_err(rejected)?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let malformed = |error| Refusal::malformed(format_args!("the body can't be understood: {error}"));
        serde_json::from_slice(text).map(Self).map_err(malformed)
    }
}

/// The query.
pub(super) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let malformed = |rejection: QueryRejection| Refusal::malformed(rejection.body_text());
        let Query(params) = Query::from_request_parts(parts, state).await.map_err(malformed)?;
        Ok(Self(params))
    }
}

/// The service that the path names.
pub(super) struct Service(pub Name);

impl<S: Send + Sync> FromRequestParts<S> for Service {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(text): Path<String> =
            Path::from_request_parts(parts, state).await.map_err(|error| Refusal::malformed(error.body_text()))?;
        // What is not a name is surely not the name of a service.
        text.parse().map(Self).map_err(|_| Refusal::unknown(format!("there is no service `{text}`")))
    }
}
