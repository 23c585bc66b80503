//! A DNS relay from the gateway, where dynos can ask, to a resolver of the host that only the host can ask (a stub on a
//! loopback address). Runs only on hosts that have no other resolver (see [`super::network::relay_target`]).
//!
//! Answers are passed on as they are; nothing is cached and nothing is looked at. What is open at once is bounded.
#![forbid(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Queries by UDP that wait for their answer; beyond, the oldest is given up.
const MAX_QUERIES: usize = 256;
/// Connections at once; beyond, new ones are closed.
const MAX_CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = 65535;

/// A running relay; dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    /// Hung up to tell the threads.
    stop: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Listens on `gateway`, which need not be an address of the host yet, and asks `target`.
    ///
    /// # Errors
    /// The port is taken, or no thread can be had.
    pub fn start(gateway: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::from(bound(gateway, SocketType::DGRAM)?);
        let tcp = TcpListener::from(bound(gateway, SocketType::STREAM)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let stopped_too = stopped.try_clone()?;
        let threads = vec![
            std::thread::Builder::new().name("dns-udp".into()).spawn(move || relay_udp(&udp, target, &stopped))?,
            std::thread::Builder::new().name("dns-tcp".into()).spawn(move || relay_tcp(&tcp, target, &stopped_too))?,
        ];
        Ok(Self { stop: Some(stop), threads })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

fn bound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        listen(&socket, 64)?;
    }
    Ok(socket)
}

/// A query that was passed on, from a port of its own, so that answers cannot be mixed up.
struct Query {
    from: SocketAddr,
    socket: UdpSocket,
    since: Instant,
}

fn relay_udp(listener: &UdpSocket, target: SocketAddr, stopped: &UnixStream) {
    let mut queries: Vec<Query> = Vec::new();
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        let mut ready = vec![PollFd::new(stopped, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        ready.extend(queries.iter().map(|query| PollFd::new(&query.socket, PollFlags::IN)));
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut ready, Some(&patience)).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return;
        }
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return;
        }
        let mut at = 0;
        queries.retain(|query| {
            at += 1;
            !(ready[at + 1] && answer(listener, query, &mut message)) && query.since.elapsed() < PATIENCE
        });
        if ready[1] {
            accept_queries(listener, target, &mut queries, &mut message);
        }
    }
}

/// Passes the answer on; `false` when there is none yet. An error (the resolver refuses) also ends the query: the
/// dyno asks again or gives up.
fn answer(listener: &UdpSocket, query: &Query, message: &mut [u8]) -> bool {
    match query.socket.recv(message) {
        Ok(length) => {
            // A dyno that is gone, or a full buffer: as if the datagram had been lost.
            let _ = listener.send_to(&message[..length], query.from);
            true
        }
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn accept_queries(listener: &UdpSocket, target: SocketAddr, queries: &mut Vec<Query>, message: &mut [u8]) {
    while let Ok((length, from)) = listener.recv_from(message) {
        // A query that cannot be passed on is lost, as any datagram may be.
        let Ok(socket) = ask(target, &message[..length]) else { continue };
        if queries.len() >= MAX_QUERIES {
            queries.remove(0);
        }
        queries.push(Query { from, socket, since: Instant::now() });
    }
}

fn ask(target: SocketAddr, query: &[u8]) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    socket.send(query)?;
    Ok(socket)
}

fn relay_tcp(listener: &TcpListener, target: SocketAddr, stopped: &UnixStream) {
    let open = Arc::new(());
    loop {
        let mut ready =
            [PollFd::new(stopped, PollFlags::IN), PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        if poll(&mut ready, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return;
        }
        if !ready[0].revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if Arc::strong_count(&open) > MAX_CONNECTIONS {
            continue;
        }
        let counted = Arc::clone(&open);
        let serve = move || {
            // However it ended, the connection is closed and the dyno asks again or gives up.
            let _ = serve(&client, target);
            drop(counted);
        };
        // Without a thread to be had the connection is closed.
        let _ = std::thread::Builder::new().name("dns-tcp".into()).spawn(serve);
    }
}

/// Messages go one at a time, each after its length (RFC 1035 §4.2.2).
fn serve(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&target, PATIENCE)?;
    for stream in [client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    loop {
        pass(client, &server)?;
        pass(&server, client)?;
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let mut message = length.to_vec();
    message.resize(2 + usize::from(u16::from_be_bytes(length)), 0);
    from.read_exact(&mut message[2..])?;
    to.write_all(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A resolver that answers every message with its bytes reversed; ends with its sockets' last use.
    fn backwards() -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut message) {
                message[..length].reverse();
                udp.send_to(&message[..length], from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut message = [0; 5];
                while stream.read_exact(&mut message).is_ok() {
                    message[2..].reverse();
                    stream.write_all(&message).unwrap();
                }
            }
        });
        address
    }

    /// Runs `test` with a gateway's port that nobody else can have: in a network of its own.
    fn with_gateway(test: impl FnOnce(SocketAddr) + Send + 'static) {
        let play = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut netlink = crate::sys::netlink::Netlink::open().unwrap();
            let lo = netlink.link("lo").unwrap().unwrap();
            netlink.set_up(lo.index).unwrap();
            test((Ipv4Addr::LOCALHOST, 53).into());
        };
        std::thread::spawn(play).join().unwrap();
    }

    #[test]
    fn questions_go_to_the_target_and_answers_to_who_asked() {
        with_gateway(|gateway| {
            let _relay = Relay::start(gateway, backwards()).unwrap();
            let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            for (number, client) in clients.iter().enumerate() {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.send_to(format!("ab{number}").as_bytes(), gateway).unwrap();
            }
            for (number, client) in clients.iter().enumerate() {
                let mut answer = [0; 16];
                let (length, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!((from, &answer[..length]), (gateway, format!("{number}ba").as_bytes()));
            }

            let mut tcp = TcpStream::connect(gateway).unwrap();
            for question in [b"\0\x03abc", b"\0\x03xyz"] {
                tcp.write_all(question).unwrap();
                let mut answer = [0; 5];
                tcp.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [0, 3, question[4], question[3], question[2]]);
            }
        });
    }

    #[test]
    fn dropping_it_frees_the_port() {
        with_gateway(|gateway| {
            let target = backwards();
            drop(Relay::start(gateway, target).unwrap());
            drop(Relay::start(gateway, target).unwrap());
        });
    }
}
