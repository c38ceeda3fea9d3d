//! Chooses the instance that a request goes to.

use std::net::SocketAddrV4;
use std::sync::Arc;

use basalt_model::ReleaseNumber;

use crate::instance::Instance;
use crate::routing::{Destination, ReleaseRouting, Routing, ServiceRouting};

/// The instance that a request goes to.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) instance: &'a Arc<Instance>,
    pub(crate) address: SocketAddrV4,
}

/// What an earlier attempt of the same request leaves behind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attempts {
    /// The release whose turn it was: a retry stays with it, so that shares stay exact.
    pub(crate) release: Option<ReleaseNumber>,
    /// Instances that have failed it.
    pub(crate) failed: Vec<Arc<Instance>>,
}

impl Attempts {
    fn has_failed(&self, instance: &Arc<Instance>) -> bool {
        self.failed.iter().any(|failed| Arc::ptr_eq(failed, instance))
    }
}

impl Routing {
    /// Returns a healthy instance: of the release whose turn it is, else of another with weight, else any.
    pub(crate) fn choose(&self, to: Destination, attempts: &mut Attempts) -> Option<Choice<'_>> {
        let service = &self.services[to.service];
        let turn = || usize::from(service.cycle[(service.service.next_turn() % service.cycle.len() as u64) as usize]);
        // A release that has lost its weight meanwhile has lost its turn too.
        let same =
            |number| service.releases.iter().position(|release| release.number == number && release.weight.0 > 0);
        let first = match attempts.release.and_then(same) {
            Some(first) => Some(first),
            None if service.cycle.is_empty() => None,
            None => Some(turn()),
        };
        if let Some(first) = first {
            attempts.release = Some(service.releases[first].number);
            if let Some(choice) = service.releases[first].choose(service, to.port, attempts) {
                return Some(choice);
            }
        }
        let others = |weighty: bool| {
            let others = service.releases.iter().filter(move |release| (release.weight.0 > 0) == weighty);
            others.filter_map(|release| release.choose(service, to.port, attempts)).next()
        };
        others(true).or_else(|| others(false))
    }

    /// Returns whether another healthy instance could take over from those that have failed.
    pub(crate) fn has_another(&self, to: Destination, attempts: &Attempts, but: &Arc<Instance>) -> bool {
        let releases = self.services[to.service].releases.iter().filter(|release| release.has_port(to.port));
        releases
            .flat_map(|release| &release.instances)
            .any(|other| other.is_healthy() && !Arc::ptr_eq(other, but) && !attempts.has_failed(other))
    }
}

impl ReleaseRouting {
    fn has_port(&self, port: usize) -> bool {
        self.port(port).is_some()
    }

    fn port(&self, port: usize) -> Option<u16> {
        self.ports.get(port).copied().flatten()
    }

