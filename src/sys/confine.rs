//! Giving up everything that a process which reads untrusted bytes does not need.

use caps::CapSet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};
use std::io;
use std::path::Path;

/// What is left to a confined process.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// Uid and gid, with no further groups.
    pub id: u32,
    /// Becomes `/`. Nothing outside can be named any more.
    pub root: &'a Path,
    pub limits: &'a [(Resource, u64)],
}

/// Confines the calling process for good: no file descriptors but 0 to 2, own empty network, `root` as its file system,
/// the resource limits, an unprivileged uid, no capability in any set and no way to get one by `execve(2)`.
///
/// The order matters: each step takes a right away that an earlier one needed.
///
/// # Errors
/// Names the step that failed; the process must end then, since it is only half confined.
pub fn confine(to: &Confinement) -> io::Result<()> {
    let step = |name: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{name}: {e}"));
    close_inherited().map_err(step("close_range"))?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWIPC)
        .map_err(io::Error::from)
        .map_err(step("unshare"))?;
    for (resource, value) in to.limits {
        limit(*resource, *value).map_err(step("setrlimit"))?;
    }
    nix::unistd::chdir(to.root).map_err(io::Error::from).map_err(step("chdir"))?;
    nix::unistd::chroot(".").map_err(io::Error::from).map_err(step("chroot"))?;
    // The bounding set can only be emptied while there is CAP_SETPCAP.
    caps::clear(None, CapSet::Bounding).map_err(|e| io::Error::other(format!("drop capabilities: {e}")))?;
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from).map_err(step("no_new_privs"))?;
    become_user(to.id).map_err(io::Error::from).map_err(step("setresuid"))?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|e| io::Error::other(format!("drop capabilities: {e}")))?;
    }
    Ok(())
}

fn close_inherited() -> io::Result<()> {
    // SAFETY: takes three numbers and no pointer. A role is confined before it has opened anything of its own, so no
    // owned descriptor is closed behind its owner's back.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn become_user(id: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

/// Lowers a limit; one that is lower already stays.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let value = value.min(hard);
    Ok(setrlimit(resource, value, value)?)
}
