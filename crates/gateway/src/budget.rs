//! How many retries a service can afford: retries help against a few failures and make many failures worse.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What one retry costs; all amounts are in thousandths of a retry.
const RETRY: i64 = 1000;
/// What each request pays in: retries stay below a fifth of requests, so a failing service sees at most 1.2 times its load.
const PER_REQUEST: i64 = RETRY / 5;
/// What each second pays in: ten retries, so that services with little traffic are helped too.
const PER_SECOND: i64 = 10 * RETRY;
/// What is there at first: the time's share of ten seconds.
const AT_FIRST: i64 = 10 * PER_SECOND;
/// The most that can be saved: an instance that dies takes some hundreds of requests with it, and all of them are to be retried.
const AT_MOST: i64 = 1000 * RETRY;

/// A balance that requests and time pay into and retries are paid from.
#[derive(Debug)]
pub(crate) struct Budget {
    balance: AtomicI64,
    refilled: Mutex<Option<Instant>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { balance: AtomicI64::new(AT_FIRST), refilled: Mutex::new(None) }
    }
}

impl Budget {
    /// Pays in for a request.
    pub(crate) fn deposit(&self) {
        // Two steps need no lock: at worst a few deposits at the limit are lost or above it.
        if self.balance.load(Relaxed) < AT_MOST {
            self.balance.fetch_add(PER_REQUEST, Relaxed);
        }
    }

    /// Pays for a retry; returns whether there was enough.
    pub(crate) fn withdraw(&self) -> bool {
        // The gateway is an adapter, and only spans of its own clock matter here.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let mut refilled = self.refilled.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refilled.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        *refilled = Some(now);
        drop(refilled);
        self.refill(since);
        self.balance.fetch_update(Relaxed, Relaxed, |balance| (balance >= RETRY).then_some(balance - RETRY)).is_ok()
    }

    /// Pays in for time.
    fn refill(&self, since: Duration) {
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let amount = micros.saturating_mul(PER_SECOND / 1000) / 1000;
        let filled = |balance: i64| Some(balance.max(balance.saturating_add(amount).min(AT_MOST)));
        // The closure never declines, so neither does the update.
        let _ = self.balance.fetch_update(Relaxed, Relaxed, filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &Budget) -> usize {
        (0..10_000).take_while(|_| budget.balance.load(Relaxed) >= RETRY && budget.withdraw()).count()
    }

    #[test]
    fn retries_are_a_fifth_of_requests_and_ten_a_second() {
        let budget = Budget::default();
        assert!((100..105).contains(&retries(&budget)), "what is there at first");
        budget.balance.store(0, Relaxed);
        (0..1000).for_each(|_| budget.deposit());
        assert!((200..205).contains(&retries(&budget)));
        budget.balance.store(0, Relaxed);
        budget.refill(Duration::from_secs(3));
        assert!((30..35).contains(&retries(&budget)));
    }

    #[test]
    fn savings_are_bounded() {
        let budget = Budget::default();
        (0..1_000_000).for_each(|_| budget.deposit());
        budget.refill(Duration::from_secs(u64::MAX >> 20));
        assert!(retries(&budget) <= 1005);
    }
}
