//! Who still calls a service that is no longer declared. It stays until nobody does: the release that a failed rollout
//! returns to must find what it had (law 3), and an instance that finishes its requests may need it for them (law 4).

use std::collections::{BTreeMap, BTreeSet};

use basalt_model::{Name, ReleaseNumber, Service, State};

/// A release that may reach another service by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its service.
    pub service: Name,
    /// Its number.
    pub release: ReleaseNumber,
}

/// Returns, for each service that is being removed and still called, one that calls it.
///
/// Of two that are both being removed, the caller goes first; of those that call each other, neither waits.
pub fn callers(state: &State) -> BTreeMap<Name, Caller> {
    let removing = state.services.iter().filter(|(_, service)| service.removing).map(|(name, _)| name);
    removing.filter_map(|name| Some((name.clone(), caller(state, name)?))).collect()
}

fn caller(state: &State, called: &Name) -> Option<Caller> {
    let needed = reached_from(state, called);
    let others = state.services.iter().filter(|(name, service)| !(service.removing && needed.contains(*name)));
    others.filter(|(name, _)| *name != called).find_map(|(name, service)| {
        let calls = |n: &ReleaseNumber| service.releases.get(n).is_some_and(|r| r.connects_to.contains(called));
        let release = releases_in_use(service).into_iter().find(calls)?;
        Some(Caller { service: name.clone(), release })
    })
}

/// Returns the releases that serve, or may serve again before the rollout under way has ended.
fn releases_in_use(service: &Service) -> BTreeSet<ReleaseNumber> {
    let running = service.instances.keys().map(|id| id.release());
    if service.removing {
        return running.collect();
    }
    let rollout = service.rollout.as_ref().map(|r| [r.baseline, Some(r.target)]);
    // What is only kept warm holds nobody up: it has no requests.
    let warm = service.warm.as_ref().map(|w| w.release);
    let running = running.filter(|n| Some(*n) != warm);
    running.chain(service.stable).chain(rollout.into_iter().flatten().flatten()).collect()
}

/// Returns every service that a service may reach, directly or by way of others, with any release that is kept: which of
/// two goes first must not change while they go.
fn reached_from(state: &State, from: &Name) -> BTreeSet<Name> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(service) = open.pop().and_then(|name| state.services.get(name)) {
        for name in service.releases.values().flat_map(|release| &release.connects_to) {
            if reached.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    reached
}
