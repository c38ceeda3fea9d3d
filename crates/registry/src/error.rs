//! What can go wrong between here and a registry.

use std::path::{Path, PathBuf};

use basalt_model::manifest::InvalidManifest;

/// The result of what is asked of a registry.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a registry could not be used. No text of an error holds a password or token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is no reference.
    #[error("image reference `{reference}`: {why}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of settings, certificates or credentials can't be used.
    #[error("`{path}`: {why}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A setting forbids the registry.
    #[error("`{reference}` is blocked by `{path}`")]
    Blocked {
        /// What was asked for.
        reference: String,
        /// The file with the setting.
        path: PathBuf,
    },
    /// A credential helper failed.
    #[error("credential helper `{helper}` for `{host}`: {why}")]
    Helper {
        /// The program.
        helper: String,
        /// The registry.
        host: String,
        /// What it said.
        why: String,
    },
    /// There is no answer.
    #[error("registry `{host}` can't be reached: {why}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        why: String,
    },
    /// The registry does not let us.
    #[error("registry `{host}` denies access to {what}: {why}")]
    Denied {
        /// The registry.
        host: String,
        /// To what.
        what: String,
        /// What it said, and with which credentials.
        why: String,
    },
    /// There is no such thing there.
    #[error("registry `{host}` has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry answers otherwise than it must.
    #[error("registry `{host}`, {what}: {why}")]
    Answer {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What it answered.
        why: String,
        /// The status that it gave (RFC 9110 §15), if that is what is wrong.
        status: Option<u16>,
    },
    /// A manifest or index is refused.
    #[error("{what}: {why}")]
    Document {
        /// Which, with its digest.
        what: String,
        /// Why.
        why: String,
    },
    /// Content does not have the digest or size that was promised for it.
    #[error("{what} from registry `{host}`: expected {expected}, found {found}; it is damaged or was tampered with")]
    Mismatch {
        /// Which content.
        what: String,
        /// From where.
        host: String,
        /// What was promised.
        expected: String,
        /// What was found.
        found: String,
    },
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
}

impl Error {
    /// Returns how to mend it, if that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreachable { host, .. } => Some(format!(
                "see that `{host}` is up and the network reaches it; an image that is kept already needs no registry if its digest \
                 is given (NAME@sha256:…)"
            )),
            Self::Denied { host, .. } => Some(format!(
                "log in with `docker login {host}`, `podman login {host}` or `skopeo login {host}`; their files are read"
            )),
            Self::NotFound { .. } => {
                Some("check name and tag; a private image looks missing without a login".to_owned())
            }
            _ => None,
        }
    }

    /// Returns whether trying again may help by itself: the network, not the answer, was at fault.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Returns a function that says which document is no manifest, for `map_err`.
pub(crate) fn no_manifest(what: &str) -> impl FnOnce(InvalidManifest) -> Error + '_ {
    move |error| Error::Document { what: what.to_owned(), why: error.0 }
}

/// Returns a function that names what was tried on `path`, for `map_err`.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}
