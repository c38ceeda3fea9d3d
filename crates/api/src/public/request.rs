//! What is asked, and how it is refused.

use basalt_model::Digest;
use basalt_plan::Desired;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `POST /v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Apply {
    /// The desired stack, with image digests and secret versions pinned.
    pub desired: Desired,
    /// The `base` of the plan that was looked at: the apply is refused if what is recorded has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
}

/// The body of `POST /v1/services/{name}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// The number of the release to go back to; without it, the warm one or the one that served before.
    pub to: Option<u32>,
}

/// The body of `POST /v1/services/{name}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many instances are wanted.
    pub instances: u32,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What happened.
    pub error: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The answer of `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Whether keeper and gateway are reached and the journal can be written.
    pub healthy: bool,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// Who answers.
    pub server: ServerInfo,
}

/// What a controller says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// Its version.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// Its data directory.
    #[schema(example = "/var/lib/basalt")]
    pub data: String,
    /// Where the gateway is to take HTTP requests from outside.
    pub http: Option<String>,
    /// What is so on this machine and worth knowing, in sentences: for example what its kernel can't do.
    pub notes: Vec<String>,
}
