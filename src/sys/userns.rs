//! User namespaces: their mappings, written from outside.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Ids `inside..inside + size` are `outside..` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// Gives a child that has not been waited for, and so still owns its number, its id mappings.
///
/// # Errors
/// Writing to `/proc/<pid>/{uid_map,gid_map}`.
pub fn map(pid: i32, uids: &[Mapping], gids: &[Mapping]) -> io::Result<()> {
    let line = |m: &Mapping| format!("{} {} {}\n", m.inside, m.outside, m.size);
    let text = |mappings: &[Mapping]| mappings.iter().map(line).collect::<Vec<_>>().concat();
    fs::write(of(pid, "uid_map"), text(uids))?;
    fs::write(of(pid, "gid_map"), text(gids))
}

/// The user namespace of a child.
///
/// # Errors
/// Opening `/proc/<pid>/ns/user`.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    Ok(File::open(of(pid, "ns/user"))?.into())
}

fn of(pid: i32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}
