//! Running one program over a writable root, to bake what it changes into an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use basalt_model::{Exit, Millis, Tools};
use serde::{Deserialize, Serialize};

use crate::PinnedImage;

/// Runs programs shut in as instances are, but over a root that they may change.
pub trait Sandbox: Send + Sync {
    /// Runs a program to its end and tells each line that it writes. Ended, nothing of it runs or is mounted any more,
    /// also if this process is killed meanwhile.
    ///
    /// # Errors
    /// If it could not be started, or what it changed could not be taken. How the program itself ended is no error.
    fn run(&self, run: &SandboxRun, line: &mut dyn FnMut(&str)) -> Result<Sandboxed, SandboxError>;
}

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRun {
    /// The root that the program changes, as it is before.
    pub image: PinnedImage,
    /// An empty directory for what the program writes. Belongs to the caller, who removes it.
    pub work: PathBuf,
    /// Whose programs there are: the image's, or this machine's with the image's root at `/image`.
    pub tools: Tools,
    /// Files and directories of this machine, read-only at `/dev/basalt/NAME`.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The whole environment, but for `PATH` and `HOME`, which are added if they are missing.
    pub env: BTreeMap<String, String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, by the files of the program's root; empty is root.
    pub user: String,
    /// Working directory, made if it is missing; empty is `/`.
    pub workdir: String,
    /// Whether it sees the network as this machine does; otherwise it has none but its own loopback.
    pub network: bool,
    /// How long it may take; for ever if `None`.
    pub timeout: Option<Millis>,
}

/// How a program ended, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandboxed {
    /// How it ended.
    pub exit: Exit,
    /// What it changed, as a layer (OCI image spec, "Image Layer Filesystem Changeset"): sorted, times at the epoch,
    /// owners as the program saw them, nothing below `/dev`, `/proc` and `/sys`. `None` if it did not end well.
    pub layer: Option<PathBuf>,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SandboxError(pub String);
