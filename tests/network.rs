//! Dynos' networks on the real kernel: what can be reached from where.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
//!
//! Every test plays in a host of its own: a network namespace that stands for the host, with another one beside it that
//! stands for the world. So nothing of the machine's own network is touched, and all is gone with the test's thread.
#![forbid(unsafe_code)]

use hokku::domain::app::AppId;
use hokku::domain::egress::Egress;
use hokku::domain::egress::Protocol;
use hokku::domain::instance::Instance;
use hokku::dyno::firewall::{Firewall, HostPort, Policy, Watch};
use hokku::dyno::instances::{self, Claim};
use hokku::dyno::network;
use hokku::dyno::relay::Relay;
use hokku::sys::netlink::{Netlink, Route, Via};
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Of most clouds, of Azure, of Alibaba, of Oracle.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Of Amazon, of Google.
const METADATA6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
const ALLOWED: u16 = 5432;
const FORBIDDEN: u16 = 5433;
const PATIENCE: Duration = Duration::from_secs(5);

/// A host with one instance, which is off the register when this is dropped.
struct Host {
    world: OwnedFd,
    instance: Instance,
    firewall: Arc<Firewall>,
    _claim: Claim,
    _root: tempfile::TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        instances::release(&self.instance).unwrap();
    }
}

/// Runs `test` in a new host, connected to a world by a link with an unusual MTU, by IPv4 only.
fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    on_a_host_with(false, test);
}

/// The same with a way out by IPv6 too.
fn on_a_host_with_ipv6(test: impl FnOnce(&Host) + Send + 'static) {
    on_a_host_with(true, test);
}

fn on_a_host_with(ipv6: bool, test: impl FnOnce(&Host) + Send + 'static) {
    let play = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let world = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).map(|()| namespace())).join().unwrap();
        let world = world.unwrap();
        connect_to_world(&world, ipv6);
        let root = tempfile::tempdir().unwrap();
        let (instance, claim) = instances::claim(unique_name().parse().unwrap(), root.path()).unwrap();
        let firewall = Arc::new(firewall(&instance, policy()));
        let host = Host { world, instance, firewall, _claim: claim, _root: root };
        network::setup(&host.instance, &host.firewall).unwrap();
        test(&host);
    };
    std::thread::spawn(play).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("net{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn policy() -> Policy {
    Policy { allow_host: vec![HostPort { protocol: Protocol::Tcp, port: ALLOWED }], open_to_dynos: vec![8080] }
}

fn firewall(instance: &Instance, policy: Policy) -> Firewall {
    Firewall::new(instance.clone(), policy, BTreeMap::new(), BTreeMap::new())
}

fn namespace() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn connect_to_world(world: &OwnedFd, ipv6: bool) {
    let mut host = Netlink::open().unwrap();
    host.add_veth("up", 1380, "down", world.as_fd()).unwrap();
    up(&mut host, "lo", None);
    let uplink = up(&mut host, "up", Some(HOST));
    host.set_route(&Route::default_via(WORLD, uplink)).unwrap();
    if ipv6 {
        host.add_address(uplink, HOST6, 64).unwrap();
        host.set_route(&Route::default_via(WORLD6, uplink)).unwrap();
    }
    inside(world, || {
        let mut world = Netlink::open().unwrap();
        up(&mut world, "lo", None);
        let link = up(&mut world, "down", Some(WORLD));
        for address in METADATA {
            world.add_address(link, address, 32).unwrap();
        }
        world.set_route(&Route::default_via(HOST, link)).unwrap();
        if ipv6 {
            world.add_address(link, WORLD6, 64).unwrap();
            for address in METADATA6 {
                world.add_address(link, address, 128).unwrap();
            }
            world.set_route(&Route::default_via(HOST6, link)).unwrap();
        }
    });
}

fn up(netlink: &mut Netlink, name: &str, address: Option<Ipv4Addr>) -> u32 {
    let index = netlink.link(name).unwrap().unwrap().index;
    if let Some(address) = address {
        netlink.add_address(index, address, 24).unwrap();
    }
    let switched_on = if name == "lo" { netlink.set_up(index) } else { netlink.set_up_as_line(index) };
    switched_on.unwrap();
    index
}

/// Runs `work` in a thread of that namespace.
fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let enter = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A server in the namespace that tells each client the address it came from, until the test's process ends or the
/// namespace has no other use.
fn serve(namespace: &OwnedFd, port: u16) {
    let listener = inside(namespace, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            // A client that has gone has learned enough.
            let _ = write!(client, "{}", from.ip().to_canonical());
        }
    });
}

