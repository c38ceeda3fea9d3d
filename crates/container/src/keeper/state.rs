//! What the keeper has in its head: instances, who listens, and which places are taken.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use basalt_model::{Generation, InstanceId, Millis};
use basalt_seam::{BackendInstance, BackendState, InstanceAction, StartInstance};
use tokio::sync::{Semaphore, mpsc, watch};

use super::instance;
use super::spare::Spare;
use crate::network::Network;
use crate::protocol::FromKeeper;

/// How many places are used in turn. A place, and with it an address, is used again as late as possible: a route table
/// that still names its old instance must not lead to a new one.
const PLACES: u32 = 32_768;

/// The keeper's state, shared by its tasks on one thread.
pub(crate) type Shared = Rc<Keeper>;

/// The keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) data: PathBuf,
    pub(crate) basalt: PathBuf,
    pub(crate) network: Network,
    /// Bounds how many instances are created at once.
    pub(crate) starts: Semaphore,
    most_starts: usize,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    instances: BTreeMap<InstanceId, Entry>,
    listeners: Vec<mpsc::UnboundedSender<FromKeeper>>,
    last_place: u32,
    /// Places without an instance: spare ones, and those that are being given to one or taken from one.
    reserved: BTreeSet<u32>,
    spares: VecDeque<Spare>,
    /// Instances that may reach addresses beyond the host.
    egress: BTreeSet<InstanceId>,
    closing: bool,
}

/// An instance in the keeper's head.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seen: BackendInstance,
    /// Its place, while it has one.
    pub(crate) place: Option<u32>,
    /// Tells its task to stop it, within this time.
    pub(crate) stop: watch::Sender<Option<Millis>>,
    /// What to start in its stead once it has ended.
    pub(crate) next: Option<Box<StartInstance>>,
}

impl Keeper {
    pub(crate) fn new(data: PathBuf, basalt: PathBuf, network: Network, starts: usize) -> Shared {
        let inner = RefCell::default();
        Rc::new(Self { data, basalt, network, starts: Semaphore::new(starts), most_starts: starts, inner })
    }

    /// Takes an action.
    pub(crate) fn perform(self: &Rc<Self>, action: InstanceAction) {
        match action {
            InstanceAction::Start(start) => self.start(start),
            InstanceAction::Stop { id, generation, within } => {
                let mut inner = self.inner.borrow_mut();
                if let Some(entry) = inner.instances.get_mut(&id).filter(|e| e.seen.generation == generation) {
                    // The first stop counts: a later one would only prolong it.
                    entry.stop.send_if_modified(|stop| {
                        stop.is_none() && {
                            *stop = Some(within);
                            true
                        }
                    });
                }
            }
            InstanceAction::Forget { id, generation } => {
                let ended =
                    |e: &Entry| e.seen.generation == generation && matches!(e.seen.state, BackendState::Ended { .. });
                if self.with(&id, |e| ended(e)).unwrap_or(false) {
                    self.forget(&id);
                }
            }
        }
    }

    fn start(self: &Rc<Self>, start: Box<StartInstance>) {
        let mut inner = self.inner.borrow_mut();
        if inner.closing {
            return;
        }
        match inner.instances.get_mut(&start.id) {
            Some(entry) if entry.seen.generation >= start.generation => return,
            Some(entry) if !matches!(entry.seen.state, BackendState::Ended { .. }) => {
                entry.stop.send_replace(Some(Millis::ZERO));
                entry.next = Some(start);
                return;
            }
            _ => {}
        }
        drop(inner);
        let stop = self.enter(&start.id, starting(start.generation), None);
        tokio::task::spawn_local(instance::start(self.clone(), start, stop));
    }

    /// Enters an instance, in place of one with the same id; returns what tells its task to stop it.
    pub(crate) fn enter(
        &self,
        id: &InstanceId,
        seen: BackendInstance,
        place: Option<u32>,
    ) -> watch::Receiver<Option<Millis>> {
        let (stop, stopped) = watch::channel(None);
        let entry = Entry { seen: seen.clone(), place, stop, next: None };
        self.inner.borrow_mut().instances.insert(id.clone(), entry);
        self.tell(FromKeeper::Changed(id.clone(), Some(seen)));
        stopped
    }

    /// Reserves a free place, one that has not been used for as long as possible.
    pub(crate) fn reserve_place(&self) -> Option<u32> {
        let mut inner = self.inner.borrow_mut();
        let mut taken: BTreeSet<u32> = inner.instances.values().filter_map(|e| e.place).collect();
        taken.extend(&inner.reserved);
        let place = (1..=PLACES).map(|n| (inner.last_place + n) % PLACES).find(|p| !taken.contains(p))?;
        inner.last_place = place;
        inner.reserved.insert(place);
        Some(place)
    }

    /// Gives a reserved place to an instance.
    pub(crate) fn give_place(&self, place: u32, id: &InstanceId) {
        let mut inner = self.inner.borrow_mut();
        inner.reserved.remove(&place);
        if let Some(entry) = inner.instances.get_mut(id) {
            entry.place = Some(place);
        }
    }

    /// Returns a place that was reserved.
    pub(crate) fn return_place(&self, place: u32) {
        self.inner.borrow_mut().reserved.remove(&place);
    }

    /// Adds a spare place.
    pub(crate) fn push_spare(&self, spare: Spare) {
        self.inner.borrow_mut().spares.push_back(spare);
    }

    /// Takes the spare place that has been there longest.
    pub(crate) fn pop_spare(&self) -> Option<Spare> {
        self.inner.borrow_mut().spares.pop_front()
    }

