//! A route table made ready: whatever a request needs is found without a search through services.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use basalt_model::{Name, Protocol, ReleaseNumber, Weight};

use crate::instance::Instance;
use crate::service::Service;

/// A route table made ready.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Counts changes of tables in this process.
    pub(crate) epoch: u64,
    /// The version of the table.
    pub(crate) version: u64,
    pub(crate) services: Vec<ServiceRouting>,
    listeners: HashMap<SocketAddrV4, (Destination, Protocol)>,
    hosts: HashMap<String, Paths>,
    any_host: Paths,
}

/// One service, made ready.
#[derive(Debug)]
pub(crate) struct ServiceRouting {
    pub(crate) service: Arc<Service>,
    pub(crate) releases: Vec<ReleaseRouting>,
    /// Positions in `releases`, in the order that requests take them.
    pub(crate) cycle: Vec<u16>,
}

/// One release, made ready.
#[derive(Debug)]
pub(crate) struct ReleaseRouting {
    pub(crate) number: ReleaseNumber,
    pub(crate) weight: Weight,
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Ports by the numbers that [`Destination`] gives to their names; `None` where the release has no such port.
    pub(crate) ports: Vec<Option<u16>>,
}

/// Where a request goes: a port of a service. It holds in one table only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Position among the services.
    pub(crate) service: usize,
    /// Position among the service's ports.
    pub(crate) port: usize,
}

/// Path prefixes of one host, without a slash at their end.
#[derive(Debug, Default)]
struct Paths {
    destinations: HashMap<String, Destination>,
    /// The most segments that one of them has: deeper slashes need no look.
    deepest: usize,
}

/// Collects what a [`Routing`] is made of.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    routing: Routing,
    /// What is wrong with the table, for people.
    pub(crate) problems: Vec<String>,
}

impl Builder {
    /// Adds a service and returns its position.
    pub(crate) fn add_service(&mut self, service: ServiceRouting) -> usize {
        self.routing.services.push(service);
        self.routing.services.len() - 1
    }

    /// Sends requests for a host and path prefix to a destination. Who comes first keeps a place.
    pub(crate) fn add_route(&mut self, host: Option<&str>, path: &str, to: Destination) {
        let paths = match host {
            Some(host) => self.routing.hosts.entry(host.to_ascii_lowercase()).or_default(),
            None => &mut self.routing.any_host,
        };
        let path = path.trim_end_matches('/');
        paths.deepest = paths.deepest.max(path.matches('/').count());
        let first = *paths.destinations.entry(path.to_owned()).or_insert(to);
        if first.service != to.service {
            let name = |at: usize| self.routing.services[at].service.name.clone();
            let (first, second) = (name(first.service), name(to.service));
            let host = host.unwrap_or("any host");
            self.problems
                .push(format!("services `{first}` and `{second}` both want `{host}{path}/`: `{first}` has it"));
        }
    }

    /// Sends everything that arrives at an address to a destination.
    pub(crate) fn add_listener(&mut self, address: SocketAddrV4, to: Destination, protocol: Protocol) {
        let first = self.routing.listeners.entry(address).or_insert((to, protocol)).0;
        if first != to {
            self.problems.push(format!("two services want to listen on `{address}`"));
        }
    }

    /// Returns the table, made ready.
    pub(crate) fn build(self, version: u64, epoch: u64) -> Routing {
        Routing { version, epoch, ..self.routing }
    }
}

impl Routing {
    /// Returns where a request from outside goes. `host` may have a port behind it, `path` a query.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Destination> {
        self.hosts.get(&*bare_host(host)).and_then(|paths| paths.find(path)).or_else(|| self.any_host.find(path))
    }

    /// Returns where what arrives at a virtual address goes, and what is spoken there.
    pub(crate) fn listener(&self, address: SocketAddrV4) -> Option<(Destination, Protocol)> {
        self.listeners.get(&address).copied()
    }

    /// Returns the service of a destination of this table.
    pub(crate) fn service(&self, at: Destination) -> &Arc<Service> {
        &self.services[at.service].service
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<Destination> {
        let path = path.split(['?', '#']).next().unwrap_or(path);
        // The end of the deepest segment that could matter; what lies below it is only a part of what a prefix answers.
        let mut end = path.match_indices('/').map(|(at, _)| at).nth(self.deepest).unwrap_or(path.len());
        while end > 0 {
            if let Some(found) = self.destinations.get(&path[..end]) {
                return Some(*found);
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
        self.destinations.get("").copied()
    }
}

/// Returns the host in lowercase, without port and final dot; an IPv6 address keeps its brackets.
fn bare_host(host: &str) -> Cow<'_, str> {
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
    use super::*;

    #[test]
    fn requests_find_their_service() {
        let mut builder = Builder::default();
        let mut add = |name: &str, routes: &[(Option<&str>, &str)]| {
            let service = Arc::new(Service::new(name.parse().unwrap()));
            let service = builder.add_service(ServiceRouting { service, releases: vec![], cycle: vec![] });
            for (host, path) in routes {
                builder.add_route(*host, path, Destination { service, port: 0 });
            }
        };
        add("root", &[(None, "/")]);
        add("shop", &[(None, "/shop"), (Some("shop.example.com"), "/")]);
        add("cart", &[(None, "/shop/cart/"), (Some("Shop.Example.com"), "/a/b/c")]);
        add("six", &[(Some("[::1]"), "/")]);
        let routing = builder.build(1, 1);
        let check = |host: &str, path: &str, expected: &str| {
            let found = routing.find(host, path).map_or("", |at| routing.service(at).name.as_str());
            assert_eq!(found, expected, "{host}{path}");
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
    }

    #[test]
    fn without_a_route_nothing_is_found() {
        let mut builder = Builder::default();
        let service = Arc::new(Service::new("a".parse().unwrap()));
        let service = builder.add_service(ServiceRouting { service, releases: vec![], cycle: vec![] });
        builder.add_route(Some("a.example"), "/a", Destination { service, port: 0 });
        let routing = builder.build(1, 1);
        assert!(routing.find("a.example", "/a").is_some());
        assert!(routing.find("a.example", "/b").is_none());
        assert!(routing.find("b.example", "/a").is_none());
    }

    #[test]
    fn who_comes_first_keeps_a_place() {
        let mut builder = Builder::default();
        for name in ["a", "b"] {
            let service = Arc::new(Service::new(name.parse().unwrap()));
            let service = builder.add_service(ServiceRouting { service, releases: vec![], cycle: vec![] });
            builder.add_route(None, "/x", Destination { service, port: 0 });
        }
        assert_eq!(builder.problems, ["services `a` and `b` both want `any host/x/`: `a` has it"]);
        assert_eq!(builder.build(1, 1).find("h", "/x").unwrap().service, 0);
    }
}
