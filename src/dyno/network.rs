//! A dyno's network: its own namespace, joined to the host by a routed pair of links.
#![expect(clippy::missing_errors_doc, reason = "the error type says it")]
//!
//! ```text
//!  dyno's namespace                     host
//!  lo                                   hk7-3   10.135.0.1/32 (the gateway; every host end has it)
//!  eth0  10.135.1.3/32  ── veth ──      route 10.135.1.3 dev hk7-3
//!  route 10.135.0.1 dev eth0            nft table inet hokku_NAME: filter and masquerade
//!  default via 10.135.0.1               uplink (its MTU is the links' MTU)
//! ```
//!
//! The same by IPv6 (`fd68:6f6b:6b75:87::103` and `::1`), with address translation too, where the host has a way out by
//! it: see [`setup`].
//!
//! - There is no bridge: dynos share no layer 2, every packet passes the host's forward or input hook. Nor is there any
//!   asking for neighbours (ARP, NDP) or listening to routers: each end knows the other.
//! - What passes is decided by [`super::firewall`].
//! - The namespace is pinned by a descriptor only. When that and its processes are gone, so are both ends of the link.
//! - Without IPv6, dynos' loopback still has `::1`, so that programs which listen on `::` or connect to it work.
//!
//! Nothing here needs tokio; everything happens in the calling thread.
#![forbid(unsafe_code)]

use super::firewall::rules::{METADATA, METADATA6};
use super::firewall::{self, Firewall, FirewallError};
use super::instances::{self, RegisterError};
use crate::domain::instance::Instance;
use crate::sys::netlink::{Netlink, Route, Via};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Used where the host has no default route to take it from.
const DEFAULT_MTU: u32 = 1500;
/// A public address (a root name server); the link that leads to it is the uplink. Nothing is sent there.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);
const DNS_PORT: u16 = 53;
/// Where the resolvers are that a local stub asks, in the order of preference.
const UPLINK_RESOLVERS: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {step}")]
    Step { step: String, source: io::Error },
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Makes the host ready for the instance's dynos: rules, forwarding, and a subnet that leads nowhere but to dynos. May
/// be called again, also while dynos run; the rules are exchanged at once.
///
/// Whether dynos have IPv6 is settled here: if the host has a default route by it, or forwards it anyway.
pub fn setup(instance: &Instance, firewall: &Firewall) -> Result<(), NetworkError> {
    firewall.raise()?;
    instances::switch_forwarding_on(leads_out_by_ipv6())?;
    let mut netlink = Netlink::open().map_err(step(|| "open a netlink socket".to_owned()))?;
    let [v4, v6] = subnet_routes(instance);
    let wanted = if instances::forwards_ipv6() { [Some(v4), Some(v6)] } else { [Some(v4), None] };
    for route in wanted.into_iter().flatten() {
        netlink.set_route(&route).map_err(step(|| format!("set aside the subnet {}", route.to)))?;
    }
    Ok(())
}

/// Whether the host has a default route by IPv6, or forwards it to wherever: then dynos have IPv6.
pub fn leads_out_by_ipv6() -> bool {
    // Where the kernel has no IPv6 there is no answer.
    let route = Netlink::open().and_then(|mut netlink| netlink.link_to(ELSEWHERE6));
    instances::forwards_ipv6() || route.is_ok_and(|link| link.is_some())
}

/// Removes all that [`setup`] and [`prepare`] made on the host, links of running dynos included. Forwarding is set back
/// by [`instances::release`].
pub fn teardown(instance: &Instance) -> Result<(), NetworkError> {
    let remove = || {
        let mut netlink = Netlink::open()?;
        for link in netlink.links()?.iter().filter(|link| link.name.starts_with(&instance.link_prefix())) {
            netlink.delete_link(&link.name)?;
        }
        let [v4, v6] = subnet_routes(instance);
        netlink.delete_route(&v4)?;
        // Without IPv6 in the kernel there is none.
        let _ = netlink.delete_route(&v6);
        Ok(())
    };
    remove().map_err(step(|| format!("remove the links of {}", instance.name)))?;
    Ok(firewall::clear(instance)?)
}

