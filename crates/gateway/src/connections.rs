//! Connections from clients, each served by a task of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::forwarded::Trust;
use crate::http1::client::{Client, Ends};
use crate::http1::connection;
use crate::limits::{Clients, Counted, Grants, Limits};
use crate::plane::Plane;
use crate::proxy_header;
use crate::refusals::{Refusal, Refusals};
use crate::tcp;
use crate::tls;
use crate::workers::Workers;

/// How long a client may take to shake hands; nginx gives 60 s, Envoy 15 s.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// At the end, time in which clients that are just sending a request on an open connection still get their answer.
const LINGER: Duration = Duration::from_millis(250);
/// At the end, time for requests in flight, if nobody grants more: what load balancers and service managers commonly do.
pub(crate) const FINISH: Duration = Duration::from_secs(30);
/// Serves connections until it is told to finish.
#[derive(Debug)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
    workers: Workers,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) plane: Arc<Plane>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) limits: Limits,
    pub(crate) trust: Trust,
    pub(crate) finishing: watch::Sender<bool>,
    ending: AtomicBool,
    clients: Clients,
    /// Room for answers that are compressed.
    pub(crate) encoders: Semaphore,
    /// Room for bodies, in bytes.
    ahead: Arc<Semaphore>,
    /// How many are open.
    open: AtomicUsize,
    /// The last has been closed.
    none_open: Notify,
}

/// Room for a body, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[expect(unused, reason = "they are there to be dropped")] Option<[OwnedSemaphorePermit; 2]>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Returns whether the gateway is about to end, so that connections end with their next answer.
    pub(crate) fn is_finishing(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// Returns room for so many bytes of a client's body; `None` if it, or all together, take too much already.
    pub(crate) fn room(&self, client: &Grants, bytes: u64) -> Option<Room> {
        // Most requests have no body, and are not to meet at one count.
        if bytes == 0 {
            return Some(Room(None));
        }
        let bytes = u32::try_from(bytes).ok()?;
        let take = |from: &Arc<Semaphore>| from.clone().try_acquire_many_owned(bytes).ok();
        Some(Room(Some([take(&client.ahead)?, take(&self.ahead)?])))
    }

    /// Returns once connections are to end that have nothing under way.
    pub(crate) fn ending(&self) -> impl Future<Output = ()> + use<> {
        let mut finishing = self.finishing.subscribe();
        async move {
            // An error means that nobody is left to begin the end, which is its end.
            let _ = finishing.wait_for(|finishing| *finishing).await;
            // Every idle connection waits for this; a timer it needs only at the end.
            Box::pin(sleep(LINGER)).await;
        }
    }

    /// Learns who a connection is of: a load balancer that speaks the PROXY protocol says so first. Returns whether it is served.
    async fn learn_origin(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: &mut SocketAddr,
        counted: &mut Counted,
    ) -> bool {
        // Never guessed: who is not trusted could claim anything, and who is trusted always says it.
        if !self.trust.proxy_protocol || !self.trust.has(peer.ip()) {
            return true;
        }
        match timeout(self.limits.head, proxy_header::read(stream)).await {
            Ok(Ok(None)) => true,
            Ok(Ok(Some(origin))) => {
                let Some(its) = self.count(origin) else { return false };
                (*peer, *counted) = (origin, its);
                true
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Ok(Err(_)) | Err(_) => {
                self.refusals.count(Refusal::BadProxyHeader, peer.ip());
                false
            }
        }
    }

    /// Counts a connection of a client; `None` if it has too many.
    fn count(&self, peer: SocketAddr) -> Option<Counted> {
        let limits = (!self.trust.has(peer.ip())).then_some(&self.limits);
        let counted = self.clients.count(peer.ip(), limits);
        if counted.is_none() {
            self.refusals.count(Refusal::ManyConnections, peer.ip());
        }
        counted
    }
}

/// An open connection; it counts until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.none_open.notify_waiters();
        }
    }
}