    /// Returns the less loaded of two healthy instances; which two goes round.
    fn choose(&self, of: &ServiceRouting, port: usize, attempts: &Attempts) -> Option<Choice<'_>> {
        let port = self.port(port)?;
        let count = self.instances.len();
        if count == 0 {
            return None;
        }
        let start = of.service.next_start();
        let usable = |instance: &&Arc<Instance>| instance.is_healthy() && !attempts.has_failed(instance);
        let from = |start: usize| (0..count).map(move |step| &self.instances[(start + step) % count]).find(usable);
        let one = from(start)?;
        // The distance to the second changes with every round, so that all pairs meet.
        let distance = 1 + (start / count) % (count - 1).max(1);
        let two = from(start + distance).unwrap_or(one);
        let instance = if two.in_flight() < one.in_flight() { two } else { one };
        Some(Choice { instance, address: SocketAddrV4::new(instance.address, port) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use basalt_model::{Health, Weight};
    use tokio::sync::watch;

    use super::*;
    use crate::routing::Builder;
    use crate::service::Service;
    use crate::weights;

    const TO: Destination = Destination { service: 0, port: 0 };

    /// A table with one service; per release its weight and whether each instance is healthy.
    fn routing(releases: &[(u32, &[bool])]) -> Routing {
        let service = Arc::new(Service::new("web".parse().unwrap()));
        let instance = |number, ordinal: usize, healthy| {
            let id = format!("web-{number}-{}", ordinal + 1).parse().unwrap();
            let instance = Instance::new(
                id,
                1,
                [127, 0, 0, 1].into(),
                (Health::default(), None),
                std::time::Duration::ZERO,
                service.clone(),
                watch::Sender::default(),
            );
            instance.judge(Some(healthy));
            Arc::new(instance)
        };
        let ready = releases.iter().enumerate().map(|(at, (weight, instances))| {
            let number = at as u32 + 1;
            let instances = instances.iter().enumerate().map(|(at, healthy)| instance(number, at, *healthy)).collect();
            ReleaseRouting { number, weight: Weight(*weight), instances, ports: vec![Some(80)] }
        });
        let releases: Vec<_> = ready.collect();
        let cycle = weights::cycle(&releases.iter().map(|release| release.weight.0).collect::<Vec<_>>());
        let mut builder = Builder::default();
        builder.add_service(ServiceRouting { service: service.clone(), releases, cycle });
        builder.build(1, 1)
    }

    fn counts(routing: &Routing, requests: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let choice = routing.choose(TO, &mut Attempts::default());
            *counts.entry(choice.map_or("none".to_owned(), |choice| choice.instance.id.to_string())).or_default() += 1;
        }
        counts
    }

    #[test]
    fn requests_go_where_weights_and_health_say() {
        let check = |releases: &[(u32, &[bool])], expected: &[(&str, usize)]| {
            let expected: BTreeMap<String, usize> = expected.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect();
            assert_eq!(counts(&routing(releases), 1000), expected, "{releases:?}");
        };
        check(&[(10_000, &[true, true])], &[("web-1-1", 500), ("web-1-2", 500)]);
        check(&[(9_500, &[true]), (500, &[true])], &[("web-1-1", 950), ("web-2-1", 50)]);
        check(&[(10_000, &[true]), (0, &[true])], &[("web-1-1", 1000)]);
        // Without a healthy instance, weight goes elsewhere: first to who has weight, then to anyone.
        check(&[(9_500, &[false]), (500, &[true]), (0, &[true])], &[("web-2-1", 1000)]);
        check(&[(10_000, &[false]), (0, &[true])], &[("web-2-1", 1000)]);
        check(&[(0, &[true]), (0, &[false])], &[("web-1-1", 1000)]);
        check(&[(10_000, &[false]), (0, &[])], &[("none", 1000)]);
        check(&[], &[("none", 1000)]);
    }

    #[test]
    fn the_less_loaded_is_chosen() {
        let routing = routing(&[(10_000, &[true, true, true])]);
        let instances = &routing.services[0].releases[0].instances;
        let _busy: Vec<_> = (0..100).map(|_| instances[1].begin()).collect();
        assert!(!counts(&routing, 300).contains_key("web-1-2"));
    }

    #[test]
    fn a_release_that_has_lost_its_weight_has_lost_its_turn() {
        let mut attempts = Attempts { release: Some(1), failed: Vec::new() };
        let routing = routing(&[(0, &[true]), (10_000, &[true])]);
        assert_eq!(routing.choose(TO, &mut attempts).unwrap().instance.id.release(), 2);
    }

    #[test]
    fn a_retry_goes_elsewhere_in_the_same_release() {
        let routing = routing(&[(5_000, &[true, true]), (5_000, &[true, true])]);
        let mut attempts = Attempts::default();
        let first = routing.choose(TO, &mut attempts).unwrap().instance.clone();
        assert!(routing.has_another(TO, &attempts, &first));
        attempts.failed.push(first.clone());
        let second = routing.choose(TO, &mut attempts).unwrap().instance.clone();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(first.id.release(), second.id.release());
        attempts.failed.push(second);
        let third = routing.choose(TO, &mut attempts).unwrap().instance.clone();
        assert_ne!(first.id.release(), third.id.release(), "better another release than an error");
    }
}
