//! Takes instances out for a while because of what their requests have met. Checks may call them healthy all the same.

use std::sync::{Arc, Weak};
use std::time::Duration;

use basalt_model::Eject;
use tokio::time::{MissedTickBehavior, interval};

use crate::instance::Instance;
use crate::plane::Plane;
use crate::routing::{ReleaseRouting, Routing};

/// Time between two looks at errors and latencies: long enough for a verdict, short enough to matter.
const INTERVAL: Duration = Duration::from_secs(2);
/// Requests that make a rate: fewer are chance.
const ENOUGH: u32 = 20;
/// For so many looks, instances may gather them: a slow one gets few, as the less loaded are chosen.
const LOOKS: u32 = 5;
/// The most times in a row by which an ejection grows: at ten seconds each, five minutes.
const MOST_TIMES: u32 = 30;

/// Ejects an instance that has failed too often in a row.
pub(crate) fn failed(plane: &Plane, instance: &Arc<Instance>) {
    let routing = plane.routing();
    let Some((release, eject)) = find(&routing, instance) else { return };
    if eject.consecutive > 0 && instance.failures_in_a_row() >= eject.consecutive {
        let why = format!("{} requests in a row failed", instance.failures_in_a_row());
        eject_unless_too_many(release, eject, instance, &why);
    }
}

/// Compares error rates and latencies until the plane is gone.
pub(crate) async fn watch(plane: Weak<Plane>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: u32 = 0;
    loop {
        ticks.tick().await;
        looks = looks.wrapping_add(1);
        let last = looks.is_multiple_of(LOOKS);
        let Some(plane) = plane.upgrade() else { return };
        let routing = plane.routing();
        for service in &routing.services {
            let eject = &service.traffic.eject;
            if eject.error_percent > 0 || eject.slower_percent > 0 {
                service.releases.iter().for_each(|release| compare(release, eject, last));
            }
        }
    }
}

fn find<'r>(routing: &'r Routing, instance: &Instance) -> Option<(&'r ReleaseRouting, &'r Eject)> {
    // A service of the same name may have come in place of a removed one.
    let service = routing.service_named(&instance.service.name);
    let service = service.filter(|service| Arc::ptr_eq(&service.service, &instance.service))?;
    let release = service.releases.iter().find(|release| release.number == instance.id.release())?;
    Some((release, &service.traffic.eject))
}

/// Ejects who fails more than allowed, and who is slower than allowed beside its siblings. They begin anew together: once all have had
/// enough requests, or this is the `last` look.
fn compare(release: &ReleaseRouting, eject: &Eject, last: bool) {
    let seen: Vec<_> = release.instances.iter().map(|instance| (instance, instance.window())).collect();
    let mut used = seen.iter().filter(|(instance, _)| instance.is_healthy() && !instance.is_ejected());
    if last || used.all(|(_, window)| window.requests >= ENOUGH) {
        release.instances.iter().for_each(|instance| instance.clear_window());
    }
    for (instance, window) in &seen {
        let rate = window.errors.saturating_mul(100) / window.requests.max(1);
        if eject.error_percent > 0 && window.requests >= ENOUGH && rate >= eject.error_percent {
            eject_unless_too_many(release, eject, instance, &format!("{rate} % of its requests failed"));
        }
    }
    let enough = seen.iter().filter(|(instance, window)| window.requests >= ENOUGH && !instance.is_ejected());
    let mut latencies: Vec<(u64, &Arc<Instance>)> =
        enough.map(|(instance, window)| (window.micros / u64::from(window.requests), *instance)).collect();
    // With two, nobody can tell the slow from the fast.
    if eject.slower_percent == 0 || latencies.len() < 3 {
        return;
    }
    latencies.sort_by_key(|(micros, _)| *micros);
    // Of an even number the lower one: if half of them are slow, that is a fast one's.
    let median = latencies[(latencies.len() - 1) / 2].0.max(1);
    for (micros, instance) in latencies.iter().rev() {
        if micros.saturating_mul(100) / median < u64::from(eject.slower_percent) {
            return;
        }
        let why = format!("it takes {} ms where its siblings take {} ms", micros / 1000, median / 1000);
        eject_unless_too_many(release, eject, instance, &why);
    }
}

