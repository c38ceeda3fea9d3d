//! Takes instances out for a while because of what their requests have met. Checks may call them healthy all the same.

use std::sync::{Arc, Weak};
use std::time::Duration;

use basalt_model::Eject;
use tokio::time::{MissedTickBehavior, interval};

use crate::instance::Instance;
use crate::plane::Plane;
use crate::routing::{ReleaseRouting, Routing};

/// Over how long errors and latencies are compared: long enough for a verdict, short enough to matter.
const INTERVAL: Duration = Duration::from_secs(2);
/// Requests within an interval that make a rate: fewer are chance.
const ENOUGH: u32 = 20;
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
    loop {
        ticks.tick().await;
        let Some(plane) = plane.upgrade() else { return };
        let routing = plane.routing();
        for service in &routing.services {
            let eject = &service.traffic.eject;
            if eject.error_percent > 0 || eject.slower_percent > 0 {
                service.releases.iter().for_each(|release| compare(release, eject));
            }
        }
    }
}

fn find<'r>(routing: &'r Routing, instance: &Instance) -> Option<(&'r ReleaseRouting, &'r Eject)> {
    let service = routing.services.iter().find(|service| Arc::ptr_eq(&service.service, &instance.service))?;
    let release = service.releases.iter().find(|release| release.number == instance.id.release())?;
    Some((release, &service.traffic.eject))
}

/// Ejects who fails more than allowed, and who is slower than allowed beside its siblings.
fn compare(release: &ReleaseRouting, eject: &Eject) {
    let seen: Vec<_> = release.instances.iter().map(|instance| (instance, instance.take_window())).collect();
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
    let median = latencies[latencies.len() / 2].0.max(1);
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
    tracing::warn!("`{}` gets no requests for {} s: {why}", instance.id, lasts.as_secs());
    let instance = instance.clone();
    tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        instance.readmit();
    });
}
