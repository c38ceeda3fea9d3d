//! What was: events, releases, lines of output.

use basalt_model::{Millis, Release};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Timestamp;

/// One row of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number, counted from 1 without gaps.
    pub seq: u64,
    /// When it was decided or seen.
    pub at: Timestamp,
    /// What kind of event.
    #[schema(example = "rollout_started")]
    pub kind: String,
    /// What it is about: a stack, service, job or instance.
    #[schema(example = "web")]
    pub subject: String,
    /// The rest; its keys depend on the kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    /// The SHA-256 over the hash of the row before it and this row's own content.
    pub hash: String,
}

/// A kept release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// The service.
    pub service: String,
    /// Its number within the service.
    pub number: u32,
    /// The SHA-256 of its canonical bytes.
    pub id: String,
    /// When it was recorded; null if the journal no longer says.
    pub created_at: Option<Timestamp>,
    /// Whether it serves outside rollouts.
    pub stable: bool,
    /// Whether it is kept warm for a rollback.
    pub warm: bool,
    /// Whether a rollout passes to it now.
    pub target: bool,
    /// How many instances of it there are.
    pub instances: u32,
    /// All of it. Secrets are in it by name and version only.
    pub release: Release,
}

/// A line that an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// The instance.
    #[schema(example = "web-7-2")]
    pub instance: String,
    /// Where it wrote it.
    pub stream: LogStream,
    /// What, without the line feed. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub line: String,
}

impl LogLine {
    /// Returns a line.
    pub fn new(at: Millis, instance: impl Into<String>, stream: LogStream, line: impl Into<String>) -> Self {
        Self { at: Timestamp(at), instance: instance.into(), stream, line: line.into() }
    }
}

/// Where an instance wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct LogFilter {
    /// Of this service or job alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of this instance alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Only so many of the last lines, all instances together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}
