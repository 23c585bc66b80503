//! Giving up root for good.
#![forbid(unsafe_code)]

use caps::CapSet;
use nix::unistd::{Gid, Uid};
use std::io;

/// Turns this process into one of the unprivileged `id` (uid and gid), without groups, without a capability in any set,
/// and unable to gain any by an exec. Call it before any thread exists.
///
/// # Errors
/// That of the step that failed; the process is then neither the old nor the new one and must end.
pub fn become_user(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    // The bounding set first: changing it takes the very capabilities that the change of uid removes.
    caps::clear(None, CapSet::Bounding).map_err(io::Error::other)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
