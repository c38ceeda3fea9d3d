//! A gateway on threads of its own, with a router that follows it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{
    Health, HealthCheck, InstanceRoute, Listener, Millis, Name, Port, Protocol, ReleaseRoutes, Route, RouteTable,
    ServiceRoutes, Weight,
};
use basalt_seam::{Router, RouterSeen};
use tokio::sync::{oneshot, watch};

use super::app::PORT;
use crate::{GatewayOptions, GatewayRouter, Limits, process};

/// A gateway on threads of its own. It dies when it is dropped.
pub(crate) struct Gateway {
    pub(crate) http: SocketAddr,
    pub(crate) router: Arc<GatewayRouter>,
    changed: watch::Receiver<()>,
    end: Option<oneshot::Sender<End>>,
    handed_over: Option<oneshot::Receiver<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    socket: PathBuf,
    _data: Option<tempfile::TempDir>,
}

enum End {
    /// As by SIGTERM.
    Gracefully,
    /// As by SIGHUP.
    ForASuccessor,
    /// As by SIGKILL.
    AtOnce,
}

impl Gateway {
    /// Starts with a data directory of its own.
    pub(crate) async fn start() -> Self {
        Self::start_limited(Limits::default()).await
    }

    /// Starts in a data directory.
    pub(crate) async fn start_in(data: &Path, http: SocketAddr) -> Self {
        Self::start_with(GatewayOptions::new(data.to_owned(), http)).await
    }

    /// Starts with limits, and a data directory of its own.
    pub(crate) async fn start_limited(limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = GatewayOptions::new(data.path().to_owned(), "127.0.0.1:0".parse().unwrap());
        let mut gateway = Self::start_with(GatewayOptions { limits, ..options }).await;
        gateway._data = Some(data);
        gateway
    }

    /// Starts with options.
    pub(crate) async fn start_with(options: GatewayOptions) -> Self {
        let (data, http) = (options.data.clone(), options.http);
        let (end, ended) = oneshot::channel();
        let (hand_over, handed_over) = oneshot::channel();
        let thread = std::thread::spawn(move || run(options, ended, hand_over));
        let socket = data.join("run/gateway.sock");
        let (router, changed) = follow(socket.clone());
        let (end, handed_over, thread) = (Some(end), Some(handed_over), Some(thread));
        let mut gateway = Self { http, router, changed, end, handed_over, thread, socket, _data: None };
        let seen = gateway.until(|seen| seen.connected && seen.http.is_some()).await;
        gateway.http = seen.http.as_ref().unwrap().parse().unwrap();
        gateway
    }

    /// Returns what is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.router.seen().problems.clone()
    }

    /// Waits until what is seen is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&RouterSeen) -> bool) -> Arc<RouterSeen> {
        let wait = async {
            loop {
                self.changed.borrow_and_update();
                let seen = self.router.seen();
                if wanted(&seen) {
                    return seen;
                }
                self.changed.changed().await.unwrap();
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(20), wait).await;
        result.unwrap_or_else(|_| panic!("never seen: {:#?}", self.router.seen()))
    }

    /// Sets a table and waits until it is in force.
    pub(crate) async fn set(&mut self, table: &RouteTable) -> Arc<RouterSeen> {
        self.router.set(Arc::new(table.clone()));
        let version = table.version;
        self.until(|seen| seen.connected && seen.version >= version).await
    }

    /// Waits until all instances of the table in force are healthy.
    pub(crate) async fn until_healthy(&mut self) {
        let healthy = |seen: &RouterSeen| seen.instances.values().all(|one| !one.named || one.healthy == Some(true));
        self.until(healthy).await;
    }

    /// Leaves it, and is another router from then on.
    pub(crate) fn follow_anew(&mut self) {
        (self.router, self.changed) = follow(self.socket.clone());
    }

    /// Ends as by SIGTERM and waits for it.
    pub(crate) async fn stop(mut self) {
        let _ = self.end.take().unwrap().send(End::Gracefully);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }

    /// Lets go of its sockets as by SIGHUP; it finishes in the background.
    pub(crate) async fn hand_over(&mut self) {
        let _ = self.end.take().unwrap().send(End::ForASuccessor);
        self.handed_over.take().unwrap().await.unwrap();
    }

    /// Ends as by SIGKILL.
    pub(crate) async fn kill(mut self) {
        let _ = self.end.take().unwrap().send(End::AtOnce);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        // Threads of a killed process end with it; here those that accept take a moment more.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(End::AtOnce);
        }
    }
}

