//! Where images come from, and what an image says about running it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Debian, Millis, Name};

/// Where the image of a service or job comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An `image` block of the same stack.
    Block(Name),
    /// `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:DIR`, `tar:FILE`, a registry reference, or `sha256:…`,
    /// an image that the depot has. Paths are absolute.
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
    /// A root made of Debian packages.
    Debian(Debian),
    /// The last stage of a Dockerfile, or the one that is named.
    Dockerfile(Dockerfile),
}

/// A Dockerfile, read but not understood yet: what it says depends on the images it starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dockerfile {
    /// Its path, for messages.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The absolute path of the folder that `COPY` and `ADD` take from.
    pub context: PathBuf,
    /// Patterns of what is left out of the context, as in `.dockerignore`.
    pub ignore: Vec<String>,
    /// The stage to bake; the last one if `None`.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Whether `RUN` reaches the network, unless it says that it does not.
    pub network: bool,
    /// What stands for names in `FROM` and `COPY --from` that are not those of stages.
    pub images: BTreeMap<String, ImageSource>,
}

/// One step of a bake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BakeStep {
    /// Copies files.
    Copy(CopyStep),
    /// Writes a file.
    File(FileStep),
    /// Makes a symbolic link.
    Link {
        /// Absolute path in the image.
        path: String,
        /// What it points to.
        to: String,
    },
    /// Makes a directory, with what is missing above it; one that is there is kept.
    Directory {
        /// Absolute path in the image.
        path: String,
    },
    /// Runs a program over the root being baked.
    Run(RunStep),
}

/// Copies a file or directory with everything below it; symbolic links stay links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStep {
    /// Where from.
    pub from: CopyFrom,
    /// Absolute path in the image. With a `/` at its end it is a directory that files are put into.
    pub to: String,
    /// Permission bits of files; `None` is 0755 for what its owner may execute and 0644 for all else, so that the
    /// umask of whoever checked the source out decides nothing.
    pub mode: Option<u32>,
    /// Who it belongs to, as names or numbers: `user`, `user:group`; `None` is root.
    pub owner: Option<String>,
    /// Patterns of what is left out, as in `.dockerignore`, relative to what is copied (or to the folder).
    pub exclude: Vec<String>,
    /// Whether an archive (tar, plain or packed) is unpacked instead of copied.
    pub unpack: bool,
}

/// Where a copy takes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyFrom {
    /// A file or directory of this machine, by absolute path.
    Machine(PathBuf),
    /// All that matches a pattern in a folder of this machine; never anything outside of the folder.
    Folder {
        /// The folder's absolute path.
        folder: PathBuf,
        /// A path below it, perhaps with `*`, `?` and `[…]`.
        pattern: String,
    },
    /// Another image.
    Image {
        /// The image.
        image: ImageSource,
        /// An absolute path in it, perhaps with `*`, `?` and `[…]`.
        path: String,
    },
}

/// Writes a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStep {
    /// Absolute path in the image.
    pub path: String,
    /// What it holds.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Who it belongs to, as names or numbers: `user`, `user:group`; `None` is root.
    pub owner: Option<String>,
}

/// Runs a program over the root being baked; what it changes goes into the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    /// What it is, for people.
    pub title: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, over that of the image.
    pub env: BTreeMap<String, String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// Working directory, made if it is missing; empty is what the image says.
    pub workdir: String,
    /// Whether it reaches the network.
    pub network: bool,
    /// Whose programs run.
    pub tools: Tools,
    /// What it may read at `/dev/basalt/NAME` while it runs.
    pub inputs: BTreeMap<String, RunInput>,
    /// How long it may take; for ever if `None`.
    pub timeout: Option<Millis>,
}

/// Something that a program may read while it runs, and that does not become part of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunInput {
    /// A file or folder of this machine, by absolute path.
    Path(PathBuf),
    /// A file with this content.
    Text(String),
}

/// Whose programs a step runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tools {
    /// Those of the image: its root is the program's root.
    #[default]
    Image,
    /// Those of this machine, which see the image's root at `/image`.
    Machine,
}

impl BakeStep {
    /// Copies a file or directory of this machine.
    pub fn copy(from: impl Into<PathBuf>, to: impl Into<String>) -> Self {
        Self::Copy(CopyStep {
            from: CopyFrom::Machine(from.into()),
            to: to.into(),
            mode: None,
            owner: None,
            exclude: Vec::new(),
            unpack: false,
        })
    }

    /// Copies a file or directory of this machine; files get these permission bits.
    pub fn copy_with_mode(from: impl Into<PathBuf>, to: impl Into<String>, mode: u32) -> Self {
        match Self::copy(from, to) {
            Self::Copy(copy) => Self::Copy(CopyStep { mode: Some(mode), ..copy }),
            other => other,
        }
    }

    /// Writes a file that belongs to root.
    pub fn file(path: impl Into<String>, content: impl Into<String>, mode: u32) -> Self {
        Self::File(FileStep { path: path.into(), content: content.into(), mode, owner: None })
    }

    /// Makes a symbolic link.
    pub fn link(path: impl Into<String>, to: impl Into<String>) -> Self {
        Self::Link { path: path.into(), to: to.into() }
    }
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
    /// The first items of `command`, which a new command does not replace in a Dockerfile (`ENTRYPOINT`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Ports that it says it listens on: `8080/tcp`. For people only.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub expose: BTreeSet<String>,
}
