//! Native histograms of Prometheus: many buckets of growing width, of which only the used ones are told.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each doubling, as a power of two: with eight each is 9 % wider than the one before, which is Prometheus' own
/// default.
pub(crate) const SCHEMA: i32 = 3;
/// What is below so many seconds, 61 µs, is not told apart: no request is that fast.
pub(crate) const ZERO: f64 = 1.0 / (1 << 14) as f64;
/// The index of the first bucket: the one above [`ZERO`].
const FIRST: i32 = -14 * (1 << SCHEMA) + 1;
/// How many there are: up to 36 hours, for connections that became WebSockets. The last has what took longer, too.
const BUCKETS: usize = 31 * (1 << SCHEMA);

/// A histogram of times. Buckets take 2 KiB once there is something to count, and nothing before.
#[derive(Debug, Default)]
pub(crate) struct NativeHistogram {
    /// Behind the buckets, the count of what is next to nothing.
    buckets: OnceLock<Box<[AtomicU64; BUCKETS + 1]>>,
}

/// The used buckets, as Prometheus' protobuf form has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// All that was counted.
    pub(crate) count: u64,
    /// What is below [`ZERO`].
    pub(crate) zero: u64,
    /// Runs of used buckets: how far behind the end of the run before (the first: its index), and how long.
    pub(crate) spans: Vec<(i32, u32)>,
    /// What each of them has more than the one before.
    pub(crate) deltas: Vec<i64>,
}

impl NativeHistogram {
    /// Counts one.
    pub(crate) fn observe(&self, took: Duration) {
        let buckets = self.buckets.get_or_init(|| Box::new([const { AtomicU64::new(0) }; BUCKETS + 1]));
        let seconds = took.as_secs_f64();
        let at = if seconds <= ZERO {
            BUCKETS
        } else {
            // Bucket `i` ends, inclusively, at 2^(i / 8); the cast of what is out of range saturates.
            let index = (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32;
            usize::try_from(index - FIRST).unwrap_or(0).min(BUCKETS - 1)
        };
        buckets[at].fetch_add(1, Relaxed);
    }

    /// Returns what was counted by upper bound in seconds, where that is anything, and the bounds below.
    pub(crate) fn bounded(&self) -> Vec<(f64, u64)> {
        let Some(counts) = self.counts() else { return Vec::new() };
        let bound = |index: i32| (f64::from(index) / f64::from(1 << SCHEMA)).exp2();
        let mut bounded = vec![(ZERO, counts[BUCKETS])];
        for (index, count) in (FIRST..).zip(&counts[..BUCKETS]).filter(|(_, count)| **count > 0) {
            let below = bound(index - 1);
            if bounded.last().is_some_and(|(last, _)| *last < below) {
                bounded.push((below, 0));
            }
            bounded.push((bound(index), *count));
        }
        bounded
    }

    fn counts(&self) -> Option<[u64; BUCKETS + 1]> {
        Some(self.buckets.get()?.each_ref().map(|bucket| bucket.load(Relaxed)))
    }

    /// Returns what was counted.
    pub(crate) fn sparse(&self) -> Sparse {
        let Some(counts) = self.counts() else { return Sparse::default() };
        let mut sparse = Sparse { count: counts.iter().sum(), zero: counts[BUCKETS], ..Sparse::default() };
        let (mut end, mut before) = (0, 0);
        for (index, count) in (FIRST..).zip(&counts[..BUCKETS]).filter(|(_, count)| **count > 0) {
            match sparse.spans.last_mut() {
                Some((_, length)) if index == end => *length += 1,
                _ => sparse.spans.push((index - end, 1)),
            }
            end = index + 1;
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            sparse.deltas.push(count - before);
            before = count;
        }
        sparse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_buckets_are_told() {
        let check = |millis: &[f64], zero: u64, spans: &[(i32, u32)], deltas: &[i64]| {
            let histogram = NativeHistogram::default();
            millis.iter().for_each(|millis| histogram.observe(Duration::from_secs_f64(millis / 1000.0)));
            let (spans, deltas) = (spans.to_vec(), deltas.to_vec());
            let expected = Sparse { count: millis.len() as u64, zero, spans, deltas };
            assert_eq!(histogram.sparse(), expected, "{millis:?}");
        };
        let histogram = NativeHistogram::default();
        assert_eq!(histogram.bounded(), []);
        [0, 500, 1000].iter().for_each(|millis| histogram.observe(Duration::from_millis(*millis)));
        let bounds: Vec<_> =
            histogram.bounded().iter().map(|(bound, count)| ((bound * 1000.0).round(), *count)).collect();
        assert_eq!(bounds, [(0.0, 1), (459.0, 0), (500.0, 1), (917.0, 0), (1000.0, 1)]);
        check(&[], 0, &[], &[]);
        check(&[0.0, 0.06], 2, &[], &[]);
        // Bounds belong to the bucket below: one second is bucket 0, half a second -8.
        check(&[1000.0, 500.0], 0, &[(-8, 1), (7, 1)], &[1, 0]);
        check(&[1000.0, 1000.1, 1090.0, 1091.0], 0, &[(0, 3)], &[1, 1, -1]);
        check(&[0.062], 0, &[(FIRST, 1)], &[1]);
        let longest = FIRST + BUCKETS as i32 - 1;
        assert_eq!(longest, 17 * 8, "2^17 s");
        check(&[1e12, 131_072_000.0], 0, &[(longest, 1)], &[2]);
    }
}