/// The address that a server sees when it is called from the namespace.
fn call(from: &OwnedFd, address: impl Into<IpAddr>, port: u16) -> io::Result<IpAddr> {
    call_within(PATIENCE, from, address.into(), port)
}

/// Where packets are dropped, nothing else than patience ends a call; each test opens the way afterwards.
fn assert_closed(from: &OwnedFd, address: impl Into<IpAddr>, port: u16) {
    let address = address.into();
    let seen = call_within(Duration::from_millis(500), from, address, port);
    assert!(seen.is_err(), "{address}:{port} is open, the caller seen as {seen:?}");
}

fn call_within(patience: Duration, from: &OwnedFd, address: IpAddr, port: u16) -> io::Result<IpAddr> {
    inside(from, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), patience)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut seen = String::new();
        stream.read_to_string(&mut seen)?;
        seen.parse().map_err(io::Error::other)
    })
}

fn nft(arguments: &[&str]) {
    assert!(Command::new("nft").args(arguments).status().unwrap().success(), "nft {arguments:?}");
}

fn tables() -> String {
    listed(&["tables"])
}

fn listed(what: &[&str]) -> String {
    let output = Command::new("nft").arg("list").args(what).stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn host_and_dyno_reach_each_other_as_far_as_the_policy_says() {
    on_a_host(|host| {
        let here = namespace();
        let instance = &host.instance;
        let dyno = network::prepare(instance, 3).unwrap();
        serve(&dyno, 8000);
        serve(&here, ALLOWED);
        serve(&here, FORBIDDEN);

        assert_eq!(call(&here, instance.address(3), 8000).unwrap(), instance.gateway());
        assert_eq!(call(&dyno, instance.gateway(), ALLOWED).unwrap(), instance.address(3));
        assert_eq!(call(&dyno, HOST, ALLOWED).unwrap(), instance.address(3));
        assert_closed(&dyno, instance.gateway(), FORBIDDEN);
        assert_closed(&dyno, HOST, FORBIDDEN);

        // Positive control: without the rules the port is open.
        nft(&["flush", "chain", "inet", &instance.nft_table(), "to_host"]);
        call(&dyno, HOST, FORBIDDEN).unwrap();
    });
}

#[test]
fn dynos_do_not_reach_each_other() {
    on_a_host(|host| {
        let (a, b) = (network::prepare(&host.instance, 0).unwrap(), network::prepare(&host.instance, 999).unwrap());
        serve(&b, 8000);
        let other = host.instance.address(999);
        assert_closed(&a, other, 8000);
        assert_closed(&a, host.instance.address(500), 8000);

        // Positive control: without the rules they do, so nothing but the rules keeps them apart.
        let table = host.instance.nft_table();
        nft(&["flush", "chain", "inet", &table, "from_dyno"]);
        assert_closed(&a, other, 8000);
        nft(&["flush", "chain", "inet", &table, "to_dyno"]);
        assert_eq!(call(&a, other, 8000).unwrap(), host.instance.address(0));
    });
}

#[test]
fn dynos_of_different_instances_do_not_reach_each_other() {
    on_a_host(|host| {
        let root = tempfile::tempdir().unwrap();
        let (instance, _claim) = instances::claim(unique_name().parse().unwrap(), root.path()).unwrap();
        network::setup(&instance, &firewall(&instance, policy())).unwrap();
        let (a, b) = (network::prepare(&host.instance, 1).unwrap(), network::prepare(&instance, 1).unwrap());
        serve(&b, 8000);
        assert_closed(&a, instance.address(1), 8000);
        nft(&["delete", "table", "inet", &instance.nft_table()]);
        assert_closed(&a, instance.address(1), 8000);
        nft(&["flush", "chain", "inet", &host.instance.nft_table(), "from_dyno"]);
        call(&a, instance.address(1), 8000).unwrap();
        instances::release(&instance).unwrap();
    });
}

#[test]
fn dynos_reach_the_world_under_the_hosts_address_but_are_not_reached_from_it() {
    on_a_host(|host| {
        let dyno = network::prepare(&host.instance, 3).unwrap();
        serve(&host.world, 80);
        serve(&dyno, 8000);
        assert_eq!(call(&dyno, WORLD, 80).unwrap(), HOST);
        // The world has a route to the dynos by way of the host.
        assert_closed(&host.world, host.instance.address(3), 8000);
        nft(&["flush", "chain", "inet", &host.instance.nft_table(), "to_dyno"]);
        call(&host.world, host.instance.address(3), 8000).unwrap();
    });
}

#[test]
fn the_metadata_service_is_closed() {
    on_a_host(|host| {
        let dyno = network::prepare(&host.instance, 3).unwrap();
        serve(&host.world, 80);
        for address in METADATA {
            assert_eq!(call(&namespace(), address, 80).unwrap(), HOST);
            assert_closed(&dyno, address, 80);
        }
        nft(&["flush", "chain", "inet", &host.instance.nft_table(), "from_dyno"]);
        for address in METADATA {
            assert_eq!(call(&dyno, address, 80).unwrap(), HOST);
        }
    });
}

#[test]
fn a_published_port_of_the_host_is_as_closed_as_the_host() {
    on_a_host(|host| {
        let dyno = network::prepare(&host.instance, 3).unwrap();
        serve(&host.world, 80);
        let foreign = "add table ip foreign; add chain ip foreign pre { type nat hook prerouting priority dstnat; };\
                       add rule ip foreign pre tcp dport { 5432, 5433 } ip daddr 203.0.113.2 dnat to 203.0.113.1:80";
        nft(&[foreign]);
        assert_eq!(call(&dyno, HOST, ALLOWED).unwrap(), HOST);
        assert_closed(&dyno, HOST, FORBIDDEN);
        nft(&["flush", "chain", "inet", &host.instance.nft_table(), "from_dyno"]);
        assert_eq!(call(&dyno, HOST, FORBIDDEN).unwrap(), HOST);
    });
}

#[test]
fn a_dyno_cannot_speak_under_anothers_address() {
    on_a_host(|host| {
        let instance = &host.instance;
        let (dyno, _other) = (network::prepare(instance, 3).unwrap(), network::prepare(instance, 4).unwrap());
        let stolen = instance.address(4);
        let receiver = UdpSocket::bind((instance.gateway(), DNS)).unwrap();
        let speak = |patience| {
            receiver.set_read_timeout(Some(patience)).unwrap();
            inside(&dyno, || {
                let socket = UdpSocket::bind((stolen, 0)).unwrap();
                socket.send_to(b"x", (instance.gateway(), DNS)).unwrap();
            });
            receiver.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
        };
        inside(&dyno, || up(&mut Netlink::open().unwrap(), "eth0", Some(stolen)));
        speak(Duration::from_millis(300)).unwrap_err();
        nft(&["flush", "chain", "inet", &instance.nft_table(), "genuine"]);
        assert_eq!(speak(PATIENCE).unwrap(), stolen);
    });
}

/// A dyno that claims what is another's, as loudly as it can: the address is its own, and it says so unasked.
fn claim_address(dyno: &OwnedFd, address: Ipv4Addr) {
    inside(dyno, || {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_notify", "1").unwrap();
        up(&mut Netlink::open().unwrap(), "eth0", Some(address));
    });
}

#[test]
fn a_dyno_cannot_take_anothers_address_by_saying_it_is_its_own() {
    on_a_host(|host| {
        let instance = &host.instance;
        let (thief, owner) = (network::prepare(instance, 3).unwrap(), network::prepare(instance, 4).unwrap());
        let stolen = instance.address(4);
        // The thief has the port only, the owner has none.
        claim_address(&thief, stolen);
        serve(&thief, 8000);
        assert_closed(&namespace(), stolen, 8000);
        // Each address has a route by one link. Control: with the route by the other link the claim is heard.
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link(&instance.link(3)).unwrap().unwrap().index;
        let source = Some(instance.gateway().into());
        netlink.set_route(&Route { to: stolen.into(), prefix: 32, via: Via::Link(link), source }).unwrap();
        assert_eq!(call(&namespace(), stolen, 8000).unwrap(), instance.gateway());
        drop(owner);
    });
}

#[test]
fn a_dyno_cannot_answer_for_the_name_server_of_another() {
    on_a_host(|host| {
        let instance = &host.instance;
        let (thief, asker) = (network::prepare(instance, 3).unwrap(), network::prepare(instance, 4).unwrap());
        // The question goes out, so that the host waits for an answer; none comes from there.
        let socket = inside(&asker, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((WORLD, DNS)).unwrap();
            socket.send(b"question").unwrap();
            socket
        });
        claim_address(&thief, WORLD);
        // Where an answer is translated back, if the host has kept the port.
        let asked_from = (HOST, socket.local_addr().unwrap().port());
        let answer = |patience| {
            inside(&thief, || {
                let socket = UdpSocket::bind((WORLD, DNS)).unwrap();
                // Where nothing leads there, this is the end of it.
                let _ = socket.send_to(b"forged", asked_from);
            });
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.recv(&mut [0; 8])
        };
        let table = instance.nft_table();
        let flush = |chains: &[&str]| chains.iter().for_each(|chain| nft(&["flush", "chain", "inet", &table, chain]));
        let soon = Duration::from_millis(300);
        answer(soon).unwrap_err();
        // Each wall alone holds: that addresses are genuine, and that dynos do not reach each other.
        flush(&["from_dyno", "to_dyno"]);
        answer(soon).unwrap_err();
        host.firewall.raise().unwrap();
        flush(&["genuine"]);
        answer(soon).unwrap_err();
        flush(&["from_dyno", "to_dyno"]);
        assert_eq!(answer(PATIENCE).unwrap(), b"forged".len());
    });
}

