//! The table in force, and the change from one to the next.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use basalt_model::{InstanceId, InstanceRoute, Name, ProxyProtocol, ReleaseRoutes, RouteTable, ServiceRoutes};
use basalt_seam::{InstanceTraffic, RouterSeen};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::changes::{Changes, Follower, Touched};
use crate::choice::Attempts;
use crate::edge::Edge;
use crate::gently::gently;
use crate::http1::attempt::IDLE;
use crate::instance::{InFlight, Instance};
use crate::predecessors::Predecessors;
use crate::ready_service::ReadyService;
use crate::receipts::Receipt;
use crate::routing::{Builder, Destination, Routing};
use crate::service::Service;
use crate::table_change::TableChange;
use crate::{ejection, health, probe};

/// The table in force, with all that outlives it.
#[derive(Debug)]
pub(crate) struct Plane {
    routing: ArcSwap<Routing>,
    /// The epoch of the table in force. See [`Plane::begin`].
    epoch: AtomicU64,
    kept: Mutex<Kept>,
    /// Services that the table names. Who takes both locks takes the one of `kept` first.
    services: RwLock<Services>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) runtime: Handle,
    pub(crate) edge: Edge,
    /// What gateways before this one still have in flight.
    pub(crate) predecessors: Predecessors,
}

type Services = BTreeMap<Name, Named>;

/// What outlives a table. Only who changes or reports takes this lock, never a request, and nobody for long.
#[derive(Debug, Default)]
struct Kept {
    table: Arc<RouteTable>,
    /// Instances that are no longer named and may have requests in flight.
    leaving: Vec<Arc<Instance>>,
    /// What has become of those before, until it is written down.
    receipts: Vec<Receipt>,
    http: Option<String>,
    table_problems: Vec<String>,
    other_problems: BTreeMap<String, String>,
}

/// A service that the table names.
#[derive(Debug)]
struct Named {
    service: Arc<Service>,
    instances: BTreeMap<InstanceId, Arc<Checked>>,
    ready: ReadyService,
}

/// What is made ready before it is put in force.
#[derive(Debug)]
struct Next {
    routing: Routing,
    /// Whether all routes have the same places as before; then the same is wrong with the table, and `problems` are empty.
    same_places: bool,
    problems: Vec<String>,
    /// Services that are new or differ.
    services: Services,
    instances: Concerned,
}

/// Instances of services that are new or differ.
#[derive(Debug, Default)]
struct Concerned {
    /// No longer named.
    unnamed: Vec<Arc<Instance>>,
    new: Vec<Arc<Instance>>,
    /// Those that stay, with the verdict of checks that are made elsewhere.
    told: Vec<(Arc<Instance>, Option<bool>)>,
}

/// An instance and the task that checks it.
#[derive(Debug)]
struct Checked {
    instance: Arc<Instance>,
    checker: AbortHandle,
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.checker.abort();
    }
}

/// A table that is older than the one in force.
#[derive(Debug, thiserror::Error)]
#[error("version {in_force} is in force already")]
pub(crate) struct Older {
    in_force: u64,
}

