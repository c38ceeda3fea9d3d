//! A route table made ready: whatever a request needs is found without a search through services.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use basalt_model::{Name, Port, Protocol, ReleaseNumber, Traffic, Weight};

use crate::instance::Instance;
use crate::ready::{Asked, Host, ReadyRoute};
use crate::ready_service::{Inside, ReadyService};
use crate::service::Service;

/// A route table made ready.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Counts changes of tables in this process.
    pub(crate) epoch: u64,
    /// The version of the table.
    pub(crate) version: u64,
    /// In the order of their names.
    pub(crate) services: Vec<Arc<ServiceRouting>>,
    pub(crate) routes: Vec<Arc<ReadyRoute>>,
    index: Arc<Index>,
}

/// Where requests go, by positions among services and routes. Tables share it that differ in nothing that decides this.
#[derive(Debug, Default)]
struct Index {
    /// Whether header fields decide where a request goes: by the word of a route, or because it belongs to an instance.
    asks_for_fields: bool,
    listeners: HashMap<SocketAddrV4, (Destination, Protocol)>,
    hosts: HashMap<Arc<str>, Paths>,
    /// By what follows the `*` of a wildcard: `.example.com`.
    wildcards: HashMap<Arc<str>, Paths>,
    any_host: Paths,
}

/// One service, made ready.
#[derive(Debug)]
pub(crate) struct ServiceRouting {
    pub(crate) service: Arc<Service>,
    pub(crate) traffic: Traffic,
    pub(crate) releases: Vec<ReleaseRouting>,
    /// Positions in `releases`, in the order that requests take them.
    pub(crate) cycle: Vec<u16>,
}

impl ServiceRouting {
    /// Returns whether requests belong to instances by their header fields.
    pub(crate) fn asks_for_fields(&self) -> bool {
        self.traffic.sticky.is_some() || self.traffic.hash_on.is_some()
    }
}

/// One release, made ready.
#[derive(Debug)]
pub(crate) struct ReleaseRouting {
    pub(crate) number: ReleaseNumber,
    pub(crate) weight: Weight,
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Ports by the numbers that [`Destination`] gives to their names; `None` where the release has no such port.
    pub(crate) ports: Vec<Option<Port>>,
    /// How often one of its instances was chosen. It is the release's own: a turn of the service's would be in step with weights.
    pub(crate) turn: AtomicUsize,
}

/// Where a request goes: a port of a service. It holds in one table only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Position among the services.
    pub(crate) service: usize,
    /// Position among the service's ports.
    pub(crate) port: usize,
    /// Position among the routes.
    pub(crate) route: usize,
}

/// Paths of one host. Where several routes have the same, those that ask for more come first.
#[derive(Debug, Default)]
struct Paths {
    whole: HashMap<Arc<str>, Vec<Destination>>,
    /// Without a slash at their end.
    prefixes: HashMap<Arc<str>, Vec<Destination>>,
    /// The most segments that one of them has: deeper slashes need no look.
    deepest: usize,
}

/// Collects what a [`Routing`] is made of.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    services: Vec<Arc<ServiceRouting>>,
    routes: Vec<Arc<ReadyRoute>>,
    index: Index,
    /// What is wrong with the table, for people.
    pub(crate) problems: Vec<String>,
}

impl Builder {
    /// Adds a service with its routes and listeners.
    pub(crate) fn add(&mut self, ready: &ReadyService) {
        let service = self.add_service(ready.routing.clone());
        for (route, port) in &ready.outside {
            self.add_route(route.clone(), service, *port);
        }
        if let Some(Inside { route, listeners }) = &ready.inside {
            let at = self.routes.len();
            self.routes.push(route.clone());
            for (address, port, protocol) in listeners {
                self.add_listener(*address, Destination { service, port: *port, route: at }, *protocol);
            }
        }
    }

    /// Adds a service and returns its position.
    pub(crate) fn add_service(&mut self, service: Arc<ServiceRouting>) -> usize {
        self.index.asks_for_fields |= service.asks_for_fields();
        self.services.push(service);
        self.services.len() - 1
    }