const DNS: u16 = 53;

#[test]
fn names_are_resolved_through_the_gateway_where_the_hosts_resolver_is_a_loopback_one() {
    on_a_host(|host| {
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = resolver.local_addr().unwrap();
        // Before any dyno's link brings the gateway's address.
        let _relay = Relay::start((host.instance.gateway(), DNS).into(), target).unwrap();
        let dyno = network::prepare(&host.instance, 3).unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 64];
            let (length, from) = resolver.recv_from(&mut query).unwrap();
            resolver.send_to(&query[..length], from).unwrap();
        });
        let gateway = host.instance.gateway();
        let answer = inside(&dyno, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"query", (gateway, DNS)).unwrap();
            let mut answer = [0; 64];
            socket.recv_from(&mut answer).map(|(length, from)| (answer[..length].to_vec(), from.ip())).unwrap()
        });
        assert_eq!(answer, (b"query".to_vec(), IpAddr::V4(gateway)));
    });
}

/// Removes what an instance has on the machine, when dropped.
struct OnTheMachine(Instance);

impl Drop for OnTheMachine {
    fn drop(&mut self) {
        network::teardown(&self.0).unwrap();
        instances::release(&self.0).unwrap();
    }
}

/// On the machine itself, for once.
#[test]
fn a_dyno_gets_an_answer_from_the_machines_resolver_if_the_machine_does() {
    let root = tempfile::tempdir().unwrap();
    let (instance, _claim) = instances::claim(unique_name().parse().unwrap(), root.path()).unwrap();
    let clean_up = OnTheMachine(instance.clone());
    network::setup(&instance, &firewall(&instance, policy())).unwrap();
    let relay = network::relay_target().map(|target| Relay::start((instance.gateway(), DNS).into(), target).unwrap());
    let dyno = network::prepare(&instance, 3).unwrap();
    let resolver = network::resolvers(&instance)[0];
    // Who serves the root zone: any resolver knows.
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = socket.send_to(question, (resolver, DNS));
        sent.and_then(|_| socket.recv(&mut [0; 1500])).is_ok()
    };
    let (machine, dyno) = (ask(), inside(&dyno, ask));
    drop((relay, clean_up));
    assert_eq!(machine, dyno, "asking {resolver}");
}