fn eject_unless_too_many(release: &ReleaseRouting, eject: &Eject, instance: &Arc<Instance>, why: &str) {
    let ejected = release.instances.iter().filter(|other| other.is_ejected()).count();
    let all = release.instances.iter().filter(|other| other.is_healthy()).count();
    if instance.is_ejected() || (ejected + 1) * 100 > all * eject.at_most as usize {
        return;
    }
    let times = instance.eject().min(MOST_TIMES);
    let lasts = Duration::from_millis(eject.lasts.0.saturating_mul(u64::from(times)));
    tracing::warn!("`{}` gets no requests for {lasts:?}: {why}", instance.id);
    let instance = instance.clone();
    tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        instance.readmit();
    });
}

#[cfg(test)]
mod tests {
    use basalt_model::{Health, Weight};

    use super::*;
    use crate::service::Service;

    /// A release whose healthy instances have each answered so many requests, with so many errors, in so many milliseconds.
    fn release(instances: &[(u32, u32, u64)]) -> ReleaseRouting {
        let service = Arc::new(Service::new("web".parse().unwrap()));
        let instance = |(at, (requests, errors, millis)): (usize, &(u32, u32, u64))| {
            let id = format!("web-1-{}", at + 1).parse().unwrap();
            let (address, health) = ([127, 0, 0, 1].into(), (Health::default(), None));
            let changes = Arc::default();
            let instance = Arc::new(Instance::new(id, 1, address, health, Duration::ZERO, service.clone(), changes));
            instance.judge(Some(true));
            for at in 0..*requests {
                let in_flight = instance.begin();
                in_flight.count_outcome(false, Duration::from_millis(*millis));
                if at < *errors {
                    in_flight.count_error();
                }
            }
            instance
        };
        let instances = instances.iter().enumerate().map(instance).collect();
        ReleaseRouting { number: 1, weight: Weight::ALL, instances, ports: vec![None], turn: Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_out_is_ejected_and_comes_back() {
        let check = async |eject: &Eject, instances: &[(u32, u32, u64)], expected: &[usize]| {
            let release = release(instances);
            compare(&release, eject, true);
            let out = || -> Vec<usize> {
                (0..release.instances.len()).filter(|at| release.instances[*at].is_ejected()).collect()
            };
            assert_eq!(out(), expected, "{instances:?}");
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert_eq!(out(), [] as [usize; 0]);
        };
        let slower = Eject { slower_percent: 300, ..Eject::default() };
        check(&slower, &[(20, 0, 10), (20, 0, 10), (20, 0, 30)], &[2]).await;
        check(&slower, &[(20, 0, 10), (20, 0, 10), (20, 0, 29)], &[]).await;
        // Few requests say little, and of two nobody knows which is the slow one.
        check(&slower, &[(20, 0, 10), (20, 0, 10), (19, 0, 90)], &[]).await;
        check(&slower, &[(20, 0, 10), (20, 0, 90)], &[]).await;
        // At most half of them, the slowest first.
        check(&slower, &[(20, 0, 1), (20, 0, 1), (20, 0, 1), (20, 0, 50), (20, 0, 90)], &[3, 4]).await;
        let one = Eject { at_most: 20, ..slower.clone() };
        check(&one, &[(20, 0, 1), (20, 0, 1), (20, 0, 1), (20, 0, 50), (20, 0, 90)], &[4]).await;
        check(&slower, &[(20, 0, 5), (20, 0, 60), (20, 0, 5), (20, 0, 60)], &[1, 3]).await;
        let errors = Eject { error_percent: 50, ..Eject::default() };
        check(&errors, &[(20, 10, 1), (20, 9, 1)], &[0]).await;
        check(&errors, &[(20, 20, 1), (20, 20, 1)], &[0]).await;
        check(&errors, &[(19, 19, 1), (20, 0, 1)], &[]).await;
        check(&errors, &[(20, 20, 1)], &[]).await;
        check(&Eject::default(), &[(20, 20, 1), (20, 0, 90)], &[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_few_requests_gathers_them() {
        let slower = Eject { slower_percent: 300, ..Eject::default() };
        let release = release(&[(20, 0, 10), (20, 0, 10), (12, 0, 90)]);
        for (requests, expected) in [(0, false), (8, true)] {
            for (instance, requests) in release.instances.iter().zip([20, 20, requests]) {
                let millis = if requests == 20 { 10 } else { 90 };
                (0..requests).for_each(|_| instance.begin().count_outcome(false, Duration::from_millis(millis)));
            }
            compare(&release, &slower, false);
            assert_eq!(release.instances[2].is_ejected(), expected);
        }
        assert!(release.instances.iter().all(|instance| instance.window().requests == 0), "all begin anew");
    }
}
