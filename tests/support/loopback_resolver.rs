//! A host whose only name server is on a loopback address, as systemd-resolved and dnsmasq leave it: a network and mounts
//! of a thread's own, with a server that knows one name. All is gone with the thread and what it has started.

use hokku::sys::loopback;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

/// What the server knows; the name is of those that lead nowhere (RFC 2606), the address too (RFC 5737).
pub(crate) const NAME: &str = "shop.example";
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

pub(crate) const RESOLV_CONF: &str = "nameserver 127.0.0.53\n";
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// Where hokku looks for better ones.
const LISTS: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// Runs `test` on such a host, with the file that says who is to be asked.
pub(crate) fn on_a_host_with_a_loopback_resolver(test: impl FnOnce(&Path) + Send + 'static) {
    let play = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let resolv_conf = dir.path().join("resolv.conf");
        fs::write(&resolv_conf, RESOLV_CONF).unwrap();
        for list in LISTS.iter().filter(|list| Path::new(list).exists()) {
            mount(Some(&resolv_conf), *list, none, MsFlags::MS_BIND, none).unwrap();
        }
        loopback::up().unwrap();
        serve();
        test(&resolv_conf);
    };
    std::thread::spawn(play).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Ends with the test's process.
fn serve() {
    let address: SocketAddr = (SERVER, 53).into();
    let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        let mut question = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut question) {
            // Who asked may have gone.
            let _ = udp.send_to(&answer(&question[..length]), from);
        }
    });
    std::thread::spawn(move || {
        for mut client in tcp.incoming().flatten() {
            let mut length = [0; 2];
            while client.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                client.read_exact(&mut question).unwrap();
                let answer = answer(&question);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                client.write_all(&[&length, answer.as_slice()].concat()).unwrap();
            }
        }
    });
}

/// RFC 1035 §4.1: the question again, and the address when it was asked for; of another name it says that there is none.
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    const A: [u8; 4] = [0, 1, 0, 1];
    let labels = NAME.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let name: Vec<u8> = labels.chain([0]).collect();
    let asked = &question[HEADER..];
    let end = asked.iter().position(|byte| *byte == 0).unwrap() + 1;
    let known = asked[..end].eq_ignore_ascii_case(&name);
    let found = known && asked[end..end + 4] == A;
    let code = if known { 0x80 } else { 0x83 };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, code, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(&asked[..end + 4]);
    if found {
        // The name is the question's.
        answer.extend([&[0xc0, 0x0c], A.as_slice(), &[0, 0, 0, 60, 0, 4], &ADDRESS.octets()].concat());
    }
    answer
}
