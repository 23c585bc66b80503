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
//! - There is no bridge: dynos share no layer 2, every packet passes the host's forward or input hook.
//! - The rules are static, written once per instance: they speak of the prefix of link names and of sets, so nothing is
//!   executed when a dyno starts.
//! - The namespace is pinned by a descriptor only. When that and its processes are gone, so are both ends of the link.
//! - Dynos have IPv4 only. Their loopback has `::1`, so that programs which listen on `::` or connect to it work.
//!
//! Nothing here needs tokio; everything happens in the calling thread.
#![forbid(unsafe_code)]

use super::instances::{self, RegisterError};
use crate::domain::instance::Instance;
use crate::sys::netlink::{Netlink, Route, Via};
use nix::sched::{CloneFlags, setns, unshare};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// Used where the host has no default route to take it from.
const DEFAULT_MTU: u32 = 1500;
/// A public address (a root name server); the link that leads to it is the uplink. Nothing is sent there.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// Where clouds tell a machine its secrets. Besides link-local addresses: Azure, Alibaba, Oracle.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const DNS_PORT: u16 = 53;
/// Where the resolvers are that a local stub asks, in the order of preference.
const UPLINK_RESOLVERS: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {step}")]
    Step { step: String, source: io::Error },
    #[error("cannot run nft (Debian package nftables)")]
    NoNft(#[source] io::Error),
    #[error("nft refused: {0}")]
    Nft(String),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// What dynos may reach on the host itself, besides DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Services for dynos, such as a database: `allow_host` of the `[network]` section.
    pub allow_host: Vec<HostPort>,
    /// The router's TCP ports: an app may call another by its URL.
    pub open_to_dynos: Vec<u16>,
}

/// A port of the host, written `tcp/5432`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port; write for instance tcp/5432 or udp/53")]
pub struct HostPortError(pub String);

impl FromStr for HostPort {
    type Err = HostPortError;
    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let wrong = || HostPortError(text.to_owned());
        let (protocol, port) = text.split_once('/').ok_or_else(wrong)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { protocol, port })
    }
}

/// Makes the host ready for the instance's dynos: rules, forwarding, and a subnet that leads nowhere but to dynos. May
/// be called again, also while dynos run; the rules are exchanged at once.
pub fn setup(instance: &Instance, policy: &Policy) -> Result<(), NetworkError> {
    set_rules(instance, policy)?;
    let set_subnet = || Netlink::open()?.set_route(&subnet_route(instance));
    set_subnet().map_err(step(|| format!("set aside the subnet of {}", instance.name)))?;
    instances::switch_forwarding_on()?;
    Ok(())
}

/// Only the rules of [`setup`], in the calling thread's network namespace.
pub fn set_rules(instance: &Instance, policy: &Policy) -> Result<(), NetworkError> {
    nft(&rules(instance, policy))
}

/// Removes all that [`setup`] and [`prepare`] made on the host, links of running dynos included. Forwarding is set back
/// by [`instances::release`].
pub fn teardown(instance: &Instance) -> Result<(), NetworkError> {
    let remove = || {
        let mut netlink = Netlink::open()?;
        for link in netlink.links()?.iter().filter(|link| link.name.starts_with(&instance.link_prefix())) {
            netlink.delete_link(&link.name)?;
        }
        netlink.delete_route(&subnet_route(instance))
    };
    remove().map_err(step(|| format!("remove the links of {}", instance.name)))?;
    nft(&no_rules(instance))
}

