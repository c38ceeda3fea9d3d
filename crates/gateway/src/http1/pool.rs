//! Connections to one start of an instance that wait for their next request.

use std::cell::Cell;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How many wait per thread: what a thread has in flight to one instance is rarely more.
const MOST: usize = 128;
/// Parts by thread. More threads than that share them.
const PARTS: usize = 16;

thread_local! {
    /// Which part is this thread's: a connection is quickest on the thread that has made it.
    static PART: Cell<usize> = const { Cell::new(0) };
}

/// Says which of the threads this one is.
pub(crate) fn set_thread(number: usize) {
    PART.set(number % PARTS);
}

/// A connection to an instance.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    /// What has been read and not yet used.
    pub(crate) buffer: BytesMut,
    /// Whether it has served a request before.
    pub(crate) reused: bool,
}

/// A connection that waits.
#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    port: u16,
    since: Instant,
}

/// Connections to one start of an instance that wait for their next request.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    idle: Vec<Idle>,
    closed: bool,
}

impl Pool {
    fn part(&self, part: usize) -> std::sync::MutexGuard<'_, Part> {
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that has waited for less than `fresh`.
    pub(crate) fn take(&self, port: u16, fresh: Duration) -> Option<Upstream> {
        let now = Instant::now();
        let mut part = self.part(PART.get());
        // The last that came is the freshest.
        while let Some(at) = part.idle.iter().rposition(|idle| idle.port == port) {
            if now.saturating_duration_since(part.idle[at].since) >= fresh {
                return None;
            }
            let idle = part.idle.swap_remove(at);
            if is_alive(&idle.stream) {
                return Some(Upstream { stream: idle.stream, buffer: BytesMut::new(), reused: true });
            }
        }
        None
    }

    /// Keeps a connection for its next request.
    pub(crate) fn put(&self, stream: TcpStream, port: u16) {
        let mut part = self.part(PART.get());
        if !part.closed && part.idle.len() < MOST {
            part.idle.push(Idle { stream, port, since: Instant::now() });
        }
    }

    /// Closes what has waited for too long, or was closed by the instance.
    pub(crate) fn sweep(&self, longest: Duration) {
        let now = Instant::now();
        for part in 0..PARTS {
            self.part(part)
                .idle
                .retain(|idle| now.saturating_duration_since(idle.since) < longest && is_alive(&idle.stream));
        }
    }

    /// Closes all, now and from now on: the instance is about to be stopped.
    pub(crate) fn close(&self) {
        for part in 0..PARTS {
            let mut part = self.part(part);
            part.closed = true;
            part.idle.clear();
        }
    }
}

/// Whether an idle connection is still open. Who speaks without being asked is not to be trusted either.
fn is_alive(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
