//! The process `basalt gateway`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::Error;
use crate::access_log::{AccessLog, LogFormat};
use crate::acme::{self, AcmeOptions, LETS_ENCRYPT};
use crate::admin;
use crate::affinity::Signer;
use crate::connections::{Connections, FINISH};
use crate::control::Control;
use crate::copy::Copy;
use crate::forwarded::Trust;
use crate::limits::Limits;
use crate::listeners::Listeners;
use crate::network::Network;
use crate::plane::Plane;
use crate::predecessors;
use crate::receipts::{self, Receipt};
use crate::refusals::Refusals;
use crate::sockets::Sockets;
use crate::tables::Tables;
use crate::tls::{self, Certificates};
use crate::trace::Spans;

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
    /// Whether those begin each connection with the header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// How much is granted to a client.
    pub limits: Limits,
    /// Where they are taken over TLS.
    pub https: Option<SocketAddr>,
    /// Where metrics are shown, beside `DATA/run/metrics.sock`.
    pub metrics: Option<SocketAddr>,
    /// Whether requests are logged to `DATA/logs/access.log`.
    pub access_log: Option<LogFormat>,
    /// The collector that spans are sent to by OTLP over HTTP.
    pub traces: Option<String>,
    /// Which authority issues certificates.
    pub acme: AcmeOptions,
}

impl GatewayOptions {
    /// Returns the options of a gateway that takes HTTP alone.
    pub fn new(data: PathBuf, http: SocketAddr) -> Self {
        let acme = AcmeOptions { directory: LETS_ENCRYPT.to_owned(), contact: None, root: None };
        let limits = Limits::default();
        Self {
            data,
            http,
            trusted: vec![],
            proxy_protocol: false,
            limits,
            https: None,
            metrics: None,
            access_log: None,
            traces: None,
            acme,
        }
    }
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
    furnish(&plane, &options);
    let sockets = Sockets::take_back(options.data.join("run/fdstore.sock"));
    let trust = Trust { networks: options.trusted.clone(), proxy_protocol: options.proxy_protocol };
    let connections = Connections::new(plane.clone(), threads, options.limits.clone(), trust)?;
    // Nothing else sets it.
    let _ = plane.edge.peers.set(connections.refusals().clone());
    let listeners = Arc::new(Listeners::new(plane.clone(), connections.clone(), sockets, options.http, options.https)?);
    let tables = Arc::new(Tables::new(plane.clone(), listeners.clone(), copy));
    // Who keeps certificates is there before the table is: with it, connections are accepted.
    let beside = beside(&plane, &options);
    tables.restore();
    // Nobody is told what is in flight before what a gateway before this one has in flight is known too.
    if let Err(error) = predecessors::follow(&plane, &options.data).await {
        tracing::warn!("what a gateway before this one has in flight is not known: {error}");
    }
    let control = tokio::spawn(control.serve(plane.clone(), tables.clone()));
    let tending = tokio::spawn(tend(tables.clone()));
    let sweeping = tokio::spawn(sweep(plane.clone(), connections.refusals().clone(), options.data.clone()));
    let end = end.await;
    tending.abort();
    sweeping.abort();
    beside.iter().for_each(AbortHandle::abort);
    control.abort();
    // It holds the control socket until it has ended; that it was ended is no error.
    let _ = control.await;
    listeners.stop();
    if end == End::ForASuccessor {
        tables.hand_over();
        write_receipts(&plane.take_receipts(), &options.data);
        let path = predecessors::socket(&options.data);
        let told = match Control::listen(&path) {
            Ok(control) => Some(tokio::spawn(control.serve(plane.clone(), tables))),
            Err(error) => {
                tracing::warn!("a successor won't know what is in flight here: {error}");
                None
            }
        };
        successor();
        connections.finish(longest_drain(&plane).max(FINISH)).await;
        // Nothing is in flight any more, or it is cut with this process.
        let _ = std::fs::remove_file(&path);
        if let Some(told) = told {
            told.abort();
        }
    } else {
        connections.finish(FINISH).await;
    }
    let mut receipts = plane.take_receipts();
    if end == End::ForASuccessor {
        // The successor writes one of each instance that leaves from now on; this one adds what it still had.
        receipts.retain(|receipt| receipt.ended + receipt.cut > 0);
    }
    write_receipts(&receipts, &options.data);
    // It waits for the disk; that it can't is no reason to fail at the end.
    let _ = tokio::task::spawn_blocking(move || plane.edge.log.get().map(AccessLog::flush)).await;
    Ok(())
}

