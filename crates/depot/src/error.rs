//! What can go wrong in the depot.

use std::path::{Path, PathBuf};

use basalt_model::Digest;

/// The result of what the depot does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the depot could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {what} `{path}`")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The image is not in the depot.
    #[error("image `{digest}` is not in the depot `{dir}`; bake or import it first")]
    NotHere {
        /// The image.
        digest: Digest,
        /// The depot.
        dir: PathBuf,
    },
    /// A reference can't be read as one, or names nothing.
    #[error("image reference `{reference}`: {why}")]
    Reference {
        /// The reference.
        reference: String,
        /// What is wrong with it, and how to mend it.
        why: String,
    },
    /// A manifest, index or configuration is refused.
    #[error("{what}: {why}")]
    Document {
        /// Which document, with its digest.
        what: String,
        /// Why.
        why: String,
    },
    /// Content does not have the digest or size that was promised for it.
    #[error("{what}: expected {expected}, found {found}; the image is damaged or was tampered with")]
    Mismatch {
        /// Which content.
        what: String,
        /// What was promised.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A layer is refused as a whole.
    #[error("layer `{layer}`: {why}")]
    Layer {
        /// The layer's digest.
        layer: String,
        /// Why.
        why: String,
    },
    /// An entry of a layer is refused.
    #[error("layer `{layer}`: entry `{entry}`: {why}")]
    Entry {
        /// The layer's digest.
        layer: String,
        /// The entry's name as the layer has it.
        entry: String,
        /// Why.
        why: String,
    },
    /// A step of a bake can't be done.
    #[error("bake: step {step}: `{path}`: {why}")]
    Bake {
        /// Which step, counted from 1.
        step: usize,
        /// The path on this machine or in the image.
        path: String,
        /// Why, and how to mend it.
        why: String,
    },
    /// A program of a bake failed.
    #[error("bake: step {step}: `{title}` {how}{}", shown(lines))]
    BakeRun {
        /// Which step, counted from 1; 0 is what the bake starts from.
        step: usize,
        /// What it is.
        title: String,
        /// How it ended, or why it could not be run.
        how: String,
        /// The last lines that it wrote.
        lines: Vec<String>,
    },
    /// What a bake says besides its steps is refused.
    #[error("bake: {0}")]
    BakeSays(String),
    /// A mount point can't be had.
    #[error("mount point `{path}`: {why}")]
    MountPoint {
        /// The path in the image.
        path: String,
        /// Why, and how to mend it.
        why: String,
    },
    /// Something in the depot itself is not as it was written.
    #[error("`{path}` in the depot is damaged: {why}; remove the image and bake or import it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Writes lines below one another, indented.
fn shown(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

/// Returns a function that names what was tried on `path`, for `map_err`.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}
