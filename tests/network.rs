//! Dynos' networks on the real kernel: what can be reached from where.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
//!
//! Every test plays in a host of its own: a network namespace that stands for the host, with another one beside it that
//! stands for the world. So nothing of the machine's own network is touched, and all is gone with the test's thread.
#![forbid(unsafe_code)]

use hokku::domain::instance::Instance;
use hokku::dyno::instances::{self, Claim};
use hokku::dyno::network::{self, HostPort, Policy, Protocol};
use hokku::dyno::relay::Relay;
use hokku::sys::netlink::{Netlink, Route, Via};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const ALLOWED: u16 = 5432;
const FORBIDDEN: u16 = 5433;
const PATIENCE: Duration = Duration::from_secs(5);

/// A host with one instance, which is off the register when this is dropped.
struct Host {
    world: OwnedFd,
    instance: Instance,
    _claim: Claim,
    _root: tempfile::TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        instances::release(&self.instance).unwrap();
    }
}

/// Runs `test` in a new host, connected to a world by a link with an unusual MTU.
fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    let play = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let world = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).map(|()| namespace())).join().unwrap();
        let world = world.unwrap();
        connect_to_world(&world);
        let root = tempfile::tempdir().unwrap();
        let (instance, claim) = instances::claim(unique_name().parse().unwrap(), root.path()).unwrap();
        let host = Host { world, instance, _claim: claim, _root: root };
        network::setup(&host.instance, &policy()).unwrap();
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

fn namespace() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn connect_to_world(world: &OwnedFd) {
    let mut host = Netlink::open().unwrap();
    host.add_veth("up", 1380, "down", world.as_fd()).unwrap();
    up(&mut host, "lo", None);
    let uplink = up(&mut host, "up", Some(HOST));
    host.set_route(&Route::default_via(WORLD, uplink)).unwrap();
    inside(world, || {
        let mut world = Netlink::open().unwrap();
        up(&mut world, "lo", None);
        let link = up(&mut world, "down", Some(WORLD));
        world.add_address(link, METADATA, 32).unwrap();
        world.set_route(&Route::default_via(HOST, link)).unwrap();
    });
}

fn up(netlink: &mut Netlink, name: &str, address: Option<Ipv4Addr>) -> u32 {
    let index = netlink.link(name).unwrap().unwrap().index;
    if let Some(address) = address {
        netlink.add_address(index, address, 24).unwrap();
    }
    netlink.set_up(index).unwrap();
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
    let listener = inside(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            // A client that has gone has learned enough.
            let _ = write!(client, "{}", from.ip());
        }
    });
}

/// The address that a server sees when it is called from the namespace.
fn call(from: &OwnedFd, address: Ipv4Addr, port: u16) -> io::Result<IpAddr> {
    call_within(PATIENCE, from, address, port)
}

/// Where packets are dropped, nothing else than patience ends a call; each test opens the way afterwards.
fn assert_closed(from: &OwnedFd, address: Ipv4Addr, port: u16) {
    let seen = call_within(Duration::from_millis(500), from, address, port);
    assert!(seen.is_err(), "{address}:{port} is open, the caller seen as {seen:?}");
}

fn call_within(patience: Duration, from: &OwnedFd, address: Ipv4Addr, port: u16) -> io::Result<IpAddr> {
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
    let output = Command::new("nft").args(["list", "tables"]).stderr(Stdio::inherit()).output().unwrap();
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
        network::setup(&instance, &policy()).unwrap();
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
        assert_eq!(call(&namespace(), METADATA, 80).unwrap(), HOST);
        assert_closed(&dyno, METADATA, 80);
        nft(&["flush", "chain", "inet", &host.instance.nft_table(), "from_dyno"]);
        assert_eq!(call(&dyno, METADATA, 80).unwrap(), HOST);
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
    network::setup(&instance, &policy()).unwrap();
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
            assert!(netlink.addresses().unwrap().contains(&(instance.address(3), 32, eth0)));
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

#[test]
fn rules_are_exchanged_under_a_living_connection() {
    on_a_host(|host| {
        let dyno = network::prepare(&host.instance, 3).unwrap();
        let listener = inside(&dyno, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000)).unwrap());
        let mut near = TcpStream::connect((host.instance.address(3), 8000)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        network::setup(&host.instance, &Policy::default()).unwrap();
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

#[test]
fn a_refused_rule_set_is_told_in_nfts_words() {
    on_a_host(|host| {
        // A table of that name that another program owns cannot be replaced.
        network::teardown(&host.instance).unwrap();
        let table = host.instance.nft_table();
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = owner.stdin.take().unwrap();
        writeln!(input, "add table inet {table} {{ flags owner; }}").unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !tables().contains(&table) {
            assert!(std::time::Instant::now() < deadline, "the table was not made");
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = network::setup(&host.instance, &policy()).unwrap_err().to_string();
        drop(input);
        owner.wait().unwrap();
        assert!(error.starts_with("nft refused: ") && error.contains("not permitted"), "{error}");
    });
}