impl Plane {
    /// Returns a plane with an empty table of version 0. Checks run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        let plane = Arc::new(Self {
            routing: ArcSwap::default(),
            epoch: AtomicU64::new(0),
            kept: Mutex::default(),
            services: RwLock::default(),
            changes: Arc::default(),
            runtime,
            edge: Edge::default(),
            predecessors: Predecessors::default(),
        });
        plane.runtime.spawn(ejection::watch(Arc::downgrade(&plane)));
        plane
    }

    /// Returns the table in force.
    pub(crate) fn routing(&self) -> Guard<Arc<Routing>> {
        self.routing.load()
    }

    /// Puts a table in force, to which `change` leads from [`Plane::table`]. After this returns, no request that arrives is handled
    /// by an older one, and whatever an older one still handles is counted in flight.
    ///
    /// The caller sees to it that one table is put in force at a time.
    pub(crate) fn set(&self, table: Arc<RouteTable>, change: TableChange) {
        let Next { routing, problems, same_places, services: next, instances } =
            self.make_ready(table.version, &change);
        let epoch = routing.epoch;
        let mut kept = self.kept();
        instances.unnamed.iter().for_each(|instance| instance.unname());
        // Before those that leave now are added: they may get requests until the new table is in force.
        kept.settle();
        kept.leaving.extend(instances.unnamed.iter().cloned());
        // What is replaced is given back at the end, when nobody waits for a lock.
        let _old = (self.routing.swap(Arc::new(routing)), std::mem::replace(&mut kept.table, table));
        self.epoch.store(epoch, SeqCst);
        if !same_places {
            kept.table_problems = problems;
        }
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        let mut replaced: Vec<Named> = change.gone.iter().filter_map(|name| services.remove(name)).collect();
        replaced.extend(next.into_iter().filter_map(|(name, named)| services.insert(name, named)));
        drop(services);
        // Before `kept` is free: nobody is told of this table without them.
        self.changes.note(instances.unnamed.iter().chain(&instances.new).map(|instance| &**instance));
        drop(kept);
        gently(&instances.told).for_each(|(instance, healthy)| health::told(instance, *healthy));
        self.changes.tell();
        // Requests that wait for one of these may find another instance now, and without the same places any may find another service.
        let wake = |named: &Named| named.service.better.notify_waiters();
        replaced.iter().for_each(wake);
        if !same_places {
            gently(self.services().values()).for_each(wake);
        }
    }

    /// Makes ready what a change leads to, beside whoever reads the services: nobody else changes them.
    fn make_ready(&self, version: u64, change: &TableChange) -> Next {
        let epoch = self.epoch.load(SeqCst) + 1;
        let services = self.services();
        let (mut next, mut instances) = (Services::new(), Concerned::default());
        let mut same_places = change.gone.is_empty();
        for (name, routes) in gently(&change.services) {
            let before = services.get(name);
            let named = self.make_service_ready(name, routes, before, &mut instances);
            same_places &= before.is_some_and(|before| named.ready.has_places_of(&before.ready));
            next.insert(name.clone(), named);
        }
        let mut all: BTreeMap<&Name, &Named> = gently(&*services).collect();
        let gone = change.gone.iter().filter_map(|name| all.remove(name)).flat_map(|gone| gone.instances.values());
        instances.unnamed.extend(gone.map(|checked| checked.instance.clone()));
        all.extend(&next);
        let ready = gently(all.values()).map(|named| &named.ready);
        let (routing, problems) = if same_places {
            (self.routing.load().with_same_places(ready, version, epoch), Vec::new())
        } else {
            let mut builder = Builder::default();
            ready.for_each(|ready| builder.add(ready));
            let problems = std::mem::take(&mut builder.problems);
            (builder.build(version, epoch), problems)
        };
        Next { routing, problems, same_places, services: next, instances }
    }

    /// Makes a service ready that is new or differs from `before`.
    fn make_service_ready(
        &self,
        name: &Name,
        routes: &ServiceRoutes,
        before: Option<&Named>,
        concerned: &mut Concerned,
    ) -> Named {
        let service = before.map_or_else(|| Arc::new(Service::new(name.clone())), |before| before.service.clone());
        let mut instances = BTreeMap::new();
        let ready = ReadyService::new(service.clone(), routes, |id, route, of| {
            let kept = before.and_then(|before| before.instances.get(id)).filter(|kept| kept.fits(route, of));
            let is_told = of.health.check.port().is_none();
            let checked = if let Some(kept) = kept {
                kept.instance.set_drain(Duration::from_millis(of.drain.0));
                if is_told {
                    concerned.told.push((kept.instance.clone(), route.healthy));
                }
                kept.clone()
            } else {
                let checked = self.check(id, route, of, &service);
                if is_told {
                    health::told(&checked.instance, route.healthy);
                }
                concerned.new.push(checked.instance.clone());
                Arc::new(checked)
            };
            let instance = checked.instance.clone();
            instances.insert(id.clone(), checked);
            instance
        });
        // Another start of the same instance leaves, as if it had another name.
        let stays =
            |id: &InstanceId, checked: &Arc<Checked>| instances.get(id).is_some_and(|now| Arc::ptr_eq(now, checked));
        let old = before.iter().flat_map(|before| &before.instances).filter(|(id, checked)| !stays(id, checked));
        concerned.unnamed.extend(old.map(|(_, checked)| checked.instance.clone()));
        Named { service, instances, ready }
    }

    /// Returns an error if a newer table than this is in force.
    pub(crate) fn refuse_older(&self, version: u64) -> Result<(), Older> {
        let in_force = self.routing.load().version;
        if version < in_force { Err(Older { in_force }) } else { Ok(()) }
    }

    /// Chooses an instance and counts a request under way to it. `find` says where the request goes in a table.
    ///
    /// Returns `Err` if it goes nowhere, and the service if that has no healthy instance.
    pub(crate) fn begin(
        &self,
        find: impl Fn(&Routing) -> Option<Destination>,
        attempts: &mut Attempts,
    ) -> Result<Begun, Option<Arc<Service>>> {
        loop {
            let routing = self.routing.load();
            let to = find(&routing).ok_or(None)?;
            let service = routing.service(to);
            let choice = routing.choose(to, attempts).ok_or_else(|| Some(service.clone()))?;
            let in_flight = choice.instance.begin();
            // Either whoever changes the table sees this count, or this sees the change and chooses anew: so an instance that
            // is no longer named and has nothing in flight never gets another request.
            if self.epoch.load(SeqCst) <= routing.epoch {
                return Ok(Begun { in_flight, address: choice.address(), proxy_protocol: choice.port.proxy_protocol });
            }
            in_flight.give_back();
        }
    }

    /// Returns the receipts of drains that have ended since they were last taken.
    pub(crate) fn take_receipts(&self) -> Vec<Receipt> {
        let mut kept = self.kept();
        kept.settle();
        std::mem::take(&mut kept.receipts)
    }

    /// Closes connections to instances that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let instances: Vec<_> = checked(&self.services()).map(|checked| checked.instance.clone()).collect();
        instances.iter().for_each(|instance| instance.sweep(IDLE));
    }

    /// Returns the table in force, as it was given.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.kept().table.clone()
    }

    /// Says where requests from outside are taken.
    pub(crate) fn set_http(&self, address: String) {
        self.kept().http = Some(address);
        self.changes.tell();
    }

    /// Says that something is wrong with `what`, or that it no longer is.
    pub(crate) fn set_problem(&self, what: String, problem: Option<String>) {
        let mut kept = self.kept();
        let before = kept.other_problems.get(&what).cloned();
        if before != problem {
            match problem {
                Some(problem) => kept.other_problems.insert(what, problem),
                None => kept.other_problems.remove(&what),
            };
            drop(kept);
            self.changes.tell();
        }
    }

    /// Forgets problems with what no longer matters.
    pub(crate) fn keep_problems(&self, matters: impl Fn(&str) -> bool) {
        let mut kept = self.kept();
        let before = kept.other_problems.len();
        kept.other_problems.retain(|what, _| matters(what));
        let fewer = kept.other_problems.len() < before;
        drop(kept);
        if fewer {
            self.changes.tell();
        }
    }

    /// Returns what is there now.
    pub(crate) fn seen(&self) -> RouterSeen {
        self.look(self.kept(), &Touched::All)
    }

    /// Returns the same with only those instances that may look different to a follower than when this was last called.
    pub(crate) fn seen_by(&self, follower: &Follower) -> (RouterSeen, Touched) {
        let kept = self.kept();
        let touched = follower.take();
        (self.look(kept, &touched), touched)
    }

    fn look(&self, mut kept: MutexGuard<'_, Kept>, which: &Touched) -> RouterSeen {
        kept.settle();
        let services = self.services();
        let named: Vec<Arc<Instance>> = match which {
            Touched::All => checked(&services).map(|checked| checked.instance.clone()).collect(),
            Touched::Some(some) => {
                let named = some.iter().filter_map(|(id, service)| services.get(service)?.instances.get(id));
                named.map(|checked| checked.instance.clone()).collect()
            }
        };
        drop(services);
        let leaving = kept.leaving.iter().filter(|leaving| which.has(&leaving.id));
        let leaving: Vec<_> = leaving.map(|leaving| (leaving.id.clone(), leaving.traffic())).collect();
        let mut seen = RouterSeen {
            connected: true,
            version: self.routing.load().version,
            instances: BTreeMap::new(),
            http: kept.http.clone(),
            problems: kept.table_problems.iter().chain(kept.other_problems.values()).cloned().collect(),
        };
        drop(kept);
        // They are in the table of this version, whatever has come since.
        let traffic = |instance: Arc<Instance>| InstanceTraffic { named: true, ..instance.traffic() };
        seen.instances.extend(gently(named).map(|instance| (instance.id.clone(), traffic(instance))));
        for (id, traffic) in leaving {
            // A later start of the same instance stands for all of them: whoever waits for it to drain waits for all.
            seen.instances.entry(id).and_modify(|newer| newer.in_flight += traffic.in_flight).or_insert(traffic);
        }
        self.predecessors.add_to(&mut seen, which);
        seen
    }

    /// Returns a new instance, with the task that checks it.
    fn check(&self, id: &InstanceId, route: &InstanceRoute, of: &ReleaseRoutes, service: &Arc<Service>) -> Checked {
        let port = of.health.check.port().and_then(|port| of.ports.get(port)).copied();
        let health = (of.health.clone(), port);
        let changes = self.changes.clone();
        let drain = Duration::from_millis(of.drain.0);
        let instance = Arc::new(Instance::new(
            id.clone(),
            route.generation,
            route.address,
            health,
            drain,
            service.clone(),
            changes,
        ));
        let checker = self.runtime.spawn(health::check(instance.clone())).abort_handle();
        Checked { instance, checker }
    }

    fn services(&self) -> RwLockReadGuard<'_, Services> {
        self.services.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held; should it ever, what is kept is still the best there is.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) in_flight: InFlight,
    pub(crate) address: SocketAddrV4,
    /// The header that connections there begin with.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

