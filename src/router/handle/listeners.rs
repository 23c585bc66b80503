//! The sockets that the router listens on: the server's copies outlive any router.
#![forbid(unsafe_code)]

use super::{Options, Paths, RouterError};
use crate::sys::inherit;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Listens on `address` with one socket for each worker; together they form one group among which the kernel spreads
/// connections.
pub(in crate::router) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // A group takes in any socket of the same user, so another instance's router would share the port unnoticed.
        TcpListener::bind(address)?;
    }
    let mut listeners = Vec::<TcpListener>::new();
    for _ in 0..workers.clamp(1, (inherit::MAX_FDS - 1) / 2) {
        let address = listeners.first().map_or(Ok(address), TcpListener::local_addr)?;
        listeners.push(listener(address)?);
    }
    Ok(listeners)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 4096)?;
    Ok(socket.into())
}

/// All listening sockets; the server's copies, kept so that they outlive any router.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) control: OwnedFd,
    pub(super) plain: Vec<TcpListener>,
    /// None, or one for each of `plain`.
    pub(super) tls: Vec<TcpListener>,
}

impl Sockets {
    pub(super) async fn bind(paths: &Paths, listen: SocketAddr, options: &Options) -> Result<Self, RouterError> {
        let workers = options.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let plain = bind_patiently(listen, workers).await?;
        let path = paths.socket();
        let control = control_socket(&path).map_err(|source| RouterError::Socket { path, source })?;
        Self { control, plain, tls: Vec::new() }.with_tls(options.tls).await
    }

    /// The same with a control socket of the usual name, which is not the one that they came by.
    pub(super) fn under_a_new_name(self, paths: &Paths) -> Result<Self, RouterError> {
        let path = paths.socket();
        let control = control_socket(&path).map_err(|source| RouterError::Socket { path, source })?;
        Ok(Self { control, ..self })
    }

    /// With those of TLS at that address, or none.
    pub(super) async fn with_tls(mut self, wanted: Option<SocketAddr>) -> Result<Self, RouterError> {
        if !self.fits_tls(wanted) {
            self.tls.clear();
            if let Some(wanted) = wanted {
                self.tls = bind_patiently(wanted, self.plain.len()).await?;
            }
        }
        Ok(self)
    }

    pub(super) fn of(mut fds: Vec<OwnedFd>, plain: Option<usize>) -> io::Result<Self> {
        let plain = plain.unwrap_or(fds.len().saturating_sub(1));
        if plain == 0 || fds.len() <= plain {
            return Err(io::Error::other("it gave no listening sockets"));
        }
        let tls = fds.split_off(1 + plain).into_iter().map(TcpListener::from).collect();
        let plain = fds.split_off(1).into_iter().map(TcpListener::from).collect();
        Ok(Self { control: fds.remove(0), plain, tls })
    }

    pub(super) fn fits(&self, wanted: SocketAddr) -> bool {
        listens_at(&self.plain, wanted)
    }

    pub(super) fn fits_tls(&self, wanted: Option<SocketAddr>) -> bool {
        wanted.map_or(self.tls.is_empty(), |wanted| listens_at(&self.tls, wanted))
    }
}

fn listens_at(listeners: &[TcpListener], wanted: SocketAddr) -> bool {
    let port_fits = |port| wanted.port() == 0 || wanted.port() == port;
    !listeners.is_empty()
        && address(listeners).is_ok_and(|address| address.ip() == wanted.ip() && port_fits(address.port()))
}

pub(super) fn address(listeners: &[TcpListener]) -> io::Result<SocketAddr> {
    listeners[0].local_addr()
}

async fn bind_patiently(listen: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, RouterError> {
    // Another instance's probe of the same port, or a router that ended this very moment, is gone in a while.
    let begun = Instant::now();
    loop {
        match bind(listen, workers) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < Duration::from_millis(300) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome.map_err(|source| RouterError::Listen { address: listen, source }),
        }
    }
}

/// Bound, but not listening yet: the router does that.
pub(super) fn control_socket(path: &Path) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(socket)
}
