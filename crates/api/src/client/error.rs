//! Why a call came to nothing.

use std::path::PathBuf;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("the controller can't be reached at `{}`", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The controller refused; nothing has been changed.
    #[error("{error}")]
    Refused {
        /// The HTTP status, 400 to 599.
        status: u16,
        /// What happened.
        error: String,
        /// How to mend it.
        help: Option<String>,
    },
    /// The connection broke before the whole answer was there. What was asked may or may not have been done.
    #[error("the connection to the controller broke")]
    Broken {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not what this version understands.
    #[error("the controller's answer can't be read; it may be of another version")]
    Unreadable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// Returns whether the controller could not be reached, or was lost.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken { .. } | Self::Refused { status: 503, .. })
    }

    /// Returns how to mend it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Refused { help, .. } => help.as_deref(),
            Self::Unreachable { .. } => {
                Some("start it with `basalt up STACK` or `basalt serve`, or name its data directory with --data")
            }
            Self::Broken { .. } => Some("look with `basalt status` at what has been done, and try again"),
            Self::Unreadable { .. } => Some("restart `basalt serve` so that it is of the same version"),
        }
    }
}
