//! Capabilities: dropped, never raised.

use caps::CapSet;
use std::io;

/// More than the kernel knows: those that it doesn't are refused.
const HIGHEST: libc::c_ulong = 63;

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const VERSION: u32 = 0x2008_0522;

/// Empties the bounding set, so that no program started later can get one: also of those that are newer than this
/// program. Needs `CAP_SETPCAP`.
///
/// # Errors
/// `prctl(2)`.
pub fn drop_bounding() -> io::Result<()> {
    for capability in 0..=HIGHEST {
        // SAFETY: a number, which the kernel checks.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first one that does not exist.
            return if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Empties all other sets.
///
/// # Errors
/// `capset(2)`, `prctl(2)`.
pub fn drop_all() -> io::Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    // One call for all three; through the library it is two for each, with sets that have to be allocated.
    let (header, none) = ([VERSION, 0], [[0u32; 3]; 2]);
    // SAFETY: header and data have the shape of capset(2)'s structures for this version and live across the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
