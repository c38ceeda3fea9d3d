//! The process `basalt gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;
use crate::control::Control;
use crate::copy::Copy;
use crate::plane::Plane;
use crate::tables::Tables;

/// What the gateway is told at its start.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The data directory.
    pub data: PathBuf,
    /// Where requests from outside are taken.
    pub http: SocketAddr,
}

/// Runs the gateway until SIGTERM or SIGINT; then finishes what is in flight and returns.
///
/// It comes back with the route table that it had, and takes newer ones from its control socket
/// (`DATA/run/gateway.sock`).
///
/// # Errors
/// If an address or the control socket can't be listened on, another gateway serves the same data directory, or the copy of
/// the route table can't be read.
pub fn run(options: GatewayOptions) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(serve(options))
}

async fn serve(options: GatewayOptions) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let plane = Plane::new(Handle::current());
    let copy =
        Copy::in_data(&options.data).map_err(|source| Error::Copy { path: options.data.join("gateway"), source })?;
    let path = copy.path().to_owned();
    let tables = Arc::new(Tables::new(plane.clone(), copy));
    let control = Control::in_data(&options.data).await?;
    tables.restore().map_err(|source| Error::Copy { path, source })?;
    tokio::spawn(control.serve(plane, tables));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
