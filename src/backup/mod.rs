//! `hokku backup`: the whole box as one file, while it runs; `hokku restore`: another box made of it.
//!
//! ```text
//!  tar.zst:  backup.json                     what this is: versions, apps, whether the key is in it
//!            db.sqlite                       a copy of one instant
//!            key  ca.pem  ca.key             ca.key.sealed instead of key and ca.key when it is --without-key
//!            hokku.toml
//!            repos/<app>.git/…               HEAD, refs, objects
//!            sources/<app>.tar.zst           what the app was built from last
//!            slugs/<sha256>.tar.zst
//!            stacks.tar.zst                  as hokku stack:export writes it; --with-stacks only
//!            manifest.json                   size and sha256 of each of them
//! ```
//!
//! The server is not asked, so it may also be dead. What can vanish is held open before the database is copied: a slug that
//! the copy names can't be collected from under us, and no repository is newer than the copy, since git would take a commit
//! for pushed then whose release is not there.
//!
//! Invariants: neither a file nor a ROOT is there until it is whole; what is restored was compared with the manifest, which
//! is last, so that a file without its end is none.
#![forbid(unsafe_code)]

mod capture;
mod member;
mod output;
mod read;
mod repository;
mod restore;
mod write;

pub use restore::{RestoreOptions, require_restored, restore};
pub use write::{BackupOptions, backup};

use anyhow::bail;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

/// Of the archive; a change that an older hokku would read wrongly makes it the next.
const FORMAT: u32 = 1;
const HEAD: &str = "backup.json";
const MANIFEST: &str = "manifest.json";
/// What `ca.key.sealed` is bound to.
const AUTHORITY_CONTEXT: &[u8] = b"hokku backup ca.key";

/// `backup.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// The hokku that wrote it.
    hokku: String,
    /// Of the database.
    schema: u32,
    made_at: Timestamp,
    /// Where it was made: for people.
    root: String,
    architecture: String,
    with_key: bool,
    with_stacks: bool,
    apps: Vec<String>,
}

/// `manifest.json`: by the member's name.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    members: BTreeMap<String, Sum>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    size: u64,
    sha256: String,
}

fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this needs root: the key of the box is in a backup. Try it with sudo.")
}

/// A line for people; stdout may be the backup itself.
fn say(text: impl fmt::Display) {
    // That nobody can hear it is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// How far it is, for whoever looks on.
#[derive(Debug)]
struct Progress {
    total: u64,
    done: u64,
    /// In percent.
    shown: Option<u64>,
    on: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, done: 0, shown: None, on: std::io::stderr().is_terminal() }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let percent = (100 * self.done).checked_div(self.total).unwrap_or(100).min(100);
        if self.on && self.shown != Some(percent) {
            self.shown = Some(percent);
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r{percent:3} % of {} ", megabytes(self.total)).and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            say("");
        }
    }
}

fn megabytes(bytes: u64) -> String {
    if bytes < 1_000_000 { format!("{} KB", bytes.div_ceil(1000)) } else { format!("{} MB", bytes / 1_000_000) }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `-` is stdin or stdout.
fn is_stdio(file: &Path) -> bool {
    file == Path::new("-")
}
