//! What hostile or broken peers are refused for, counted.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Why a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head of a request breaks the grammar of HTTP (RFC 9112 §2–§5).
    BadHead,
    /// Where the request's body ends can be read in two ways, or in none (RFC 9112 §6.3).
    BadFraming,
    /// A transfer coding that the gateway does not know (RFC 9112 §6.1).
    UnknownCoding,
    /// A version of HTTP other than 1.0 and 1.1.
    UnknownVersion,
    /// `CONNECT`: the gateway is no tunnel.
    Connect,
    /// The request target is too long.
    LongTarget,
    /// There are too many header fields, or they are too large.
    LargeHead,
    /// The head of a request took too long.
    SlowHead,
    /// The body of a request paused for too long.
    SlowBody,
    /// The client took nothing of its answer for too long.
    SlowReader,
    /// Too many connections from one client.
    ManyConnections,
    /// Too many requests of one client at once over HTTP/2.
    ManyStreams,
    /// The client broke the rules of HTTP/2, or wanted more of it than is granted.
    BadHttp2,
    /// The header of the PROXY protocol is missing or broken.
    BadProxyHeader,
}

impl Refusal {
    /// All reasons.
    pub(crate) const ALL: [Self; 14] = [
        Self::BadHead,
        Self::BadFraming,
        Self::UnknownCoding,
        Self::UnknownVersion,
        Self::Connect,
        Self::LongTarget,
        Self::LargeHead,
        Self::SlowHead,
        Self::SlowBody,
        Self::SlowReader,
        Self::ManyConnections,
        Self::ManyStreams,
        Self::BadHttp2,
        Self::BadProxyHeader,
    ];

    /// Returns its name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadHead => "bad_head",
            Self::BadFraming => "bad_framing",
            Self::UnknownCoding => "unknown_coding",
            Self::UnknownVersion => "unknown_version",
            Self::Connect => "connect",
            Self::LongTarget => "long_target",
            Self::LargeHead => "large_head",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::ManyConnections => "many_connections",
            Self::ManyStreams => "many_streams",
            Self::BadHttp2 => "bad_http2",
            Self::BadProxyHeader => "bad_proxy_header",
        }
    }

    /// Returns the status that the client is answered with, if it is answered at all.
    pub(crate) fn status(self) -> Option<u16> {
        match self {
            Self::BadHead | Self::BadFraming => Some(400),
            Self::UnknownCoding => Some(501),
            Self::UnknownVersion => Some(505),
            Self::Connect => Some(405),
            Self::LongTarget => Some(414),
            Self::LargeHead => Some(431),
            Self::SlowHead | Self::SlowBody => Some(408),
            Self::SlowReader | Self::ManyConnections | Self::ManyStreams | Self::BadHttp2 | Self::BadProxyHeader => {
                None
            }
        }
    }
}

/// Refusals by reason, since the gateway has started.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: [AtomicU64; Refusal::ALL.len()],
    told: AtomicU64,
    last: Mutex<Option<(Refusal, IpAddr)>>,
}

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, why: Refusal, client: IpAddr) {
        self.counts[why as usize].fetch_add(1, Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((why, client));
    }

    /// Returns how many there were, by reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|why| (why, self.counts[why as usize].load(Relaxed)))
    }

    /// Returns what is to be logged since the last time: a line for all, since who attacks wants a line for each.
    pub(crate) fn news(&self) -> Option<String> {
        let total = self.counts().map(|(_, count)| count).sum();
        let new = total - self.told.swap(total, Relaxed).min(total);
        let (why, client) = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        (new > 0).then(|| format!("refused {new} requests and connections, the last from {client}: {}", why.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_and_told_once() {
        let refusals = Refusals::default();
        assert_eq!(refusals.news(), None);
        refusals.count(Refusal::SlowHead, [10, 0, 0, 1].into());
        refusals.count(Refusal::BadHead, [10, 0, 0, 2].into());
        let told = "refused 2 requests and connections, the last from 10.0.0.2: bad_head";
        assert_eq!(refusals.news().as_deref(), Some(told));
        assert_eq!(refusals.news(), None);
        let counted = refusals.counts().filter(|(_, count)| *count > 0).map(|(why, _)| why.name());
        assert_eq!(counted.collect::<Vec<_>>(), ["bad_head", "slow_head"]);
        // The order of `ALL` is that of the counters.
        assert!(Refusal::ALL.iter().enumerate().all(|(at, why)| *why as usize == at));
    }
}
