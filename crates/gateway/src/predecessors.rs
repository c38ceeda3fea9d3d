//! Gateways that have handed over and still finish what they have begun. They are told of newer tables, so that they let go of instances
//! that are to stop; what they have in flight counts here, so that nobody takes an instance for drained that one of them still waits for.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use basalt_seam::{InstanceTraffic, RouterSeen};
use basalt_wire::{Line, Reader, Writer};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::changes::Touched;
use crate::gently::{apart, is_long};
use crate::plane::Plane;
use crate::protocol::{Report, Request};
use crate::table_change::TableChange;

/// What the names of their sockets in `DATA/run` begin with.
const PREFIX: &str = "leaving-";
/// How long one may take to say what it has in flight: it answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// What gateways that have handed over have in flight, by socket.
#[derive(Debug, Default)]
pub(crate) struct Predecessors(Mutex<BTreeMap<PathBuf, RouterSeen>>);

impl Predecessors {
    /// Adds what they have in flight at some instances to what is seen here of these.
    ///
    /// Until they have a newer table than their own, whichever instance that names may still get a request over a connection that
    /// is open there, or a retry. So it counts as in flight.
    pub(crate) fn add_to(&self, seen: &mut RouterSeen, which: &Touched) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.values().flat_map(|seen| &seen.instances);
        for (id, theirs) in all.filter(|(id, _)| which.has(id)) {
            let ours = seen.instances.get_mut(id);
            if let Some(ours) = ours {
                let at_least = u64::from(theirs.named && !ours.named);
                ours.in_flight += theirs.in_flight.max(at_least);
            } else {
                let in_flight = theirs.in_flight.max(u64::from(theirs.named));
                let traffic = InstanceTraffic { named: false, in_flight, ..theirs.clone() };
                seen.instances.insert(id.clone(), traffic);
            }
        }
    }

    fn set(&self, path: &Path, seen: Option<RouterSeen>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some(seen) => all.insert(path.to_owned(), seen),
            None => all.remove(path),
        };
    }
}

/// Returns where a gateway that hands over says what it has in flight.
pub(crate) fn socket(data: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    data.join(format!("run/{PREFIX}{}-{}.sock", std::process::id(), NUMBER.fetch_add(1, Relaxed)))
}

/// Follows all that are there. Once this returns, what they have in flight is seen.
///
/// # Errors
/// If the folder of their sockets can't be read.
pub(crate) async fn follow(plane: &Arc<Plane>, data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data.join("run"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            follow_one(plane, path).await;
        }
    }
    Ok(())
}

async fn follow_one(plane: &Arc<Plane>, path: PathBuf) {
    let Ok(stream) = UnixStream::connect(&path).await else {
        // It died without a word. If this fails it is looked at again next time.
        let _ = fs::remove_file(&path);
        return;
    };
    let (mut reader, writer) = basalt_wire::split(stream);
    match timeout(PATIENCE, reader.next::<Report>()).await {
        Ok(Ok(Some(Report::Seen(seen)))) => {
            plane.predecessors.set(&path, Some(seen.clone()));
            plane.changes.touch_all();
            let (weak, version) = (Arc::downgrade(plane), seen.version);
            tokio::spawn(async move {
                // It is told by the end of its connection that nobody listens any more.
                tokio::select! {
                    () = listen(&weak, &path, reader, seen) => {}
                    () = tell(&weak, writer, version) => {}
                }
            });
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!("lost the gateway before this one: {error}"),
        Err(_) => tracing::warn!("the gateway before this one does not say what it has in flight"),
    }
}

/// Tells it the tables that come after its own, of this `version`.
async fn tell(plane: &Weak<Plane>, mut writer: Writer, mut version: u64) {
    let Some(mut changed) = plane.upgrade().map(|plane| plane.changes.any()) else { return };
    // The first is told from nothing on, as by whoever connects to a gateway.
    let mut last = Arc::default();
    while let Some(table) = plane.upgrade().map(|plane| plane.table()) {
        if table.version > version {
            let (old, new) = (std::mem::replace(&mut last, table.clone()), table);
            version = new.version;
            let write = move || Line::of(&Request::ChangeTable(TableChange::between(&old, &new)));
            // Without its answer, all that it has named stays in flight.
            let Ok(Ok(line)) = apart(is_long(last.services.len(), 0), write).await else { break };
            if writer.send_line(&line).await.is_err() {
                break;
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
    pending().await
}

/// Takes reports until the other has ended.
async fn listen(plane: &Weak<Plane>, path: &Path, mut reader: Reader, mut seen: RouterSeen) {
    while let Ok(Some(report)) = reader.next::<Report>().await {
        match report {
            Report::Seen(all) => seen = all,
            Report::Changed(change) => change.apply(&mut seen),
            Report::Refused { .. } => continue,
        }
        let Some(plane) = plane.upgrade() else { return };
        plane.predecessors.set(path, Some(seen.clone()));
        plane.changes.touch_all();
    }
    if let Some(plane) = plane.upgrade() {
        plane.predecessors.set(path, None);
        plane.changes.touch_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_still_get_a_request_is_in_flight() {
        let check = |ours: Option<(bool, u64)>, theirs: (bool, u64), expected: (bool, u64)| {
            let traffic = |(named, in_flight)| InstanceTraffic { named, in_flight, ..InstanceTraffic::default() };
            let id: basalt_model::InstanceId = "web-1-1".parse().unwrap();
            let seen = |one: Option<(bool, u64)>| RouterSeen {
                instances: one.into_iter().map(|one| (id.clone(), traffic(one))).collect(),
                ..RouterSeen::default()
            };
            let predecessors = Predecessors::default();
            predecessors.set(Path::new("a"), Some(seen(Some(theirs))));
            let mut sum = seen(ours);
            predecessors.add_to(&mut sum, &Touched::All);
            assert_eq!((sum.instances[&id].named, sum.instances[&id].in_flight), expected);
            predecessors.set(Path::new("a"), None);
            let mut sum = seen(ours);
            predecessors.add_to(&mut sum, &Touched::All);
            assert_eq!(sum, seen(ours));
        };
        check(Some((true, 2)), (true, 0), (true, 2));
        check(Some((true, 2)), (true, 3), (true, 5));
        check(Some((false, 2)), (true, 0), (false, 3));
        check(Some((false, 0)), (false, 1), (false, 1));
        check(None, (true, 0), (false, 1));
        check(None, (true, 4), (false, 4));
        check(None, (false, 4), (false, 4));
    }
}
