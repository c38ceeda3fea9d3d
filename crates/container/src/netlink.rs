//! Requests to the kernel's routing family, one after the other and without a runtime.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The table of the host's own addresses (rtnetlink(7), `RT_TABLE_LOCAL`).
const LOCAL_TABLE: u8 = 255;

/// A connection to the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink(Socket);

/// A route to an address or network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteTo {
    pub(crate) to: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) interface: u32,
    pub(crate) via: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) kind: RouteKind,
}

/// What becomes of what is sent along a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// It leaves by the interface.
    Unicast,
    /// The addresses are the host's own.
    Local,
    /// It is refused, so that it does not follow a wider route.
    Unreachable,
}

impl Netlink {
    /// Opens a connection.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    /// Makes an interface.
    pub(crate) fn add_link(&self, link: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an interface; its peer goes with it.
    pub(crate) fn delete_link(&self, name: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask(RouteNetlinkMessage::DelLink(link), 0)
    }

    /// Brings an interface up.
    pub(crate) fn bring_up(&self, interface: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = interface;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives an interface an address of its own.
    pub(crate) fn add_address(&self, interface: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = interface;
        message.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Fixes the link-layer address of a neighbour, so that nobody has to ask for it.
    pub(crate) fn add_neighbour(&self, interface: u32, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = interface;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        self.ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds a route, or replaces one to the same place.
    pub(crate) fn add_route(&self, route: RouteTo) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route.
    pub(crate) fn delete_route(&self, route: RouteTo) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::DelRoute(route.message()), 0)
    }

    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

impl RouteTo {
    fn message(self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = self.prefix;
        message.header.protocol = RouteProtocol::Static;
        const MAIN: u8 = RouteHeader::RT_TABLE_MAIN;
        (message.header.table, message.header.kind, message.header.scope) = match (self.kind, self.via) {
            (RouteKind::Local, _) => (LOCAL_TABLE, RouteType::Local, RouteScope::Host),
            (RouteKind::Unicast, None) => (MAIN, RouteType::Unicast, RouteScope::Link),
            (RouteKind::Unicast, Some(_)) => (MAIN, RouteType::Unicast, RouteScope::Universe),
            (RouteKind::Unreachable, _) => (MAIN, RouteType::Unreachable, RouteScope::Universe),
        };
        if self.kind != RouteKind::Unreachable {
            message.attributes.push(RouteAttribute::Oif(self.interface));
        }
        if self.prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(self.to)));
        }
        message.attributes.extend(self.via.map(|via| RouteAttribute::Gateway(RouteAddress::Inet(via))));
        message.attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
        message
    }
}

/// Returns the index of an interface of this network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(io::Error::from)
}