/// Makes the network namespace of the dyno in `slot`, complete with addresses and routes, and returns what pins it. It
/// belongs to the calling thread's user namespace, so join it before leaving that. A link left over in `slot` goes.
pub fn prepare(instance: &Instance, slot: u16) -> Result<OwnedFd, NetworkError> {
    let name = instance.link(slot);
    let mut host = Netlink::open().map_err(step(|| "open a netlink socket".to_owned()))?;
    let mtu = uplink_mtu(&mut host).map_err(step(|| "look for the uplink".to_owned()))?;
    let ipv6 = instances::forwards_ipv6();
    let (namespace, mut inside) = new_namespace(ipv6).map_err(step(|| "make a network namespace".to_owned()))?;

    let linked = add_link(&mut host, &name, mtu, &namespace)
        .and_then(|()| connect_host(&mut host, instance, slot, ipv6))
        .map_err(step(|| format!("set up the link {name}")))
        .and_then(|()| {
            connect_dyno(&mut inside, instance, slot, ipv6).map_err(step(|| format!("set up the peer of {name}")))
        })
        .and_then(|()| await_running(&mut host, &name).map_err(step(|| format!("wait for the link {name}"))));
    if let Err(error) = linked {
        // The namespace would take the link along, but only some time after its descriptor is closed.
        let _ = host.delete_link(&name);
        return Err(error);
    }
    Ok(namespace)
}

/// Removes the link of the dyno in `slot`, if it is still there. The link goes by itself too, soon after its namespace;
/// waiting for the kernel here (some 20 ms) is for who must know that it is gone.
pub fn release(instance: &Instance, slot: u16) -> Result<(), NetworkError> {
    let name = instance.link(slot);
    let delete = || Netlink::open()?.delete_link(&name);
    delete().map_err(step(|| format!("remove the link {name}")))?;
    Ok(())
}

/// A namespace of the calling thread's making, which is back home when this returns, and a socket into it.
fn new_namespace(ipv6: bool) -> io::Result<(OwnedFd, Netlink)> {
    let home = File::open("/proc/thread-self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = inside_new_namespace(ipv6);
    // A thread that cannot go home would do its later work in the wrong network.
    setns(&home, CloneFlags::CLONE_NEWNET).expect("a thread may return to the namespace it has just left");
    made
}

fn inside_new_namespace(ipv6: bool) -> io::Result<(OwnedFd, Netlink)> {
    // For links that are still to come: `lo` keeps `::1`.
    restrict_ipv6("default", ipv6)?;
    let namespace = File::open("/proc/thread-self/ns/net")?;
    Ok((namespace.into(), Netlink::open()?))
}

fn add_link(host: &mut Netlink, name: &str, mtu: u32, namespace: &OwnedFd) -> io::Result<()> {
    match host.add_veth(name, mtu, "eth0", namespace.as_fd()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            host.delete_link(name)?;
            host.add_veth(name, mtu, "eth0", namespace.as_fd())
        }
        other => other,
    }
}

/// A dyno's addresses, gateways and their prefixes, of each family that it has.
fn ends(instance: &Instance, slot: u16, ipv6: bool) -> impl Iterator<Item = (IpAddr, IpAddr, u8)> {
    let v4 = (instance.address(slot).into(), instance.gateway().into(), 32);
    let v6 = (instance.address6(slot).into(), instance.gateway6().into(), 128);
    std::iter::once(v4).chain(ipv6.then_some(v6))
}

fn connect_host(host: &mut Netlink, instance: &Instance, slot: u16, ipv6: bool) -> io::Result<()> {
    let name = instance.link(slot);
    let index = host.index(&name)?;
    restrict_ipv6(&name, ipv6)?;
    host.set_up_as_line(index)?;
    for (address, gateway, prefix) in ends(instance, slot, ipv6) {
        host.add_address(index, gateway, prefix)?;
        host.set_route(&Route { to: address, prefix, via: Via::Link(index), source: Some(gateway) })?;
    }
    Ok(())
}

fn connect_dyno(inside: &mut Netlink, instance: &Instance, slot: u16, ipv6: bool) -> io::Result<()> {
    let lo = inside.index("lo")?;
    inside.set_up(lo)?;
    let eth0 = inside.index("eth0")?;
    inside.set_up_as_line(eth0)?;
    for (address, gateway, prefix) in ends(instance, slot, ipv6) {
        inside.add_address(eth0, address, prefix)?;
        inside.set_route(&Route { to: gateway, prefix, via: Via::Link(eth0), source: None })?;
        inside.set_route(&Route::default_via(gateway, eth0))?;
    }
    Ok(())
}

/// A link has the addresses that it is given and no others, and takes none from routers.
fn restrict_ipv6(link: &str, ipv6: bool) -> io::Result<()> {
    let set = |key: &str, value| write_if_there(&format!("/proc/sys/net/ipv6/conf/{link}/{key}"), value);
    if ipv6 {
        set("addr_gen_mode", "1")?;
        set("accept_ra", "0")
    } else {
        set("disable_ipv6", "1")
    }
}