    /// Sends requests that fit a route to a port of a service. Who comes first keeps a place.
    pub(crate) fn add_route(&mut self, ready: Arc<ReadyRoute>, service: usize, port: usize) {
        let to = Destination { service, port, route: self.routes.len() };
        let paths = match &ready.host {
            Host::Wildcard(wildcard) => self.index.wildcards.entry(wildcard.clone()).or_default(),
            Host::Exact(host) => self.index.hosts.entry(host.clone()).or_default(),
            Host::Any => &mut self.index.any_host,
        };
        let same = if ready.rules.exact {
            paths.whole.entry(ready.key.clone()).or_default()
        } else {
            paths.deepest = paths.deepest.max(ready.key.matches('/').count());
            paths.prefixes.entry(ready.key.clone()).or_default()
        };
        let wanted = |to: &&Destination| self.routes[to.route].asks_as(&ready);
        let first = same.iter().find(wanted).map(|first| first.service);
        let precedence = ready.precedence();
        let at = same.partition_point(|other| self.routes[other.route].precedence() >= precedence);
        same.insert(at, to);
        self.index.asks_for_fields |= precedence.1 > 0;
        if let Some(first) = first.filter(|first| *first != service) {
            let name = |at: usize| self.services[at].service.name.clone();
            let (first, second) = (name(first), name(service));
            self.problems.push(format!(
                "services `{first}` and `{second}` both want `{}{}/`: `{first}` has it",
                ready.host,
                ready.key.trim_end_matches('/')
            ));
        }
        self.routes.push(ready);
    }

    /// Sends everything that arrives at an address to a destination.
    fn add_listener(&mut self, address: SocketAddrV4, to: Destination, protocol: Protocol) {
        let first = self.index.listeners.entry(address).or_insert((to, protocol)).0;
        if first != to {
            self.problems.push(format!("two services want to listen on `{address}`"));
        }
    }

    /// Returns the table, made ready.
    pub(crate) fn build(self, version: u64, epoch: u64) -> Routing {
        let Self { services, routes, index, .. } = self;
        Routing { epoch, version, services, routes, index: Arc::new(index) }
    }
}

impl Routing {
    /// Returns a table of the same services, each with the same places as here.
    pub(crate) fn with_same_places<'r>(
        &self,
        services: impl Iterator<Item = &'r ReadyService>,
        version: u64,
        epoch: u64,
    ) -> Self {
        let mut all = Vec::with_capacity(self.services.len());
        let mut routes = Vec::with_capacity(self.routes.len());
        for ready in services {
            all.push(ready.routing.clone());
            routes.extend(ready.routes().cloned());
        }
        Self { epoch, version, services: all, routes, index: self.index.clone() }
    }

    /// Returns whether header fields decide where a request goes.
    pub(crate) fn asks_for_fields(&self) -> bool {
        self.index.asks_for_fields
    }

    /// Returns where a request from outside goes.
    pub(crate) fn find(&self, asked: &Asked) -> Option<Destination> {
        let host = bare_host(asked.host);
        let Index { hosts, wildcards, any_host, .. } = &*self.index;
        let exact = hosts.get(&*host).and_then(|paths| paths.find(asked, &self.routes));
        let wildcard = || {
            let suffixes = host.match_indices('.').map(|(at, _)| &host[at..]);
            suffixes.filter_map(|suffix| wildcards.get(suffix)?.find(asked, &self.routes)).next()
        };
        let wildcard = || if wildcards.is_empty() { None } else { wildcard() };
        exact.or_else(wildcard).or_else(|| any_host.find(asked, &self.routes))
    }

    /// Tells tables that share where requests go from others.
    #[cfg(test)]
    pub(crate) fn index_address(&self) -> *const () {
        Arc::as_ptr(&self.index).cast()
    }

    /// Returns a route of this table.
    pub(crate) fn route(&self, at: Destination) -> &Arc<ReadyRoute> {
        &self.routes[at.route]
    }

    /// Returns where what arrives at a virtual address goes, and what is spoken there.
    pub(crate) fn listener(&self, address: SocketAddrV4) -> Option<(Destination, Protocol)> {
        self.index.listeners.get(&address).copied()
    }

    /// Returns the service of this name.
    pub(crate) fn service_named(&self, name: &Name) -> Option<&ServiceRouting> {
        let at = self.services.binary_search_by(|service| service.service.name.cmp(name)).ok()?;
        Some(&self.services[at])
    }

    /// Returns the service of a destination of this table.
    pub(crate) fn service(&self, at: Destination) -> &Arc<Service> {
        &self.services[at.service].service
    }
}

