//! The gateway's end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basalt_wire::{Reader, WireError, Writer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Error;
use crate::plane::Plane;
use crate::protocol::{Change, Counters, Report, Request};
use crate::tables::Tables;

/// Shortest time between two reports: 100 a second keep a rollout moving and cost next to nothing.
const SPACING: Duration = Duration::from_millis(10);
/// Time between two reports of counters, which are for people and statistics.
const COUNTING: Duration = Duration::from_secs(1);
/// Pause after a failure to accept: descriptors may be short, and come back by themselves.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens on `DATA/run/gateway.sock`, in place of a socket that a dead gateway has left.
    ///
    /// # Errors
    /// If another gateway answers there, or the socket can't be made.
    pub(crate) async fn in_data(data: &Path) -> Result<Self, Error> {
        let path = data.join("run/gateway.sock");
        if UnixStream::connect(&path).await.is_ok() {
            return Err(Error::AlreadyRunning { path });
        }
        Self::listen(&path).map_err(|source| Error::Control { path, source })
    }

    /// Listens at a path, in place of a socket that is there.
    ///
    /// # Errors
    /// If the socket can't be made.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever may set a table may take all traffic.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves clients until the task is ended; then they are left, so that they look for a successor.
    pub(crate) async fn serve(self, plane: Arc<Plane>, tables: Arc<Tables>) {
        let mut clients = JoinSet::new();
        loop {
            // Those who have left are forgotten.
            while clients.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    clients.spawn(serve_client(stream, plane.clone(), tables.clone()));
                }
                Err(error) => {
                    tracing::warn!("can't accept on `{}`: {error}", self.path.display());
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Serves one client until it leaves.
async fn serve_client(stream: UnixStream, plane: Arc<Plane>, tables: Arc<Tables>) {
    let (reader, writer) = basalt_wire::split(stream);
    // Few refusals are ever under way: the client is told of one before it can send much more.
    let (refuse, refused) = mpsc::channel(16);
    let result = tokio::select! {
        result = take_tables(reader, &tables, refuse) => result,
        result = report(writer, &plane, refused) => result,
    };
    if let Err(error) = result {
        tracing::warn!("lost a client of the control socket: {error}");
    }
}

async fn take_tables(mut reader: Reader, tables: &Arc<Tables>, refuse: mpsc::Sender<Report>) -> Result<(), WireError> {
    while let Some(Request::SetTable(table)) = reader.next().await? {
        let version = table.version;
        let tables = tables.clone();
        // It waits for the disk.
        let taken = tokio::task::spawn_blocking(move || tables.take(table)).await;
        let why = match taken {
            Ok(Ok(())) => continue,
            Ok(Err(older)) => older.to_string(),
            Err(failed) => failed.to_string(),
        };
        if refuse.send(Report::Refused { version, why }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn report(mut writer: Writer, plane: &Plane, mut refused: mpsc::Receiver<Report>) -> Result<(), WireError> {
    let mut changes = plane.changes();
    let mut counting = interval(COUNTING);
    counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    counting.reset();
    let mut sent = plane.seen();
    writer.send(&Report::Seen(sent.clone())).await?;
    loop {
        let counters = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => Counters::Untold,
                Err(_) => return Ok(()),
            },
            _ = counting.tick() => Counters::Told,
            refusal = refused.recv() => match refusal {
                Some(refusal) => {
                    writer.send(&refusal).await?;
                    continue;
                }
                None => return Ok(()),
            },
        };
        if let Some(change) = Change::between(&sent, &plane.seen(), counters) {
            let report = Report::Changed(change);
            writer.send(&report).await?;
            if let Report::Changed(change) = report {
                change.apply(&mut sent);
            }
            sleep(SPACING).await;
        }
    }
}