impl Connections {
    /// Returns what serves connections by the tables of a plane, on `threads` threads.
    ///
    /// # Errors
    /// If the machine has no more threads to give.
    pub(crate) fn new(plane: Arc<Plane>, threads: usize, limits: Limits, trust: Trust) -> Result<Arc<Self>, Error> {
        let shared = Arc::new(Shared {
            plane,
            refusals: Arc::default(),
            encoders: Semaphore::new(limits.encoders),
            ahead: Arc::new(Semaphore::new(limits.ahead)),
            limits,
            trust,
            finishing: watch::Sender::new(false),
            ending: AtomicBool::new(false),
            clients: Clients::default(),
            open: AtomicUsize::new(0),
            none_open: Notify::new(),
        });
        let workers = Workers::start(threads).map_err(Error::Runtime)?;
        Ok(Arc::new(Self { shared, workers }))
    }

    /// Returns what was refused, by reason.
    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.shared.refusals
    }

    /// Has some of the threads that serve connections accept them too.
    pub(crate) fn accept<F: Future<Output = ()> + Send + 'static>(&self, work: impl Fn() -> F) -> Vec<AbortHandle> {
        self.workers.accept(work)
    }

    /// Serves a connection on which HTTP/1 or HTTP/2 is spoken. From inside, an instance has opened it, which is no proxy.
    pub(crate) fn serve_http(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr, inside: bool) {
        let Some(counted) = self.shared.count(peer) else { return };
        let (shared, open) = (self.shared.clone(), Open::new(&self.shared));
        self.workers.serve(stream, move |stream, load| {
            let mut client = Client::new(Box::new(stream), Ends { peer, local, https: false }, counted);
            async move {
                if inside || shared.learn_origin(&mut client.io, &mut client.ends.peer, &mut client.counted).await {
                    connection::serve(&mut client, &shared).await;
                }
                drop((client, open, load));
            }
        });
    }

    /// Serves a connection on which HTTP/1 or HTTP/2 is spoken over TLS.
    pub(crate) fn serve_https(&self, stream: TcpStream, mut peer: SocketAddr, local: SocketAddr) {
        let Some(mut counted) = self.shared.count(peer) else { return };
        let Some(certificates) = self.shared.plane.edge.certificates.get().cloned() else { return };
        let (shared, open) = (self.shared.clone(), Open::new(&self.shared));
        self.workers.serve(stream, move |mut stream, load| async move {
            // A client that leaves, or speaks something else, is no news.
            if shared.learn_origin(&mut stream, &mut peer, &mut counted).await
                && let Ok(Ok((stream, secured))) =
                    timeout(HANDSHAKE, Box::pin(tls::accept(stream, &certificates))).await
            {
                let ends = Ends { peer, local, https: true };
                let mut client =
                    Client { secured: Some(Arc::new(secured)), ..Client::new(Box::new(stream), ends, counted) };
                connection::serve(&mut client, &shared).await;
            }
            drop((open, load));
        });
    }

    /// Serves a connection on which anything is spoken.
    pub(crate) fn serve_tcp(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let Some(counted) = self.shared.count(peer) else { return };
        let (shared, open) = (self.shared.clone(), Open::new(&self.shared));
        self.workers.serve(stream, move |stream, load| async move {
            tcp::serve(stream, (peer, local), &shared.plane).await;
            drop((open, counted, load));
        });
    }

    /// Finishes what is in flight: answers close their connection, and idle connections are closed.
    pub(crate) async fn finish(&self, patience: Duration) {
        self.shared.ending.store(true, Relaxed);
        self.shared.finishing.send_replace(true);
        if timeout(LINGER, self.until_none_open()).await.is_ok() {
            return;
        }
        if timeout(patience, self.until_none_open()).await.is_err() {
            tracing::warn!("ending with requests in flight: they took longer than {} s", patience.as_secs());
        }
    }

    async fn until_none_open(&self) {
        /// Also looked at by time: the last may have closed between a look and the wait.
        const LOOK: Duration = Duration::from_millis(20);
        while self.shared.open.load(Relaxed) > 0 {
            tokio::select! {
                () = self.shared.none_open.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }
}
