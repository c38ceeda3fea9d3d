//! What can go wrong with secrets.

use std::path::{Path, PathBuf};

use basalt_model::Name;

/// The result of what the store does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the store could not do something. No content of a secret is ever in it.
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
    /// Others than its owner may use the key.
    #[error(
        "the key `{path}` is open to others (mode {mode:o}); run `chmod 600 {path}`, and set the secrets anew if anyone may have read it"
    )]
    KeyOpen {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is not one.
    #[error("the key `{path}` is not usable: {why}; restore it from a backup")]
    KeyBroken {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Secrets are there, but not their key.
    #[error("the key `{path}` is missing, but secrets encrypted with it are there; restore it from a backup")]
    KeyMissing {
        /// Where the key should be.
        path: PathBuf,
    },
    /// There is no such secret or version.
    #[error("secret `{name}` has no version {version}; `basalt secret list` shows what is there")]
    NotHere {
        /// The secret.
        name: Name,
        /// The version.
        version: u64,
    },
    /// A version can't be decrypted.
    #[error(
        "`{path}` can't be decrypted: it was changed or moved, or belongs to another key; set the secret anew, or restore it from a backup"
    )]
    Tampered {
        /// The version's file.
        path: PathBuf,
    },
    /// The content is too long.
    #[error("secret `{name}` has {bytes} bytes, more than {most}; put large files into the image or a volume")]
    TooLong {
        /// The secret.
        name: Name,
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        most: u64,
    },
}

/// Returns a function that names what was tried on `path`, for `map_err`.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}
