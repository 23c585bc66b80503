//! Links, addresses and routes by rtnetlink(7): blocking, one request after the other, no allocation of threads.
#![expect(clippy::missing_errors_doc, reason = "errors are the kernel's answers to the request")]
//!
//! A socket belongs to the network namespace that the thread was in when it was opened, and stays there: whoever opens
//! one inside a new namespace can go home at once and work through the socket.
#![forbid(unsafe_code)]

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel sends lists in datagrams as large as this lets it, and no single answer comes near it.
const MAX_DATAGRAM: usize = 16 * 1024;
/// The hardware address of both ends of a pair; no vendor's.
const LINE: [u8; 6] = [0x02, b'h', b'o', b'k', b'k', b'u'];

/// A connection to the kernel's routing tables of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    /// For one datagram.
    answers: Vec<u8>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    /// Passes packets. The kernel finds out some time after both ends are up; what is sent before is lost.
    pub running: bool,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: IpAddr,
    pub prefix: u8,
    pub via: Via,
    /// The address that the host's own packets to there come from.
    pub source: Option<IpAddr>,
}

/// Where a route's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Neighbours on the link of that index.
    Link(u32),
    /// That neighbour, taken to be on that link although no route says so.
    Gateway(IpAddr, u32),
    /// Nowhere: the sender is told that the destination cannot be reached.
    Unreachable,
    /// Something that this module does not make, for instance several next hops.
    Other,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, answers: vec![0; MAX_DATAGRAM] })
    }

    /// Makes a veth pair: `name` here, `peer` in the namespace `netns`. Both are down. Fails with `AlreadyExists`.
    ///
    /// Both ends have the same hardware address, so that a packet for oneself is one for the other side: switched on by
    /// [`set_up_as_line`](Self::set_up_as_line), nobody has to ask who has which address.
    pub fn add_veth(&mut self, name: &str, mtu: u32, peer: &str, netns: BorrowedFd<'_>) -> io::Result<()> {
        let mut far = LinkMessage::default();
        let namespace = LinkAttribute::NetNsFd(netns.as_raw_fd());
        let hardware = LinkAttribute::Address(LINE.to_vec());
        far.attributes = vec![LinkAttribute::IfName(peer.into()), LinkAttribute::Mtu(mtu), hardware.clone(), namespace];
        let mut near = LinkMessage::default();
        let veth = InfoData::Veth(InfoVeth::Peer(far));
        near.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(mtu),
            hardware,
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(veth)]),
        ];
        self.order(RouteNetlinkMessage::NewLink(near), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Switches the link of that index on.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.set_flags(index, LinkFlags::Up)
    }

    /// The same for an end of a pair whose other end is the only neighbour there is.
    pub fn set_up_as_line(&mut self, index: u32) -> io::Result<()> {
        self.set_flags(index, LinkFlags::Up | LinkFlags::Noarp)
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.header.change_mask = flags;
        self.order(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Deletes the link of that name; `false` when there was none.
    pub fn delete_link(&mut self, name: &str) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        found(self.order(RouteNetlinkMessage::DelLink(link), 0))
    }

    /// The index of the link of that name. Unlike asking for the link, this waits for nobody who changes one.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }

    /// The link of that name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        self.one_link(link)
    }

    /// The link of that index.
    pub fn link_at(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.one_link(link)
    }

    fn one_link(&mut self, wanted: LinkMessage) -> io::Result<Option<Link>> {
        let mut seen = None;
        let asked = self.request(RouteNetlinkMessage::GetLink(wanted), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                seen = Some(Link::from(link));
            }
        });
        Ok(if found(asked)? { seen } else { None })
    }

    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                links.push(Link::from(link));
            }
        })?;
        Ok(links)
    }

    /// Gives the link of that index an address. Whether anybody else has it is not asked.
    pub fn add_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let address = address.into();
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Every address of this namespace with its prefix length and link.
    pub fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u8, u32)>> {
        let mut addresses = Vec::new();
        let wanted = AddressMessage::default();
        self.request(RouteNetlinkMessage::GetAddress(wanted), NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return };
            // IPv6 has its own only in the second; IPv4 has there the other side's.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) | AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
                _ => None,
            });
            addresses.extend(local.map(|address| (address, message.header.prefix_len, message.header.index)));
        })?;
        Ok(addresses)
    }

    /// Adds a route to the main table, in place of one to the same destination.
    pub fn set_route(&mut self, route: &Route) -> io::Result<()> {
        self.order(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes a route; `false` when there was none.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<bool> {
        found(self.order(RouteNetlinkMessage::DelRoute(route.message()), 0))
    }

    /// The routes of the main table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        let wanted = RouteMessage::default();
        self.request(RouteNetlinkMessage::GetRoute(wanted), NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else { return };
            if table(&route) == u32::from(RouteHeader::RT_TABLE_MAIN) {
                routes.push(Route::from(&route));
            }
        })?;
        Ok(routes)
    }

    /// The index of the link that a packet to `destination` would leave by.
    pub fn link_to(&mut self, destination: impl Into<IpAddr>) -> io::Result<Option<u32>> {
        let destination = destination.into();
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family(destination);
        wanted.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        wanted.attributes = vec![RouteAttribute::Destination(in_route(destination))];
        let mut link = None;
        let asked = self.request(RouteNetlinkMessage::GetRoute(wanted), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                // By IPv6 also nowhere is a link: the loopback one.
                link = out_link(&route).filter(|_| route.header.kind == RouteType::Unicast);
            }
        });
        match asked {
            Err(error) if unreachable(&error) => Ok(None),
            other => other.map(|()| link),
        }
    }

    fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags, |_| {})
    }

    /// Sends `message` and hands every answer to `each` until the kernel says that it was the last.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        loop {
            let length = self.socket.recv(&mut self.answers.as_mut_slice(), 0)?;
            let mut rest = &self.answers[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are padded to four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length..];
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let [up, running] = [LinkFlags::Up, LinkFlags::Running].map(|flag| message.header.flags.contains(flag));
        let mut link = Self { index: message.header.index, name: String::new(), mtu: 0, up, running };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }
}

