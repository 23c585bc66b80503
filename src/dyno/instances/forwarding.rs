//! Forwarding of packets between the host's links: a switch of the whole network namespace, one for each family, that has
//! to be put back.
//!
//! A host that forwards IPv6 takes itself for a router and no longer listens to routers, unless each of its links is told
//! to: without that, switching it on would throw away a default route that a router has announced.
#![forbid(unsafe_code)]

use super::RegisterError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// Listens to routers as long as it is none itself.
const LISTENS: &str = "1";
/// Listens to routers whatever it is.
const LISTENS_ALWAYS: &str = "2";

/// Network namespaces that did not forward packets before we asked them to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    forwarding_was_off: Vec<u64>,
    #[serde(default)]
    ipv6_forwarding_was_off: Vec<Ipv6Before>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ipv6Before {
    namespace: u64,
    /// Links that listened to routers and were told to go on doing so.
    listening: Vec<String>,
}

impl Before {
    pub(super) fn is_empty(&self) -> bool {
        self.forwarding_was_off.is_empty() && self.ipv6_forwarding_was_off.is_empty()
    }

    /// Notes what is off in the calling thread's network namespace, and what [`switch_on`](Self::switch_on) will change.
    pub(super) fn look(&mut self, namespace: u64, with_ipv6: bool) -> Result<(), RegisterError> {
        if read(Path::new(IPV4))? == "0" && !self.forwarding_was_off.contains(&namespace) {
            self.forwarding_was_off.push(namespace);
        }
        if with_ipv6 && read(&forwarding6())? == "0" && self.ipv6(namespace).is_none() {
            let listening = links()?.into_iter().filter(|link| reads(&accept_ra(link), LISTENS)).collect();
            self.ipv6_forwarding_was_off.push(Ipv6Before { namespace, listening });
        }
        Ok(())
    }

    fn ipv6(&self, namespace: u64) -> Option<&Ipv6Before> {
        self.ipv6_forwarding_was_off.iter().find(|before| before.namespace == namespace)
    }

    /// Switches on what was off.
    pub(super) fn switch_on(&self, namespace: u64) -> Result<(), RegisterError> {
        if self.forwarding_was_off.contains(&namespace) {
            write(Path::new(IPV4), "1")?;
        }
        if let Some(Ipv6Before { listening, .. }) = self.ipv6(namespace) {
            for link in listening.iter().filter(|link| reads(&accept_ra(link), LISTENS)) {
                write(&accept_ra(link), LISTENS_ALWAYS)?;
            }
            write(&forwarding6(), "1")?;
        }
        Ok(())
    }

    /// Sets back what was changed there, and forgets it.
    pub(super) fn restore(&mut self, namespace: u64) -> Result<(), RegisterError> {
        if self.forwarding_was_off.contains(&namespace) {
            write(Path::new(IPV4), "0")?;
        }
        if let Some(Ipv6Before { listening, .. }) = self.ipv6(namespace) {
            write(&forwarding6(), "0")?;
            // A link may be gone, or its owner have said something else since.
            for link in listening.iter().filter(|link| reads(&accept_ra(link), LISTENS_ALWAYS)) {
                write(&accept_ra(link), LISTENS)?;
            }
        }
        self.forwarding_was_off.retain(|off| *off != namespace);
        self.ipv6_forwarding_was_off.retain(|before| before.namespace != namespace);
        Ok(())
    }
}

/// Whether IPv6 packets are forwarded in the calling thread's network namespace; not where there is no IPv6.
pub fn forwards_ipv6() -> bool {
    reads(&forwarding6(), "1") && !reads(&Path::new(IPV6).join("all/disable_ipv6"), "1")
}

/// Whether it could be: the kernel has IPv6 and nobody has switched it off.
pub(super) fn has_ipv6() -> bool {
    forwarding6().exists() && !reads(&Path::new(IPV6).join("all/disable_ipv6"), "1")
}

fn forwarding6() -> PathBuf {
    Path::new(IPV6).join("all/forwarding")
}

fn accept_ra(link: &str) -> PathBuf {
    Path::new(IPV6).join(link).join("accept_ra")
}

/// All but dynos', with `default` for those to come.
fn links() -> Result<Vec<String>, RegisterError> {
    let failed = |source| RegisterError { path: IPV6.into(), source };
    let mut links = Vec::new();
    for entry in fs::read_dir(IPV6).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name != "all" && name != "lo" && !name.starts_with("hk") {
            links.push(name);
        }
    }
    links.sort();
    Ok(links)
}

fn reads(path: &Path, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

fn read(path: &Path) -> Result<String, RegisterError> {
    let text = fs::read_to_string(path).map_err(|source| RegisterError { path: path.into(), source })?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), RegisterError> {
    match fs::write(path, value) {
        // A link that went meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| RegisterError { path: path.into(), source }),
    }
}
