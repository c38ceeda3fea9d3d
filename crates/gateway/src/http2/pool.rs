//! Connections to one start of an instance on which HTTP/2 is spoken. Each carries many requests at once.

use std::io;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use h2::client::SendRequest;
use tokio::time::{Instant, timeout};

use super::piece::Piece;
use super::{LARGEST_HEAD, WINDOW};
use crate::http1::attempt::{self, CONNECT};

/// Streams on one connection: what servers commonly allow.
const STREAMS: usize = 100;

/// What waits here for clients that are slow must not hold up others, whose calls are on the same connection.
const CONNECTION_WINDOW: u32 = STREAMS as u32 * WINDOW;
/// How much of a connection's small frames may wait in `h2`, as that counts it. Its default guards against strangers, and here it would end
/// the calls of all: frames for a call that was given up count for ever. They do not wait there, as each call takes its own at once.
const SMALL_FRAMES: usize = usize::MAX;

/// A connection to an instance, for one request.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) sender: SendRequest<Piece>,
    /// Whether it was made for this request.
    pub(crate) fresh: bool,
    /// Whether it had been idle.
    pub(crate) idle: bool,
    _stream: Arc<()>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Piece>,
    port: u16,
    /// One more than the requests that are under way.
    streams: Arc<()>,
    used: Instant,
}

/// Connections to one start of an instance.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    connections: Vec<Connection>,
    closed: bool,
}

impl Pool {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a connection that has room for another request, or a new one.
    ///
    /// # Errors
    /// If the instance takes none.
    pub(crate) async fn take(&self, address: SocketAddrV4) -> io::Result<Upstream> {
        while let Some((sender, stream)) = self.take_open(address.port()) {
            match timeout(CONNECT, sender.ready()).await {
                Ok(Ok(sender)) => {
                    let idle = Arc::strong_count(&stream) == 2;
                    return Ok(Upstream { sender, fresh: false, idle, _stream: stream });
                }
                // It was closed meanwhile, or is stuck.
                Ok(Err(_)) | Err(_) => self.forget(&stream),
            }
        }
        let stream = attempt::connect(address).await?;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(LARGEST_HEAD)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // Frames for a call that was given up are faults for `h2`, which counts them for ever: clients that leave would end the calls of others.
            .max_local_error_reset_streams(None)
            .data_frame_budget(SMALL_FRAMES);
        let (sender, connection) = builder.handshake::<_, Piece>(stream).await.map_err(io::Error::other)?;
        // It ends once nobody sends on it any more, or the instance closes it; the requests on it then hear of that.
        tokio::spawn(async move { drop(connection.await) });
        let streams = Arc::new(());
        let upstream = Upstream { sender: sender.clone(), fresh: true, idle: false, _stream: streams.clone() };
        let mut open = self.open();
        if !open.closed {
            open.connections.push(Connection { sender, port: address.port(), streams, used: Instant::now() });
        }
        Ok(upstream)
    }

    fn take_open(&self, port: u16) -> Option<(SendRequest<Piece>, Arc<()>)> {
        let mut open = self.open();
        let room = |one: &&mut Connection| {
            let most = STREAMS.min(one.sender.current_max_send_streams());
            one.port == port && Arc::strong_count(&one.streams) <= most
        };
        let one = open.connections.iter_mut().find(room)?;
        one.used = Instant::now();
        Some((one.sender.clone(), one.streams.clone()))
    }

    fn forget(&self, streams: &Arc<()>) {
        self.open().connections.retain(|one| !Arc::ptr_eq(&one.streams, streams));
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, longest: Duration) {
        let idle = |one: &Connection| Arc::strong_count(&one.streams) == 1 && one.used.elapsed() >= longest;
        self.open().connections.retain(|one| !idle(one));
    }

    /// Closes all once what is under way on them has ended, now and from now on: the instance is about to be stopped.
    pub(crate) fn close(&self) {
        let mut open = self.open();
        open.closed = true;
        open.connections.clear();
    }
}