impl Route {
    /// Everything that no other route of the gateway's family says.
    pub fn default_via(gateway: impl Into<IpAddr>, link: u32) -> Self {
        let gateway = gateway.into();
        Self { to: unspecified(family(gateway)), prefix: 0, via: Via::Gateway(gateway, link), source: None }
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.to);
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.protocol = RouteProtocol::Static;
        header.destination_prefix_length = self.prefix;
        header.kind = if self.via == Via::Unreachable { RouteType::Unreachable } else { RouteType::Unicast };
        header.scope = if matches!(self.via, Via::Link(_)) { RouteScope::Link } else { RouteScope::Universe };
        let attributes = &mut message.attributes;
        if self.prefix > 0 {
            attributes.push(RouteAttribute::Destination(in_route(self.to)));
        }
        match self.via {
            Via::Link(index) => attributes.push(RouteAttribute::Oif(index)),
            Via::Gateway(gateway, index) => {
                header.flags = RouteFlags::Onlink;
                attributes.push(RouteAttribute::Gateway(in_route(gateway)));
                attributes.push(RouteAttribute::Oif(index));
            }
            Via::Unreachable | Via::Other => {}
        }
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(in_route(source))));
        message
    }
}

impl From<&RouteMessage> for Route {
    fn from(message: &RouteMessage) -> Self {
        let (mut to, mut gateway, mut source) = (unspecified(message.header.address_family), None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = of_route(address).unwrap_or(to),
                RouteAttribute::Gateway(address) => gateway = of_route(address),
                RouteAttribute::PrefSource(address) => source = of_route(address),
                _ => {}
            }
        }
        let via = match (message.header.kind, gateway, out_link(message)) {
            (RouteType::Unicast, Some(gateway), Some(link)) => Via::Gateway(gateway, link),
            (RouteType::Unicast, None, Some(link)) => Via::Link(link),
            (RouteType::Unreachable, _, _) => Via::Unreachable,
            _ => Via::Other,
        };
        Self { to, prefix: message.header.destination_prefix_length, via, source }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn unspecified(family: AddressFamily) -> IpAddr {
    if family == AddressFamily::Inet6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn in_route(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn of_route(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn table(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(u32::from(route.header.table))
}

fn out_link(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Turns "there is none" into `false`.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn unreachable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::fs::File;
    use std::os::fd::AsFd;

    /// Runs `test` in a thread with a network namespace of its own, which is gone with the thread.
    fn in_new_namespace(test: impl FnOnce(&mut Netlink) + Send + 'static) {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test(&mut Netlink::open().unwrap());
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_pair_reaches_into_another_namespace_and_goes_as_one() {
        in_new_namespace(|near| {
            let (other, mut far) = std::thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                (File::open("/proc/thread-self/ns/net").unwrap(), Netlink::open().unwrap())
            })
            .join()
            .unwrap();
            near.add_veth("near", 1400, "far", other.as_fd()).unwrap();
            let again = near.add_veth("near", 1400, "far2", other.as_fd()).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);

            let here = near.link("near").unwrap().unwrap();
            assert_eq!((here.mtu, here.up), (1400, false));
            assert_eq!(near.link_at(here.index).unwrap(), Some(here.clone()));
            near.set_up(here.index).unwrap();
            assert!(near.link("near").unwrap().unwrap().up);
            assert_eq!(far.link("far").unwrap().unwrap().mtu, 1400);

            assert!(near.delete_link("near").unwrap());
            assert!(!near.delete_link("near").unwrap());
            assert_eq!(far.link("far").unwrap(), None);
            assert_eq!(near.links().unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>(), ["lo"]);
        });
    }

    #[test]
    fn routes_are_listed_as_they_were_made() {
        in_new_namespace(|net| {
            let address = Ipv4Addr::new(10, 1, 0, 1);
            let lo = net.link("lo").unwrap().unwrap().index;
            net.set_up(lo).unwrap();
            net.add_address(lo, address, 32).unwrap();
            let address6: Ipv6Addr = "fd01::1".parse().unwrap();
            net.add_address(lo, address6, 128).unwrap();
            let addresses = net.addresses().unwrap();
            assert!(addresses.contains(&(address.into(), 32, lo)) && addresses.contains(&(address6.into(), 128, lo)));

            let to = |text: &str| text.parse::<IpAddr>().unwrap();
            let hole = Route { to: to("10.2.0.0"), prefix: 16, via: Via::Unreachable, source: None };
            let source = Some(address.into());
            let host = Route { to: to("10.2.3.4"), prefix: 32, via: Via::Link(lo), source };
            let hole6 = Route { to: to("fd02::"), prefix: 64, via: Via::Unreachable, source: None };
            let host6 = Route { to: to("fd02::3"), prefix: 128, via: Via::Link(lo), source: Some(address6.into()) };
            let default = Route::default_via(Ipv4Addr::new(10, 9, 9, 9), lo);
            for route in [hole, host, default, hole6, host6] {
                net.set_route(&route).unwrap();
                net.set_route(&route).unwrap();
            }
            let routes = net.routes().unwrap();
            assert!([hole, host, default, hole6, host6].iter().all(|route| routes.contains(route)), "{routes:?}");
            assert_eq!((net.link_to(host.to).unwrap(), net.link_to(host6.to).unwrap()), (Some(lo), Some(lo)));
            for nowhere in ["10.2.0.9", "fd02::9", "2001:db8::1"] {
                assert_eq!(net.link_to(to(nowhere)).unwrap(), None, "{nowhere}");
            }
            for hole in [hole, hole6] {
                assert!(net.delete_route(&hole).unwrap());
                assert!(!net.delete_route(&hole).unwrap());
            }
        });
    }
}