impl Paths {
    fn find(&self, asked: &Asked, routes: &[Arc<ReadyRoute>]) -> Option<Destination> {
        let path = asked.path;
        let fitting = |same: &Vec<Destination>| same.iter().find(|to| routes[to.route].fits(asked)).copied();
        if let Some(found) = self.whole.get(path).and_then(fitting) {
            return Some(found);
        }
        // The end of the deepest segment that could matter; what lies below it is only a part of what a prefix answers.
        let mut end = path.match_indices('/').map(|(at, _)| at).nth(self.deepest).unwrap_or(path.len());
        while end > 0 {
            if let Some(found) = self.prefixes.get(&path[..end]).and_then(fitting) {
                return Some(found);
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
        self.prefixes.get("").and_then(fitting)
    }
}

/// Returns the host in lowercase, without port and final dot; an IPv6 address keeps its brackets.
pub(crate) fn bare_host(host: &str) -> Cow<'_, str> {
    let end = match (host.rfind(':'), host.rfind(']')) {
        (Some(colon), Some(bracket)) if colon < bracket => host.len(),
        (Some(colon), _) => colon,
        (None, _) => host.len(),
    };
    let bare = host[..end].strip_suffix('.').unwrap_or(&host[..end]);
    if bare.bytes().any(|b| b.is_ascii_uppercase()) { bare.to_ascii_lowercase().into() } else { bare.into() }
}

/// Numbers the names of a service's ports.
#[derive(Debug, Default)]
pub(crate) struct PortNumbers<'a>(Vec<&'a Name>);

