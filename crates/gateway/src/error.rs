//! What can keep the gateway from running.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address could not be listened on.
    #[error("can't listen on `{address}`: free the address or choose another with `--http`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The control socket could not be made.
    #[error("can't listen on the control socket `{path}`")]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another gateway answers on the control socket.
    #[error("another gateway already serves `{path}`: stop it first, or use another data directory")]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The folder for the copy of the route table could not be made.
    #[error("can't make the folder `{path}` for the copy of the route table")]
    Copy {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine has no more threads or signal handlers to give.
    #[error("can't start the gateway's threads")]
    Runtime(#[source] io::Error),
}
