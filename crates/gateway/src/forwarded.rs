//! What instances are told of the client (RFC 7239, and the older `X-Forwarded-*`).

use std::net::{IpAddr, SocketAddr};

use crate::network::Network;

/// Whose word about the client is believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    pub(crate) networks: Vec<Network>,
    /// Whether they begin each connection with the header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

impl Trust {
    /// Returns whether what this peer says of its own client is believed.
    pub(crate) fn has(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.has(peer))
    }

    /// Returns who has sent a request: the last in `X-Forwarded-For` whom nobody trusted has vouched for, else the peer.
    pub(crate) fn client(&self, peer: IpAddr, forwarded_for: &str) -> IpAddr {
        if !self.has(peer) {
            return peer;
        }
        let chain = forwarded_for.rsplit(',').map_while(|one| one.trim().parse::<IpAddr>().ok());
        let mut last = peer;
        for one in chain {
            last = one;
            if !self.has(one) {
                break;
            }
        }
        last
    }
}

/// The fields that tell of a client.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) for_: String,
    pub(crate) proto: String,
    pub(crate) host: String,
    /// RFC 7239.
    pub(crate) standard: String,
}

/// What the peer itself says in such fields; empty if it says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Claimed<'a> {
    pub(crate) for_: &'a str,
    pub(crate) proto: &'a str,
    pub(crate) host: &'a str,
    pub(crate) standard: &'a str,
}

impl Forwarded {
    /// Returns the fields for a request of `peer` that named `host`. What a peer claims is replaced by what is seen of it,
    /// unless it is `trusted`: then what is seen is added.
    pub(crate) fn of(peer: SocketAddr, https: bool, host: &str, claimed: Claimed<'_>, trusted: bool) -> Self {
        let peer = peer.ip().to_canonical();
        let claimed = if trusted { claimed } else { Claimed::default() };
        let proto = if https { "https" } else { "http" };
        let or = |claimed: &str, seen: &str| if claimed.is_empty() { seen.to_owned() } else { claimed.to_owned() };
        let node = match peer {
            IpAddr::V4(peer) => peer.to_string(),
            IpAddr::V6(peer) => format!("\"[{peer}]\""),
        };
        let behind = |claimed: &str, seen: String| if claimed.is_empty() { seen } else { format!("{claimed}, {seen}") };
        Self {
            for_: behind(claimed.for_, peer.to_string()),
            proto: or(claimed.proto, proto),
            host: or(claimed.host, host),
            // Only a chain that has begun is carried on: two fields with the same content would only cost.
            standard: if claimed.standard.is_empty() {
                String::new()
            } else {
                behind(claimed.standard, format!("for={node}"))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_whom_no_trusted_proxy_vouches_for() {
        let trust = Trust { networks: vec!["10.0.0.0/8".parse().unwrap()], ..Trust::default() };
        let check = |peer: &str, said: &str, expected: &str| {
            assert_eq!(trust.client(peer.parse().unwrap(), said).to_string(), expected, "{peer} {said}");
        };
        check("192.0.2.1", "6.6.6.6", "192.0.2.1");
        check("10.0.0.1", "", "10.0.0.1");
        check("10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7");
        check("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7");
        check("10.0.0.1", "nonsense, 10.0.0.2", "10.0.0.2");
        check("10.0.0.1", "192.0.2.7, nonsense", "10.0.0.1");
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let claimed = Claimed { for_: "10.9.9.9", proto: "https", host: "x.example", standard: "for=10.9.9.9" };
        let check = |peer: &str, claimed, trusted, expected: [&str; 4]| {
            let got = Forwarded::of(peer.parse().unwrap(), false, "shop.example", claimed, trusted);
            assert_eq!([&*got.for_, &*got.proto, &*got.host, &*got.standard], expected);
        };
        check("192.0.2.1:5", claimed, false, ["192.0.2.1", "http", "shop.example", ""]);
        check("192.0.2.1:5", Claimed::default(), true, ["192.0.2.1", "http", "shop.example", ""]);
        check(
            "192.0.2.1:5",
            claimed,
            true,
            ["10.9.9.9, 192.0.2.1", "https", "x.example", "for=10.9.9.9, for=192.0.2.1"],
        );
        check("[::ffff:192.0.2.1]:5", claimed, false, ["192.0.2.1", "http", "shop.example", ""]);
        let six = ["10.9.9.9, 2001:db8::1", "https", "x.example", "for=10.9.9.9, for=\"[2001:db8::1]\""];
        check("[2001:db8::1]:5", claimed, true, six);
    }
}