fn run(options: GatewayOptions, ended: oneshot::Receiver<End>, hand_over: oneshot::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let (graceful, end) = oneshot::channel();
        let end = async { end.await.unwrap_or(process::End::ForGood) };
        let serving = process::serve(options, 2, end, || {
            let _ = hand_over.send(());
        });
        let killed = async {
            match ended.await {
                Ok(End::Gracefully) => {
                    let _ = graceful.send(process::End::ForGood);
                    std::future::pending().await
                }
                Ok(End::ForASuccessor) => {
                    let _ = graceful.send(process::End::ForASuccessor);
                    std::future::pending().await
                }
                _ => Ok(()),
            }
        };
        tokio::select! {
            result = serving => result,
            result = killed => result,
        }
    });
    runtime.shutdown_background();
    result.unwrap();
}

/// Returns a router that follows a socket, and what tells of its changes.
pub(crate) fn follow(socket: PathBuf) -> (Arc<GatewayRouter>, watch::Receiver<()>) {
    let (wake, changed) = watch::channel(());
    let router = GatewayRouter::connect(socket, Arc::new(move || wake.send_replace(())));
    (router, changed)
}

/// Returns a table in which the service `web` answers everything. Per release: its number, its weight in percent, and the
/// addresses of its instances by ordinal.
pub(crate) fn table(version: u64, releases: &[(u32, u32, &[Ipv4Addr])]) -> RouteTable {
    let routes = vec![Route::new(None, "/", name("http"))];
    let releases = releases.iter().map(|(number, weight, instances)| (*number, release(*number, *weight, instances)));
    let web =
        ServiceRoutes { routes, listeners: Vec::new(), traffic: Default::default(), releases: releases.collect() };
    RouteTable { version, services: [(name("web"), Arc::new(web))].into() }
}

/// Returns the service `web`.
pub(crate) fn web(table: &mut RouteTable) -> &mut ServiceRoutes {
    Arc::make_mut(table.services.get_mut(&name("web")).unwrap())
}

/// Has all instances count as healthy without being asked.
pub(crate) fn all_healthy(table: &mut RouteTable) {
    for release in web(table).releases.values_mut() {
        release.health.check = HealthCheck::Running;
        release.instances.values_mut().for_each(|instance| instance.healthy = Some(true));
    }
}

/// Adds a virtual address to the service `web`.
pub(crate) fn listen(table: &mut RouteTable, address: &str, protocol: Protocol) {
    let listener = Listener { address: address.parse().unwrap(), port: name("http"), protocol };
    web(table).listeners.push(listener);
}

fn release(number: u32, weight: u32, instances: &[Ipv4Addr]) -> ReleaseRoutes {
    let instance = |(at, address): (usize, &Ipv4Addr)| {
        // The last parts of the address tell one start of an instance from another.
        let generation = u64::from(u32::from(*address));
        let route = InstanceRoute { address: *address, generation, healthy: None };
        (format!("web-{number}-{}", at + 1).parse().unwrap(), route)
    };
    ReleaseRoutes {
        weight: Weight::percent(weight),
        ports: [(name("http"), Port::new(PORT, Protocol::Http))].into(),
        health: Health {
            check: HealthCheck::Http { path: "/check".into(), port: name("http") },
            interval: Millis(200),
            ..Health::default()
        },
        drain: Millis::seconds(4),
        instances: instances.iter().enumerate().map(instance).collect(),
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}
