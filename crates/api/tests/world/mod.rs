//! Adapters held in memory that do at once what they are asked, and a server in front of them.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_api::{Client, Hooks, LogFilter, LogLine, LogLines, LogSource, LogStream, ServerInfo, serve};
use basalt_controller::{Controller, Parts};
use basalt_model::{
    Digest, Event, Exit, ImageConfig, Kind, Millis, Name, Release, RolloutSpec, RouteTable, Settings, Strategy,
    digest_of,
};
use basalt_plan::{Desired, DesiredService};
use basalt_seam::{
    Backend, BackendInstance, BackendSeen, BackendState, Clock, Depot, DepotError, InstanceAction, InstanceTraffic,
    Journal, JournalError, MountPoints, PinnedImage, Router, RouterSeen, Row, SecretBytes, Secrets, SecretsError,
};
use futures::{StreamExt, stream};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// What the adapters hold.
#[derive(Clone, Default)]
pub struct World {
    held: Arc<Mutex<Held>>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Held {
    backend: BackendSeen,
    router: RouterSeen,
    rows: Vec<Row>,
}

impl World {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }
}

impl Backend for World {
    fn perform(&self, action: InstanceAction) {
        let instances = &mut self.held().backend.instances;
        match action {
            InstanceAction::Start(start) => {
                let started = BackendInstance {
                    generation: start.generation,
                    state: BackendState::Running { pid: 4242, since: Millis(1_785_412_800_000) },
                    address: Some(Ipv4Addr::new(10, 83, 0, start.id.ordinal() as u8)),
                    healthy: None,
                    last_probe: None,
                };
                instances.insert(start.id, started);
            }
            InstanceAction::Stop { id, .. } => {
                let ended = BackendState::Ended { exit: Exit::Code(0), at: Millis(1), last_lines: Vec::new() };
                instances.entry(id).and_modify(|instance| instance.state = ended);
            }
            InstanceAction::Forget { id, .. } => drop(instances.remove(&id)),
        }
        self.wake.notify_one();
    }

    fn seen(&self) -> Arc<BackendSeen> {
        Arc::new(self.held().backend.clone())
    }
}

impl Router for World {
    fn set(&self, table: Arc<RouteTable>) {
        let router = &mut self.held().router;
        router.version = table.version;
        let named = table.services.values().flat_map(|service| service.releases.values()).flat_map(|r| &r.instances);
        let traffic =
            |generation| InstanceTraffic { generation, named: true, healthy: Some(true), ..Default::default() };
        router.instances = named.map(|(id, route)| (id.clone(), traffic(route.generation))).collect();
        self.wake.notify_one();
    }

    fn seen(&self) -> Arc<RouterSeen> {
        Arc::new(self.held().router.clone())
    }
}

impl Journal for World {
    fn append(&mut self, at: Millis, events: &[Event]) -> Result<Vec<Row>, JournalError> {
        let rows = &mut self.held().rows;
        let first = rows.len();
        rows.extend(events.iter().zip(first as u64 + 1..).map(|(event, seq)| Row {
            seq,
            at,
            event: event.clone(),
            hash: digest_of(&(seq, event)),
        }));
        Ok(rows[first..].to_vec())
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<Row>, JournalError> {
        Ok(self.held().rows.iter().filter(|row| row.seq > after).take(limit).cloned().collect())
    }
}

impl Depot for World {
    fn image(&self, digest: &Digest, _: &MountPoints) -> Result<PinnedImage, DepotError> {
        let (erofs, objects) = (PathBuf::from("/image"), PathBuf::from("/objects"));
        Ok(PinnedImage { digest: *digest, erofs, objects, config: ImageConfig::default() })
    }
}

impl Secrets for World {
    fn latest(&self, _: &Name) -> Result<Option<u64>, SecretsError> {
        Ok(None)
    }

    fn reveal(&self, name: &Name, _: u64) -> Result<SecretBytes, SecretsError> {
        Err(SecretsError { name: name.clone(), what: "there are no secrets here".into(), source: None })
    }
}

impl Clock for World {
    #[allow(clippy::disallowed_methods)] // the loop sleeps in real time here
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Millis(since.as_millis() as u64)
    }
}

/// Two lines that are there, and one that comes and ends the stream with an error.
impl LogSource for World {
    fn lines(&self, filter: &LogFilter) -> io::Result<Vec<LogLine>> {
        let lines = [("web-1-1", "hello"), ("api-1-1", "ready")];
        let wanted = |id: &str| filter.service.as_ref().is_none_or(|service| id.starts_with(service));
        let line = |(id, text): (&str, &str)| LogLine::new(Millis(1), id, LogStream::Stdout, text);
        Ok(lines.into_iter().filter(|(id, _)| wanted(id)).map(line).collect())
    }

    fn follow(&self, filter: LogFilter) -> io::Result<LogLines> {
        let lines = self.lines(&filter)?.into_iter().map(Ok);
        Ok(stream::iter(lines.chain([Err(io::Error::other("the file is gone"))])).boxed())
    }
}

/// A running server, and a client of it.
pub struct Server {
    pub client: Client,
    pub folder: tempfile::TempDir,
    /// Ends with the server's result.
    pub task: JoinHandle<io::Result<()>>,
}

/// Starts a controller over a fresh world, and a server on a socket in a folder of its own.
pub async fn start() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("controller.sock");
    let task = serve_at(&socket).await;
    Server { client: Client::new(socket), folder, task }
}

/// Starts a controller over a fresh world and serves it; returns when somebody answers at the socket.
pub async fn serve_at(socket: &Path) -> JoinHandle<io::Result<()>> {
    let world = World::default();
    {
        let mut held = world.held();
        (held.backend.connected, held.router.connected) = (true, true);
        held.router.http = Some("127.0.0.1:8080".into());
    }
    let controller = Controller::start(Parts {
        journal: Box::new(world.clone()),
        reader: Box::new(world.clone()),
        backend: Arc::new(world.clone()),
        router: Arc::new(world.clone()),
        depot: Arc::new(world.clone()),
        secrets: Arc::new(world.clone()),
        clock: Arc::new(world.clone()),
        address: Box::new(|slot| Ipv4Addr::new(10, 84, 0, slot as u8)),
        wake: world.wake.clone(),
    })
    .unwrap();
    let (end, ended) = oneshot::channel();
    let end = Mutex::new(Some(end));
    let hooks = Hooks {
        logs: Arc::new(world),
        shutdown: Arc::new(move || {
            if let Some(end) = end.lock().unwrap().take() {
                end.send(()).expect("the server waits for it");
            }
        }),
        info: ServerInfo { version: "1.2.3".into(), ..ServerInfo::default() },
    };
    let path = socket.to_owned();
    let task = tokio::spawn(async move { serve(&path, controller, hooks, async { drop(ended.await) }).await });
    while !task.is_finished() && UnixStream::connect(socket).await.is_err() {
        tokio::task::yield_now().await;
    }
    task
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The stack `shop` with two instances of `web` that say this version.
pub fn desired(version: &str) -> Desired {
    let release = Release {
        env: BTreeMap::from([("VERSION".to_owned(), version.to_owned())]),
        ..Release::new(Kind::Service, Digest::from_bytes([1; 32]))
    };
    let rollout = RolloutSpec { strategy: Strategy::BlueGreen, ..RolloutSpec::default() };
    let settings = Settings { instances: 2, rollout, ..Settings::default() };
    let web = DesiredService { release: Arc::new(release), settings };
    Desired { stack: name("shop"), services: BTreeMap::from([(name("web"), web)]), jobs: BTreeMap::new() }
}
