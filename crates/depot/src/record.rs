//! What the depot remembers of an image.

use basalt_model::Digest;
use serde::{Deserialize, Serialize};

/// The record of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The fs-verity digest of its EROFS file.
    pub(crate) erofs: String,
    /// The digest of its configuration.
    pub(crate) config: Digest,
    /// The digests of its layers, lowest first.
    pub(crate) layers: Vec<Digest>,
    /// Where it came from, for people.
    pub(crate) origin: String,
}

/// The record of an image with mount points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DerivedRecord {
    /// The image.
    pub(crate) image: Digest,
    /// The fs-verity digest of the EROFS file.
    pub(crate) erofs: String,
}