#[test]
fn a_prepared_namespace_is_complete() {
    on_a_host(|host| {
        let instance = &host.instance;
        let dyno = network::prepare(instance, 3).unwrap();
        inside(&dyno, || {
            let mut netlink = Netlink::open().unwrap();
            let links = netlink.links().unwrap();
            let names = links.iter().map(|link| (link.name.as_str(), link.up)).collect::<Vec<_>>();
            assert_eq!(names, [("lo", true), ("eth0", true)]);
            assert_eq!(links[1].mtu, 1380, "the uplink's");
            let eth0 = links[1].index;
            assert!(netlink.addresses().unwrap().contains(&(instance.address(3).into(), 32, eth0)));
            let routes = netlink.routes().unwrap();
            assert!(routes.contains(&Route::default_via(instance.gateway(), eth0)), "{routes:?}");
            TcpListener::bind("[::1]:0").expect("IPv6 loopback is there");
            let listener = TcpListener::bind("[::]:0").expect("programs may listen on any IPv6 address");
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        });
        let link = Netlink::open().unwrap().link(&instance.link(3)).unwrap().unwrap();
        assert_eq!((link.mtu, link.up), (1380, true));
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        assert!(!addresses.contains(&instance.link(3)), "the host's end has no IPv6 address: {addresses}");
    });
}

