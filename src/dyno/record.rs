//! What is known of a dyno beyond the life of its shim and its server: `RUN/dynos/<id>/`.
//!
//! | file | from | what |
//! | --- | --- | --- |
//! | `labels.json` | server | whose it is |
//! | `config.json` | server | what runs in what |
//! | `ready` | server | its port has accepted once |
//! | `log.ring` | shim, init | lines not yet stored, and how it ended |
//! | `shim.sock` | shim | a way to talk to it while it lives |
//! | `exit.json` | shim, or the server when the shim was killed | how it ended |
#![forbid(unsafe_code)]

use super::Labels;
use crate::domain::dyno::Exit;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(super) const SOCKET: &str = "shim.sock";
pub(super) const RING: &str = "log.ring";
const LABELS: &str = "labels.json";
const EXIT: &str = "exit.json";
const READY: &str = "ready";

/// `exit.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExitRecord {
    #[serde(flatten)]
    exit: Exit,
    /// Which boot of the host it belongs to: where `/run` is no tmpfs, records outlive the processes they tell of.
    boot_id: uuid::Uuid,
}

/// Makes a dyno's directory with all that its launch needs.
pub(super) fn create(dir: &Path, labels: &Labels, config: &str) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // Not its parents: an instance that was taken down must not come back.
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    write(&dir.join("config.json"), config.as_bytes())?;
    write_json(&dir.join(LABELS), labels)
}

pub(super) fn labels(dir: &Path) -> io::Result<Labels> {
    read_json(&dir.join(LABELS))
}

/// Locks the dyno's directory for as long as the file is open: for its shim, or for who clears away what one has left. Of
/// the two only one is there, so that a launch that was given up does not happen later.
///
/// # Errors
/// `WouldBlock` when somebody else has it.
pub(super) fn claim(dir: &Path) -> io::Result<File> {
    let dir = File::open(dir)?;
    dir.try_lock()?;
    Ok(dir)
}

/// Leaves word of how the dyno ended; the first word stays.
pub(super) fn leave_exit(dir: &Path, exit: Exit) -> io::Result<()> {
    let path = dir.join(EXIT);
    if path.exists() {
        return Ok(());
    }
    write_json(&path, &ExitRecord { exit, boot_id: boot_id()? })
}

pub(super) fn exit(dir: &Path) -> io::Result<Option<Exit>> {
    match read_json::<ExitRecord>(&dir.join(EXIT)) {
        Ok(record) => Ok(Some(record.exit)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn mark_ready(dir: &Path) -> io::Result<()> {
    write(&dir.join(READY), b"")
}

pub(super) fn was_ready(dir: &Path) -> bool {
    dir.join(READY).exists()
}

/// The ids with a directory, in no order.
pub(super) fn all(run: &Path) -> io::Result<Vec<(crate::domain::dyno::DynoId, PathBuf)>> {
    let entries = match fs::read_dir(run.join("dynos")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(id) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) {
            found.push((id, path));
        }
    }
    Ok(found)
}

/// How a dyno ended of which nobody can tell: killed.
pub(super) fn unknown_exit(at: Timestamp, oom: bool) -> Exit {
    Exit { code: 128 + KILL, signal: Some(KILL), oom, box_full: false, at }
}

const KILL: i32 = 9;

fn boot_id() -> io::Result<uuid::Uuid> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim().parse().map_err(io::Error::other)
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

/// Whole or not at all. Nothing here has to outlive a power failure, so nothing is synced.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(bytes)?;
    fs::rename(new, path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
