//! An instance: one hokku on a box. Every name it gives to something on the host derives from here, so that several
//! instances live side by side without touching each other.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Instances on one host.
pub const MAX_INSTANCES: u32 = 32;

/// An instance's name: 1 to 24 lower-case letters, digits and dashes, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instance name; use 1 to 24 lower-case letters, digits and dashes")]
pub struct InstanceNameError(pub String);

impl InstanceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for InstanceName {
    type Err = InstanceNameError;
    fn from_str(text: &str) -> Result<Self, InstanceNameError> {
        let chars = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fine = (1..=24).contains(&text.len()) && text.bytes().all(chars) && !text.starts_with('-');
        if fine { Ok(Self(text.to_owned())) } else { Err(InstanceNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for InstanceName {
    type Error = InstanceNameError;
    fn try_from(text: String) -> Result<Self, InstanceNameError> {
        text.parse()
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One instance: where its lasting state is (`root`), what it is called, and its number on this host (0 to
/// [`MAX_INSTANCES`] − 1), given out by the host-wide allocator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: InstanceName,
    pub root: PathBuf,
    /// `/run/hokku/<name>`.
    pub run: PathBuf,
    pub number: u32,
    /// The control group that its own are in, as [`Instance::cgroup`] says, where one was delegated to its first server;
    /// from the root of version 2.
    #[serde(default)]
    pub delegated: Option<PathBuf>,
}

/// Uids given to one instance: 1 for its helpers, the rest in ranges of 65536, one a dyno.
const UIDS_PER_INSTANCE: u32 = 1024 * 65536;
/// The first uid that is ours: above what distributions give to people and `subuid`.
const FIRST_UID: u32 = 0x1000_0000;

impl Instance {
    pub fn new(name: InstanceName, root: PathBuf, number: u32) -> Self {
        let run = Path::new("/run/hokku").join(name.as_str());
        Self { name, root, run, number, delegated: None }
    }

    /// The cgroup below each controller's root, or below the one that was delegated.
    pub fn cgroup(&self) -> String {
        format!("hokku-{}", self.name)
    }

    /// The group of the dyno in `slot`, below that one.
    pub fn group(&self, slot: u16) -> String {
        format!("dyno-{slot}")
    }

    /// The nft table (family `inet`).
    pub fn nft_table(&self) -> String {
        format!("hokku_{}", self.name.as_str().replace('-', "_"))
    }

    /// What the names of the host's ends of this instance's links begin with: `hk7-`.
    pub fn link_prefix(&self) -> String {
        format!("hk{}-", self.number)
    }

    /// The host's end of the link of the dyno in `slot`.
    pub fn link(&self, slot: u16) -> String {
        format!("{}{slot}", self.link_prefix())
    }

    /// The /16 that the dynos' addresses come from: `10.(128 + number).0.0`.
    pub fn subnet(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(10, self.second_octet(), 0, 0), 16)
    }

    /// The host's address as dynos see it: their gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second_octet(), 0, 1)
    }

    /// The address of the dyno in `slot` (0 to [`Instance::SLOTS`] − 1).
    pub fn address(&self, slot: u16) -> Ipv4Addr {
        let host = slot + 256;
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(10, self.second_octet(), high, low)
    }

    /// The same by IPv6: a network that is local to the host (RFC 4193), of which each instance has its own.
    pub fn subnet6(&self) -> (Ipv6Addr, u8) {
        (self.host6(0), 64)
    }

    pub fn gateway6(&self) -> Ipv6Addr {
        self.host6(1)
    }

    pub fn address6(&self, slot: u16) -> Ipv6Addr {
        self.host6(slot + 256)
    }

    /// `fd68:6f6b:6b75` is `hokku` in ASCII.
    fn host6(&self, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd68, 0x6f6b, 0x6b75, self.second_octet().into(), 0, 0, 0, host)
    }

    fn second_octet(&self) -> u8 {
        128 + u8::try_from(self.number % MAX_INSTANCES).unwrap_or(0)
    }

    /// How many dynos can be alive at once.
    pub const SLOTS: u16 = 1000;

    /// The first of the 65536 host uids (and gids) that the dyno in `slot` is mapped to.
    pub fn dyno_uid_base(&self, slot: u16) -> u32 {
        FIRST_UID + self.number * UIDS_PER_INSTANCE + 65536 * (u32::from(slot) + 1)
    }

    /// The unprivileged uid and gid of this instance's own helpers (router, git, unpacking).
    pub fn helper_uid(&self) -> u32 {
        FIRST_UID + self.number * UIDS_PER_INSTANCE
    }

    /// The API's Unix socket.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// Where the dyno's record, sockets and log ring are.
    pub fn dyno_dir(&self, id: super::dyno::DynoId) -> PathBuf {
        self.run.join("dynos").join(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, number: u32) -> Instance {
        Instance::new(name.parse().unwrap(), "/r".into(), number)
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "-a", "A", "a/b", "a.b", "aaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_given_to_the_host_differs_between_instances_and_slots() {
        let (a, b) = (instance("a", 3), instance("b-c", 4));
        assert_eq!((a.cgroup().as_str(), b.nft_table().as_str()), ("hokku-a", "hokku_b_c"));
        assert_eq!(a.link(7), "hk3-7");
        assert!(a.link(Instance::SLOTS).len() <= 15, "IFNAMSIZ");
        assert_eq!(a.address(0).to_string(), "10.131.1.0");
        assert_eq!(a.address6(3).to_string(), "fd68:6f6b:6b75:83::103");
        assert_ne!((a.subnet(), a.subnet6()), (b.subnet(), b.subnet6()));
        let last = a.dyno_uid_base(Instance::SLOTS - 1) + 65535;
        assert!(last < b.helper_uid());
        assert!(instance("z", MAX_INSTANCES - 1).dyno_uid_base(Instance::SLOTS - 1).checked_add(65535).is_some());
    }
}
