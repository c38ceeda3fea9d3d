//! A service made ready: what the table in force needs of it. It holds as long as the service does not change, in all tables.

use std::collections::BTreeMap;
use std::iter::zip;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use basalt_model::{InstanceId, InstanceRoute, Protocol, ReleaseRoutes, ServiceRoutes};

use crate::instance::Instance;
use crate::ready::{self, ReadyRoute};
use crate::routing::{PortNumbers, ReleaseRouting, ServiceRouting};
use crate::service::Service;
use crate::weights;

/// A service made ready.
#[derive(Debug)]
pub(crate) struct ReadyService {
    pub(crate) routing: Arc<ServiceRouting>,
    /// Routes for requests from outside, and the numbers of the ports that these go to.
    pub(crate) outside: Vec<(Arc<ReadyRoute>, usize)>,
    pub(crate) inside: Option<Inside>,
}

/// A service's virtual address, made ready.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) route: Arc<ReadyRoute>,
    /// With the numbers of their ports.
    pub(crate) listeners: Vec<(SocketAddrV4, usize, Protocol)>,
}

impl ReadyService {
    /// Makes a service ready, with the instances that `instance` gives.
    pub(crate) fn new(
        service: Arc<Service>,
        routes: &ServiceRoutes,
        mut instance: impl FnMut(&InstanceId, &InstanceRoute, &ReleaseRoutes) -> Arc<Instance>,
    ) -> Self {
        let mut numbers = PortNumbers::default();
        let outside: Vec<_> = routes.routes.iter().map(|route| (route, numbers.number(&route.port))).collect();
        let listeners = routes.listeners.iter().map(|at| (at.address, numbers.number(&at.port), at.protocol));
        let listeners: Vec<_> = listeners.collect();
        let release = |(number, release): (&_, &ReleaseRoutes)| ReleaseRouting {
            number: *number,
            weight: release.weight,
            instances: release.instances.iter().map(|(id, route)| instance(id, route, release)).collect(),
            ports: numbers.names().iter().map(|name| release.ports.get(*name).copied()).collect(),
            turn: AtomicUsize::new(service.turns()),
        };
        let releases: Vec<_> = routes.releases.iter().map(release).collect();
        let cycle = weights::cycle(&releases.iter().map(|release| release.weight.0).collect::<Vec<_>>());

        let mut before = service.take_routes();
        let mut after = BTreeMap::new();
        let numbers = || routes.releases.keys().copied();
        let mut made = Vec::with_capacity(outside.len());
        for (route, port) in outside {
            let label = ready::label(route);
            let kept = after.entry(label.clone()).or_insert_with(|| before.remove(&label).unwrap_or_default());
            let limiter = kept.limiter(route.rules.rate_limit);
            made.push((Arc::new(ReadyRoute::new(&service.name, route, limiter, kept.stats(numbers()))), port));
        }
        let inside = (!listeners.is_empty()).then(|| {
            let kept = after.entry(String::new()).or_insert_with(|| before.remove("").unwrap_or_default());
            Inside { route: Arc::new(ReadyRoute::inside(&service.name, kept.stats(numbers()))), listeners }
        });
        service.keep_routes(after);
        let routing = ServiceRouting { service, traffic: routes.traffic.clone(), releases, cycle };
        Self { routing: Arc::new(routing), outside: made, inside }
    }

    /// Returns all its routes.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<ReadyRoute>> {
        self.outside.iter().map(|(route, _)| route).chain(self.inside.iter().map(|inside| &inside.route))
    }

    fn listeners(&self) -> &[(SocketAddrV4, usize, Protocol)] {
        self.inside.as_ref().map_or(&[], |inside| &inside.listeners)
    }

    /// Returns whether exactly the requests that find it find another, too: then the one may stand where the other does.
    pub(crate) fn has_places_of(&self, other: &Self) -> bool {
        self.outside.len() == other.outside.len()
            && zip(&self.outside, &other.outside)
                .all(|(ours, theirs)| ours.1 == theirs.1 && ours.0.has_place_of(&theirs.0))
            && self.listeners() == other.listeners()
            && self.routing.asks_for_fields() == other.routing.asks_for_fields()
    }
}