/// Gives a plane what it has beside its table. What fails is told, and no reason to take no requests.
fn furnish(plane: &Arc<Plane>, options: &GatewayOptions) {
    match Signer::in_data(&options.data) {
        Ok(signer) => plane.edge.sign_with(signer),
        Err(error) => tracing::warn!("cookies won't be known after a restart: {error}"),
    }
    // Nothing else sets any of these.
    match options.access_log.map(|format| AccessLog::in_data(&options.data, format)) {
        Some(Ok(log)) => drop(plane.edge.log.set(log)),
        Some(Err(error)) => plane.set_problem("log".to_owned(), Some(format!("there is no access log: {error}"))),
        None => {}
    }
    match options.traces.as_ref().map(|collector| collector.parse()) {
        Some(Ok(collector)) => drop(plane.edge.spans.set(Spans::to(collector))),
        Some(Err(error)) => plane.set_problem("traces".to_owned(), Some(format!("no spans are sent: {error}"))),
        None => {}
    }
}

/// Starts what goes on beside requests: metrics and certificates.
fn beside(plane: &Arc<Plane>, options: &GatewayOptions) -> Vec<AbortHandle> {
    let unix = options.data.clone();
    let shown = plane.clone();
    let mut tasks = vec![tokio::spawn(async move { admin::serve_unix(&unix, shown).await }).abort_handle()];
    if let Some(address) = options.metrics {
        tasks.push(tokio::spawn(admin::serve_tcp(address, plane.clone())).abort_handle());
    }
    if options.https.is_some() {
        let certificates = Arc::new(Certificates::in_data(&options.data));
        let _ = plane.edge.certificates.set(certificates.clone());
        tasks.push(tokio::spawn(tls::tend(plane.clone(), certificates.clone())).abort_handle());
        let folder = options.data.join("gateway/acme");
        let acme = acme::tend(plane.clone(), certificates, folder, options.acme.clone());
        tasks.push(tokio::spawn(acme).abort_handle());
    }
    tasks
}

/// Returns the longest time that an instance of the table in force has to drain: so long may what is in flight take.
fn longest_drain(plane: &Plane) -> Duration {
    let table = plane.table();
    let releases = table.services.values().flat_map(|service| service.releases.values());
    Duration::from_millis(releases.map(|release| release.drain.0).max().unwrap_or(0))
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

/// Writes down what has become of drained instances.
fn write_receipts(receipts: &[Receipt], data: &Path) {
    for receipt in receipts.iter().filter(|receipt| receipt.cut > 0) {
        tracing::warn!(
            "`{}` has left: {} in flight were cut: {}",
            receipt.instance,
            receipt.cut,
            receipt.which.join(", ")
        );
    }
    if let Err(error) = receipts::write(data, receipts) {
        tracing::warn!("receipts of drains can't be written: {error}");
    }
}

/// Closes connections to instances that are idle for too long, writes receipts, and tells what was refused, until the task is ended.
async fn sweep(plane: Arc<Plane>, refusals: Arc<Refusals>, data: PathBuf) {
    loop {
        sleep(SWEEPING).await;
        let (swept, folder) = (plane.clone(), data.clone());
        // It waits for the disk: what accepts connections must not.
        let work = tokio::task::spawn_blocking(move || {
            swept.sweep();
            write_receipts(&swept.take_receipts(), &folder);
        });
        if work.await.is_err() {
            return;
        }
        if let Some(news) = refusals.news() {
            tracing::warn!("{news}");
        }
    }
}
