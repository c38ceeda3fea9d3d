//! The stack: what is wanted, as declared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bake, ImageSource, Millis, Name, Release, RolloutSpec, Traffic};

/// A set of declarations, evaluated: no variables, references between blocks kept by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Its name.
    pub name: Name,
    /// Images to bake.
    pub images: BTreeMap<Name, Bake>,
    /// Services.
    pub services: BTreeMap<Name, ServiceSpec>,
    /// Jobs. Services and jobs share one space of names.
    pub jobs: BTreeMap<Name, JobSpec>,
}

/// A service as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Where its image comes from.
    pub image: ImageSource,
    /// The release to be, with image and secret versions not yet pinned.
    pub release: Release,
    /// What is not in the release.
    pub settings: Settings,
}

/// What a service has beside its release: changing it makes no new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settings {
    /// How many instances should run.
    pub instances: u32,
    /// How long an instance that gets no new requests may finish those it has.
    pub drain: Millis,
    /// How long an instance may take from SIGTERM to its end before it is killed.
    pub stop_within: Millis,
    /// Jobs that must have ended well before a rollout starts instances.
    pub depends_on: Vec<Name>,
    /// How it passes to a new release.
    pub rollout: RolloutSpec,
    /// How its instances share requests.
    #[serde(default, skip_serializing_if = "Traffic::is_plain")]
    pub traffic: Traffic,
}

impl Settings {
    /// The most instances of one service: a mistyped number should not fill a machine.
    pub const MOST_INSTANCES: u32 = 10_000;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instances: 1,
            drain: Millis::seconds(30),
            stop_within: Millis::seconds(10),
            depends_on: Vec::new(),
            rollout: RolloutSpec::default(),
            traffic: Traffic::default(),
        }
    }
}

/// A job as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Where its image comes from.
    pub image: ImageSource,
    /// The release to be, with image and secret versions not yet pinned.
    pub release: Release,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// How long one try may take.
    pub timeout: Millis,
    /// Jobs that must have ended well before.
    pub depends_on: Vec<Name>,
}