/// So that the first packets to the dyno are not lost. Should it take longer than ever, they are, and no more.
fn await_running(host: &mut Netlink, name: &str) -> io::Result<()> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        if host.link(name)?.is_some_and(|link| link.running) {
            break;
        }
        rustix::thread::sched_yield();
    }
    Ok(())
}

fn uplink_mtu(host: &mut Netlink) -> io::Result<u32> {
    let Some(index) = host.link_to(ELSEWHERE)? else { return Ok(DEFAULT_MTU) };
    Ok(host.link_at(index)?.map_or(DEFAULT_MTU, |link| link.mtu))
}

/// Addresses in the subnet that no dyno has must not leave by the default route: a connection to a dyno that has just
/// gone fails at once, instead of looking for it outside.
fn subnet_routes(instance: &Instance) -> [Route; 2] {
    let ((v4, prefix), (v6, prefix6)) = (instance.subnet(), instance.subnet6());
    let nowhere = |to, prefix| Route { to, prefix, via: Via::Unreachable, source: None };
    [nowhere(v4.into(), prefix), nowhere(v6.into(), prefix6)]
}

/// The resolvers that dynos are to use: the host's own, as far as they can be reached from a dyno; where there is none,
/// the gateway, where the launcher runs a [`Relay`](super::relay::Relay) to [`relay_target`].
pub fn resolvers(instance: &Instance) -> Vec<IpAddr> {
    let direct = direct_resolvers();
    if direct.is_empty() { vec![instance.gateway().into()] } else { direct }
}

/// The host's resolver that a relay on the gateway must ask; `None` when dynos can reach one themselves.
pub fn relay_target() -> Option<SocketAddr> {
    if !direct_resolvers().is_empty() {
        return None;
    }
    let first = nameservers(&read_or_empty("/etc/resolv.conf")).first().copied();
    // Without a line in resolv.conf the C library asks the local host (resolv.conf(5)).
    Some(SocketAddr::new(first.unwrap_or(Ipv4Addr::LOCALHOST.into()), DNS_PORT))
}

/// The host's resolvers that dynos can reach themselves.
pub fn direct_resolvers() -> Vec<IpAddr> {
    let files = ["/etc/resolv.conf"].into_iter().chain(UPLINK_RESOLVERS);
    let ipv6 = instances::forwards_ipv6();
    let reachable = files.map(|file| reachable_resolvers(&read_or_empty(file), ipv6));
    reachable.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// Not loopback ones, which are others' inside a dyno, nor those where a cloud has its metadata service too, nor, where
/// dynos have no IPv6, those that need it.
fn reachable_resolvers(resolv_conf: &str, ipv6: bool) -> Vec<IpAddr> {
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || METADATA.contains(v4)),
        IpAddr::V6(v6) => {
            ipv6 && !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || METADATA6.contains(v6))
        }
    };
    nameservers(resolv_conf).into_iter().filter(reachable).collect()
}

fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let keyword = words.next()?;
        // An IPv6 address may come with the link it is for.
        let address = words.next()?.split('%').next()?;
        if keyword == "nameserver" { address.parse().ok() } else { None }
    };
    resolv_conf.lines().filter_map(address).collect()
}

fn read_or_empty(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn write_if_there(path: &str, value: &str) -> io::Result<()> {
    // A kernel without IPv6 has no such file.
    if Path::new(path).exists() { fs::write(path, value) } else { Ok(()) }
}

fn step(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> NetworkError {
    |source| NetworkError::Step { step: what(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_that_a_dyno_can_reach_are_passed_on() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53\nnameserver 10.1.1.1\n\
                    nameserver fe80::1%eth0\nnameserver ::1\n  nameserver\t192.168.1.1 # x\nnameserver 2001:db8::53\n";
        let reachable = |ipv6| reachable_resolvers(text, ipv6).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(reachable(false), ["10.1.1.1", "192.168.1.1"]);
        assert_eq!(reachable(true), ["10.1.1.1", "192.168.1.1", "2001:db8::53"]);
        assert_eq!(nameservers(text).len(), 6);
        for text in
            ["nameserver 127.0.0.53\noptions edns0\n", "nameserver 169.254.169.254", "nameserver 168.63.129.16", ""]
        {
            assert!(reachable_resolvers(text, true).is_empty(), "{text}");
        }
    }
}
