//! The long-lived processes: keeper, gateway and controller.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use basalt_api::{Hooks, ServerInfo};
use basalt_container::KeeperBackend;
use basalt_container::keeper::{KeeperOptions, RoleCommand};
use basalt_container::supervise::claim_role;
use basalt_controller::{Controller, Parts};
use basalt_depot::Depot;
use basalt_gateway::GatewayRouter;
use basalt_journal::SqliteJournal;
use basalt_seam::Wake;
use basalt_trust::SecretStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use crate::cli::ServeArgs;
use crate::clock::SystemClock;
use crate::edge::EdgeArgs;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::logs::Logs;
use crate::paths::Data;
use crate::start;
use crate::sweeping::sweep;

/// Threads of the controller: one for the loop, which waits for the disk, and one that answers meanwhile.
const THREADS: usize = 2;

/// Runs the gateway until it is asked to end.
///
/// # Errors
/// If another runs for the data directory, or it can't listen.
pub fn gateway(args: &ServeArgs, data: &Data) -> Result<Outcome> {
    trace();
    let role = claim_role(data.dir(), "gateway").map_err(failed)?;
    let successor = || {
        drop(role);
        // Without one, the keeper starts another when this process ends.
        if let Err(error) = start::again() {
            tracing::warn!("no successor could be started: {error}");
        }
    };
    // What was told last counts, and not what the keeper was started with: it may have been told anew meanwhile.
    let edge = EdgeArgs::recorded(data).or(args.edge.clone());
    basalt_gateway::run(edge.to_options(data), successor).map_err(failed)?;
    Ok(Outcome::Done)
}

/// Runs the keeper until it is asked to end.
///
/// # Errors
/// If another runs for the data directory, or it can't do its work.
pub fn keeper(args: &ServeArgs, data: &Data) -> Result<Outcome> {
    trace();
    let edge = args.edge.or_recorded(data);
    let role =
        |role: &str, verb: &str| RoleCommand { role: role.to_owned(), args: start::arguments(verb, data, &edge) };
    let options = KeeperOptions {
        data: data.dir().to_owned(),
        basalt: start::program()?,
        // The gateway needs no controller to do its work, so it comes first.
        roles: vec![role("gateway", "gateway"), role("controller", "serve")],
    };
    basalt_container::keeper::run(options).map_err(failed)?;
    Ok(Outcome::Done)
}

/// Runs the controller until it is asked to end.
///
/// # Errors
/// If another runs for the data directory, or one of its parts can't be used.
pub fn serve(args: &ServeArgs, data: &Data) -> Result<Outcome> {
    trace();
    let edge = args.edge.or_recorded(data);
    data.make()?;
    let _role = claim_role(data.dir(), "controller").map_err(failed)?;
    if UnixStream::connect(data.socket("keeper")).is_err() {
        edge.record(data)?;
    }
    start::keeper(data, &edge)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::internal("the runtime could not be started").because(&error))?;
    let result = runtime.block_on(controller(data, edge));
    // The journal is synced at every append, so nothing is lost with what still runs.
    runtime.shutdown_background();
    result.map(|()| Outcome::Done)
}

/// Puts the controller together and serves its API.
async fn controller(data: &Data, edge: EdgeArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let changed = Arc::new(Notify::new());
    let wake: Wake = {
        let changed = changed.clone();
        Arc::new(move || changed.notify_one())
    };
    let network = basalt_container::network::network(data.dir()).map_err(failed)?;
    let respawn = {
        let data = data.clone();
        let edge = edge.clone();
        Arc::new(move || {
            if let Err(error) = start::keeper(&data, &edge) {
                tracing::error!("the keeper can't be started: {}", error.message);
            }
        })
    };
    let depot = Arc::new(Depot::open(&data.depot()).map_err(failed)?);
    let notes = depot.notes();
    let parts = Parts {
        journal: Box::new(SqliteJournal::open(&data.journal()).map_err(failed)?),
        reader: Box::new(SqliteJournal::open_reader(&data.journal()).map_err(failed)?),
        backend: KeeperBackend::connect(data.socket("keeper"), wake.clone(), respawn),
        router: GatewayRouter::connect(data.socket("gateway"), wake),
        depot: depot.clone(),
        secrets: Arc::new(SecretStore::open(&data.secrets()).map_err(failed)?),
        clock: Arc::new(SystemClock),
        // Slots are the lowest free numbers, so that one without an address means more services than addresses; what is
        // sent to the unspecified address then reaches nobody.
        address: Box::new(move |slot| network.service_address(slot).unwrap_or(Ipv4Addr::UNSPECIFIED)),
        wake: changed,
    };
    let controller = Controller::start(parts).map_err(failed)?;
    tokio::spawn(sweep(controller.clone(), depot));
    let asked = Arc::new(Notify::new());
    let hooks = Hooks {
        logs: Arc::new(Logs { data: data.dir().to_owned() }),
        shutdown: {
            let asked = asked.clone();
            Arc::new(move || asked.notify_one())
        },
        info: ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data: data.dir().display().to_string(),
            http: Some(edge.http().to_string()),
            notes,
        },
    };
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = asked.notified() => {}
        }
    };
    basalt_api::serve(&data.socket("controller"), controller, hooks, ended).await.map_err(failed)
}

fn failed(error: impl std::error::Error) -> CliError {
    CliError::of(Kind::Internal, &error)
}

/// Writes what happens to standard error; BASALT_LOG says how much (default: warnings).
fn trace() {
    let filter = EnvFilter::try_from_env("BASALT_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // Only a second call in the same process could fail.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init());
}
