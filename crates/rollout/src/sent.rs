//! Which routes the gateway has in force, service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_model::{Name, RouteTable, ServiceRoutes};

/// The table that was sent last, and since which version each service has been in it as it is.
#[derive(Debug, Clone)]
pub struct SentRoutes {
    table: Arc<RouteTable>,
    since: BTreeMap<Name, u64>,
}

impl SentRoutes {
    /// Returns what is to be sent so that a router, which has `version` now, gets these routes; `None` if the last table
    /// says them already.
    pub fn next(last: Option<&Self>, version: u64, services: BTreeMap<Name, ServiceRoutes>) -> Option<Self> {
        // A router that is ahead has a table of somebody else's: nothing is known of what it says.
        let last = last.filter(|last| last.table.version >= version);
        let before = |name: &Name| last.and_then(|last| last.table.services.get(name));
        let shared = |(name, now): (Name, ServiceRoutes)| {
            let kept = before(&name).filter(|before| ***before == now).cloned();
            (name, kept.unwrap_or_else(|| Arc::new(now)))
        };
        let services: BTreeMap<_, _> = services.into_iter().map(shared).collect();
        if last.is_some_and(|last| last.table.services == services) {
            return None;
        }
        let next = last.map_or(version, |last| last.table.version) + 1;
        let names = services.keys().chain(last.into_iter().flat_map(|last| last.since.keys()));
        let since = |name: &Name| {
            let kept = last.filter(|_| before(name) == services.get(name)).and_then(|last| last.since.get(name));
            kept.copied().unwrap_or(next)
        };
        // What has been gone for so long that the router knows is as good as never named.
        let gone = |name: &Name, since: u64| !services.contains_key(name) && since <= version;
        let since = names.map(|name| (name.clone(), since(name))).filter(|(name, at)| !gone(name, *at)).collect();
        Some(Self { since, table: Arc::new(RouteTable { version: next, services }) })
    }

    /// Returns the table.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// Returns which of the routes that should be in force now are so at a router that has acknowledged `version`.
    pub fn in_force(&self, version: u64, services: &BTreeMap<Name, ServiceRoutes>) -> InForce {
        if version > self.table.version {
            return InForce::default();
        }
        let late = self.since.iter().filter(|(_, since)| **since > version).map(|(name, _)| name);
        let names = services.keys().chain(self.table.services.keys());
        let other = names.filter(|name| services.get(*name) != self.table.services.get(*name).map(|routes| &**routes));
        InForce { acknowledged: true, behind: late.chain(other).cloned().collect() }
    }
}

/// Which services have the routes that follow from what is recorded and seen now in force at the router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    acknowledged: bool,
    behind: BTreeSet<Name>,
}

impl InForce {
    /// Returns that of every service's routes.
    pub fn everywhere() -> Self {
        Self { acknowledged: true, behind: BTreeSet::new() }
    }

    /// Returns whether those of a service are. One that has no routes and is not named any more counts too.
    pub fn of(&self, service: &Name) -> bool {
        self.acknowledged && !self.behind.contains(service)
    }

    /// Returns whether those of all services are.
    pub fn all(&self) -> bool {
        self.acknowledged && self.behind.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{Listener, Protocol};

    fn routes(services: &[(&str, u16)]) -> BTreeMap<Name, ServiceRoutes> {
        let one = |(name, port): &(&str, u16)| {
            let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, *port);
            let listener = Listener { address, port: "http".parse().unwrap(), protocol: Protocol::Http };
            (name.parse().unwrap(), ServiceRoutes { listeners: vec![listener], ..ServiceRoutes::default() })
        };
        services.iter().map(one).collect()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_waits_for_its_own_routes_alone() {
        let first = routes(&[("api", 1), ("web", 1)]);
        let one = SentRoutes::next(None, 7, first.clone()).unwrap();
        assert_eq!(one.table().version, 8);
        assert!(!one.in_force(7, &first).of(&name("api")));
        assert!(one.in_force(8, &first).all());
        assert!(SentRoutes::next(Some(&one), 8, first).is_none());

        // `api` changes again and again; what `web` has is in force all the while.
        let second = routes(&[("api", 2), ("web", 1)]);
        let two = SentRoutes::next(Some(&one), 8, second.clone()).unwrap();
        let shared = |service: &str| [&one, &two].map(|sent| &sent.table().services[&name(service)]);
        assert!(Arc::ptr_eq(shared("web")[0], shared("web")[1]), "what has not changed is shared");
        assert_ne!(shared("api")[0], shared("api")[1]);
        let seen = two.in_force(8, &second);
        assert!(seen.of(&name("web")) && !seen.of(&name("api")) && !seen.all());
        let third = routes(&[("api", 3), ("web", 1)]);
        assert!(two.in_force(9, &third).of(&name("web")));
        assert!(!two.in_force(9, &third).of(&name("api")));
    }

    #[test]
    fn what_is_gone_is_in_force_once_the_router_has_said_so() {
        let one = SentRoutes::next(None, 0, routes(&[("api", 1)])).unwrap();
        let two = SentRoutes::next(Some(&one), 1, routes(&[])).unwrap();
        assert!(!two.in_force(1, &routes(&[])).of(&name("api")));
        assert!(two.in_force(2, &routes(&[])).of(&name("api")));
        let web = routes(&[("web", 1)]);
        let three = SentRoutes::next(Some(&two), 2, web.clone()).unwrap();
        assert!(three.in_force(2, &web).of(&name("api")));
    }

    #[test]
    fn nothing_is_known_of_a_router_that_is_ahead() {
        let wanted = routes(&[("api", 1)]);
        let one = SentRoutes::next(None, 0, wanted.clone()).unwrap();
        assert_eq!(one.in_force(5, &wanted), InForce::default());
        assert_eq!(SentRoutes::next(Some(&one), 5, wanted).unwrap().table().version, 6);
    }
}
