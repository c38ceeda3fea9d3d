//! Chooses the instance that a request goes to.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use basalt_model::{Millis, Port, ReleaseNumber};

use crate::affinity::{self, Belongs};
use crate::instance::Instance;
use crate::routing::{Destination, ReleaseRouting, Routing, ServiceRouting};

/// How many instances are tried before all are looked at.
const TRIES: usize = 16;

/// The instance that a request goes to.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) instance: &'a Arc<Instance>,
    pub(crate) port: Port,
}

impl Choice<'_> {
    /// Returns where the instance takes it.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.instance.address, self.port.container)
    }
}

/// What an earlier attempt of the same request leaves behind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attempts {
    /// The release whose turn it was: a retry stays with it, so that shares stay exact.
    pub(crate) release: Option<ReleaseNumber>,
    /// Where the request belongs.
    pub(crate) belongs: Option<Belongs>,
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
        if let Some(belongs) = &attempts.belongs
            && let Some((release, choice)) = service.choose_where_it_belongs(belongs, to.port, attempts)
        {
            attempts.release = Some(release);
            return Some(choice);
        }
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
        self.others(to, attempts, but).next().is_some()
    }

    /// Returns whether one of them is of the same release.
    pub(crate) fn has_sibling(&self, to: Destination, attempts: &Attempts, of: &Arc<Instance>) -> bool {
        self.others(to, attempts, of).any(|other| other.id.release() == of.id.release())
    }

    /// Returns the instances that may be used and have not failed.
    fn others<'r>(
        &'r self,
        to: Destination,
        attempts: &'r Attempts,
        but: &'r Arc<Instance>,
    ) -> impl Iterator<Item = &'r Arc<Instance>> {
        let service = &self.services[to.service];
        let releases = service.releases.iter().filter(move |release| release.has_port(to.port));
        let usable = releases.flat_map(|release| {
            let panicking = service.is_panicking(release);
            let any = move |one: &&Arc<Instance>| one.is_healthy() || panicking && one.healthy_for().is_some();
            release.instances.iter().filter(any)
        });
        usable.filter(move |other| !Arc::ptr_eq(other, but) && !attempts.has_failed(other))
    }
}

impl ServiceRouting {
    /// Returns the instance that a request belongs to, if that can take it.
    fn choose_where_it_belongs(
        &self,
        belongs: &Belongs,
        port: usize,
        attempts: &Attempts,
    ) -> Option<(ReleaseNumber, Choice<'_>)> {
        let usable = |instance: &&Arc<Instance>| self.is_usable(instance, attempts) && !instance.is_ejected();
        match belongs {
            Belongs::To(id) => {
                let mut releases = self.releases.iter().filter(|release| release.weight.0 > 0);
                let release = releases.find(|release| release.number == id.release())?;
                let instance = release.instances.iter().filter(usable).find(|instance| instance.id == *id)?;
                release.with(instance, port)
            }
            Belongs::Hash(number) => {
                // The release by its share of all numbers, so that the same number stays as long as shares do.
                let total: u64 = self.releases.iter().map(|release| u64::from(release.weight.0)).sum();
                let mut point = affinity::hash(number).checked_rem(total)?;
                let release = self.releases.iter().find(|release| {
                    let weight = u64::from(release.weight.0);
                    let within = point < weight;
                    point = point.saturating_sub(weight);
                    within
                })?;
                // The highest bidder (rendezvous hashing): when one leaves, only its own requests move. Ordinals bid, so that
                // most requests stay where they are from one release to the next.
                let bid = |instance: &&Arc<Instance>| affinity::hash(&(number, instance.id.ordinal()));
                release.with(release.instances.iter().filter(usable).max_by_key(bid)?, port)
            }
        }
    }

    /// Whether so few instances of a release are healthy that all that have ever been are used.
    fn is_panicking(&self, release: &ReleaseRouting) -> bool {
        if self.traffic.panic_below == 0 {
            return false;
        }
        let healthy = release.instances.iter().filter(|instance| instance.is_healthy()).count();
        healthy * 100 < release.instances.len() * self.traffic.panic_below as usize
    }

    fn is_usable(&self, instance: &Arc<Instance>, attempts: &Attempts) -> bool {
        instance.is_healthy() && !attempts.has_failed(instance)
    }
}

/// Returns whether an instance that has just become healthy is to be passed over this time: its share grows evenly
/// from a tenth over the window.
fn is_warming(instance: &Instance, window: Millis, turn: usize) -> bool {
    let Some(healthy) = instance.healthy_for() else { return false };
    let healthy = u64::try_from(healthy.as_millis()).unwrap_or(u64::MAX);
    if healthy >= window.0 {
        return false;
    }
    scattered(turn).saturating_mul(window.0) >> 32 >= healthy.max(window.0 / 10)
}

/// Returns a number that looks like chance (the mixer of SplitMix64).
fn mixed(number: usize) -> usize {
    let z = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 32) as usize
}

