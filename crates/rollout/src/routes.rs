//! The route table that follows from what is recorded and seen.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use basalt_model::{
    InstanceId, InstanceRoute, InstanceState, Listener, Name, Release, ReleaseNumber, ReleaseRoutes, Route, Service,
    ServiceRoutes, State, Weight,
};

use crate::observation::{InstanceSeen, Life};
use crate::shape::weights;

/// Returns what the gateway is to do for each service.
///
/// It names each instance that is recorded, is not on its way out, and runs: those that have not proven themselves
/// too, so that the gateway can check them. `address` gives the virtual address of a slot.
pub fn routes(
    state: &State,
    instances: &BTreeMap<InstanceId, InstanceSeen>,
    address: &dyn Fn(u16) -> Ipv4Addr,
) -> BTreeMap<Name, ServiceRoutes> {
    let named = |(name, service)| Some((Name::clone(name), service_routes(service, instances, address)?));
    state.services.iter().filter_map(named).collect()
}

fn service_routes(
    service: &Service,
    instances: &BTreeMap<InstanceId, InstanceSeen>,
    address: &dyn Fn(u16) -> Ipv4Addr,
) -> Option<ServiceRoutes> {
    let weights = weights(service);
    let mut releases: BTreeMap<ReleaseNumber, ReleaseRoutes> = BTreeMap::new();
    for (number, release) in &service.releases {
        let weight = weights.get(number).copied().unwrap_or(Weight::NONE);
        let instances = release_instances(service, *number, release, instances);
        if weight > Weight::NONE || !instances.is_empty() {
            let (ports, health) = (release.ports.clone(), release.health.clone());
            let drain = service.settings.drain;
            releases.insert(*number, ReleaseRoutes { weight, ports, health, drain, instances });
        }
    }
    let leaving = service.removing && releases.values().all(|r| r.instances.is_empty());
    if releases.is_empty() || leaving {
        return None;
    }
    let weighed = releases.values().any(|r| r.weight > Weight::NONE);
    let serving = |n: &&ReleaseNumber| !weighed || releases[*n].weight > Weight::NONE;
    let mut routes: Vec<Route> = Vec::new();
    // The newest release comes first, so that its word counts where two differ.
    for release in releases.keys().rev().filter(serving).map(|n| &service.releases[n]) {
        let differs = |route: &&Route| !routes.iter().any(|r| r.place() == route.place());
        let added: Vec<Route> = release.routes.iter().filter(differs).cloned().collect();
        routes.extend(added);
    }
    let virtual_address = address(service.slot);
    let mut listeners: BTreeMap<u16, Listener> = BTreeMap::new();
    for (name, port) in releases.values().rev().flat_map(|release| &release.ports) {
        let address = SocketAddrV4::new(virtual_address, port.container);
        let listener = Listener { address, port: name.clone(), protocol: port.protocol };
        listeners.entry(port.container).or_insert(listener);
    }
    let listeners = listeners.into_values().collect();
    Some(ServiceRoutes { routes, listeners, traffic: service.settings.traffic.clone(), releases })
}

fn release_instances(
    service: &Service,
    number: ReleaseNumber,
    release: &Release,
    seen: &BTreeMap<InstanceId, InstanceSeen>,
) -> BTreeMap<InstanceId, InstanceRoute> {
    let judged_by_backend = release.health.check.port().is_none();
    let of_release = service.instances.iter().filter(|(id, _)| id.release() == number);
    let wanted = of_release.filter(|(_, i)| i.state == InstanceState::Wanted);
    wanted
        .filter_map(|(id, instance)| {
            let seen = seen.get(id).filter(|s| s.generation == instance.generation)?;
            let address = seen.address.filter(|_| matches!(seen.life, Life::Running { .. }))?;
            let healthy = judged_by_backend.then_some(seen.healthy == Some(true));
            Some((id.clone(), InstanceRoute { address, generation: instance.generation, healthy }))
        })
        .collect()
}
