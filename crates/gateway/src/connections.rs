//! Connections from clients, each served by a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::downstream::Downstream;
use crate::plane::Plane;
use crate::proxy::Proxy;
use crate::tcp;

/// How often one request is tried at most, connections that were refused included.
const ATTEMPTS: usize = 16;
/// Idle connections to instances that are kept per thread: some tens each for a hundred instances.
const POOL: usize = 4096;
/// At the end, time in which clients that are just sending a request on an open connection still get their answer.
const LINGER: Duration = Duration::from_millis(250);
/// At the end, time for requests in flight: what load balancers and service managers commonly grant.
const FINISH: Duration = Duration::from_secs(30);

/// Serves connections until it is told to finish.
pub(crate) struct Connections {
    plane: Arc<Plane>,
    proxy: Arc<HttpProxy<Proxy>>,
    finishing: watch::Sender<bool>,
    /// How many are open.
    open: watch::Sender<usize>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// An open connection; it counts until it is dropped.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Connections {
    /// Returns what serves connections by the tables of a plane, on `threads` threads.
    pub(crate) fn new(plane: Arc<Plane>, threads: usize) -> Arc<Self> {
        let conf =
            ServerConf { threads, upstream_keepalive_pool_size: POOL, max_retries: ATTEMPTS, ..ServerConf::default() };
        let mut proxy = pingora_proxy::http_proxy(&Arc::new(conf), Proxy { plane: plane.clone() });
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
        let (finishing, open) = (watch::Sender::new(false), watch::Sender::new(0));
        Arc::new(Self { plane, proxy: Arc::new(proxy), finishing, open })
    }

    /// Serves a connection on which HTTP/1.1 or HTTP/2 is spoken.
    pub(crate) fn serve_http(&self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let (proxy, mut finishing, open) = (self.proxy.clone(), self.finishing.subscribe(), Open::new(&self.open));
        tokio::spawn(async move {
            let spoken = tokio::select! {
                spoken = Downstream::accept(stream, peer, local) => spoken.ok(),
                // Browsers connect ahead of time and say nothing: the end does not wait for them.
                () = lingered(&mut finishing) => None,
            };
            // A client that leaves before it has said anything is no news.
            if let Some(stream) = spoken {
                proxy.process_new(Box::new(stream), &finishing).await;
            }
            drop(open);
        });
    }

    /// Serves a connection on which anything is spoken.
    pub(crate) fn serve_tcp(&self, stream: TcpStream, local: SocketAddr) {
        let (plane, open) = (self.plane.clone(), Open::new(&self.open));
        tokio::spawn(async move {
            tcp::serve(stream, local, &plane).await;
            drop(open);
        });
    }

    /// Finishes what is in flight: answers close their connection, and idle connections are closed.
    pub(crate) async fn finish(&self) {
        self.finishing.send_replace(true);
        let mut open = self.open.subscribe();
        // The sender lives as long as this, so both waits end with nothing open or too late.
        if timeout(LINGER, open.wait_for(|open| *open == 0)).await.is_ok() {
            return;
        }
        self.proxy.http_cleanup().await;
        if timeout(FINISH, open.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!("ending with requests in flight: they took longer than {} s", FINISH.as_secs());
        }
    }
}

/// Returns some time after the end has begun.
async fn lingered(finishing: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to begin the end, which is its end.
    let _ = finishing.wait_for(|finishing| *finishing).await;
    sleep(LINGER).await;
}