/// Scatters turns by the golden ratio over all numbers of 32 bits, so that a share of them is met evenly.
fn scattered(turn: usize) -> u64 {
    (turn as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

impl ReleaseRouting {
    fn with<'r>(&self, instance: &'r Arc<Instance>, port: usize) -> Option<(ReleaseNumber, Choice<'r>)> {
        Some((self.number, Choice { instance, port: self.port(port)? }))
    }

    fn has_port(&self, port: usize) -> bool {
        self.port(port).is_some()
    }

    fn port(&self, port: usize) -> Option<Port> {
        self.ports.get(port).copied().flatten()
    }

    /// Returns the less loaded of two healthy instances; which two goes round.
    fn choose(&self, of: &ServiceRouting, port: usize, attempts: &Attempts) -> Option<Choice<'_>> {
        let port = self.port(port)?;
        let count = self.instances.len();
        if count == 0 {
            return None;
        }
        let start = self.turn.fetch_add(1, Relaxed);
        // Who is left out has its turns taken by others at random, and by none of them more than by another; in the end all are looked at.
        let from = |start: usize| {
            let others = (1..TRIES).map(move |again| mixed(start.wrapping_mul(TRIES) + again) % count);
            let all = (0..count).map(move |step| (start + step) % count);
            [start % count].into_iter().chain(others).chain(all).map(|at| &self.instances[at])
        };
        let slow = of.traffic.slow_start;
        let usable = |instance: &&Arc<Instance>| of.is_usable(instance, attempts) && !instance.is_ejected();
        let warm = |instance: &&Arc<Instance>| usable(instance) && !is_warming(instance, slow, start);
        let panicking = of.is_panicking(self);
        let any = |instance: &&Arc<Instance>| instance.healthy_for().is_some() && !attempts.has_failed(instance);
        let find = |start: usize| {
            if panicking {
                return from(start).find(any);
            }
            let first = if slow == Millis::ZERO { from(start).find(usable) } else { from(start).find(warm) };
            // Better one that is cold, or even ejected, than none.
            first
                .or_else(|| from(start).find(usable))
                .or_else(|| from(start).find(|instance| of.is_usable(instance, attempts)))
        };
        let one = find(start)?;
        // The distance to the second changes with every round, so that all pairs meet.
        let distance = 1 + (start / count) % (count - 1).max(1);
        let two = find(start + distance).unwrap_or(one);
        let instance = if two.in_flight() < one.in_flight() { two } else { one };
        Some(Choice { instance, port })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicUsize;

    use basalt_model::{Health, Protocol, Traffic, Weight};

    use super::*;
    use crate::routing::Builder;
    use crate::service::Service;
    use crate::weights;

    const TO: Destination = Destination { service: 0, port: 0, route: 0 };

    /// A table with one service; per release its weight and whether each instance is healthy.
    fn routing(releases: &[(u32, &[bool])]) -> Routing {
        with_traffic(releases, Traffic::default())
    }

    fn with_traffic(releases: &[(u32, &[bool])], traffic: Traffic) -> Routing {
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
                Arc::default(),
            );
            instance.judge(Some(healthy));
            Arc::new(instance)
        };
        let ready = releases.iter().enumerate().map(|(at, (weight, instances))| {
            let number = at as u32 + 1;
            let instances = instances.iter().enumerate().map(|(at, healthy)| instance(number, at, *healthy)).collect();
            ReleaseRouting {
                number,
                weight: Weight(*weight),
                instances,
                ports: vec![Some(Port::new(80, Protocol::Http))],
                turn: AtomicUsize::default(),
            }
        });
        let releases: Vec<_> = ready.collect();
        let cycle = weights::cycle(&releases.iter().map(|release| release.weight.0).collect::<Vec<_>>());
        let mut builder = Builder::default();
        builder.add_service(Arc::new(ServiceRouting { service: service.clone(), traffic, releases, cycle }));
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
        let quarters = [("web-1-1", 250), ("web-1-2", 250), ("web-2-1", 250), ("web-2-2", 250)];
        check(&[(5_000, &[true, true]), (5_000, &[true, true])], &quarters);
        // Without a healthy instance, weight goes elsewhere: first to who has weight, then to anyone.
        check(&[(9_500, &[false]), (500, &[true]), (0, &[true])], &[("web-2-1", 1000)]);
        check(&[(10_000, &[false]), (0, &[true])], &[("web-2-1", 1000)]);
        check(&[(0, &[true]), (0, &[false])], &[("web-1-1", 1000)]);
        check(&[(10_000, &[false]), (0, &[])], &[("none", 1000)]);
        check(&[], &[("none", 1000)]);
    }

    #[test]
    fn who_is_left_out_is_stood_in_for_by_all_others() {
        for left_out in [vec![1], vec![1, 2], vec![0, 3, 4, 5, 9]] {
            let healthy: Vec<bool> = (0..10).map(|at| !left_out.contains(&at)).collect();
            let counts = counts(&routing(&[(10_000, &healthy)]), 10_000);
            let even = 10_000 / (10 - left_out.len());
            assert_eq!(counts.len(), 10 - left_out.len());
            assert!(counts.values().all(|count| count.abs_diff(even) < even / 10), "{left_out:?}: {counts:?}");
        }
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
        let mut attempts = Attempts { release: Some(1), ..Attempts::default() };
        let routing = routing(&[(0, &[true]), (10_000, &[true])]);
        assert_eq!(routing.choose(TO, &mut attempts).unwrap().instance.id.release(), 2);
    }

    #[test]
    fn a_request_goes_where_it_belongs_as_long_as_that_is_there() {
        let check = |releases: &[(u32, &[bool])], belongs: &str, expected: &str| {
            let routing = routing(releases);
            let belongs = Some(Belongs::To(belongs.parse().unwrap()));
            for _ in 0..10 {
                let mut attempts = Attempts { belongs: belongs.clone(), ..Attempts::default() };
                let choice = routing.choose(TO, &mut attempts).unwrap();
                assert!(choice.instance.id.to_string().starts_with(expected), "{releases:?} {}", choice.instance.id);
            }
        };
        check(&[(9_000, &[true, true]), (1_000, &[true])], "web-1-2", "web-1-2");
        check(&[(9_000, &[true, true]), (1_000, &[true])], "web-2-1", "web-2-1");
        check(&[(10_000, &[true, false])], "web-1-2", "web-1-1");
        check(&[(10_000, &[true]), (0, &[true])], "web-2-1", "web-1-1");
        check(&[(10_000, &[true])], "web-7-1", "web-1-1");
    }

    #[test]
    fn hashing_is_consistent_and_only_the_lost_move() {
        let place = |releases: &[(u32, &[bool])], number: u64| {
            let mut attempts = Attempts { belongs: Some(Belongs::Hash(number)), ..Attempts::default() };
            routing(releases).choose(TO, &mut attempts).unwrap().instance.id.clone()
        };
        let all: &[bool] = &[true, true, true, true];
        let mut moved = 0;
        let mut new = 0;
        for number in 0..1000 {
            let before = place(&[(10_000, all)], number);
            assert_eq!(before, place(&[(10_000, all)], number));
            let after = place(&[(10_000, &[true, true, false, true])], number);
            assert!(before.ordinal() == 3 || before == after, "{number}: {before} {after}");
            moved += usize::from(before != after);
            let canary = place(&[(9_000, all), (1_000, all)], number);
            new += usize::from(canary.release() == 2);
            assert!(canary.release() == 2 || canary == before);
            assert_eq!(canary.ordinal(), before.ordinal());
        }
        assert!((200..300).contains(&moved) && (60..150).contains(&new), "{moved} {new}");
    }

    #[test]
    fn in_a_panic_all_that_were_ever_healthy_are_used() {
        let traffic = Traffic { panic_below: 50, ..Traffic::default() };
        let routing = with_traffic(&[(10_000, &[true, true, true, true, false])], traffic);
        let instances = &routing.services[0].releases[0].instances;
        instances[1].judge(Some(false));
        instances[2].judge(Some(false));
        assert_eq!(counts(&routing, 100).len(), 4, "two of five are below half");
        instances[1].judge(Some(true));
        assert_eq!(counts(&routing, 100).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_new_get_more_and_more() {
        let traffic = Traffic { slow_start: Millis::seconds(10), ..Traffic::default() };
        let routing = with_traffic(&[(10_000, &[true, true, false])], traffic);
        tokio::time::advance(std::time::Duration::from_secs(20)).await;
        routing.services[0].releases[0].instances[2].judge(Some(true));
        let mut shares = Vec::new();
        for _ in 0..4 {
            shares.push(*counts(&routing, 3000).get("web-1-3").unwrap_or(&0));
            tokio::time::advance(std::time::Duration::from_secs(4)).await;
        }
        assert!(shares[0] < 250 && shares.is_sorted() && shares[3] == 1000, "{shares:?}");
    }

    #[test]
    fn the_ejected_get_nothing_unless_nobody_else_is_there() {
        let routing = routing(&[(10_000, &[true, true])]);
        let instances = &routing.services[0].releases[0].instances;
        instances[0].eject();
        assert_eq!(counts(&routing, 100), [("web-1-2".to_owned(), 100)].into());
        instances[1].judge(Some(false));
        assert_eq!(counts(&routing, 100), [("web-1-1".to_owned(), 100)].into());
        instances[0].readmit();
        instances[1].judge(Some(true));
        assert_eq!(counts(&routing, 100)["web-1-1"], 50);
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

    #[test]
    fn a_retry_finds_whom_panic_lets_be_used() {
        for (panic_below, expected) in [(0, false), (60, true)] {
            let routing = with_traffic(&[(10_000, &[true, true])], Traffic { panic_below, ..Traffic::default() });
            let instances = &routing.services[0].releases[0].instances;
            instances[1].judge(Some(false));
            assert_eq!(routing.has_another(TO, &Attempts::default(), &instances[0]), expected);
        }
    }
}
