//! Checks instances: asks each at its interval, and quickly as long as it is not yet healthy.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{Health, HealthCheck, Millis};
use tokio::time::sleep;

use crate::instance::Instance;
use crate::probe;

/// First pause after a failure while an instance is not healthy: an app that is ready at once is then proven within
/// some tens of milliseconds, and a few checks more cost nothing.
const FIRST_PAUSE: Millis = Millis(20);
/// Longest pause between the successes that make an instance healthy: they prove that it stays up, which takes
/// several answers but not a whole interval each.
const CONFIRM_PAUSE: Millis = Millis(50);

/// Counts successes and failures in a row, and says what follows from them.
#[derive(Debug, Default)]
struct Streak {
    successes: u32,
    failures: u32,
    /// Time over which the failures in a row are spread.
    failing: Millis,
    pause: Millis,
}

/// What follows from a check.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// The new verdict; `None` leaves the one before.
    healthy: Option<bool>,
    /// Time until the next check.
    pause: Millis,
}

impl Streak {
    fn after(&mut self, success: bool, healthy: Option<bool>, health: &Health) -> Verdict {
        let interval = Millis(health.interval.0.max(1));
        if success {
            *self = Self { successes: self.successes.saturating_add(1), ..Self::default() };
            let proven = healthy == Some(true) || self.successes >= health.healthy_after;
            let pause = if proven { interval } else { interval.min(CONFIRM_PAUSE) };
            return Verdict { healthy: proven.then_some(true), pause };
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        if healthy == Some(true) {
            let failed = self.failures >= health.unhealthy_after;
            return Verdict { healthy: failed.then_some(false), pause: interval };
        }
        // Quick failures of an instance that is only starting prove nothing: the verdict needs as much time as it would
        // take at the interval.
        let needed = Millis(interval.0.saturating_mul(u64::from(health.unhealthy_after)));
        let failed = self.failures >= health.unhealthy_after && self.failing >= needed;
        self.pause = Millis((self.pause.0 * 2).max(FIRST_PAUSE.0)).min(interval);
        self.failing = self.failing + self.pause;
        Verdict { healthy: failed.then_some(false), pause: self.pause }
    }
}

/// Takes the verdict of checks that are made elsewhere.
pub(crate) fn told(instance: &Instance, healthy: Option<bool>) {
    // A suspicion from a broken connection holds until the connection is possible again, whatever was told before.
    if instance.suspected_at().is_none() {
        instance.judge(healthy);
    }
    instance.told(healthy);
}

/// Checks an instance until the task is ended.
pub(crate) async fn check(instance: Arc<Instance>) {
    match &instance.health.check {
        HealthCheck::Http { .. } | HealthCheck::Tcp { .. } | HealthCheck::Grpc { .. } => {
            check_at_intervals(&instance).await
        }
        HealthCheck::Command(_) | HealthCheck::Running => clear_suspicions(&instance).await,
    }
}

async fn check_at_intervals(instance: &Instance) {
    let mut streak = Streak::default();
    let mut known = None;
    loop {
        let (success, text) = ask(instance).await;
        instance.note_probe(text);
        if known == Some(true) && !instance.is_healthy() {
            // A request has met a broken connection meanwhile: it must prove itself anew.
            streak = Streak::default();
            known = Some(false);
        }
        let verdict = streak.after(success, known, &instance.health);
        if let Some(healthy) = verdict.healthy {
            known = Some(healthy);
            instance.judge(known);
        }
        tokio::select! {
            () = sleep(Duration::from_millis(verdict.pause.0)) => {}
            () = instance.suspected.notified() => sleep(Duration::from_millis(FIRST_PAUSE.0)).await,
        }
    }
}

/// Makes one check. Returns whether it succeeded, and how it ended in words.
async fn ask(instance: &Instance) -> (bool, String) {
    let Some(port) = instance.health_port else {
        return (false, "the health check names a port that the release does not have".to_owned());
    };
    let at =
        probe::At { address: SocketAddrV4::new(instance.address, port.container), proxy_protocol: port.proxy_protocol };
    let timeout = Duration::from_millis(instance.health.timeout.0);
    let result = match &instance.health.check {
        HealthCheck::Http { path, .. } => probe::http(at, instance.service.name.as_str(), path, timeout).await,
        HealthCheck::Grpc { service, .. } => probe::grpc(at, service, timeout).await,
        _ => probe::tcp(at, timeout).await,
    };
    match result {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    }
}

/// Returns where it is suspected, without holding on to it.
fn suspected(instance: &Instance) -> Option<probe::At> {
    *instance.suspected_at()
}

/// For instances whose checks are made elsewhere: after a broken connection, waits until connecting is possible again.
async fn clear_suspicions(instance: &Instance) {
    loop {
        instance.suspected.notified().await;
        let mut pause = FIRST_PAUSE;
        // Where there is none, a connection was lost, and new ones are possible.
        while let Some(at) = suspected(instance) {
            sleep(Duration::from_millis(pause.0)).await;
            pause = Millis(pause.0 * 2).min(instance.health.interval.max(FIRST_PAUSE));
            let timeout = Duration::from_millis(instance.health.timeout.0);
            if probe::tcp(at, timeout).await.is_ok() {
                *instance.suspected_at() = None;
                instance.judge(instance.was_told());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(interval: u64, healthy_after: u32, unhealthy_after: u32) -> Health {
        Health { interval: Millis(interval), healthy_after, unhealthy_after, ..Health::default() }
    }

    /// Plays checks (`+` success, `-` failure) and returns the verdicts and pauses.
    fn play(health: &Health, mut known: Option<bool>, checks: &str) -> (Option<bool>, Vec<u64>) {
        let mut streak = Streak::default();
        let pauses = checks.chars().map(|check| {
            let verdict = streak.after(check == '+', known, health);
            known = verdict.healthy.or(known);
            verdict.pause.0
        });
        let pauses = pauses.collect();
        (known, pauses)
    }

    #[test]
    fn verdicts() {
        let check = |known, checks: &str, expected: Option<bool>, pauses: &[u64]| {
            let (verdict, paused) = play(&health(1000, 2, 3), known, checks);
            assert_eq!((verdict, &paused[..]), (expected, pauses), "{checks}");
        };
        check(None, "+", None, &[50]);
        check(None, "++", Some(true), &[50, 1000]);
        check(None, "---++", Some(true), &[20, 40, 80, 50, 1000]);
        check(None, "-+-++", Some(true), &[20, 50, 20, 50, 1000]);
        check(None, "--------", None, &[20, 40, 80, 160, 320, 640, 1000, 1000]);
        check(None, "----------", Some(false), &[20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
        check(Some(true), "--+--", Some(true), &[1000; 5]);
        check(Some(true), "---", Some(false), &[1000; 3]);
        check(Some(false), "++", Some(true), &[50, 1000]);
    }

    #[test]
    fn an_interval_shorter_than_the_quick_pauses_is_kept() {
        assert_eq!(play(&health(5, 2, 1), None, "-+"), (None, vec![5, 5]));
        assert_eq!(play(&health(0, 1, 1), None, "-+"), (Some(true), vec![1, 1]));
    }
}
