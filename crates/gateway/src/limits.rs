//! How much is granted to a client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// How much is granted to a client. The defaults suit the open internet.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time for the head of a request, from its first byte to its last (and for the first byte of a connection).
    pub head: Duration,
    /// Longest pause within the body of a request.
    pub body: Duration,
    /// Longest time in which a client takes nothing of its answer.
    pub write: Duration,
    /// How long a connection may be idle between two requests.
    pub idle: Duration,
    /// Connections from one client: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections: usize,
    /// Requests of one client that are under way at once over HTTP/2, on all of its connections.
    pub streams: usize,
    /// Answers that are compressed at once; others are passed on as they are.
    pub encoders: usize,
    /// Bytes of bodies that are here before they are sent, or kept to be sent again, for all requests together; other bodies are
    /// passed on as they come, and once.
    pub ahead: usize,
    /// The same for all requests of one client.
    pub ahead_each: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Slow radio links need some seconds for a large head; nginx grants 60.
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(60),
            // Above the 60 s of most load balancers, who are to be the ones to close.
            idle: Duration::from_secs(75),
            // Many people may share one address; each browser opens six connections.
            connections: 4096,
            // As many as over HTTP/1. Each may take some 300 KiB while its client, or its instance, is slow.
            streams: 4096,
            // Each takes about a mebibyte, for as long as its client takes.
            encoders: 128,
            // As much as 4,096 requests may take.
            ahead: 256 << 20,
            // Nobody is to have all of it: 256 requests.
            ahead_each: 16 << 20,
        }
    }
}

/// Counts connections by client.
#[derive(Debug, Default, Clone)]
pub(crate) struct Clients(Arc<Mutex<HashMap<IpAddr, Has>>>);

/// What a client has.
#[derive(Debug)]
struct Has {
    connections: usize,
    grants: Grants,
}

/// What a client may take on all of its connections together.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    pub(crate) streams: Arc<Semaphore>,
    /// Bytes of bodies.
    pub(crate) ahead: Arc<Semaphore>,
}

/// A counted connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    clients: Clients,
    client: IpAddr,
    pub(crate) grants: Grants,
}

impl Clients {
    /// Counts a connection of a client, who is trusted if it has no limits; `None` if it has too many already.
    pub(crate) fn count(&self, client: IpAddr, limits: Option<&Limits>) -> Option<Counted> {
        let (client, connections, streams, ahead) = match limits {
            Some(limits) => (origin(client), limits.connections, limits.streams, limits.ahead_each),
            None => (client.to_canonical(), usize::MAX, Semaphore::MAX_PERMITS, Semaphore::MAX_PERMITS),
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has = clients.entry(client).or_insert_with(|| Has {
            connections: 0,
            grants: Grants { streams: Semaphore::new(streams).into(), ahead: Semaphore::new(ahead).into() },
        });
        if has.connections >= connections {
            return None;
        }
        has.connections += 1;
        let grants = has.grants.clone();
        drop(clients);
        Some(Counted { clients: self.clone(), client, grants })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = clients.get_mut(&self.client) {
            has.connections -= 1;
            if has.connections == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Returns whom an address belongs to: one client commonly has 64 bits of IPv6.
fn origin(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from(u128::from(six) >> 64 << 64).into(),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_client() {
        let clients = Clients::default();
        let limits = Limits { connections: 2, streams: 3, ..Limits::default() };
        let count = |client: &str| clients.count(client.parse().unwrap(), Some(&limits));
        let held = [count("10.0.0.1"), count("::ffff:10.0.0.1"), count("2001:db8::1"), count("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(count("10.0.0.1").is_none() && count("2001:db8::3").is_none());
        assert!(count("10.0.0.2").is_some() && count("2001:db8:0:1::1").is_some());
        let places = |held: &Option<Counted>| held.as_ref().unwrap().grants.streams.clone();
        let taken = [0, 1, 0].map(|at| places(&held[at]).try_acquire_owned());
        assert!(taken.iter().all(Result::is_ok));
        assert!(places(&held[1]).try_acquire_owned().is_err() && places(&held[2]).try_acquire_owned().is_ok());
        let trusted = [(); 3].map(|()| clients.count("2001:db8::3".parse().unwrap(), None));
        assert!(trusted.iter().all(|its| places(its).try_acquire_many_owned(4).is_ok()), "its neighbours are others");
        drop((held, trusted));
        assert!(clients.0.lock().unwrap().is_empty(), "nothing is kept of who has left");
    }
}
