//! Where images come from, and what an image says about running it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Name;

/// Where the image of a service or job comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An `image` block of the same stack.
    Block(Name),
    /// `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:DIR`, `tar:FILE`, or a registry reference. Paths are
    /// absolute.
    Reference(String),
}

/// An `image` block: how an image is baked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bake {
    /// What it starts from.
    pub from: BakeFrom,
    /// What is put in, in order; a later step may replace what an earlier one put.
    pub steps: Vec<BakeStep>,
    /// What the image says about running it; replaces what `from` says where set.
    pub config: ImageConfig,
}

/// What a baked image starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BakeFrom {
    /// An empty root.
    Scratch,
    /// Another image.
    Image(ImageSource),
}

/// One step of a bake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BakeStep {
    /// Copies a file or directory of this machine, with everything below it; symbolic links stay links.
    Copy {
        /// Absolute path on this machine.
        from: PathBuf,
        /// Absolute path in the image.
        to: String,
        /// Permission bits of files; `None` is 0755 for what its owner may execute and 0644 for all else, so that the
        /// umask of whoever checked the source out decides nothing.
        mode: Option<u32>,
    },
    /// Writes a file.
    File {
        /// Absolute path in the image.
        path: String,
        /// What it holds.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a symbolic link.
    Link {
        /// Absolute path in the image.
        path: String,
        /// What it points to.
        to: String,
    },
}

/// What an image says about running it (OCI image spec, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Entrypoint and arguments in one; empty if the image does not say.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub workdir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
