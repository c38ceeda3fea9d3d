//! Why the controller refused.

use basalt_model::Name;
use basalt_plan::PlanError;
use basalt_rollout::{IllegalEvent, Refused};
use basalt_seam::JournalError;

/// Why the controller refused. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The stack can't be compared with what is recorded.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan was made against another state.
    #[error("the plan is out of date: what is recorded has changed since it was made; run `basalt plan` again")]
    Moved,
    /// No stack is applied.
    #[error("nothing is applied; run `basalt up STACK` first")]
    NothingApplied,
    /// There is no such service.
    #[error("there is no service `{name}`; there are: {}", list(.known))]
    UnknownService {
        /// What was asked for.
        name: Name,
        /// What there is.
        known: Vec<Name>,
    },
    /// The command does not fit where the service stands.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There are as many services as there are virtual addresses.
    #[error("there are no more than {most} services in one data directory; give the others one of their own with --data", most = basalt_model::State::SLOTS)]
    NoSlot,
    /// The journal can't be used.
    #[error("the journal can't be used")]
    Journal(#[from] JournalError),
    /// An event does not fit what is recorded.
    #[error(transparent)]
    Illegal(#[from] IllegalEvent),
    /// The control loop has ended.
    #[error("the controller is stopping")]
    Stopping,
}

fn list(names: &[Name]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
    }
}