    /// Returns how many spare places there are.
    pub(crate) fn spares(&self) -> usize {
        self.inner.borrow().spares.len()
    }

    /// Returns whether instances are being started right now.
    pub(crate) fn is_busy(&self) -> bool {
        self.starts.available_permits() < self.most_starts
    }

    /// Returns whether an instance other than this one may reach addresses beyond the host.
    pub(crate) fn others_have_egress(&self, id: &InstanceId) -> bool {
        self.inner.borrow().egress.iter().any(|other| other != id)
    }

    /// Notes whether an instance may reach addresses beyond the host.
    pub(crate) fn note_egress(&self, id: &InstanceId, egress: bool) {
        let mut inner = self.inner.borrow_mut();
        if egress {
            inner.egress.insert(id.clone())
        } else {
            inner.egress.remove(id)
        };
    }

    /// Marks places up to this one as used lately.
    pub(crate) fn seen_place(&self, place: u32) {
        let mut inner = self.inner.borrow_mut();
        inner.last_place = inner.last_place.max(place);
    }

    /// Gives the place of an ended instance back.
    pub(crate) fn free_place(&self, id: &InstanceId) {
        if let Some(entry) = self.inner.borrow_mut().instances.get_mut(id) {
            entry.place = None;
        }
    }

    /// Looks at an instance.
    pub(crate) fn with<T>(&self, id: &InstanceId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.inner.borrow().instances.get(id).map(look)
    }

    /// Changes what is seen of an instance and tells everybody, if it did change.
    pub(crate) fn update(&self, id: &InstanceId, change: impl FnOnce(&mut BackendInstance)) {
        let mut inner = self.inner.borrow_mut();
        let Some(entry) = inner.instances.get_mut(id) else { return };
        let before = entry.seen.clone();
        change(&mut entry.seen);
        let after = entry.seen.clone();
        drop(inner);
        if before != after {
            self.tell(FromKeeper::Changed(id.clone(), Some(after)));
        }
    }

    /// Starts what was asked for while the instance before it still ran.
    pub(crate) fn start_next(self: &Rc<Self>, id: &InstanceId) {
        let next = self.inner.borrow_mut().instances.get_mut(id).and_then(|e| e.next.take());
        if let Some(start) = next {
            self.start(start);
        }
    }

    /// Drops an instance and all that is left of it.
    pub(crate) fn forget(&self, id: &InstanceId) {
        self.inner.borrow_mut().instances.remove(id);
        if let Err(error) = std::fs::remove_dir_all(crate::order::instance_dir(&self.data, &id.to_string())) {
            tracing::warn!(%id, %error, "could not remove what is left of an instance");
        }
        self.tell(FromKeeper::Changed(id.clone(), None));
    }

    /// Adds a listener: it gets everything at once, and every change from then on.
    pub(crate) fn listen(&self) -> (mpsc::UnboundedSender<FromKeeper>, mpsc::UnboundedReceiver<FromKeeper>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.inner.borrow_mut();
        let all = inner.instances.iter().map(|(id, e)| (id.clone(), e.seen.clone())).collect();
        // The receiver is right here.
        let _ = sender.send(FromKeeper::Snapshot(all));
        inner.listeners.push(sender.clone());
        (sender, receiver)
    }

    fn tell(&self, message: FromKeeper) {
        self.inner.borrow_mut().listeners.retain(|listener| listener.send(message.clone()).is_ok());
    }

    /// Refuses every start from now on; returns the instances that still run, and if there are any, does not refuse.
    pub(crate) fn close(&self) -> Vec<InstanceId> {
        let mut inner = self.inner.borrow_mut();
        let ended = |e: &Entry| matches!(e.seen.state, BackendState::Ended { .. }) && e.place.is_none();
        let running: Vec<_> = inner.instances.iter().filter(|(_, e)| !ended(e)).map(|(id, _)| id.clone()).collect();
        inner.closing = running.is_empty();
        running
    }

    /// Returns whether the keeper is being shut down.
    pub(crate) fn is_closing(&self) -> bool {
        self.inner.borrow().closing
    }
}

/// Returns an instance that is being started.
pub(crate) fn starting(generation: Generation) -> BackendInstance {
    BackendInstance { generation, state: BackendState::Starting, address: None, healthy: None, last_probe: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_as_late_as_possible() {
        let dir = tempfile::tempdir().unwrap();
        let network = crate::network::network(dir.path()).unwrap();
        let keeper = Keeper::new(dir.path().into(), "basalt".into(), network.clone(), 2);
        keeper.seen_place(6);
        let id: InstanceId = "web-1-1".parse().unwrap();
        let _stop = keeper.enter(&id, starting(1), None);
        let first = keeper.reserve_place().unwrap();
        assert_eq!(first, 7, "what was seen before the restart is used last too");
        keeper.give_place(first, &id);
        keeper.free_place(&id);
        for place in (8..PLACES).chain(0..7) {
            assert_eq!(keeper.reserve_place(), Some(place));
            keeper.return_place(place);
        }
        assert_eq!(keeper.reserve_place(), Some(7), "only after all others");
        assert_eq!(keeper.reserve_place(), Some(8));
        keeper.give_place(8, &id);
        keeper.return_place(7);
        for _ in 9..PLACES + 7 {
            keeper.return_place(keeper.reserve_place().unwrap());
        }
        assert_eq!(keeper.reserve_place(), Some(7));
        assert_eq!(keeper.reserve_place(), Some(9), "what is in use is passed over");
        crate::network::release(&network).unwrap();
    }
}
