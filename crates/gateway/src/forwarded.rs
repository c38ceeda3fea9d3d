//! What instances are told of the client (RFC 7239, and the older `X-Forwarded-*`).

use std::borrow::Cow;
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

    /// Returns what is believed of what a peer claims. Where it only has RFC 7239's field, that says the rest too: protocol and host are
    /// those that the client itself has used, by the word of whoever it came to first among the trusted.
    pub(crate) fn believed<'a>(&self, peer: IpAddr, claimed: Claimed<'a>) -> Claimed<'a> {
        if !self.has(peer) {
            return Claimed::default();
        }
        if !claimed.for_.is_empty() || claimed.standard.is_empty() {
            return claimed;
        }
        let hops: Vec<Hop<'_>> = parts(&claimed.standard, b',').into_iter().map(Hop::of).collect();
        let is_trusted = |hop: &&Hop<'_>| node(hop.for_).is_some_and(|one| self.has(one));
        let first = hops.iter().rev().find(|hop| !is_trusted(hop)).or(hops.first());
        let nodes: Vec<String> = hops.iter().map(|hop| shown(hop.for_)).collect();
        let said = |what: fn(&Hop<'_>) -> String| Cow::Owned(first.map(what).unwrap_or_default());
        Claimed {
            for_: nodes.join(", ").into(),
            proto: said(|hop| hop.proto.to_owned()),
            host: said(|hop| hop.host.to_owned()),
            standard: claimed.standard,
        }
    }

    /// Returns who has sent a request: the last in a believed `X-Forwarded-For` whom nobody trusted has vouched for, else the peer.
    pub(crate) fn client(&self, peer: IpAddr, forwarded_for: &str) -> IpAddr {
        let mut last = peer;
        for one in forwarded_for.rsplit(',').map_while(node) {
            last = one;
            if !self.has(one) {
                break;
            }
        }
        last
    }
}

/// One step of a request by the word of RFC 7239.
#[derive(Debug, Default)]
struct Hop<'a> {
    for_: &'a str,
    proto: &'a str,
    host: &'a str,
}

impl<'a> Hop<'a> {
    fn of(element: &'a str) -> Self {
        let pairs: Vec<(&str, &str)> =
            parts(element, b';').into_iter().filter_map(|pair| pair.trim().split_once('=')).collect();
        let said = |name: &str| {
            let found = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.trim_matches('"'))
        };
        Self { for_: said("for"), proto: said("proto"), host: said("host") }
    }
}

/// Returns what stands between separators that are in no quotes (RFC 9110 §5.6.4). They are looked for from the end on: there stands what the
/// nearest proxy says, and a quote that a client leaves open hides nothing of that.
fn parts(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut end, mut quoted) = (Vec::new(), bytes.len(), false);
    for (at, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'"' => {
                let slashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                quoted ^= !(quoted && slashes % 2 == 1);
            }
            byte if *byte == separator && !quoted => {
                parts.push(&text[at + 1..end]);
                end = at;
            }
            _ => {}
        }
    }
    parts.push(&text[..end]);
    parts.reverse();
    parts
}

/// Returns a node as it can stand in a list.
fn shown(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    match node(text) {
        Some(address) => address.to_string(),
        None if text.bytes().all(plain) => text.to_owned(),
        None => "unknown".to_owned(),
    }
}

/// Returns the address in a node, with a port or without (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|one| one.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
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
#[derive(Debug, Default, Clone)]
pub(crate) struct Claimed<'a> {
    pub(crate) for_: Cow<'a, str>,
    pub(crate) proto: Cow<'a, str>,
    pub(crate) host: Cow<'a, str>,
    pub(crate) standard: Cow<'a, str>,
}

impl Claimed<'_> {
    /// Whether the client has used TLS, by the word of the nearest proxy: what stands before that may be the client's own.
    pub(crate) fn is_https(&self) -> bool {
        self.proto.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("https"))
    }
}

