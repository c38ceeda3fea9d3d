//! The process `basalt gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::Error;
use crate::connections::Connections;
use crate::control::Control;
use crate::copy::Copy;
use crate::forwarded::Trust;
use crate::limits::Limits;
use crate::listeners::Listeners;
use crate::network::Network;
use crate::plane::Plane;
use crate::refusals::Refusals;
use crate::sockets::Sockets;
use crate::tables::Tables;

/// Time between two looks after the listening sockets: what they mend is rare, and no request waits for it.
const TENDING: Duration = Duration::from_secs(5);

/// Time between two looks after idle connections to instances.
const SWEEPING: Duration = Duration::from_secs(1);

/// What the gateway is told at its start.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The data directory.
    pub data: PathBuf,
    /// Where requests from outside are taken.
    pub http: SocketAddr,
    /// Whose word about their own clients is believed: proxies and load balancers before this one.
    pub trusted: Vec<Network>,
    /// How much is granted to a client.
    pub limits: Limits,
}

/// Runs the gateway until SIGTERM, SIGINT or SIGHUP; then finishes what is in flight and returns.
///
/// At SIGHUP, `successor` is called once this gateway has let go of its control socket and its listening sockets, which the
/// keeper holds: another process may take over at once, while this one finishes.
///
/// It comes back with the route table that it had, and takes newer ones from its control socket
/// (`DATA/run/gateway.sock`).
///
/// # Errors
/// If the address or the control socket can't be listened on, another gateway serves the same data directory, or the folder
/// for the copy of the route table can't be made.
pub fn run(options: GatewayOptions, successor: impl FnOnce()) -> Result<(), Error> {
    raise_file_limit();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Connections have threads of their own; here they are only accepted, and instances checked.
    let runtime = runtime.worker_threads(1).enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => End::ForGood,
                _ = interrupt.recv() => End::ForGood,
                _ = hang_up.recv() => End::ForASuccessor,
            }
        };
        serve(options, threads, end, successor).await
    });
    // What is left are checks and connections that took too long.
    runtime.shutdown_background();
    result
}

/// Why a gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody is to take its place.
    ForGood,
    /// Another process takes its place.
    ForASuccessor,
}

/// Allows as many open files as the machine grants: each connection takes one on either side, and the usual 1,024 are soon gone.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("can't raise the limit of open files: {error}");
    }
}

/// Serves until `end`; then finishes what is in flight. `successor` is called in between, if there is to be one.
pub(crate) async fn serve(
    options: GatewayOptions,
    threads: usize,
    end: impl Future<Output = End>,
    successor: impl FnOnce(),
) -> Result<(), Error> {
    let plane = Plane::new(Handle::current());
    let copy =
        Copy::in_data(&options.data).map_err(|source| Error::Copy { path: options.data.join("gateway"), source })?;
    let control = Control::in_data(&options.data).await?;
    let sockets = Sockets::take_back(options.data.join("run/fdstore.sock"));
    let connections = Connections::new(plane.clone(), threads, options.limits, Trust(options.trusted))?;
    let listeners = Arc::new(Listeners::new(plane.clone(), connections.clone(), sockets, options.http)?);
    let tables = Arc::new(Tables::new(plane.clone(), listeners.clone(), copy));
    tables.restore();
    let control = tokio::spawn(control.serve(plane.clone(), tables.clone()));
    let tending = tokio::spawn(tend(tables));
    let sweeping = tokio::spawn(sweep(plane, connections.refusals().clone()));
    let end = end.await;
    tending.abort();
    sweeping.abort();
    control.abort();
    // It holds the control socket until it has ended; that it was ended is no error.
    let _ = control.await;
    listeners.stop();
    if end == End::ForASuccessor {
        successor();
    }
    connections.finish().await;
    Ok(())
}

/// Looks after the listening sockets until the task is ended.
async fn tend(tables: Arc<Tables>) {
    loop {
        sleep(TENDING).await;
        let tables = tables.clone();
        // It waits for the keeper.
        if tokio::task::spawn_blocking(move || tables.tend()).await.is_err() {
            return;
        }
    }
}

/// Closes connections to instances that are idle for too long, and tells what was refused, until the task is ended.
async fn sweep(plane: Arc<Plane>, refusals: Arc<Refusals>) {
    loop {
        sleep(SWEEPING).await;
        plane.sweep();
        if let Some(news) = refusals.news() {
            tracing::warn!("{news}");
        }
    }
}
