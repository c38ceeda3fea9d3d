//! One process per role and data directory: claiming a role, finding who holds it, and starting the keeper.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::protocol::keeper_socket;
use crate::sys;

/// How long a keeper may take until its socket answers: it adopts all instances first, and on a machine that has just
/// booted the kernel loads its modules for firewall and network. One that ends is not waited for.
const KEEPER_WITHIN: Duration = Duration::from_secs(60);

/// How often its socket is tried meanwhile.
const KEEPER_EVERY: Duration = Duration::from_millis(10);

/// Shows that this process holds a role. Dropped, the role is free again; the kernel frees it too when the process ends.
#[derive(Debug)]
pub struct RoleGuard {
    _lock: File,
}

/// Why a role could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process holds it.
    #[error("the {role} of `{data}` runs already, as process {pid}; there is one per data directory")]
    AlreadyRunning {
        /// The role.
        role: String,
        /// The data directory.
        data: PathBuf,
        /// The process.
        pid: u32,
    },
    /// The file that records the holder could not be used.
    #[error("could not claim the role of {role} in `{path}`")]
    Io {
        /// The role.
        role: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Claims a role (`keeper`, `gateway` or `controller`) for this process.
///
/// # Errors
/// If another process holds it.
pub fn claim_role(data: &Path, role: &str) -> Result<RoleGuard, ClaimError> {
    let path = role_file(data, role);
    let failed = |source| ClaimError::Io { role: role.to_owned(), path: path.clone(), source };
    std::fs::create_dir_all(data.join("run")).map_err(failed)?;
    let mut file = open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let pid = read_pid(&mut file).unwrap_or(0);
            return Err(ClaimError::AlreadyRunning { role: role.to_owned(), data: data.to_owned(), pid });
        }
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(RoleGuard { _lock: file })
}

/// Returns the process that holds a role, as pid and pidfd.
pub(crate) fn holder(data: &Path, role: &str) -> io::Result<Option<(u32, OwnedFd)>> {
    let mut file = match File::open(role_file(data, role)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let held = |file: &File| match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    };
    if !held(&file)? {
        return Ok(None);
    }
    let Some(pid) = read_pid(&mut file) else { return Ok(None) };
    let pidfd = match sys::pidfd(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Still held: so the process behind the pidfd is the holder, and not one that got its number.
    Ok(held(&file)?.then_some((pid, pidfd)))
}

/// Starts a keeper in the background unless one runs, and waits until it answers.
///
/// Runs `basalt` with `args` in a session of its own; its output goes to `DATA/logs/keeper.log`.
///
/// # Errors
/// If it can't be started or does not answer in time; the end of its log is then in the error.
#[allow(clippy::disallowed_methods)] // Starting the keeper is what this function is for; the time bounds the wait.
pub fn ensure_keeper(data: &Path, basalt: &Path, args: &[String]) -> io::Result<()> {
    let answers = || UnixStream::connect(keeper_socket(data)).is_ok();
    if answers() {
        return Ok(());
    }
    std::fs::create_dir_all(data.join("logs"))?;
    let log_path = data.join("logs/keeper.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path)?;
    let mut command = Command::new(basalt);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    sys::in_new_session(&mut command);
    let mut child = command.spawn()?;
    let until = std::time::Instant::now() + KEEPER_WITHIN;
    while !answers() {
        let ended = child.try_wait()?;
        // One that found another keeper ends at once, and the other one answers soon.
        let lost = ended.is_some_and(|status| !status.success()) && holder(data, "keeper")?.is_none();
        if lost || std::time::Instant::now() > until {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(3).collect();
            let end = end.into_iter().rev().collect::<Vec<_>>().join("; ");
            return Err(io::Error::other(format!("the keeper of `{}` did not start: {end}", data.display())));
        }
        std::thread::sleep(KEEPER_EVERY);
    }
    // A thread of its own waits for the keeper's end, so that it does not stay behind as a zombie of this process.
    std::thread::spawn(move || child.wait());
    Ok(())
}

fn role_file(data: &Path, role: &str) -> PathBuf {
    data.join("run").join(format!("{role}.pid"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(holder(dir.path(), "gateway").unwrap().is_none());
        let guard = claim_role(dir.path(), "gateway").unwrap();
        let (pid, _) = holder(dir.path(), "gateway").unwrap().unwrap();
        assert_eq!(pid, std::process::id());
        let error = claim_role(dir.path(), "gateway").unwrap_err();
        assert!(matches!(error, ClaimError::AlreadyRunning { pid: other, .. } if other == pid));
        drop(guard);
        assert!(holder(dir.path(), "gateway").unwrap().is_none());
        claim_role(dir.path(), "gateway").unwrap();
    }
}
