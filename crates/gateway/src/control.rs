//! The gateway's end of the control socket.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basalt_model::RouteTable;
use basalt_seam::RouterSeen;
use basalt_wire::{Reader, WireError, Writer};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Error;
use crate::changes::Touched;
use crate::gently::{apart, is_long};
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
        // It ends with this task, and whoever listens to it then ends too.
        let serving = watch::Sender::new(());
        loop {
            let accepted = self.listener.accept().await.and_then(|(stream, _)| stream.into_std());
            let served = accepted.and_then(|stream| {
                let (plane, tables, serving) = (plane.clone(), tables.clone(), serving.subscribe());
                let thread = std::thread::Builder::new().name("control".to_owned());
                thread.spawn(move || serve_apart(stream, &plane, &tables, serving))
            });
            if let Err(error) = served {
                tracing::warn!("can't serve a client at `{}`: {error}", self.path.display());
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one client until it leaves or `serving` ends, on a thread of its own: reading a large table holds nothing else up.
fn serve_apart(stream: StdStream, plane: &Plane, tables: &Arc<Tables>, mut serving: watch::Receiver<()>) {
    let served = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            let stream = UnixStream::from_std(stream)?;
            tokio::select! {
                () = serve_client(stream, plane, tables) => {}
                // Nothing is ever sent: an error is the end.
                _ = serving.changed() => {}
            }
            Ok(())
        })
    });
    if let Err(error) = served {
        tracing::warn!("can't serve a client of the control socket: {error}");
    }
}

/// Serves one client until it leaves.
async fn serve_client(stream: UnixStream, plane: &Plane, tables: &Arc<Tables>) {
    let (reader, writer) = basalt_wire::split(stream);
    // Few refusals are ever under way: the client is told of one before it can send much more.
    let (refuse, refused) = mpsc::channel(16);
    let result = tokio::select! {
        result = take_tables(reader, tables, refuse) => result,
        result = report(writer, plane, refused) => result,
    };
    if let Err(error) = result {
        tracing::warn!("lost a client of the control socket: {error}");
    }
}

async fn take_tables(mut reader: Reader, tables: &Arc<Tables>, refuse: mpsc::Sender<Report>) -> Result<(), WireError> {
    let mut last: Arc<RouteTable> = Arc::default();
    while let Some(line) = reader.line().await? {
        // What is replaced is given back there, too.
        let (tables, before) = (tables.clone(), std::mem::take(&mut last));
        let taken = apart(is_long(before.services.len(), line.length()), move || {
            let request: Request = line.value()?;
            let table = Arc::new(request.table_after(&before));
            Ok::<_, WireError>((tables.take(table.clone()), table))
        });
        let (taken, table) = taken.await??;
        if let Err(older) = taken {
            let refusal = Report::Refused { version: table.version, why: older.to_string() };
            if refuse.send(refusal).await.is_err() {
                break;
            }
        }
        last = table;
    }
    Ok(())
}

async fn report(mut writer: Writer, plane: &Plane, mut refused: mpsc::Receiver<Report>) -> Result<(), WireError> {
    let mut changes = plane.changes.follow();
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
        let change = match counters {
            Counters::Told => {
                changes.take();
                Change::between(&sent, &plane.seen(), counters)
            }
            Counters::Untold => {
                let (seen, touched) = plane.seen_by(&changes);
                Change::between(&part(&sent, &touched), &seen, counters)
            }
        };
        if let Some(change) = change {
            let report = Report::Changed(change);
            writer.send(&report).await?;
            if let Report::Changed(change) = report {
                change.apply(&mut sent);
            }
            sleep(SPACING).await;
        }
    }
}

/// Returns what was seen, with only some of the instances.
fn part<'s>(seen: &'s RouterSeen, which: &Touched) -> Cow<'s, RouterSeen> {
    let Touched::Some(some) = which else { return Cow::Borrowed(seen) };
    let instances = some.keys().filter_map(|id| seen.instances.get_key_value(id));
    Cow::Owned(RouterSeen {
        connected: seen.connected,
        version: seen.version,
        instances: instances.map(|(id, traffic)| (id.clone(), traffic.clone())).collect(),
        http: seen.http.clone(),
        problems: seen.problems.clone(),
    })
}
