//! User namespaces, made ahead of whoever is to live in them.

use super::process::{self, Fork, SingleThreaded};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// How many user namespaces there may be in the one of whoever opens it.
const MAX_INSIDE: &str = "/proc/sys/user/max_user_namespaces";

/// Ids `inside..inside + size` are `outside..` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// Whether further user namespaces can be made in a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    Allowed,
    /// Not even by who has every right in there: ENOSPC.
    Forbidden,
}

/// A new user namespace with these mappings, for users and groups alike. Nothing is in it; the descriptor keeps it.
///
/// # Errors
/// `clone3(2)`: EPERM or ENOSPC when it is not to be had; writing to `/proc/<pid>/{uid_map,gid_map}` and to the limit.
pub fn make(single: &SingleThreaded, mappings: &[Mapping], nesting: Nesting) -> io::Result<OwnedFd> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let child = match process::clone3(single, libc::CLONE_NEWUSER, None)? {
        Fork::Child => {
            drop(ours);
            let limited = if nesting == Nesting::Forbidden { fs::write(MAX_INSIDE, "0") } else { Ok(()) };
            stay_until_told(theirs, limited)
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let made = (|| {
        let line = |m: &Mapping| format!("{} {} {}\n", m.inside, m.outside, m.size);
        let text = mappings.iter().map(line).collect::<Vec<_>>().concat();
        fs::write(of(child.pid, "uid_map"), &text)?;
        fs::write(of(child.pid, "gid_map"), &text)?;
        let namespace = File::open(of(child.pid, "ns/user"))?.into();
        let mut errno = [0; 4];
        ours.read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(namespace),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    })();
    drop(ours);
    // Where children vanish by themselves there is nothing left to reap.
    let _ = process::wait(child.pidfd.as_fd());
    made
}

/// In the child: mappings are written from outside, and only while a process is inside.
fn stay_until_told(mut parent: UnixStream, limited: io::Result<()>) -> ! {
    let errno = limited.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
    // Also when the parent is gone, this ends.
    let _ = parent.write_all(&errno.to_ne_bytes());
    let _ = parent.read(&mut [0; 1]);
    process::exit_now(0)
}

/// Makes the calling process, which must have one thread, a member of the namespace, with every capability in there and
/// none outside.
///
/// # Errors
/// `setns(2)`.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?)
}

fn of(pid: i32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}
