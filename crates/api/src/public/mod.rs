//! The public JSON, as types. Keys are added and never renamed; ids and names are plain text, so that a reader of an
//! older version is not stopped by a rule that has changed.

mod record;
mod request;
mod status;
mod time;

pub use record::{Event, LogFilter, LogLine, LogStream, ReleaseView};
pub use request::{Apply, Failure, Health, Rollback, Scale, ServerInfo};
pub use status::{
    ExitStatus, GatewayStatus, InstanceState, InstanceStatus, JobState, JobStatus, KeeperStatus, LastRollout, Progress,
    ReleaseRef, RolloutStatus, RouteStatus, ServiceStatus, Status, Step, Traffic, WarmStatus,
};
pub use time::Timestamp;