impl Begun {
    /// Returns where the request goes.
    pub(crate) fn at(&self) -> probe::At {
        probe::At { address: self.address, proxy_protocol: self.proxy_protocol }
    }
}

impl Kept {
    /// Forgets those that have left and have nothing in flight any more, and keeps their receipts.
    fn settle(&mut self) {
        let settled = self.leaving.extract_if(.., |instance| instance.in_flight() == 0);
        self.receipts.extend(settled.filter_map(|instance| instance.receipt()));
    }
}

/// Returns the instances of services.
fn checked(services: &Services) -> impl Iterator<Item = &Arc<Checked>> {
    services.values().flat_map(|named| named.instances.values())
}

impl Checked {
    /// Whether this is still the same start of the instance, checked in the same way.
    fn fits(&self, route: &InstanceRoute, of: &ReleaseRoutes) -> bool {
        let instance = &self.instance;
        (instance.generation, instance.address) == (route.generation, route.address) && instance.health == of.health
    }
}

#[cfg(test)]
impl Plane {
    /// Puts any table in force.
    pub(crate) fn set_any(&self, table: Arc<RouteTable>) {
        let change = TableChange::between(&self.table(), &table);
        self.set(table, change);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicBool;

    use basalt_model::{Health, Millis, Port, Protocol, Route, Weight};

    use super::*;
    use crate::ready::Asked;

    fn asked() -> Asked<'static> {
        Asked::bare("", "/", &http::Method::GET)
    }