#[test]
fn a_host_with_a_way_out_by_ipv6_shares_it_with_dynos() {
    on_a_host_with_ipv6(|host| {
        let instance = &host.instance;
        let dyno = network::prepare(instance, 3).unwrap();
        inside(&dyno, || {
            let mut netlink = Netlink::open().unwrap();
            let eth0 = netlink.link("eth0").unwrap().unwrap().index;
            let addresses: Vec<_> =
                netlink.addresses().unwrap().into_iter().filter(|(.., link)| *link == eth0).collect();
            let ours = [(instance.address(3).into(), 32, eth0), (instance.address6(3).into(), 128, eth0)];
            assert_eq!(addresses, ours, "and no link-local one");
            let routes = netlink.routes().unwrap();
            assert!(routes.contains(&Route::default_via(instance.gateway6(), eth0)), "{routes:?}");
        });
        serve(&host.world, 80);
        serve(&dyno, 8000);
        assert_eq!(call(&dyno, WORLD6, 80).unwrap(), HOST6);
        assert_eq!(call(&dyno, WORLD, 80).unwrap(), HOST);
        assert_eq!(call(&namespace(), instance.address6(3), 8000).unwrap(), instance.gateway6());
        // The world has a route to the dynos by way of the host.
        assert_closed(&host.world, instance.address6(3), 8000);
        // It calls from an address that is closed to dynos, so their answers have to get through too.
        nft(&["flush", "chain", "inet", &instance.nft_table(), "to_dyno"]);
        nft(&["flush", "chain", "inet", &instance.nft_table(), "from_dyno"]);
        call(&host.world, instance.address6(3), 8000).unwrap();
        network::release(instance, 3).unwrap();
        let error = TcpStream::connect((instance.address6(3), 8000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "and does not go out by the default route");
    });
}

#[test]
fn what_is_closed_by_ipv4_is_closed_by_ipv6() {
    on_a_host_with_ipv6(|host| {
        let instance = &host.instance;
        let (dyno, other) = (network::prepare(instance, 3).unwrap(), network::prepare(instance, 4).unwrap());
        serve(&host.world, 80);
        serve(&other, 8000);
        serve(&namespace(), ALLOWED);
        serve(&namespace(), FORBIDDEN);
        let flush = |chain: &str| nft(&["flush", "chain", "inet", &instance.nft_table(), chain]);

        for address in [HOST6, instance.gateway6()] {
            assert_eq!(call(&dyno, address, ALLOWED).unwrap(), instance.address6(3));
            assert_closed(&dyno, address, FORBIDDEN);
        }
        for address in METADATA6 {
            call(&namespace(), address, 80).unwrap();
            assert_closed(&dyno, address, 80);
        }
        assert_closed(&dyno, instance.address6(4), 8000);
        host.set_egress(app(1), "none");
        let isolated = host.launch(5, app(1));
        assert_closed(&isolated, WORLD6, 80);
        assert_closed(&isolated, HOST6, ALLOWED);
        host.set_egress(app(1), "2001:db8::/64");
        call(&isolated, WORLD6, 80).unwrap();
        assert_closed(&isolated, WORLD, 80);

        // Positive controls: without the rules all of it is open.
        flush("to_host");
        call(&dyno, HOST6, FORBIDDEN).unwrap();
        flush("from_dyno");
        for address in METADATA6 {
            call(&dyno, address, 80).unwrap();
        }
        assert_closed(&dyno, instance.address6(4), 8000);
        flush("to_dyno");
        assert_eq!(call(&dyno, instance.address6(4), 8000).unwrap(), instance.address6(3));
    });
}

#[test]
fn a_dyno_cannot_speak_under_anothers_address_by_ipv6() {
    on_a_host_with_ipv6(|host| {
        let instance = &host.instance;
        let (dyno, _other) = (network::prepare(instance, 3).unwrap(), network::prepare(instance, 4).unwrap());
        let stolen = instance.address6(4);
        let receiver = UdpSocket::bind((instance.gateway6(), DNS)).unwrap();
        let speak = |from: Ipv6Addr, patience| {
            receiver.set_read_timeout(Some(patience)).unwrap();
            inside(&dyno, || {
                let mut netlink = Netlink::open().unwrap();
                let eth0 = netlink.link("eth0").unwrap().unwrap().index;
                // Twice is once.
                let _ = netlink.add_address(eth0, from, 128);
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.send_to(b"x", (instance.gateway6(), DNS)).unwrap();
            });
            receiver.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
        };
        speak(stolen, Duration::from_millis(300)).unwrap_err();
        assert_eq!(speak(instance.address6(3), PATIENCE).unwrap(), instance.address6(3));
        nft(&["flush", "chain", "inet", &instance.nft_table(), "genuine"]);
        assert_eq!(speak(stolen, PATIENCE).unwrap(), stolen);
    });
}

#[test]
fn a_dyno_is_no_router_to_its_host() {
    on_a_host_with_ipv6(|host| {
        let instance = &host.instance;
        let dyno = network::prepare(instance, 3).unwrap();
        let link = Netlink::open().unwrap().link(&instance.link(3)).unwrap().unwrap().index;
        let announce = || inside(&dyno, announce_router);
        let believed = || {
            Netlink::open()
                .unwrap()
                .routes()
                .unwrap()
                .iter()
                .any(|route| matches!(route.via, Via::Gateway(_, by) if by == link && route.prefix == 0))
        };
        let listen = || std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", instance.link(3)), "2").unwrap();
        let no_rules = || {
            for chain in ["genuine", "to_host"] {
                nft(&["flush", "chain", "inet", &instance.nft_table(), chain]);
            }
        };
        // Each wall alone holds: the rules, and that the host does not listen.
        let hopeless = |what: &str| {
            for _ in 0..3 {
                announce();
                std::thread::sleep(Duration::from_millis(50));
                assert!(!believed(), "{what}");
            }
        };
        hopeless("as it is");
        no_rules();
        hopeless("the host does not listen");
        host.firewall.raise().unwrap();
        listen();
        hopeless("the rules stop it");
        no_rules();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !believed() {
            assert!(std::time::Instant::now() < deadline, "without both walls it is believed");
            announce();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// A router advertisement (RFC 4861, 4.2) from a link-local address of its own.
fn announce_router() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
    };
    use std::os::fd::AsRawFd;
    let mut netlink = Netlink::open().unwrap();
    let eth0 = netlink.link("eth0").unwrap().unwrap().index;
    let from: Ipv6Addr = "fe80::bad".parse().unwrap();
    let _ = netlink.add_address(eth0, from, 64);
    let protocol = nix::sys::socket::SockProtocol::IcmpV6;
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), protocol).unwrap();
    let at = |address, scope| SockaddrIn6::from(std::net::SocketAddrV6::new(address, 0, 0, scope));
    bind(raw.as_raw_fd(), &at(from, eth0)).unwrap();
    // Any other hop limit shows that it comes from further away.
    setsockopt(&raw, nix::sys::socket::sockopt::Ipv6MulticastHops, &255).unwrap();
    // Type, code, checksum by the kernel, hop limit, flags, lifetime of 1800 s, two times unsaid.
    let advertisement = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = at("ff02::1".parse().unwrap(), eth0);
    sendto(raw.as_raw_fd(), &advertisement, &all_nodes, MsgFlags::empty()).unwrap();
}

#[test]
fn preparing_stays_at_home_and_replaces_what_a_crash_left() {
    on_a_host(|host| {
        let inode = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let home = inode();
        let left_over = network::prepare(&host.instance, 3).unwrap();
        let dyno = network::prepare(&host.instance, 3).unwrap();
        assert_eq!(inode(), home);
        serve(&dyno, 8000);
        call(&namespace(), host.instance.address(3), 8000).unwrap();
        inside(&left_over, || assert_eq!(Netlink::open().unwrap().link("eth0").unwrap(), None));
    });
}

#[test]
fn links_go_by_release_and_an_address_without_a_dyno_is_unreachable_at_once() {
    on_a_host(|host| {
        let instance = &host.instance;
        let _dyno = network::prepare(instance, 3).unwrap();
        network::release(instance, 3).unwrap();
        network::release(instance, 3).unwrap();
        assert_eq!(Netlink::open().unwrap().link(&instance.link(3)).unwrap(), None);
        let error = TcpStream::connect((instance.address(3), 8000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    });
}

impl Host {
    /// What an engine does before it launches a dyno of the app.
    fn launch(&self, slot: u16, app: AppId) -> OwnedFd {
        if !self.firewall.admit(slot, app) {
            self.firewall.restrict(slot).unwrap();
        }
        network::prepare(&self.instance, slot).unwrap()
    }

    fn set_egress(&self, app: AppId, text: &str) {
        self.firewall.set_egress(app, text.parse().unwrap()).unwrap();
    }
}

fn app(number: u128) -> AppId {
    AppId(uuid::Uuid::from_u128(number))
}

#[test]
fn an_app_without_egress_reaches_nothing_and_is_reached_all_the_same() {
    on_a_host(|host| {
        let (here, gateway) = (namespace(), host.instance.gateway());
        serve(&host.world, 80);
        serve(&here, ALLOWED);
        host.set_egress(app(1), "none");
        let (restricted, free) = (host.launch(3, app(1)), host.launch(4, app(2)));
        for (address, port) in [(WORLD, 80), (gateway, ALLOWED), (HOST, ALLOWED)] {
            assert_closed(&restricted, address, port);
            call(&free, address, port).unwrap();
        }
        let resolver = UdpSocket::bind((gateway, DNS)).unwrap();
        resolver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let ask = |dyno: &OwnedFd| {
            inside(dyno, || {
                // Refused at once, or not at all.
                let _ = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"name", (gateway, DNS));
            });
            resolver.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
        };
        ask(&restricted).unwrap_err();
        assert_eq!(ask(&free).unwrap(), host.instance.address(4));
        // Requests that come in are answered.
        serve(&restricted, 5000);
        call(&here, host.instance.address(3), 5000).unwrap();
        // Control: the same dyno without the restriction.
        host.set_egress(app(1), "internet");
        call(&restricted, WORLD, 80).unwrap();
        assert_eq!(ask(&restricted).unwrap(), host.instance.address(3));
    });
}

#[test]
fn an_app_with_a_list_reaches_what_is_on_it() {
    on_a_host(|host| {
        for port in [80, 443, 8443] {
            serve(&host.world, port);
        }
        serve(&namespace(), ALLOWED);
        let dyno = host.launch(3, app(1));
        for (egress, open) in [
            ("internet", [80, 443, 8443].as_slice()),
            ("tcp/443", &[443]),
            ("203.0.113.1:80 203.0.113.1:8443", &[80, 8443]),
            ("203.0.113.0/24", &[80, 443, 8443]),
            ("198.51.100.0/24 udp/443", &[]),
            ("udp/203.0.113.1", &[]),
        ] {
            host.set_egress(app(1), egress);
            for port in [80, 443, 8443] {
                if open.contains(&port) {
                    call(&dyno, WORLD, port).unwrap_or_else(|error| panic!("{egress}: {port}: {error}"));
                } else {
                    assert_closed(&dyno, WORLD, port);
                }
            }
        }
        // What is closed to everybody stays so, what the host offers to everybody too.
        host.set_egress(app(1), "0.0.0.0/0");
        let other = host.launch(4, app(2));
        serve(&other, 5000);
        serve(&namespace(), FORBIDDEN);
        assert_closed(&dyno, host.instance.address(4), 5000);
        assert_closed(&dyno, METADATA[0], 80);
        assert_closed(&dyno, HOST, FORBIDDEN);
        host.set_egress(app(1), "tcp/443");
        call(&dyno, HOST, ALLOWED).unwrap();
    });
}

#[test]
fn a_restriction_ends_what_is_connected() {
    on_a_host(|host| {
        let listener = inside(&host.world, || TcpListener::bind((WORLD, 80)).unwrap());
        let dyno = host.launch(3, app(1));
        let mut inner = inside(&dyno, || TcpStream::connect((WORLD, 80)).unwrap());
        let (mut outer, _) = listener.accept().unwrap();
        let mut heard = |patience| {
            inner.write_all(b"x").unwrap();
            outer.set_read_timeout(Some(patience)).unwrap();
            outer.read_exact(&mut [0; 1])
        };
        heard(PATIENCE).unwrap();
        host.set_egress(app(1), "none");
        heard(Duration::from_millis(300)).unwrap_err();
    });
}

#[test]
fn a_slot_is_free_of_the_restrictions_of_who_had_it_before() {
    on_a_host(|host| {
        serve(&host.world, 80);
        host.set_egress(app(1), "none");
        host.set_egress(app(2), "tcp/81");
        for restricted in [app(1), app(2)] {
            let dyno = host.launch(3, restricted);
            assert_closed(&dyno, WORLD, 80);
            assert!(host.firewall.left_something(3));
            host.firewall.dismiss(3).unwrap();
            drop(dyno);
            call(&host.launch(3, app(3)), WORLD, 80).unwrap();
            assert!(!host.firewall.left_something(3));
        }
    });
}

#[test]
fn restrictions_hold_from_the_first_moment_of_a_new_server_on() {
    on_a_host(|host| {
        serve(&host.world, 80);
        let (restricted, free) = (host.launch(3, app(1)), host.launch(4, app(2)));
        let egress = BTreeMap::from([(app(1), Egress::None)]);
        let slots = BTreeMap::from([(3, app(1)), (4, app(2)), (5, app(1))]);
        let next = Firewall::new(host.instance.clone(), policy(), egress, slots);
        assert!(!next.admit(6, app(2)), "nothing is launched before the rules are there");
        next.raise().unwrap();
        assert!(next.admit(6, app(2)));
        assert_closed(&restricted, WORLD, 80);
        call(&free, WORLD, 80).unwrap();
        next.keep(|slot| slot < 5).unwrap();
        assert_closed(&restricted, WORLD, 80);
        let elements = listed(&["set", "inet", &host.instance.nft_table(), "isolated"]);
        assert!(elements.contains(&host.instance.link(3)) && !elements.contains(&host.instance.link(5)), "{elements}");
    });
}

#[test]
fn nothing_is_launched_with_rules_that_can_not_be_had() {
    on_a_host(|host| {
        host.set_egress(app(1), "none");
        let owner = Owner::of(&host.instance);
        assert!(!host.firewall.admit(3, app(1)));
        host.firewall.restrict(3).unwrap_err();
        assert!(!host.firewall.admit(4, app(2)), "nor is an app with the Internet, when the rules may be gone");
        drop(owner);
        host.firewall.restrict(4).unwrap();
        assert!(host.firewall.admit(4, app(2)));
    });
}

#[test]
fn rules_that_others_remove_come_back_by_themselves() {
    on_a_host(|host| {
        serve(&host.world, 80);
        serve(&namespace(), FORBIDDEN);
        host.set_egress(app(1), "none");
        let (restricted, free) = (host.launch(3, app(1)), host.launch(4, app(2)));
        let _watch = Watch::start(host.firewall.clone()).unwrap();
        let table = host.instance.nft_table();
        for damage in [
            vec!["flush", "ruleset"],
            vec!["delete", "table", "inet", &table],
            vec!["flush", "chain", "inet", &table, "to_host"],
            vec!["flush", "set", "inet", &table, "isolated"],
        ] {
            let began = std::time::Instant::now();
            nft(&damage);
            let closed =
                |dyno, address, port| call_within(Duration::from_millis(100), dyno, IpAddr::V4(address), port).is_err();
            while !(closed(&free, HOST, FORBIDDEN) && closed(&restricted, WORLD, 80)) {
                assert!(began.elapsed() < 4 * PATIENCE, "the rules did not come back after nft {damage:?}");
            }
            call(&free, WORLD, 80).unwrap();
        }
    });
}

#[test]
fn rules_are_exchanged_under_a_living_connection() {
    on_a_host(|host| {
        let dyno = network::prepare(&host.instance, 3).unwrap();
        let listener = inside(&dyno, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000)).unwrap());
        let mut near = TcpStream::connect((host.instance.address(3), 8000)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        network::setup(&host.instance, &firewall(&host.instance, Policy::default())).unwrap();
        near.write_all(b"still").unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = String::new();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        far.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "still");
        serve(&namespace(), ALLOWED);
        assert_closed(&dyno, HOST, ALLOWED);
    });
}

