//! Trying what the kernel allows, in children that are gone when the answer is there. Leaves nothing on the host.
#![expect(clippy::missing_errors_doc, reason = "errors are the kernel's answers to what is tried")]

use super::mount::{Attributes, copy, restrict};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkdir;
use rustix::fs::{CWD, rename, rmdir};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A user namespace in which 0 to `size` − 1 are `first` and on; it lives as long as the descriptor.
pub fn user_namespace(first: u32, size: u32) -> io::Result<OwnedFd> {
    let mut holder = Command::new("cat");
    holder.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: runs in the forked child and makes one system call.
    unsafe { holder.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWUSER)?)) };
    let mut holder = holder.spawn()?;
    let proc = Path::new("/proc").join(holder.id().to_string());
    let map = format!("0 {first} {size}");
    let mapped = fs::write(proc.join("uid_map"), &map).and_then(|()| fs::write(proc.join("gid_map"), &map));
    let namespace = mapped.and_then(|()| File::open(proc.join("ns/user")));
    // The end of its input ends it.
    drop(holder.stdin.take());
    holder.wait()?;
    Ok(namespace?.into())
}

/// Id-maps a detached copy of the mount that `path` is on.
pub fn idmap(path: &Path, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let mount = copy(CWD, path, false)?;
    restrict(mount.as_fd(), Attributes::default(), Some(user_namespace), false)
}

/// Mounts an overlay on a tmpfs, as a dyno's file system is, and replaces and renames directories of its lower layer: of
/// both the kernel must keep a note in the writable one.
pub fn overlay() -> io::Result<()> {
    let mut child = Command::new("true");
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let play = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_overlay()?;
        rmdir(c"/tmp/merged/replaced")?;
        mkdir(c"/tmp/merged/replaced", Mode::S_IRWXU)?;
        rename(c"/tmp/merged/renamed", c"/tmp/merged/other")?;
        Ok(())
    };
    // SAFETY: runs in the forked child and makes system calls only: the strings are short enough to need no heap, and
    // the C library keeps its heap usable after a fork in any case.
    unsafe { child.pre_exec(play) };
    child.status().map(drop)
}

fn mount_overlay() -> nix::Result<()> {
    const NONE: Option<&std::ffi::CStr> = None;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), MsFlags::empty(), NONE)?;
    let below = [c"/tmp/lower/replaced", c"/tmp/lower/renamed"];
    for dir in [c"/tmp/lower", c"/tmp/upper", c"/tmp/work", c"/tmp/merged"].into_iter().chain(below) {
        mkdir(dir, Mode::S_IRWXU)?;
    }
    let options = c"redirect_dir=on,volatile,lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    mount(Some(c"overlay"), c"/tmp/merged", Some(c"overlay"), MsFlags::empty(), Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> String {
        fs::read_to_string("/proc/self/mountinfo").unwrap()
    }

    #[test]
    fn trials_succeed_here_and_leave_nothing() {
        let before = mounts();
        let namespace = user_namespace(0x1000_0000, 65536).unwrap();
        idmap(Path::new("/usr"), namespace.as_fd()).unwrap();
        overlay().unwrap();
        assert_eq!(mounts(), before);
    }

    #[test]
    fn a_file_system_that_cannot_be_id_mapped_is_an_error() {
        let namespace = user_namespace(0x1000_0000, 65536).unwrap();
        let error = idmap(Path::new("/proc"), namespace.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn an_impossible_mapping_is_an_error() {
        user_namespace(u32::MAX, 2).unwrap_err();
    }
}
