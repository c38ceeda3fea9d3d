//! What is counted of requests. All of it is atomic: counting takes no lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::native::NativeHistogram;

/// Upper bounds of the buckets in microseconds: 1 ms to 10 s, a third of a decade apart, and two below for answers from memory.
pub(crate) const BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// A histogram of times.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One more than there are bounds: the last has what took longest.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// Returns whether anything was counted.
    pub(crate) fn is_used(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.load(Relaxed) > 0)
    }

    /// Returns the counts by bucket, and the sum in seconds.
    pub(crate) fn counts(&self) -> (Vec<u64>, f64) {
        (self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect(), self.sum_micros.load(Relaxed) as f64 / 1e6)
    }
}

/// What is counted of a route and release.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// By class of status: none at all, 1xx to 5xx.
    pub(crate) classes: [AtomicU64; 6],
    pub(crate) took: Histogram,
    pub(crate) took_native: NativeHistogram,
    pub(crate) retries: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Stats {
    /// Counts a request that has ended; a status of 0 is none.
    pub(crate) fn count(&self, status: u16, took: Duration, received: u64, sent: u64) {
        let class = usize::from(status / 100);
        self.classes[if class < self.classes.len() { class } else { 0 }].fetch_add(1, Relaxed);
        self.took.observe(took);
        self.took_native.observe(took);
        self.received.fetch_add(received, Relaxed);
        self.sent.fetch_add(sent, Relaxed);
    }
}

/// Why the gateway itself refused or answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    NoRoute,
    NoInstance,
    RateLimited,
    TooLarge,
    Maintenance,
    Misdirected,
    NoCertificate,
}

impl Reason {
    /// All of them with the words that metrics say.
    pub(crate) const ALL: [(Self, &str); 7] = [
        (Self::NoRoute, "no_route"),
        (Self::NoInstance, "no_instance"),
        (Self::RateLimited, "rate_limited"),
        (Self::TooLarge, "too_large"),
        (Self::Maintenance, "maintenance"),
        (Self::Misdirected, "misdirected"),
        (Self::NoCertificate, "no_client_certificate"),
    ];
}

/// How often requests were refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct Reasons([AtomicU64; Reason::ALL.len()]);

impl Reasons {
    /// Counts one.
    pub(crate) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// Returns the counts with their words.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|(reason, word)| (*word, self.0[*reason as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 250, 251, 1_000, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let (counts, sum) = histogram.counts();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!((sum - 20.001502).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn any_status_has_a_class() {
        let stats = Stats::default();
        for status in [0, 200, 204, 599, 999] {
            stats.count(status, Duration::ZERO, 1, 2);
        }
        let counts = stats.classes.iter().map(|class| class.load(Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts, [2, 0, 2, 0, 0, 1]);
        assert_eq!((stats.received.load(Relaxed), stats.sent.load(Relaxed)), (5, 10));
    }

    #[test]
    fn each_reason_has_its_place() {
        let refusals = Reasons::default();
        for (at, (reason, _)) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            refusals.count(reason);
        }
        assert!(refusals.counts().all(|(_, count)| count == 1));
    }
}
