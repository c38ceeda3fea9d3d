//! The store of images.

use std::path::PathBuf;

use basalt_model::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};

/// Finds images by digest.
pub trait Depot: Send + Sync {
    /// Returns the image with this manifest digest, ready to be mounted, with these mount points in its tree.
    ///
    /// # Errors
    /// If it is not there or can't be read, or if a mount point does not fit what the image has at that path.
    fn image(&self, digest: &Digest, mounts: &MountPoints) -> Result<PinnedImage, DepotError>;
}

/// What a release mounts over: a root is read-only, so the places must be there before it is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoints {
    /// Absolute paths of directories (scratch, volumes).
    pub dirs: Vec<String>,
    /// Absolute paths of files (configs, secrets).
    pub files: Vec<String>,
}

/// An image, pinned by digest and ready to be mounted read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The EROFS file that holds its tree (composefs).
    pub erofs: PathBuf,
    /// The directory of objects that the tree points into.
    pub objects: PathBuf,
    /// What it says about running it.
    pub config: ImageConfig,
}

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
#[error("image {digest}: {what}")]
pub struct DepotError {
    /// The image.
    pub digest: Digest,
    /// What happened.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
