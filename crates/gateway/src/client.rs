//! The controller's end of the control socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use basalt_model::RouteTable;
use basalt_seam::{Router, RouterSeen, Wake};
use basalt_wire::{Line, Reader, WireError, Writer};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::gently::{apart, is_long};
use crate::protocol::{Report, Request};
use crate::table_change::TableChange;

/// First pause before another attempt to connect: a gateway that is restarted is back within tens of milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause: one attempt costs nothing, and nobody wants to wait longer once the gateway is back.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Routes by a gateway in another process. It connects, and connects again, by itself.
pub struct GatewayRouter {
    newest: watch::Sender<Option<Arc<RouteTable>>>,
    known: Mutex<Known>,
    wake: Wake,
}

/// What is known of the gateway.
#[derive(Default)]
struct Known {
    /// What it says, with the refusal as one more problem.
    seen: Arc<RouterSeen>,
    /// Why it has not taken a table, and the last version with which that is still true: a later one in force came after it.
    refusal: Option<(u64, String)>,
}

impl GatewayRouter {
    /// Follows the gateway behind the control socket (`DATA/run/gateway.sock`) and calls `wake` at each change.
    ///
    /// It returns at once; until the gateway answers, what is seen is not connected. The thread that follows ends
    /// when the router is dropped.
    pub fn connect(socket: PathBuf, wake: Wake) -> Arc<Self> {
        let (newest, changes) = watch::channel(None);
        let router = Arc::new(Self { newest, known: Mutex::default(), wake });
        let weak = Arc::downgrade(&router);
        // A thread of its own: this works inside and outside of a runtime, and reading a large table stalls nobody.
        let thread = std::thread::Builder::new().name("gateway-link".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(follow(socket, changes, weak)),
                Err(error) => tracing::error!("can't follow the gateway: {error}"),
            }
        });
        if let Err(error) = thread {
            tracing::error!("can't follow the gateway: {error}");
        }
        router
    }

    /// Changes what is seen, and tells.
    fn update(&self, change: impl FnOnce(&mut RouterSeen)) {
        let mut known = self.known();
        let Known { seen, refusal } = &mut *known;
        let seen = Arc::make_mut(seen);
        change(seen);
        refusal.take_if(|(last, _)| seen.version > *last);
        if let Some((_, refusal)) = refusal
            && !seen.problems.contains(refusal)
        {
            seen.problems.push(refusal.clone());
        }
        drop(known);
        (self.wake)();
    }

    /// Says that a table was not taken.
    fn refuse(&self, version: u64, why: &str) {
        let refusal = format!("the gateway did not take version {version} of the route table: {why}");
        let mut known = self.known();
        let last = version.max(known.seen.version);
        let before = known.refusal.replace((last, refusal));
        drop(known);
        self.update(|seen| seen.problems.retain(|problem| before.as_ref().is_none_or(|(_, before)| before != problem)));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router for GatewayRouter {
    fn set(&self, table: Arc<RouteTable>) {
        self.newest.send_replace(Some(table));
    }

    fn seen(&self) -> Arc<RouterSeen> {
        self.known().seen.clone()
    }
}

/// Connects again and again until the router is gone.
async fn follow(socket: PathBuf, mut newest: watch::Receiver<Option<Arc<RouteTable>>>, router: Weak<GatewayRouter>) {
    let mut pause = FIRST_PAUSE;
    while router.strong_count() > 0 {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            pause = FIRST_PAUSE;
            let (reader, writer) = basalt_wire::split(stream);
            // The newest table is sent on each connection, whether or not an earlier one has taken it.
            newest.mark_changed();
            tokio::select! {
                sent = send(writer, &mut newest, &router) => if let Err(error) = sent {
                    tracing::debug!("can't send the route table to the gateway: {error}");
                },
                () = receive(reader, &router) => {}
            }
            if let Some(router) = router.upgrade() {
                router.update(|seen| seen.connected = false);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sends each table, or what has changed since the one before, until the connection breaks or the router is gone. Tables that were
/// replaced meanwhile are left out.
async fn send(
    mut writer: Writer,
    newest: &mut watch::Receiver<Option<Arc<RouteTable>>>,
    router: &Weak<GatewayRouter>,
) -> Result<(), WireError> {
    let mut last: Option<Arc<RouteTable>> = None;
    while newest.changed().await.is_ok() {
        let Some(table) = newest.borrow_and_update().clone() else { continue };
        let (before, after) = (last.clone(), table.clone());
        let line = apart(is_long(after.services.len(), 0), move || {
            Line::of(&match before {
                Some(before) => Request::ChangeTable(TableChange::between(&before, &after)),
                None => Request::SetTable(TableChange::between(&RouteTable::default(), &after)),
            })
        });
        match line.await? {
            Ok(line) => writer.send_line(&line).await?,
            // A connection less would not make it shorter.
            Err(error @ WireError::TooLong) => {
                let Some(router) = router.upgrade() else { break };
                router.refuse(table.version, &error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        }
        last = Some(table);
    }
    Ok(())
}

/// Takes reports until the connection breaks or the router is gone.
async fn receive(mut reader: Reader, router: &Weak<GatewayRouter>) {
    loop {
        let report = match reader.next::<Report>().await {
            Ok(Some(report)) => report,
            Ok(None) => return,
            Err(error) => return tracing::warn!("lost the gateway: {error}"),
        };
        let Some(router) = router.upgrade() else { return };
        match report {
            Report::Seen(all) => router.update(|seen| *seen = RouterSeen { connected: true, ..all }),
            Report::Changed(change) => router.update(|seen| change.apply(seen)),
            Report::Refused { version, why } => router.refuse(version, &why),
        }
    }
}
