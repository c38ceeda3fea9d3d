//! The depot: a content-addressed store of images and of the files in them, on composefs.
//!
//! Images are baked here or read from OCI and Docker archives. Layers are never unpacked onto a file system: their
//! entries become a tree in memory, file contents become objects named by their fs-verity digest, and the tree becomes
//! one EROFS file that the kernel mounts read-only with the objects below it.
//!
//! It must not know who runs an image, nor what a release is. Main type: [`Depot`].

#![forbid(unsafe_code)]

mod archive;
mod bake;
mod bake_run;
mod config;
mod debian;
mod depot;
mod docker;
mod erofs;
mod error;
mod exchange;
mod export;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gather;
mod import;
mod layer;
mod layout;
mod limits;
mod listing;
mod manifest;
mod mounts;
mod owner;
mod patterns;
mod pax;
mod progress;
mod put;
mod record;
mod rootfs;
mod sealing;
mod source;
mod staging;
mod store;
mod sweep;
mod tree;
mod verify;
mod walk;

pub use bake::BakeInputs;
pub use depot::Depot;
pub use error::{Error, Result};
pub use limits::Limits;
pub use listing::{ImageDetails, ImageInfo, LayerInfo};
pub use progress::Progress;
pub use sweep::{Freed, Keep};
pub use verify::{Problem, Repaired, Verified};
