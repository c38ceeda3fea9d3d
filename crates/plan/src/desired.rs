//! The desired stack with everything pinned: image digests and secret versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{Digest, ImageSource, Millis, Name, Release, Settings, Stack};
use serde::{Deserialize, Serialize};

/// A stack with everything pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Desired {
    /// The stack's name.
    pub stack: Name,
    /// Services by name.
    pub services: BTreeMap<Name, DesiredService>,
    /// Jobs by name.
    pub jobs: BTreeMap<Name, DesiredJob>,
}

/// A service with everything pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DesiredService {
    /// Its release.
    #[cfg_attr(feature = "openapi", schema(value_type = Release))]
    pub release: Arc<Release>,
    /// What is not in the release.
    pub settings: Settings,
}

/// A job with everything pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DesiredJob {
    /// Its release.
    #[cfg_attr(feature = "openapi", schema(value_type = Release))]
    pub release: Arc<Release>,
    /// How often it is tried again.
    pub retries: u32,
    /// How long one try may take.
    pub timeout: Millis,
    /// Jobs before it.
    pub depends_on: Vec<Name>,
}

/// Why a stack could not be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// An image has no digest.
    #[error("the image of `{user}` has not been baked or read")]
    Image {
        /// The service or job.
        user: Name,
    },
    /// A secret does not exist.
    #[error("`{user}` needs the secret `{secret}`, which does not exist; set it with `basalt secret set {secret}`")]
    Secret {
        /// The service or job.
        user: Name,
        /// The secret.
        secret: Name,
    },
}

/// Pins a stack: `image` gives the manifest digest of an image, `secret` the newest version of a secret.
///
/// # Errors
/// All images and secrets that are missing.
pub fn pin(
    stack: &Stack,
    image: &dyn Fn(&ImageSource) -> Option<Digest>,
    secret: &dyn Fn(&Name) -> Option<u64>,
) -> Result<Desired, Vec<PinError>> {
    let mut errors = Vec::new();
    let mut pinned = |user: &Name, source: &ImageSource, release: &Release| {
        let mut release = release.clone();
        match image(source) {
            Some(digest) => release.image = digest,
            None => errors.push(PinError::Image { user: user.clone() }),
        }
        for file in release.secrets.values_mut() {
            match secret(&file.name) {
                Some(version) => file.version = version,
                None => errors.push(PinError::Secret { user: user.clone(), secret: file.name.clone() }),
            }
        }
        for reference in release.env_secrets.values_mut() {
            match secret(&reference.name) {
                Some(version) => reference.version = version,
                None => errors.push(PinError::Secret { user: user.clone(), secret: reference.name.clone() }),
            }
        }
        Arc::new(release)
    };
    let services = stack
        .services
        .iter()
        .map(|(name, spec)| {
            let release = pinned(name, &spec.image, &spec.release);
            (name.clone(), DesiredService { release, settings: spec.settings.clone() })
        })
        .collect();
    let jobs = stack
        .jobs
        .iter()
        .map(|(name, spec)| {
            let release = pinned(name, &spec.image, &spec.release);
            let (retries, timeout, depends_on) = (spec.retries, spec.timeout, spec.depends_on.clone());
            (name.clone(), DesiredJob { release, retries, timeout, depends_on })
        })
        .collect();
    if errors.is_empty() { Ok(Desired { stack: stack.name.clone(), services, jobs }) } else { Err(errors) }
}
