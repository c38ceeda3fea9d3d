//! How long a registry is waited for, and how often it is asked again.

use std::time::Duration;

/// How long a registry is waited for, and how often it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often something is asked for before it has failed. A transfer that has moved counts afresh.
    pub attempts: u32,
    /// The wait before the second attempt; each later one is twice as long as the one before it.
    pub first: Duration,
    /// The longest wait between two attempts, whatever the registry asks for.
    pub longest: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long nothing may move before a connection counts as dead.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // 0.5 + 1 + 2 + 4 + 8 s: a restart of a registry takes less, and a person at a terminal waits no longer.
            attempts: 6,
            first: Duration::from_millis(500),
            // Docker Hub asks for up to a minute.
            longest: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            // Registries with cold storage take some tens of seconds to the first byte.
            stall: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// Returns the wait after attempt `n` (counted from 1) has failed, or `None` if that was the last. `retry_after` is
    /// what the registry asked for (RFC 9110 §10.2.3).
    pub(crate) fn wait(&self, n: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if n >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << (n.saturating_sub(1)).min(16));
        Some(retry_after.unwrap_or_default().max(doubled).min(self.longest))
    }
}

/// Reads a `Retry-After` header in seconds. Its other form, a date, is left to the wait that would be made anyway: the
/// clocks of two machines are no measure of seconds.
pub(crate) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let patience = Patience::default();
        let check = |n: u32, asked: Option<u64>, expected: Option<u64>| {
            let found = patience.wait(n, asked.map(Duration::from_secs)).map(|wait| wait.as_millis());
            assert_eq!(found, expected.map(u128::from), "{n} {asked:?}");
        };
        check(1, None, Some(500));
        check(2, None, Some(1000));
        check(5, None, Some(8000));
        check(6, None, None);
        check(1, Some(7), Some(7000));
        check(1, Some(0), Some(500));
        check(1, Some(86_400), Some(60_000));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let check = |text: &str, expected: Option<u64>| {
            let mut headers = http::HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{text}");
        };
        check("3", Some(3));
        check("Fri, 31 Dec 1999 23:59:59 GMT", None);
        check("-1", None);
    }
}
