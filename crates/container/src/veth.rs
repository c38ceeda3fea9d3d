//! The link between the host and one instance: a pair of interfaces, routed, without a bridge.
//!
//! Both ends know each other's link-layer address from the start: nothing is ever asked for by ARP.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use crate::netlink::{Netlink, RouteKind, RouteTo, interface_index};
use crate::network::{GATEWAY, Network};

/// What the interface is called inside an instance.
const INSIDE: &str = "eth0";

/// The loopback interface: always the first one of a namespace.
const LOOPBACK: u32 = 1;

/// The host's end of every link: a locally administered address (IEEE 802), the same on each, since links don't touch.
const HOST_MAC: [u8; 6] = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];

/// The name of an instance's interface on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The interface: at most 15 bytes.
    pub(crate) host: String,
}

impl Names {
    /// Returns the name for an instance of a data directory.
    pub(crate) fn new(tag: &str, index: u32) -> Self {
        Self { host: format!("{}{index}", prefix(tag)) }
    }
}

/// Returns what the interfaces of all instances of a data directory begin with.
pub(crate) fn prefix(tag: &str) -> String {
    format!("b{tag}-")
}

/// The instance's end: the four last bytes are its address.
fn inside_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0xee, 0x00, a, b, c, d]
}

/// Makes the pair and sets up the host's side.
pub(crate) fn connect(names: &Names, network: &Network, address: Ipv4Addr, netns: BorrowedFd<'_>) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let end = |name: &str, mac: [u8; 6]| {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Address(mac.to_vec())];
        link
    };
    let mut peer = end(INSIDE, inside_mac(address));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let pair = || {
        let mut link = end(&names.host, HOST_MAC);
        // Up from the start; its peer can't be, since it is made first.
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let info = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer.clone())));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), info]));
        link
    };
    match netlink.add_link(pair()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            netlink.delete_link(&names.host)?;
            netlink.add_link(pair())?;
        }
        result => result?,
    }
    // A link of two needs no IPv6 neighbours, and what comes in must have the address that is routed there.
    let set =
        |what: &str, value: &str| std::fs::write(format!("/proc/sys/net/{what}").replace("NAME", &names.host), value);
    match set("ipv6/conf/NAME/disable_ipv6", "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    set("ipv4/conf/NAME/rp_filter", "1")?;
    let interface = interface_index(&names.host)?;
    netlink.add_neighbour(interface, address, inside_mac(address))?;
    let route = RouteTo {
        to: address,
        prefix: 32,
        interface,
        via: None,
        source: Some(network.host_address()),
        kind: RouteKind::Unicast,
    };
    netlink.add_route(route)
}

/// Sets up the instance's side; to be called within its network namespace.
pub(crate) fn configure_inside(address: Ipv4Addr) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let interface = interface_index(INSIDE)?;
    netlink.bring_up(LOOPBACK)?;
    netlink.add_address(interface, address)?;
    netlink.bring_up(interface)?;
    netlink.add_neighbour(interface, GATEWAY, HOST_MAC)?;
    let route = RouteTo { to: GATEWAY, prefix: 32, interface, via: None, source: None, kind: RouteKind::Unicast };
    netlink.add_route(route)?;
    netlink.add_route(RouteTo { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Some(GATEWAY), ..route })
}

/// Removes an instance's link, if it is still there.
pub(crate) fn disconnect(names: &Names) -> io::Result<()> {
    match Netlink::open()?.delete_link(&names.host) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// The routes of a network as a whole: virtual addresses are the host's own, and what belongs to no instance is
/// refused. Without the second, what is sent to an instance that has just ended would leave by the host's default route.
fn network_routes(network: &Network) -> [RouteTo; 2] {
    let (to, prefix) = network.services();
    let services = RouteTo { to, prefix, interface: LOOPBACK, via: None, source: None, kind: RouteKind::Local };
    [services, RouteTo { prefix: network.prefix(), kind: RouteKind::Unreachable, ..services }]
}

/// Lays the routes of a network as a whole.
pub(crate) fn open_network(network: &Network) -> io::Result<()> {
    let netlink = Netlink::open()?;
    network_routes(network).into_iter().try_for_each(|route| netlink.add_route(route))
}

/// Takes the routes of a network as a whole away again.
pub(crate) fn close_network(network: &Network) -> io::Result<()> {
    let netlink = Netlink::open()?;
    network_routes(network).into_iter().try_for_each(|route| match netlink.delete_route(route) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit() {
        let names = Names::new("abcdef", 61_438);
        assert_eq!(names.host, "babcdef-61438");
        assert!(names.host.len() <= 15);
    }
}
