//! How a call is refused: a status, what happened, and how to mend it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use basalt_controller::ControllerError;

use crate::Failure;

/// Why a call was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    pub failure: Failure,
}

impl Refusal {
    /// Takes apart a sentence that says what happened, and behind its first semicolon how to mend it.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        let (error, help) = match sentence.split_once("; ") {
            Some((error, help)) => (error.to_owned(), Some(help.to_owned())),
            None => (sentence, None),
        };
        Self { status, failure: Failure { error, help } }
    }

    /// Something that was sent can't be understood.
    pub fn malformed(what: impl std::fmt::Display) -> Self {
        // What a parser says may have semicolons of its own.
        Self { status: StatusCode::BAD_REQUEST, failure: Failure { error: what.to_string(), help: None } }
    }

    /// There is no such thing.
    pub fn unknown(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    /// The machine does not do its part.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let failure = Failure { error: chain(error), help: None };
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, failure }
    }

    /// The controller is ending.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ControllerError::Stopping.to_string())
    }
}

impl From<ControllerError> for Refusal {
    fn from(error: ControllerError) -> Self {
        match &error {
            ControllerError::UnknownService { .. } => Self::unknown(error.to_string()),
            ControllerError::Refused(refused) => {
                let failure = Failure { error: refused.what.clone(), help: Some(refused.help.clone()) };
                Self { status: StatusCode::CONFLICT, failure }
            }
            ControllerError::Plan(_)
            | ControllerError::Moved
            | ControllerError::NoSlot
            | ControllerError::NothingApplied => Self::new(StatusCode::CONFLICT, error.to_string()),
            ControllerError::Stopping => Self::stopping(),
            ControllerError::Journal(_) | ControllerError::Illegal(_) => Self::internal(&error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), error = self.failure.error, "a call failed");
        }
        (self.status, Json(self.failure)).into_response()
    }
}

/// Returns an error with all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::Name;
    use basalt_plan::PlanError;
    use basalt_rollout::Refused;
    use basalt_seam::JournalError;

    #[test]
    fn refusals() {
        let check = |error: ControllerError, status: u16, text: &str, help: Option<&str>| {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.status.as_u16(), status);
            assert_eq!((refusal.failure.error.as_str(), refusal.failure.help.as_deref()), (text, help));
        };
        let name = |text: &str| text.parse::<Name>().unwrap();
        check(
            ControllerError::UnknownService { name: name("wep"), known: vec![name("api"), name("web")] },
            404,
            "there is no service `wep`",
            Some("there are: api, web"),
        );
        check(ControllerError::NothingApplied, 409, "nothing is applied", Some("run `basalt up STACK` first"));
        check(
            ControllerError::Plan(PlanError::OtherStack { running: name("shop"), wanted: name("blog") }),
            409,
            "this data directory runs the stack `shop`, not `blog`",
            Some("take another with --data, or end that one with `basalt down`"),
        );
        let refused = Refused { what: "no rollout; none at all".into(), help: "begin one".into() };
        check(ControllerError::Refused(refused), 409, "no rollout; none at all", Some("begin one"));
        check(ControllerError::Stopping, 503, "the controller is stopping", None);
        let source = Some(std::io::Error::other("no space left; really").into());
        let journal = JournalError { what: "a row can't be written".into(), path: "/j.db".into(), source };
        check(
            ControllerError::Journal(journal),
            500,
            "the journal can't be used: a row can't be written (/j.db): no space left; really",
            None,
        );
    }
}
