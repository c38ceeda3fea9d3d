//! What is kept of a service from one table to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use basalt_model::{Name, RateLimit, ReleaseNumber};
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::limiter::Limiter;
use crate::stats::Stats;

/// How many requests of a service may wait for a healthy instance: each holds a connection and some 10 KiB, so this
/// bounds what an outage costs to some 10 MiB per service.
const MOST_WAITING: usize = 1000;

/// What is kept of a service from one table to the next.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Name,
    /// Wakes waiting requests: an instance has become healthy, or the table has changed.
    pub(crate) better: Notify,
    /// How many retries it can afford.
    pub(crate) budget: Budget,
    /// What is kept of its routes, by their labels. Only who changes tables takes this lock.
    routes: Mutex<BTreeMap<String, KeptRoute>>,
    turn: AtomicU64,
    waiting: AtomicUsize,
}

impl Service {
    /// Returns a service that has had no request yet.
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            better: Notify::new(),
            budget: Budget::default(),
            routes: Mutex::default(),
            turn: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes out what is kept of its routes, by their labels.
    pub(crate) fn take_routes(&self) -> BTreeMap<String, KeptRoute> {
        std::mem::take(&mut *self.routes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps something of its routes.
    pub(crate) fn keep_routes(&self, routes: BTreeMap<String, KeptRoute>) {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Returns the number of the next request, for the choice of its release.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// Returns how many turns there were.
    pub(crate) fn turns(&self) -> usize {
        self.turn.load(Relaxed) as usize
    }

    /// Returns a place in the queue, or `None` if it is full. The place is free again when it is dropped.
    pub(crate) fn queue(&self) -> Option<Place<'_>> {
        let place = Place { waiting: &self.waiting };
        (self.waiting.fetch_add(1, Relaxed) < MOST_WAITING).then_some(place)
    }
}

/// What is kept of a route.
#[derive(Debug, Default)]
pub(crate) struct KeptRoute {
    limiter: Option<Arc<Limiter>>,
    stats: BTreeMap<ReleaseNumber, Arc<Stats>>,
}

impl KeptRoute {
    /// Returns what counts the requests of each client: the one that is there, if its limit is the same.
    pub(crate) fn limiter(&mut self, limit: Option<RateLimit>) -> Option<Arc<Limiter>> {
        let kept = self.limiter.take().filter(|kept| Some(kept.limit) == limit);
        self.limiter = kept.or_else(|| limit.map(|limit| Arc::new(Limiter::new(limit))));
        self.limiter.clone()
    }

    /// Returns what is counted for these releases, and for none (0); forgets others.
    pub(crate) fn stats(&mut self, releases: impl Iterator<Item = ReleaseNumber>) -> Vec<(ReleaseNumber, Arc<Stats>)> {
        let mut old = std::mem::take(&mut self.stats);
        let releases = std::iter::once(0).chain(releases);
        self.stats = releases.map(|number| (number, old.remove(&number).unwrap_or_default())).collect();
        self.stats.iter().map(|(number, stats)| (*number, stats.clone())).collect()
    }
}

/// A place among the requests that wait for a healthy instance.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    waiting: &'a AtomicUsize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_places_come_back() {
        let service = Service::new("web".parse().unwrap());
        let places: Vec<_> = std::iter::from_fn(|| service.queue()).collect();
        assert_eq!(places.len(), MOST_WAITING);
        drop(places);
        assert!(service.queue().is_some());
    }
}