#[test]
fn teardown_leaves_nothing_and_touches_nothing_else() {
    on_a_host(|host| {
        nft(&["add", "table", "inet", "somebody_else"]);
        let _dynos = [1, 2].map(|slot| network::prepare(&host.instance, slot).unwrap());
        assert!(tables().contains(&host.instance.nft_table()));
        network::teardown(&host.instance).unwrap();
        network::teardown(&host.instance).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let links: Vec<String> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(links, ["lo", "up"]);
        assert!(netlink.routes().unwrap().iter().all(|route| route.via != Via::Unreachable));
        assert_eq!(tables().trim(), "table inet somebody_else");
    });
}

/// Holds the table as its own, so that nobody else can change it. Others' rules are gone.
struct Owner {
    nft: std::process::Child,
}

impl Owner {
    fn of(instance: &Instance) -> Self {
        network::teardown(instance).unwrap();
        let table = instance.nft_table();
        let mut nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(nft.stdin.as_mut().unwrap(), "add table inet {table} {{ flags owner; }}").unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !tables().contains(&table) {
            assert!(std::time::Instant::now() < deadline, "the table was not made");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { nft }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.nft.stdin.take());
        self.nft.wait().unwrap();
    }
}

#[test]
fn a_refused_rule_set_is_told_in_nfts_words() {
    on_a_host(|host| {
        let owner = Owner::of(&host.instance);
        let error = host.firewall.raise().unwrap_err().to_string();
        drop(owner);
        assert!(error.starts_with("nft refused: ") && error.contains("not permitted"), "{error}");
    });
}
