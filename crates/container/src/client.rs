//! The controller's side of the keeper: a [`Backend`] that speaks over the keeper's socket.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use basalt_model::{Generation, InstanceId};
use basalt_seam::{Backend, BackendInstance, BackendSeen, BackendState, InstanceAction, Wake};
use basalt_wire::{Reader, WireError, Writer, split};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::protocol::{FromKeeper, ToKeeper, keeper_socket};

/// The first pause before connecting again; a restarted keeper is there after a few of them.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The keeper as a backend.
pub struct KeeperBackend {
    view: Mutex<View>,
    actions: mpsc::UnboundedSender<InstanceAction>,
    wake: Wake,
}

/// What is shown: what the keeper says, and over it what it has been told to start and has not shown yet.
#[derive(Debug, Default)]
struct View {
    connected: bool,
    kept: BTreeMap<InstanceId, BackendInstance>,
    asked: BTreeMap<InstanceId, Generation>,
    shown: Arc<BackendSeen>,
}

impl View {
    fn show(&mut self) {
        let mut instances = self.kept.clone();
        self.asked.retain(|id, generation| self.kept.get(id).is_none_or(|kept| kept.generation < *generation));
        for (id, generation) in &self.asked {
            let starting = BackendInstance {
                generation: *generation,
                state: BackendState::Starting,
                address: None,
                healthy: None,
                last_probe: None,
            };
            instances.insert(id.clone(), starting);
        }
        self.shown = Arc::new(BackendSeen { connected: self.connected, instances });
    }

    fn take(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Snapshot(instances) => {
                self.connected = true;
                self.kept = instances.into_iter().collect();
            }
            FromKeeper::Changed(id, Some(instance)) => {
                self.kept.insert(id, instance);
            }
            FromKeeper::Changed(id, None) => {
                self.kept.remove(&id);
            }
            FromKeeper::Down | FromKeeper::Refused(_) => {}
        }
        self.show();
    }
}

impl KeeperBackend {
    /// Returns a backend that stays connected to the keeper at `socket`, or tries to. To be called within a tokio runtime.
    ///
    /// `respawn` is called when nobody answers there; it may start a keeper, blocking for a short while.
    pub fn connect(socket: PathBuf, wake: Wake, respawn: Arc<dyn Fn() + Send + Sync>) -> Arc<Self> {
        let (actions, queue) = mpsc::unbounded_channel();
        let backend = Arc::new(Self { view: Mutex::default(), actions, wake });
        tokio::spawn(keep_connected(Arc::downgrade(&backend), socket, queue, respawn));
        backend
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // The view is whole after each of its methods, none of which panics.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, message: FromKeeper) {
        self.view().take(message);
        (self.wake)();
    }

    fn disconnected(&self) {
        let mut view = self.view();
        let before = view.connected;
        view.connected = false;
        // What was asked may be lost with the connection: the controller decides anew from what is seen then.
        view.asked.clear();
        view.show();
        drop(view);
        if before {
            (self.wake)();
        }
    }
}

impl Backend for KeeperBackend {
    fn perform(&self, action: InstanceAction) {
        if let InstanceAction::Start(start) = &action {
            let mut view = self.view();
            if !view.connected {
                return;
            }
            view.asked.insert(start.id.clone(), start.generation);
            view.show();
        }
        // Fails only when the task has ended with the runtime.
        let _ = self.actions.send(action);
    }

    fn seen(&self) -> Arc<BackendSeen> {
        self.view().shown.clone()
    }
}

async fn keep_connected(
    backend: std::sync::Weak<KeeperBackend>,
    socket: PathBuf,
    mut queue: mpsc::UnboundedReceiver<InstanceAction>,
    respawn: Arc<dyn Fn() + Send + Sync>,
) {
    let mut pause = SHORTEST_PAUSE;
    while backend.strong_count() > 0 {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            pause = SHORTEST_PAUSE;
            while queue.try_recv().is_ok() {}
            let (reader, writer) = split(stream);
            if let Err(error) = converse(&backend, reader, writer, &mut queue).await {
                tracing::debug!(%error, "the connection to the keeper ended");
            }
            let Some(backend) = backend.upgrade() else { return };
            backend.disconnected();
        } else {
            let respawn = respawn.clone();
            // A panic in it is reported by the runtime, and the next round tries again.
            let _ = tokio::task::spawn_blocking(move || respawn()).await;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Hears and speaks at once: were it deaf while it speaks, and the keeper too, both would wait for ever.
async fn converse(
    backend: &std::sync::Weak<KeeperBackend>,
    mut reader: Reader,
    mut writer: Writer,
    queue: &mut mpsc::UnboundedReceiver<InstanceAction>,
) -> Result<(), WireError> {
    let hear = async {
        while let (Some(message), Some(backend)) = (reader.next().await?, backend.upgrade()) {
            backend.take(message);
        }
        Ok(())
    };
    let speak = async {
        while let Some(action) = queue.recv().await {
            writer.send(&ToKeeper::Perform(action)).await?;
        }
        Ok(())
    };
    tokio::select! {
        result = hear => result,
        result = speak => result,
    }
}

/// Asks the keeper to stop gateway and controller, to take away everything that it has set up, and to end.
/// Returns when that is done; at once if no keeper runs.
///
/// # Errors
/// If instances still run, or the keeper can't be reached.
pub async fn shutdown(data: &Path) -> io::Result<()> {
    let stream = match UnixStream::connect(keeper_socket(data)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let (mut reader, mut writer) = split(stream);
    writer.send(&ToKeeper::Shutdown).await.map_err(io::Error::other)?;
    loop {
        match reader.next::<FromKeeper>().await.map_err(io::Error::other)? {
            Some(FromKeeper::Refused(why)) => return Err(io::Error::other(why)),
            Some(FromKeeper::Down) | None => return Ok(()),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_that_speaks_first_and_hears_later_is_no_deadlock() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("keeper.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let backend = KeeperBackend::connect(socket, Arc::new(|| {}), Arc::new(|| {}));
        let (mut reader, mut writer) = split(listener.accept().await.unwrap().0);
        writer.send(&FromKeeper::Snapshot(Vec::new())).await.unwrap();
        while !backend.seen().connected {
            tokio::task::yield_now().await;
        }
        // More each way than a socket holds.
        let (id, many) = ("web-1-1".parse::<InstanceId>().unwrap(), 20_000);
        for _ in 0..many {
            backend.perform(InstanceAction::Forget { id: id.clone(), generation: 1 });
        }
        let talk = async {
            for _ in 0..many {
                writer.send(&FromKeeper::Changed(id.clone(), None)).await.unwrap();
            }
            for _ in 0..many {
                assert!(reader.next::<ToKeeper>().await.unwrap().is_some());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), talk).await.expect("both wait for each other");
    }
}