impl<'a> PortNumbers<'a> {
    /// Returns the number of a name.
    pub(crate) fn number(&mut self, name: &'a Name) -> usize {
        self.0.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        })
    }

    /// Returns the names by number.
    pub(crate) fn names(&self) -> &[&'a Name] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use basalt_model::{Route, Rules};
    use http::{HeaderMap, Method};

    use super::*;

    fn add_service(builder: &mut Builder, name: &str) -> usize {
        let service = Arc::new(Service::new(name.parse().unwrap()));
        let traffic = Traffic::default();
        builder.add_service(Arc::new(ServiceRouting { service, traffic, releases: vec![], cycle: vec![] }))
    }

    fn add_route(builder: &mut Builder, service: usize, host: Option<&str>, path: &str, rules: Rules) {
        let name = builder.services[service].service.name.clone();
        let route = Route { rules, ..Route::new(host, path, name.clone()) };
        builder.add_route(Arc::new(ReadyRoute::new(&name, &route, None, vec![])), service, 0);
    }

    fn found(routing: &Routing, host: &str, path: &str) -> Option<String> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let asked = Asked { host, path, query, method: &Method::GET, headers: &HeaderMap::new() };
        routing.find(&asked).map(|at| routing.service(at).name.to_string())
    }

    #[test]
    fn requests_find_their_service() {
        let mut builder = Builder::default();
        let mut add = |name: &str, routes: &[(Option<&str>, &str)]| {
            let service = add_service(&mut builder, name);
            for (host, path) in routes {
                add_route(&mut builder, service, *host, path, Rules::default());
            }
        };
        add("root", &[(None, "/")]);
        add("shop", &[(None, "/shop"), (Some("shop.example.com"), "/")]);
        add("cart", &[(None, "/shop/cart/"), (Some("Shop.Example.com"), "/a/b/c")]);
        add("six", &[(Some("[::1]"), "/")]);
        add("wild", &[(Some("*.wild.example"), "/")]);
        add("wilder", &[(Some("*.a.wild.example"), "/in"), (Some("b.wild.example"), "/in")]);
        let routing = builder.build(1, 1);
        let check = |host: &str, path: &str, expected: &str| {
            assert_eq!(found(&routing, host, path).unwrap_or_default(), expected, "{host}{path}");
        };
        check("", "/", "root");
        check("other", "/x/y", "root");
        check("other", "/shop", "shop");
        check("other", "/shop/", "shop");
        check("other", "/shop?x=/cart", "shop");
        check("other", "/shop/cart", "cart");
        check("other", "/shop/cart/1/2/3/4/5", "cart");
        check("other", "/shop/carts", "shop");
        check("other", "/shopping", "root");
        check("other", "//shop", "root");
        check("shop.example.com", "/", "shop");
        check("SHOP.example.com:8080", "/a/b", "shop");
        check("shop.example.com.:80", "/a/b/c/d", "cart");
        check("shop.example.com.evil", "/", "root");
        check("[::1]:8080", "/", "six");
        check("[::1]", "/", "six");
        check("other", "*", "root");
        check("other", "", "root");
        check("other", "/é/ü", "root");
        check(":", "/:", "root");
        check(&"/".repeat(10_000), &"/".repeat(100_000), "root");
        check("x.wild.example", "/", "wild");
        check("X.Y.Wild.Example:1", "/", "wild");
        check("wild.example", "/", "root");
        check("x.a.wild.example", "/in/x", "wilder");
        check("x.a.wild.example", "/out", "wild");
        check("b.wild.example", "/in", "wilder");
        check("b.wild.example", "/out", "wild");
        check("..wild.example", "/", "wild");
    }

    #[test]
    fn who_asks_for_more_comes_first() {
        let map = |pairs: &[&str]| pairs.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect();
        let rules = |exact: bool, methods: &[&str], headers: &[&str], query: &[&str]| Rules {
            exact,
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            headers: map(headers),
            query: map(query),
            ..Rules::default()
        };
        let mut builder = Builder::default();
        let mut add = |name: &str, path: &str, rules: Rules| {
            let service = add_service(&mut builder, name);
            add_route(&mut builder, service, None, path, rules);
        };
        add("any", "/a", Rules::default());
        add("query", "/a", rules(false, &[], &[], &["q"]));
        add("header", "/a", rules(false, &[], &["x"], &[]));
        add("headers", "/a", rules(false, &[], &["x", "y"], &[]));
        add("method", "/a", rules(false, &["GET"], &["z"], &[]));
        add("exact", "/a/b", rules(true, &[], &[], &[]));
        add("slash", "/a/e/", rules(true, &[], &[], &[]));
        add("longer", "/a/c", rules(false, &["POST"], &[], &[]));
        let routing = builder.build(1, 1);
        let check = |path: &str, names: &[&'static str], expected: &str| {
            let headers: HeaderMap =
                names.iter().map(|name| (http::HeaderName::from_static(name), "1".parse().unwrap())).collect();
            let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            let asked = Asked { host: "h", path, query, method: &Method::GET, headers: &headers };
            let found = routing.find(&asked).map(|at| routing.service(at).name.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{path} {query:?} {names:?}");
        };
        check("/a", &[], "any");
        check("/a?q=1", &[], "query");
        check("/a?q=2", &[], "any");
        check("/a?q=1", &["x"], "header");
        check("/a", &["x", "y"], "headers");
        check("/a", &["x", "y", "z"], "method");
        check("/a/b", &["x"], "exact");
        check("/a/b/c", &[], "any");
        check("/a/e/", &[], "slash");
        check("/a/e", &[], "any");
        // The longest prefix does not fit, so the next does.
        check("/a/c", &[], "any");
    }

    #[test]
    fn without_a_route_nothing_is_found() {
        let mut builder = Builder::default();
        let service = add_service(&mut builder, "a");
        add_route(&mut builder, service, Some("a.example"), "/a", Rules::default());
        let routing = builder.build(1, 1);
        assert!(found(&routing, "a.example", "/a").is_some());
        assert!(found(&routing, "a.example", "/b").is_none());
        assert!(found(&routing, "b.example", "/a").is_none());
    }

    #[test]
    fn who_comes_first_keeps_a_place() {
        let mut builder = Builder::default();
        for name in ["a", "b"] {
            let service = add_service(&mut builder, name);
            add_route(&mut builder, service, None, "/x", Rules::default());
        }
        assert_eq!(builder.problems, ["services `a` and `b` both want `any host/x/`: `a` has it"]);
        assert_eq!(found(&builder.build(1, 1), "h", "/x").unwrap(), "a");
    }
}
