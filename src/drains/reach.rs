//! Which addresses the server connects to for others, drains and submodules: what an app's owner names must not lead to
//! what only this machine reaches.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

/// Everything but this machine itself and what is link-local, except for those of its ports that dynos may reach too.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// TCP ports of this machine.
    pub open: BTreeSet<u16>,
}

impl Reach {
    /// The addresses of `host` that may be connected to. Only these are used, so that a name can't lead elsewhere after it
    /// was looked at.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.choose(tokio::net::lookup_host((host, port)).await?.collect())
    }

    /// The same for who may wait for it.
    ///
    /// # Errors
    /// When the host has no address, or none that may be connected to.
    pub fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.choose((host, port).to_socket_addrs()?.collect())
    }

    fn choose(&self, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        let own = own_addresses()?;
        let allowed: Vec<_> = found.into_iter().filter(|address| self.allows(*address, &own)).collect();
        if allowed.is_empty() {
            let text = "it leads to this machine, where only the ports of [network] allow_host are open";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(allowed)
    }

    fn allows(&self, address: SocketAddr, own: &BTreeSet<IpAddr>) -> bool {
        let ip = address.ip().to_canonical();
        let local = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified(),
        } || own.contains(&ip);
        let never = match ip {
            // 169.254.169.254 is where clouds tell a machine's secrets.
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
        };
        !never && (!local || self.open.contains(&address.port()))
    }
}

fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_closed_but_for_open_ports() {
        let own = BTreeSet::from(["192.0.2.7".parse().unwrap()]);
        let reach = Reach { open: BTreeSet::from([6514]) };
        let allows = |address: &str| reach.allows(address.parse().unwrap(), &own);
        for closed in [
            "127.0.0.1:514",
            "[::1]:514",
            "0.0.0.0:514",
            "192.0.2.7:514",
            "169.254.169.254:6514",
            "[fe80::1]:6514",
            "224.0.0.1:6514",
            "[::ffff:127.0.0.1]:514",
            "[::ffff:169.254.169.254]:80",
        ] {
            assert!(!allows(closed), "{closed}");
        }
        for open in ["127.0.0.1:6514", "192.0.2.7:6514", "192.0.2.8:514", "10.0.0.1:443", "[2001:db8::1]:443"] {
            assert!(allows(open), "{open}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused() {
        let error = Reach::default().resolve("localhost", 514).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
