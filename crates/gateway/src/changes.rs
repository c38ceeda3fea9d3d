//! Tells those who report it that something has changed, and which instances look different: of ten thousand, few do at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use basalt_model::{InstanceId, Name};
use tokio::sync::watch;

use crate::instance::Instance;

/// Tells of changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    any: watch::Sender<()>,
    followers: Mutex<Vec<Weak<Mutex<Touched>>>>,
}

/// Which instances may look different than before.
#[derive(Debug)]
pub(crate) enum Touched {
    All,
    /// With their services.
    Some(BTreeMap<InstanceId, Name>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(BTreeMap::new())
    }
}

impl Touched {
    /// Returns whether an instance is among them.
    pub(crate) fn has(&self, id: &InstanceId) -> bool {
        match self {
            Self::All => true,
            Self::Some(some) => some.contains_key(id),
        }
    }
}

/// Hears of changes.
#[derive(Debug)]
pub(crate) struct Follower {
    any: watch::Receiver<()>,
    touched: Arc<Mutex<Touched>>,
}

impl Changes {
    /// Something has changed, and no instance.
    pub(crate) fn tell(&self) {
        self.any.send_replace(());
    }

    /// An instance looks different now.
    pub(crate) fn touch(&self, instance: &Instance) {
        self.note([instance]);
        self.tell();
    }

    /// Any instance may look different now.
    pub(crate) fn touch_all(&self) {
        self.each(|touched| *touched = Touched::All);
        self.tell();
    }

    /// Instances look different now, of which followers are still to be told.
    pub(crate) fn note<'i>(&self, instances: impl IntoIterator<Item = &'i Instance> + Clone) {
        self.each(|touched| {
            if let Touched::Some(some) = touched {
                some.extend(instances.clone().into_iter().map(|one| (one.id.clone(), one.service.name.clone())));
            }
        });
    }

    /// Returns what tells that anything has changed.
    pub(crate) fn any(&self) -> watch::Receiver<()> {
        self.any.subscribe()
    }

    /// Returns what hears of all that changes from now on, and where.
    pub(crate) fn follow(&self) -> Follower {
        let touched = Arc::default();
        let mut followers = lock(&self.followers);
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&touched));
        Follower { any: self.any(), touched }
    }

    fn each(&self, touch: impl Fn(&mut Touched)) {
        lock(&self.followers).retain(|follower| {
            let follower = follower.upgrade();
            follower.inspect(|touched| touch(&mut lock(touched))).is_some()
        });
    }
}

impl Follower {
    /// Returns once something has changed since this was last called; an error if nothing will any more.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.any.changed().await
    }

    /// Returns which instances may look different than when this was last called.
    pub(crate) fn take(&self) -> Touched {
        std::mem::take(&mut *lock(&self.touched))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