impl Forwarded {
    /// Returns the fields for a request of `peer` that named `host`: to what is believed of what the peer claims, what is seen of it is
    /// added.
    pub(crate) fn of(peer: SocketAddr, https: bool, host: &str, claimed: &Claimed<'_>) -> Self {
        let peer = peer.ip().to_canonical();
        let proto = if https { "https" } else { "http" };
        let or = |claimed: &str, seen: &str| if claimed.is_empty() { seen.to_owned() } else { claimed.to_owned() };
        let node = match peer {
            IpAddr::V4(peer) => peer.to_string(),
            IpAddr::V6(peer) => format!("\"[{peer}]\""),
        };
        let behind = |claimed: &str, seen: String| if claimed.is_empty() { seen } else { format!("{claimed}, {seen}") };
        Self {
            for_: behind(&claimed.for_, peer.to_string()),
            proto: or(&claimed.proto, proto),
            host: or(&claimed.host, host),
            // Only a chain that has begun is carried on: two fields with the same content would only cost.
            standard: if claimed.standard.is_empty() {
                String::new()
            } else {
                behind(&claimed.standard, format!("for={node}"))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> Trust {
        Trust { networks: vec!["10.0.0.0/8".parse().unwrap()], ..Trust::default() }
    }

    #[test]
    fn the_client_is_whom_no_trusted_proxy_vouches_for() {
        let check = |peer: &str, said: &str, expected: &str| {
            let peer = peer.parse().unwrap();
            let believed = trust().believed(peer, Claimed { for_: said.into(), ..Claimed::default() });
            assert_eq!(trust().client(peer, &believed.for_).to_string(), expected, "{peer} {said}");
        };
        check("192.0.2.1", "6.6.6.6", "192.0.2.1");
        check("10.0.0.1", "", "10.0.0.1");
        check("10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7");
        check("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7");
        check("10.0.0.1", "6.6.6.6, 192.0.2.7:1000, 10.0.0.2:80", "192.0.2.7");
        check("10.0.0.1", "[2001:db8::1]:1000, 10.0.0.2", "2001:db8::1");
        check("10.0.0.1", "nonsense, 10.0.0.2", "10.0.0.2");
        check("10.0.0.1", "192.0.2.7, nonsense", "10.0.0.1");
        // Who says nothing vouches for nobody.
        check("10.0.0.1", "192.0.2.7, ", "10.0.0.1");
    }

    #[test]
    fn the_standard_field_says_it_alone() {
        let check = |peer: &str, standard: &str, expected: [&str; 3]| {
            let claimed = Claimed { standard: standard.into(), ..Claimed::default() };
            let got = trust().believed(peer.parse().unwrap(), claimed);
            assert_eq!([&*got.for_, &*got.proto, &*got.host], expected, "{standard}");
        };
        check("192.0.2.1", "for=6.6.6.6;proto=https", ["", "", ""]);
        check("10.0.0.1", "For=192.0.2.7 ; Proto=https;host=a.example", ["192.0.2.7", "https", "a.example"]);
        check(
            "10.0.0.1",
            "for=6.6.6.6;proto=http;host=x, for=\"[2001:db8::1]:7\";proto=https;host=b, for=10.0.0.3;proto=http",
            ["6.6.6.6, 2001:db8::1, 10.0.0.3", "https", "b"],
        );
        check("10.0.0.1", "for=unknown;proto=https", ["unknown", "https", ""]);
        check("10.0.0.1", ";;=,", [", ", "", ""]);
        // A quote that a client leaves open hides nothing of what its proxy says.
        check("10.0.0.1", "for=6.6.6.6;proto=https;x=\", for=192.0.2.7;proto=http", ["unknown, 192.0.2.7", "http", ""]);
        // Nor does what its proxy puts in quotes say anything beside.
        check("10.0.0.1", "for=192.0.2.7;host=\"a,for=6.6.6.6\";proto=http", ["192.0.2.7", "http", "a,for=6.6.6.6"]);
        check("10.0.0.1", "proto=http;host=\"a;proto=https\";for=192.0.2.7", ["192.0.2.7", "http", "a;proto=https"]);
        check("10.0.0.1", "for=192.0.2.7;host=\"a\\\",for=6.6.6.6\"", ["192.0.2.7", "", "a\\\",for=6.6.6.6"]);
        check("10.0.0.1", "for=192.0.2.7;proto=http;proto=https", ["192.0.2.7", "http", ""]);
        check("10.0.0.1", "for=\"a, 6.6.6.6\", for=10.0.0.3", ["unknown, 10.0.0.3", "", ""]);
        let spoofed = Claimed {
            proto: "https".into(),
            host: "evil.example".into(),
            standard: "for=192.0.2.7;proto=http".into(),
            ..Claimed::default()
        };
        let got = trust().believed([10, 0, 0, 1].into(), spoofed);
        assert_eq!((&*got.proto, &*got.host, got.is_https()), ("http", "", false));
        let both =
            Claimed { for_: "192.0.2.8".into(), standard: "for=192.0.2.7;proto=https".into(), ..Claimed::default() };
        assert_eq!(trust().believed([10, 0, 0, 1].into(), both).proto, "");
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let claimed = Claimed {
            for_: "10.9.9.9".into(),
            proto: "https".into(),
            host: "x.example".into(),
            standard: "for=10.9.9.9".into(),
        };
        let check = |peer: &str, claimed: &Claimed<'_>, trusted: bool, expected: [&str; 4]| {
            let peer: SocketAddr = peer.parse().unwrap();
            let networks =
                if trusted { vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()] } else { Vec::new() };
            let believed = Trust { networks, ..Trust::default() }.believed(peer.ip(), claimed.clone());
            let got = Forwarded::of(peer, false, "shop.example", &believed);
            assert_eq!([&*got.for_, &*got.proto, &*got.host, &*got.standard], expected);
        };
        let none = Claimed::default();
        check("192.0.2.1:5", &claimed, false, ["192.0.2.1", "http", "shop.example", ""]);
        check("192.0.2.1:5", &none, true, ["192.0.2.1", "http", "shop.example", ""]);
        check(
            "192.0.2.1:5",
            &claimed,
            true,
            ["10.9.9.9, 192.0.2.1", "https", "x.example", "for=10.9.9.9, for=192.0.2.1"],
        );
        check("[::ffff:192.0.2.1]:5", &claimed, false, ["192.0.2.1", "http", "shop.example", ""]);
        let six = ["10.9.9.9, 2001:db8::1", "https", "x.example", "for=10.9.9.9, for=\"[2001:db8::1]\""];
        check("[2001:db8::1]:5", &claimed, true, six);
    }
}
