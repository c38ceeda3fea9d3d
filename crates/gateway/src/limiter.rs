//! How many requests each client may send: the generic cell rate algorithm, which is a leaky bucket that stores one time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use basalt_model::RateLimit;
use tokio::time::Instant;

/// Clients that one shard remembers, at most. Together some 10 MiB per route in the worst case.
const MOST_CLIENTS: usize = 16 << 10;
/// Maps with a lock each, so that threads seldom meet.
const SHARDS: usize = 16;

/// Counts the requests of each client of a route.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) limit: RateLimit,
    begin: Instant,
    /// When each client's requests so far would have been sent at the allowed rate, in nanoseconds since the beginning.
    clients: [Mutex<HashMap<u64, u64>>; SHARDS],
}

impl Limiter {
    /// Returns a limiter that has seen nobody yet.
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, begin: Instant::now(), clients: Default::default() }
    }

    /// Takes a request of a client. Returns `Err` with the time to wait if it is one too many.
    ///
    /// # Errors
    /// If the client has sent too much.
    pub(crate) fn take(&self, client: IpAddr) -> Result<(), Duration> {
        let now = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let each = (u64::from(self.limit.requests.max(1)), self.limit.per.0.saturating_mul(1_000_000));
        let spacing = (each.1 / each.0).max(1);
        // So far ahead a client may be.
        let ahead = spacing.saturating_mul(u64::from(self.limit.burst.max(1)) - 1);
        let key = key(client);
        let mut clients = self.clients[(key % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let due = clients.get(&key).copied().unwrap_or(0).max(now);
        if due - now > ahead {
            return Err(Duration::from_nanos(due - now - ahead));
        }
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&key) {
            clients.retain(|_, due| *due > now);
            if clients.len() >= MOST_CLIENTS {
                // So many different clients at once are an attack, and forgetting them all is the cheapest that is bounded.
                clients.clear();
            }
        }
        clients.insert(key, due + spacing);
        Ok(())
    }
}

/// Returns what stands for a client: whoever has an IPv6 address has its whole /64.
fn key(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => u64::from(u32::from(address)),
            None => (u128::from(address) >> 64) as u64,
        },
    }
}

#[cfg(test)]
mod tests {
    use basalt_model::Millis;

    use super::*;

    fn limiter(requests: u32, seconds: u64, burst: u32) -> Limiter {
        Limiter::new(RateLimit { requests, per: Millis::seconds(seconds), burst })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate() {
        let limiter = limiter(10, 1, 5);
        let client = "192.0.2.1".parse().unwrap();
        let taken = || (0..100).filter(|_| limiter.take(client).is_ok()).count();
        assert_eq!(taken(), 5);
        let wait = limiter.take(client).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(taken(), 3);
        assert!(limiter.take("192.0.2.2".parse().unwrap()).is_ok(), "another client");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(), 5, "nothing is saved beyond the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_is_one_client_and_memory_is_bounded() {
        let limiter = limiter(1, 60, 1);
        assert!(limiter.take("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limiter.take("2001:db8::2".parse().unwrap()).is_err());
        assert!(limiter.take("2001:db8:0:1::2".parse().unwrap()).is_ok());
        for n in 0..1_000_000_u32 {
            let _ = limiter.take(IpAddr::V4(n.into()));
        }
        assert!(limiter.clients.iter().all(|clients| clients.lock().unwrap().len() <= MOST_CLIENTS));
    }
}