/// Makes the network namespace of the dyno in `slot`, complete with addresses and routes, and returns what pins it. It
/// belongs to the calling thread's user namespace, so join it before leaving that. A link left over in `slot` goes.
pub fn prepare(instance: &Instance, slot: u16) -> Result<OwnedFd, NetworkError> {
    let name = instance.link(slot);
    let mut host = Netlink::open().map_err(step(|| "open a netlink socket".to_owned()))?;
    let mtu = uplink_mtu(&mut host).map_err(step(|| "look for the uplink".to_owned()))?;
    let (namespace, mut inside) = new_namespace().map_err(step(|| "make a network namespace".to_owned()))?;

    let linked = add_link(&mut host, &name, mtu, &namespace)
        .and_then(|()| connect_host(&mut host, instance, slot))
        .map_err(step(|| format!("set up the link {name}")))
        .and_then(|()| {
            connect_dyno(&mut inside, instance, slot).map_err(step(|| format!("set up the peer of {name}")))
        });
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
fn new_namespace() -> io::Result<(OwnedFd, Netlink)> {
    let home = File::open("/proc/thread-self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = inside_new_namespace();
    // A thread that cannot go home would do its later work in the wrong network.
    setns(&home, CloneFlags::CLONE_NEWNET).expect("a thread may return to the namespace it has just left");
    made
}

fn inside_new_namespace() -> io::Result<(OwnedFd, Netlink)> {
    // For links that are still to come: `lo` keeps `::1`.
    write_if_there("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
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

fn connect_host(host: &mut Netlink, instance: &Instance, slot: u16) -> io::Result<()> {
    let name = instance.link(slot);
    let index = index_of(host, &name)?;
    write_if_there(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    // The host answers for the gateway on every link, whatever its `arp_ignore` says about addresses of others.
    host.add_address(index, instance.gateway(), 32)?;
    host.set_up(index)?;
    let source = Some(instance.gateway());
    host.set_route(&Route { to: instance.address(slot), prefix: 32, via: Via::Link(index), source })
}

fn connect_dyno(inside: &mut Netlink, instance: &Instance, slot: u16) -> io::Result<()> {
    let lo = index_of(inside, "lo")?;
    inside.set_up(lo)?;
    let eth0 = index_of(inside, "eth0")?;
    inside.add_address(eth0, instance.address(slot), 32)?;
    inside.set_up(eth0)?;
    inside.set_route(&Route { to: instance.gateway(), prefix: 32, via: Via::Link(eth0), source: None })?;
    inside.set_route(&Route::default_via(instance.gateway(), eth0))
}

fn index_of(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    netlink.link(name)?.map(|link| link.index).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn uplink_mtu(host: &mut Netlink) -> io::Result<u32> {
    let Some(index) = host.link_to(ELSEWHERE)? else { return Ok(DEFAULT_MTU) };
    Ok(host.link_at(index)?.map_or(DEFAULT_MTU, |link| link.mtu))
}

/// Addresses in the subnet that no dyno has must not leave by the default route: a connection to a dyno that has just
/// gone fails at once, instead of looking for it outside.
fn subnet_route(instance: &Instance) -> Route {
    let (to, prefix) = instance.subnet();
    Route { to, prefix, via: Via::Unreachable, source: None }
}

/// The instance's table, for `nft -f`: replaces the old one in a single transaction.
fn rules(instance: &Instance, policy: &Policy) -> String {
    let ports = |protocol| policy.allow_host.iter().filter(move |open| open.protocol == protocol).map(|open| open.port);
    let tcp = elements(policy.open_to_dynos.iter().copied().chain(ports(Protocol::Tcp)).chain([DNS_PORT]));
    let udp = elements(ports(Protocol::Udp).chain([DNS_PORT]));
    let metadata = METADATA.map(|address| address.to_string()).join(", ");
    let (links, (subnet, prefix)) = (format!("\"{}*\"", instance.link_prefix()), instance.subnet());
    let mut text = no_rules(instance);
    let table = instance.nft_table();
    // `hk*` is any link of any instance. Refusals are said, not dropped: a program that tries is told at once. A
    // connection to the host that somebody else's rules send on (`ct status dnat`: a container's published port) is
    // still one to the host.
    let written = write!(
        text,
        r#"table inet {table} {{
  set host_tcp {{ type inet_service; elements = {{ {tcp} }}; }}
  set host_udp {{ type inet_service; elements = {{ {udp} }}; }}
  set metadata {{ type ipv4_addr; flags interval; elements = {{ 169.254.0.0/16, {metadata} }}; }}

  chain genuine {{
    type filter hook prerouting priority raw; policy accept;
    iifname {links} meta nfproto ipv6 drop
    iifname {links} fib saddr . iif oif missing drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname {links} goto to_host
  }}
  chain to_host {{
    ct state established,related accept
    ct state invalid drop
    ip daddr @metadata reject with icmpx admin-prohibited
    tcp dport @host_tcp accept
    udp dport @host_udp accept
    reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname {links} jump from_dyno
    oifname {links} goto to_dyno
  }}
  chain from_dyno {{
    ct state invalid drop
    oifname "hk*" reject with icmpx admin-prohibited
    ip daddr @metadata reject with icmpx admin-prohibited
    ip daddr {subnet}/{prefix} reject with icmpx admin-prohibited
    ct status dnat meta l4proto tcp ct original proto-dst @host_tcp accept
    ct status dnat meta l4proto udp ct original proto-dst @host_udp accept
    ct status dnat reject with icmpx admin-prohibited
  }}
  chain to_dyno {{
    ct state established,related accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet}/{prefix} oifname != "hk*" masquerade
  }}
}}
"#
    );
    written.expect("writing to a String cannot fail");
    text
}

fn no_rules(instance: &Instance) -> String {
    // Deleting a table that is not there is an error, so it is made first.
    let table = instance.nft_table();
    format!("table inet {table}\ndelete table inet {table}\n")
}

fn elements(ports: impl Iterator<Item = u16>) -> String {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn nft(script: &str) -> Result<(), NetworkError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetworkError::NoNft)?;
    // What keeps nft from reading it all is said on its standard error.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(NetworkError::NoNft)?;
    if output.status.success() {
        return written.map_err(NetworkError::NoNft);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Nft(said.lines().next().unwrap_or("no reason given").trim().to_owned()))
}

/// The resolvers that dynos are to use: the host's own, as far as they can be reached from a dyno; where there is none,
/// the gateway, and then somebody must run a [`Relay`](super::relay::Relay) to [`relay_target`].
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
    let reachable = files.map(|file| reachable_resolvers(&read_or_empty(file)));
    reachable.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// Not loopback ones, which are others' inside a dyno, nor IPv6 ones, which dynos have no way to, nor those where a
/// cloud has its metadata service too.
fn reachable_resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || METADATA.contains(v4)),
        IpAddr::V6(_) => false,
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

    fn instance() -> Instance {
        Instance::new("blue-1".parse().unwrap(), "/r".into(), 7)
    }

    #[test]
    fn the_rules_are_static_and_name_only_what_is_ours() {
        let policy = Policy {
            allow_host: vec!["tcp/5432".parse().unwrap(), "udp/514".parse().unwrap()],
            open_to_dynos: vec![8080, 443],
        };
        insta::assert_snapshot!(rules(&instance(), &policy), @r#"
        table inet hokku_blue_1
        delete table inet hokku_blue_1
        table inet hokku_blue_1 {
          set host_tcp { type inet_service; elements = { 53, 443, 5432, 8080 }; }
          set host_udp { type inet_service; elements = { 53, 514 }; }
          set metadata { type ipv4_addr; flags interval; elements = { 169.254.0.0/16, 168.63.129.16, 100.100.100.200, 192.0.0.192 }; }
        
          chain genuine {
            type filter hook prerouting priority raw; policy accept;
            iifname "hk7-*" meta nfproto ipv6 drop
            iifname "hk7-*" fib saddr . iif oif missing drop
          }
          chain input {
            type filter hook input priority filter; policy accept;
            iifname "hk7-*" goto to_host
          }
          chain to_host {
            ct state established,related accept
            ct state invalid drop
            ip daddr @metadata reject with icmpx admin-prohibited
            tcp dport @host_tcp accept
            udp dport @host_udp accept
            reject with icmpx admin-prohibited
          }
          chain forward {
            type filter hook forward priority filter; policy accept;
            iifname "hk7-*" jump from_dyno
            oifname "hk7-*" goto to_dyno
          }
          chain from_dyno {
            ct state invalid drop
            oifname "hk*" reject with icmpx admin-prohibited
            ip daddr @metadata reject with icmpx admin-prohibited
            ip daddr 10.135.0.0/16 reject with icmpx admin-prohibited
            ct status dnat meta l4proto tcp ct original proto-dst @host_tcp accept
            ct status dnat meta l4proto udp ct original proto-dst @host_udp accept
            ct status dnat reject with icmpx admin-prohibited
          }
          chain to_dyno {
            ct state established,related accept
            drop
          }
          chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr 10.135.0.0/16 oifname != "hk*" masquerade
          }
        }
        "#);
    }

    #[test]
    fn host_ports_are_parsed_strictly() {
        let postgres: HostPort = "tcp/5432".parse().unwrap();
        assert_eq!(postgres, HostPort { protocol: Protocol::Tcp, port: 5432 });
        for bad in ["5432", "tcp/0", "tcp/65536", "sctp/1", "tcp/1; drop", ""] {
            let error = bad.parse::<HostPort>().unwrap_err();
            assert_eq!(error.to_string(), format!("{bad:?} is not a port; write for instance tcp/5432 or udp/53"));
        }
    }

    #[test]
    fn only_resolvers_that_a_dyno_can_reach_are_passed_on() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53\nnameserver 10.1.1.1\n\
                    nameserver fe80::1%eth0\nnameserver ::1\n  nameserver\t192.168.1.1 # x\n";
        let reachable = reachable_resolvers(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(reachable, ["10.1.1.1", "192.168.1.1"]);
        assert_eq!(nameservers(text).len(), 5);
        for text in
            ["nameserver 127.0.0.53\noptions edns0\n", "nameserver 169.254.169.254", "nameserver 168.63.129.16", ""]
        {
            assert!(reachable_resolvers(text).is_empty(), "{text}");
        }
    }
}