    /// A table with one service and one healthy instance, whose address is the version.
    fn table(version: u64) -> Arc<RouteTable> {
        let port: Name = "http".parse().unwrap();
        let address = Ipv4Addr::from(version as u32);
        let instance = InstanceRoute { address, generation: version, healthy: Some(true) };
        let release = ReleaseRoutes {
            weight: Weight::ALL,
            ports: [(port.clone(), Port::new(80, Protocol::Http))].into(),
            health: Health::default(),
            drain: Millis::seconds(30),
            instances: [("web-1-1".parse().unwrap(), instance)].into(),
        };
        let routes = vec![Route::new(None, "/", port)];
        let web =
            ServiceRoutes { routes, listeners: vec![], traffic: Default::default(), releases: [(1, release)].into() };
        Arc::new(RouteTable { version, services: [("web".parse().unwrap(), Arc::new(web))].into() })
    }

    #[tokio::test]
    async fn an_instance_that_is_drained_gets_no_further_request() {
        let plane = Plane::new(Handle::current());
        plane.set_any(table(1));
        let (drained, end) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let send = || {
                let mut requests = 0;
                while !end.load(SeqCst) {
                    let begun = plane.begin(|routing| routing.find(&asked()), &mut Attempts::default()).unwrap();
                    let version = u64::from(u32::from(*begun.address.ip()));
                    let drained = drained.load(SeqCst);
                    assert!(version > drained, "a request began at instance {version} after {drained} was drained");
                    requests += 1;
                }
                requests
            };
            let senders: Vec<_> = (0..3).map(|_| scope.spawn(send)).collect();
            for version in 2..3000 {
                plane.set_any(table(version));
                // The same id is named again, so what is left of the start before it is in the sum: look at the leaving ones.
                while plane.kept().leaving.iter().any(|old| old.in_flight() > 0) {
                    std::hint::spin_loop();
                }
                drained.store(version - 1, SeqCst);
            }
            end.store(true, SeqCst);
            assert!(senders.into_iter().map(|sender| sender.join().unwrap()).sum::<u64>() > 1000);
        });
    }

    /// Says of a table where requests go: which service and route, and which ports its releases have for them.
    fn map(plane: &Plane) -> Vec<Option<String>> {
        let routing = plane.routing();
        let told = |to: Destination| {
            let ports = routing.services[to.service].releases.iter().map(|release| release.ports[to.port]);
            let ports: Vec<_> = ports.map(|port| port.map(|port| port.container)).collect();
            let route = routing.route(to);
            format!("{} {} {:?} {ports:?}", routing.service(to).name, route.label, route.rules.timeout)
        };
        let outside = ["a", "b", "x.c"].into_iter().flat_map(|host| ["/", "/1", "/2"].map(|path| (host, path)));
        let outside = outside.map(|(host, path)| routing.find(&Asked::bare(host, path, &http::Method::GET)).map(told));
        let inside =
            (0..4).map(|n| routing.listener(SocketAddrV4::new(Ipv4Addr::LOCALHOST, n)).map(|(to, _)| told(to)));
        let problems = plane.kept().table_problems.iter().cloned().map(Some).collect::<Vec<_>>();
        outside.chain(inside).chain(problems).collect()
    }

    #[tokio::test]
    async fn a_table_is_the_same_whichever_was_before() {
        let mut state = 7_u64;
        let mut any = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut service = move || {
            let mut web = (*table(1 + any(2)).services.values().next().unwrap().clone()).clone();
            let hosts = [None, Some("a"), Some("b"), Some("*.c")];
            let ports: [Name; 2] = ["http".parse().unwrap(), "admin".parse().unwrap()];
            let mut route = || {
                let timeout = Some(Millis(any(3)));
                let rules = basalt_model::Rules { exact: any(4) == 0, timeout, ..Default::default() };
                let path = ["/", "/1", "/2"][any(3) as usize];
                Route { rules, ..Route::new(hosts[any(4) as usize], path, ports[any(2) as usize].clone()) }
            };
            web.routes = vec![route(), route()];
            if any(3) == 0 {
                let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, any(4) as u16);
                let (port, protocol) = (ports[any(2) as usize].clone(), Protocol::Http);
                web.listeners.push(basalt_model::Listener { address, port, protocol });
            }
            (any(3) > 0, web)
        };
        let one = Plane::new(Handle::current());
        let mut table = RouteTable::default();
        let mut shared = 0;
        for version in 1..2000_u64 {
            // Now and then more than one.
            for which in 0..version / 2 % 3 {
                let name: Name = format!("s{}", (version * 7 + which) % 5).parse().unwrap();
                let (named, new) = service();
                match table.services.get_mut(&name) {
                    // Often only what does not decide where requests go.
                    Some(old) if version % 2 == 0 => {
                        let old = Arc::make_mut(old);
                        old.releases = new.releases;
                        old.routes[0].rules.timeout = new.routes[0].rules.timeout;
                    }
                    _ if named => drop(table.services.insert(name, Arc::new(new))),
                    _ => drop(table.services.remove(&name)),
                }
            }
            table.version = version;
            let index = one.routing().index_address();
            one.set_any(Arc::new(table.clone()));
            shared += u32::from(one.routing().index_address() == index);
            let other = Plane::new(Handle::current());
            other.set_any(Arc::new(table.clone()));
            assert_eq!(map(&one), map(&other), "{table:?}");
        }
        assert!((500..1500).contains(&shared), "{shared}");
    }

    #[tokio::test]
    async fn what_is_seen_sums_up_all_starts_of_an_instance() {
        let plane = Plane::new(Handle::current());
        plane.set_any(table(1));
        let begin = || plane.begin(|routing| routing.find(&asked()), &mut Attempts::default()).unwrap();
        let (one, two) = (begin(), begin());
        plane.set_any(table(2));
        let three = begin();
        let seen = || {
            plane
                .seen()
                .instances
                .into_values()
                .map(|one| (one.generation, one.named, one.in_flight))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(), [(2, true, 3)]);
        drop((one, three));
        assert_eq!(seen(), [(2, true, 1)]);
        drop(two);
        assert_eq!(seen(), [(2, true, 0)]);
        assert!(plane.refuse_older(1).is_err());
    }

    #[tokio::test]
    async fn who_follows_hears_of_the_instances_that_change_alone() {
        let plane = Plane::new(Handle::current());
        plane.set_any(table(1));
        let follower = plane.changes.follow();
        let web: Name = "web".parse().unwrap();
        let some = |touched: Touched| match touched {
            Touched::Some(some) => some.into_iter().map(|(id, of)| (id.to_string(), of)).collect::<Vec<_>>(),
            Touched::All => panic!("all"),
        };
        // Its port is another, and the instance the same.
        let mut other = (*table(1)).clone();
        other.version = 2;
        Arc::make_mut(other.services.get_mut(&web).unwrap()).routes.clear();
        plane.set_any(Arc::new(other));
        assert_eq!(some(follower.take()), []);
        let begun = checked(&plane.services()).next().unwrap().instance.begin();
        plane.set_any(table(3));
        assert_eq!(some(follower.take()), [("web-1-1".to_owned(), web.clone())]);
        drop(begun);
        let (seen, touched) = plane.seen_by(&follower);
        assert_eq!(seen, plane.seen());
        assert_eq!(some(touched), [("web-1-1".to_owned(), web)]);
        assert_eq!(plane.seen_by(&follower).0.instances, BTreeMap::new());
        plane.changes.touch_all();
        assert!(matches!(follower.take(), Touched::All));
        assert_eq!(some(follower.take()), []);
    }
}
