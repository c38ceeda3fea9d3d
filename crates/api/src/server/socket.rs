//! The unix socket.

use std::ffi::OsString;
use std::fs::{self, Metadata, Permissions};
use std::future::{Future, IntoFuture};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_controller::Controller;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::app::App;
use super::endpoints::routes;
use crate::Hooks;

/// Only the owner may talk to the controller: whoever may is as good as root on this machine.
const MODE: u32 = 0o600;

/// How long calls under way may take once the server is ending. Streams end at once; no other call takes this long.
const GRACE: Duration = Duration::from_secs(5);

/// Serves a controller's API at a unix socket (`DATA/run/controller.sock`, mode 0600) until `shutdown` is ready and the
/// calls under way have been answered.
///
/// # Errors
/// If the socket can't be made, or another controller answers there.
pub async fn serve(
    socket: &Path,
    controller: Controller,
    hooks: Hooks,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (listener, place) = bind(socket).await?;
    let (stop, stopping) = watch::channel(false);
    let app = routes(App::new(controller, hooks, stopping.clone()));
    let mut asked = stopping;
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        drop(asked.wait_for(|stopping| *stopping).await);
    });
    let ending = async {
        shutdown.await;
        stop.send_replace(true);
        tokio::time::sleep(GRACE).await;
    };
    let result = tokio::select! {
        result = server.into_future() => result,
        () = ending => Ok(()),
    };
    place.leave();
    result
}

/// A socket in the file system, known by its inode.
struct Place {
    path: PathBuf,
    inode: (u64, u64),
}

impl Place {
    /// Removes the socket, unless another controller has taken the place.
    fn leave(self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| inode(&metadata) == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes the socket beside its place, and moves it there once nobody else can open it. What a controller that was killed
/// has left there is replaced.
async fn bind(path: &Path) -> io::Result<(UnixListener, Place)> {
    if UnixStream::connect(path).await.is_ok() {
        let what = format!("another controller answers at `{}`", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    let fresh = with_suffix(path, ".new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(MODE))?;
    let inode = inode(&fs::symlink_metadata(&fresh)?);
    fs::rename(&fresh, path)?;
    Ok((listener, Place { path: path.to_owned(), inode }))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
