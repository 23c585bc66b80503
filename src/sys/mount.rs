//! Mounts that are made detached and put in place by descriptor: no name inside a root is ever trusted, and nothing is
//! left behind when the maker dies half way.

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a mount forbids.
#[expect(clippy::struct_excessive_bools, reason = "they are the kernel's flags, each independent of the others")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
}

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags
    }
}

/// A new file system, attached nowhere. Options without a value have `None`.
///
/// # Errors
/// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`; with what the kernel said about it, when it said something.
pub fn make(kind: &str, options: &[(&str, Option<&str>)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let made = (|| {
        for (key, value) in options {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value)?,
                None => rustix::mount::fsconfig_set_flag(&context, *key)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())
    })();
    made.map_err(|errno| {
        let mut said = [0; 512];
        match rustix::io::read(&context, &mut said) {
            Ok(length) if length > 2 => {
                let said = String::from_utf8_lossy(&said[2..length]).trim().to_owned();
                io::Error::new(io::Error::from(errno).kind(), format!("{} ({said})", io::Error::from(errno)))
            }
            _ => errno.into(),
        }
    })
}

/// A copy of the mount at `path` (with those below it, if `recursive`), attached nowhere.
///
/// # Errors
/// `open_tree(2)`.
pub fn copy(at: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(at, path, flags)?)
}

/// Adds attributes to a detached mount, and shows its owners through the id mappings of a user namespace.
///
/// # Errors
/// `mount_setattr(2)`: EINVAL when the file system can't be id-mapped.
pub fn restrict(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    mapping: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut flags = u64::from(attributes.flags().bits());
    if mapping.is_some() {
        flags |= libc::MOUNT_ATTR_IDMAP;
    }
    let arguments = libc::mount_attr {
        attr_set: flags,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: mapping.map_or(0, |fd| fd.as_raw_fd().cast_unsigned().into()),
    };
    let how = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = c"";
    // SAFETY: the path and the arguments live across the call, and the size given is theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            how,
            &raw const arguments,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a detached mount where `target` is open.
///
/// # Errors
/// `move_mount(2)`.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Cuts this namespace's mounts off from the one it was copied from.
///
/// # Errors
/// `mount(2)`.
pub fn make_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes the open directory the root and lets go of all that was mounted before.
///
/// # Errors
/// `fchdir(2)`, `pivot_root(2)`, `umount2(2)`.
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // The old root is stacked on the new one and taken off from above: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    // Whatever is still stacked on the new root would be entered by "..".
    let (root, above) = (rustix::fs::stat("/")?, rustix::fs::stat("/..")?);
    if (root.st_dev, root.st_ino) == (above.st_dev, above.st_ino) {
        Ok(())
    } else {
        Err(io::Error::other("something of the old root is still there"))
    }
}
