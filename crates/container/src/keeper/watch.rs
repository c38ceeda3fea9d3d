//! Waiting for processes and for what they write, on the one thread of the keeper.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime};

use basalt_model::Millis;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::sys;

/// How much is read at once: what a pipe holds (pipe(7)).
const CHUNK: usize = 64 << 10;

/// Returns the time.
#[allow(clippy::disallowed_methods)] // The keeper's one clock.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Waits until a process has ended.
pub(crate) async fn ended(pidfd: &AsyncFd<OwnedFd>) {
    // An error means that the runtime is shutting down, and with it this task.
    let _ = pidfd.readable().await.map(|mut ready| ready.retain_ready());
}

/// Returns a pidfd that can be waited for.
pub(crate) fn watchable(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch(pidfd)
}

/// How long the parent of an adopted process may take to reap it; only then does the kernel tell its status.
const REAPED_WITHIN: Duration = Duration::from_millis(300);

/// How often that is looked for.
const REAPED_EVERY: Duration = Duration::from_millis(2);

/// Returns the wait status of an ended process, if the kernel tells it.
pub(crate) async fn wait_status(pidfd: &AsyncFd<OwnedFd>) -> Option<i32> {
    if let Ok(status) = sys::reap_pidfd(pidfd.get_ref().as_fd()) {
        return status;
    }
    let told = async {
        loop {
            if let Some(status) = sys::pidfd_wait_status(pidfd.get_ref().as_fd()) {
                return status;
            }
            tokio::time::sleep(REAPED_EVERY).await;
        }
    };
    tokio::time::timeout(REAPED_WITHIN, told).await.ok()
}

/// A short-lived program of Basalt, which reads what it has to do on standard input.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
    output: pipe::Receiver,
    input: Option<ChildStdin>,
}

impl Helper {
    /// Starts `basalt VERB`.
    #[allow(clippy::disallowed_methods)] // The keeper's work is done by helpers with a process of their own.
    pub(crate) fn start(basalt: &Path, verb: &str) -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = Command::new(basalt);
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::from(write));
        if verb == crate::probe::VERB {
            // It becomes a program of the image, which must not hold a descriptor of the keeper's log.
            command.stderr(Stdio::null());
        }
        let child = command.spawn();
        let mut child =
            child.map_err(|e| io::Error::new(e.kind(), format!("could not run `{}`: {e}", basalt.display())))?;
        let pidfd = watchable(sys::pidfd(child.id())?)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        let input = child.stdin.take();
        Ok(Self { child, pidfd, output: pipe::Receiver::from_owned_fd(read)?, input })
    }

    /// Gives it a line to read.
    pub(crate) fn tell<T: serde::Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        // It reads what it is told before it does anything that takes long.
        self.input.as_mut().map_or(Ok(()), |input| input.write_all(&text))
    }

    /// Returns whether it has not ended yet.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end and returns its status and what it wrote.
    /// It hears that nothing more is to be read.
    pub(crate) async fn finish(&mut self) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
        self.input = None;
        ended(&self.pidfd).await;
        let mut text = Vec::new();
        let mut chunk = vec![0; CHUNK];
        // What a helper writes fits into the pipe, or it is not waited for.
        while let Ok(n @ 1..) = self.output.try_read(&mut chunk) {
            text.extend_from_slice(&chunk[..n]);
        }
        Ok((self.child.wait()?, text))
    }

    /// Kills it and waits for its end.
    pub(crate) async fn kill(mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        ended(&self.pidfd).await;
        let _ = self.child.wait();
    }
}

/// Sleeps until a time of the wall clock; for ever if there is none.
pub(crate) async fn sleep_until(at: Option<Millis>) {
    match at {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.since(now()).0)).await,
        None => std::future::pending().await,
    }
}
