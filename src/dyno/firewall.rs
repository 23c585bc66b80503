//! What dynos may reach: one nft table for the instance, written anew as a whole at start and when something has
//! changed, and watched, because others on the host may flush all there is.
//!
//! - The rules speak of the prefix of link names and of sets, so nothing is executed when a dyno starts, unless its app
//!   has an [`Egress`] of its own: then its link is in a set, or leads to the app's chain, before the dyno is launched.
//! - The table is in the network namespace of the calling thread.
#![expect(clippy::missing_errors_doc, reason = "the error type says it")]
#![forbid(unsafe_code)]

pub(super) mod rules;
mod watch;

pub use watch::Watch;

use super::network;
use crate::domain::app::AppId;
use crate::domain::egress::{Egress, Protocol};
use crate::domain::instance::Instance;
use crate::sys::netfilter;
use rules::Content;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    #[error("cannot run nft (Debian package nftables)")]
    NoNft(#[source] io::Error),
    #[error("nft refused: {0}")]
    Nft(String),
    #[error("cannot look at the rules")]
    Look(#[source] io::Error),
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

/// The instance's rules, and what they depend on.
#[derive(Debug)]
pub struct Firewall {
    instance: Instance,
    policy: Policy,
    /// Held for a few lines only.
    wanted: Mutex<Wanted>,
    /// What the kernel was told last; held while it is told.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Wanted {
    egress: BTreeMap<AppId, Egress>,
    slots: BTreeMap<u16, AppId>,
    /// The kernel may have something else: nothing may start until it was told all anew.
    stale: bool,
}

impl Wanted {
    /// Whether there is something to tell the kernel.
    fn change(&mut self, app: AppId, egress: Egress) -> bool {
        let before = self.egress.get(&app).cloned().unwrap_or_default();
        let changed = before != egress;
        match egress {
            Egress::Internet => self.egress.remove(&app),
            egress => self.egress.insert(app, egress),
        };
        changed || self.stale
    }
}

#[derive(Debug, Default)]
struct Told {
    resolvers: Vec<IpAddr>,
    /// `None` when it is not known.
    fingerprint: Option<u64>,
}

impl Firewall {
    /// Rules for the dynos there are, by slot; [`raise`](Self::raise) makes them hold. Apps that are not in `egress` have
    /// the Internet.
    pub fn new(
        instance: Instance,
        policy: Policy,
        egress: BTreeMap<AppId, Egress>,
        slots: BTreeMap<u16, AppId>,
    ) -> Self {
        let wanted = Wanted { egress, slots, stale: true };
        Self { instance, policy, wanted: Mutex::new(wanted), told: Mutex::default() }
    }

    /// Writes the whole table in one transaction: there is no moment without rules. May be called again.
    pub fn raise(&self) -> Result<(), FirewallError> {
        self.raise_told(&mut lock(&self.told))
    }

    fn raise_told(&self, told: &mut Told) -> Result<(), FirewallError> {
        told.resolvers = network::direct_resolvers();
        let text = self.render(told, rules::whole);
        let done = self.tell(told, &text);
        lock(&self.wanted).stale = done.is_err();
        done
    }

    /// A dyno of the app is to be launched in that slot. Whether that's all: otherwise [`restrict`](Self::restrict) has to
    /// have succeeded before.
    pub fn admit(&self, slot: u16, app: AppId) -> bool {
        let mut wanted = lock(&self.wanted);
        wanted.slots.insert(slot, app);
        !wanted.stale && !wanted.egress.contains_key(&app)
    }

    /// Makes the egress of its app hold for the dyno that is to be launched in that slot.
    pub fn restrict(&self, slot: u16) -> Result<(), FirewallError> {
        let mut told = lock(&self.told);
        if lock(&self.wanted).stale || told.resolvers != network::direct_resolvers() {
            return self.raise_told(&mut told);
        }
        let Some(text) = self.render(&told, |content| rules::admit(content, slot)) else { return Ok(()) };
        // It fails when the table was changed by others.
        self.tell(&mut told, &text).or_else(|_| self.raise_told(&mut told))
    }

    /// Whether a dyno in that slot has left something that [`dismiss`](Self::dismiss) has to take away.
    pub fn left_something(&self, slot: u16) -> bool {
        let mut wanted = lock(&self.wanted);
        let restricted = wanted.slots.get(&slot).is_some_and(|app| wanted.egress.contains_key(app));
        if !restricted {
            wanted.slots.remove(&slot);
        }
        restricted
    }

    /// The dyno in that slot has ended; only when this has returned may another have it.
    pub fn dismiss(&self, slot: u16) -> Result<(), FirewallError> {
        let mut told = lock(&self.told);
        let text = self.render(&told, |content| rules::dismiss(content, slot));
        lock(&self.wanted).slots.remove(&slot);
        let Some(text) = text else { return Ok(()) };
        self.tell(&mut told, &text).or_else(|_| self.raise_told(&mut told))
    }

    /// Only these slots have a dyno.
    pub fn keep(&self, live: impl Fn(u16) -> bool) -> Result<(), FirewallError> {
        let gone: Vec<u16> = lock(&self.wanted).slots.keys().copied().filter(|slot| !live(*slot)).collect();
        let gone: Vec<u16> = gone.into_iter().filter(|slot| self.left_something(*slot)).collect();
        gone.into_iter().try_for_each(|slot| self.dismiss(slot))
    }

    /// Changes where the dynos of an app may connect to, those that run included, and what they have connected already.
    pub fn set_egress(&self, app: AppId, egress: Egress) -> Result<(), FirewallError> {
        let mut told = lock(&self.told);
        if lock(&self.wanted).change(app, egress) { self.raise_told(&mut told) } else { Ok(()) }
    }

    /// Writes the table again if somebody has changed it. Whether that was so.
    pub fn mend(&self) -> Result<bool, FirewallError> {
        let mut told = lock(&self.told);
        if !lock(&self.wanted).stale && told.fingerprint.is_some() && self.look()? == told.fingerprint {
            return Ok(false);
        }
        self.raise_told(&mut told)?;
        Ok(true)
    }

    /// The table's name, by which others' changes to it are told from those to theirs.
    pub fn table(&self) -> String {
        self.instance.nft_table()
    }

    fn render<T>(&self, told: &Told, text: impl FnOnce(&Content<'_>) -> T) -> T {
        let wanted = lock(&self.wanted);
        text(&Content {
            instance: &self.instance,
            policy: &self.policy,
            resolvers: &told.resolvers,
            egress: &wanted.egress,
            slots: &wanted.slots,
        })
    }

    /// One transaction, after which it is known what the table is to look like from now on. It is not when others had
    /// theirs meanwhile, which may have been about our table; then the next [`mend`](Self::mend) writes it again.
    fn tell(&self, told: &mut Told, text: &str) -> Result<(), FirewallError> {
        let generation = || netfilter::generation().map_err(FirewallError::Look);
        told.fingerprint = None;
        let before = generation()?;
        nft(text)?;
        let looks_like = self.look()?;
        if generation()? == before.wrapping_add(1) {
            told.fingerprint = looks_like;
        }
        Ok(())
    }

    fn look(&self) -> Result<Option<u64>, FirewallError> {
        netfilter::fingerprint(&self.table(), &rules::SETS).map_err(FirewallError::Look)
    }
}

/// Takes the instance's table away.
pub fn clear(instance: &Instance) -> Result<(), FirewallError> {
    nft(&rules::none(instance))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nft(script: &str) -> Result<(), FirewallError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FirewallError::NoNft)?;
    // What keeps nft from reading it all is said on its standard error.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(FirewallError::NoNft)?;
    if output.status.success() {
        return written.map_err(FirewallError::NoNft);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(FirewallError::Nft(said.lines().next().unwrap_or("no reason given").trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_are_parsed_strictly() {
        let postgres: HostPort = "tcp/5432".parse().unwrap();
        assert_eq!(postgres, HostPort { protocol: Protocol::Tcp, port: 5432 });
        for bad in ["5432", "tcp/0", "tcp/65536", "sctp/1", "tcp/1; drop", ""] {
            let error = bad.parse::<HostPort>().unwrap_err();
            assert_eq!(error.to_string(), format!("{bad:?} is not a port; write for instance tcp/5432 or udp/53"));
        }
    }
}
