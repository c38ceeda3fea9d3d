//! A gateway in virtual time: tables come into force late, instances are checked, requests take their time to end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use basalt_model::{Generation, InstanceId, Millis, RouteTable};

use super::backend::SimBackend;

/// Time from the first sight of an instance to the first verdict.
const FIRST_VERDICT: Millis = Millis(20);

/// Time from a change of an instance to the changed verdict.
const VERDICT: Millis = Millis(30);

/// A router in virtual time.
#[derive(Debug, Clone, Default)]
pub struct SimRouter {
    /// The table in force.
    pub table: Arc<RouteTable>,
    pending: Option<(Millis, Arc<RouteTable>)>,
    named: BTreeMap<InstanceId, (Generation, Millis)>,
    /// Where and until when instances that are no longer named still have a request.
    pub flights: BTreeMap<InstanceId, (Option<Ipv4Addr>, Millis)>,
}

impl SimRouter {
    /// Takes a table; it is in force `delay` later. A newer one takes the place of one that waits.
    pub fn set(&mut self, at: Millis, delay: Millis, table: Arc<RouteTable>) {
        let newest = self.pending.as_ref().map_or(self.table.version, |(_, t)| t.version);
        if table.version > newest {
            let due = self.pending.as_ref().map_or(at + delay, |(due, _)| *due);
            self.pending = Some((due, table));
        }
    }

    /// Puts what is due in force; `flight` says how long the last request of an instance takes.
    pub fn tick(&mut self, at: Millis, mut flight: impl FnMut() -> Millis) {
        self.flights.retain(|_, (_, until)| *until > at);
        let Some((_, table)) = self.pending.take_if(|(due, _)| *due <= at) else { return };
        let mut named = BTreeMap::new();
        for (id, route) in table.services.values().flat_map(|s| s.releases.values()).flat_map(|r| &r.instances) {
            let before = self.named.get(id).filter(|(generation, _)| *generation == route.generation);
            named.insert(id.clone(), before.copied().unwrap_or((route.generation, at)));
        }
        for id in self.named.keys().filter(|id| !named.contains_key(*id)) {
            self.flights.insert(id.clone(), (self.address(id), at + flight()));
        }
        self.named = named;
        self.table = table;
    }

    /// Forgets all verdicts, as a restarted gateway does.
    pub fn restart(&mut self, at: Millis) {
        for (_, since) in self.named.values_mut() {
            *since = at;
        }
    }

    /// Returns whether the table in force names an instance.
    pub fn names(&self, id: &InstanceId) -> bool {
        self.named.contains_key(id)
    }

    /// Returns where the table in force expects an instance.
    pub fn address(&self, id: &InstanceId) -> Option<Ipv4Addr> {
        let releases = &self.table.services.get(id.service())?.releases;
        releases.get(&id.release())?.instances.get(id).map(|route| route.address)
    }

    /// Returns the instances that the table in force names.
    pub fn named(&self) -> impl Iterator<Item = &InstanceId> {
        self.named.keys()
    }

    /// Returns the verdict about an instance.
    pub fn verdict(&self, at: Millis, id: &InstanceId, backend: &SimBackend) -> Option<bool> {
        let instance = backend.instances.get(id).filter(|i| i.runs(at))?;
        let (_, since) = self.named.get(id).filter(|(generation, _)| *generation == instance.generation)?;
        (at >= *since + FIRST_VERDICT).then(|| instance.well(at.since(VERDICT).max(*since)))
    }

    /// Returns requests under way to an instance that is no longer named.
    pub fn in_flight(&self, at: Millis, id: &InstanceId) -> u64 {
        u64::from(self.flights.get(id).is_some_and(|(_, until)| *until > at))
    }

    /// Returns whether a request is under way to an address of an instance.
    pub fn flies_to(&self, at: Millis, id: &InstanceId, address: Ipv4Addr) -> bool {
        self.flights.get(id).is_some_and(|(to, until)| *to == Some(address) && *until > at)
    }

    /// Returns when something changes next.
    pub fn next_change(&self, after: Millis, backend: &SimBackend) -> Option<Millis> {
        let due = self.pending.as_ref().map(|(due, _)| (*due).max(after + Millis(1)));
        let flights = self.flights.values().map(|(_, until)| *until);
        let first = self.named.values().map(|(_, since)| *since + FIRST_VERDICT);
        let later = self.named.keys().filter_map(|id| backend.instances.get(id));
        let verdicts = later.flat_map(|i| [i.sick_from, i.sick_until]).flatten().map(|at| at + VERDICT);
        due.into_iter().chain(flights).chain(first).chain(verdicts).filter(|at| *at > after).min()
    }
}
