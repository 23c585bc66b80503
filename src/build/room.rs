//! Whether this machine has room for a build: refused early and in plain words, instead of halfway by the kernel.
#![forbid(unsafe_code)]

use super::environment::Settings;
use crate::domain::limits::BUILD_NEEDS;
use crate::dyno::instances;
use crate::dyno::share::{self, Share};
use crate::sys::memory::Memory;
use std::io;
use std::path::Path;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    #[error(
        "There is not enough room on the disk to build: {free} MB are free below {place}, {needed} MB are needed. Remove something there and try again."
    )]
    Disk { place: String, free: u64, needed: u64 },
    #[error(
        "There is not enough memory to build: {available} MB are available, {needed} MB are needed. Scale something down or try again later."
    )]
    Memory { available: u64, needed: u64 },
    #[error(
        "There is not enough memory to build: of the {most} MB that apps and builds may use together, {left} MB are left, {needed} MB are needed. Scale something down or try again later."
    )]
    Share { most: u64, left: u64, needed: u64 },
    #[error("can't find out how much room there is")]
    Io(#[from] io::Error),
}

/// Checks before a build of a source archive with `archive` bytes.
///
/// # Errors
/// A sentence that says what is short and what to do.
pub fn check(settings: &Settings, archive: u64) -> Result<(), RoomError> {
    let root = &settings.root;
    let free = free_disk(root)?;
    // The tree, what is compiled and the slug; sources mostly pack to a quarter.
    let needed = (settings.reserve_mb + 64) * MIB + archive.saturating_mul(4);
    if free < needed {
        return Err(RoomError::Disk { place: root.display().to_string(), free: free / MIB, needed: needed / MIB });
    }
    check_memory(
        settings,
        Memory::of_this_machine()?,
        instances::find(root).ok().flatten().and_then(|here| share::of(&here)),
    )
}

/// Of the machine, and of what apps and builds may have of it.
fn check_memory(settings: &Settings, machine: Memory, share: Option<Share>) -> Result<(), RoomError> {
    let needed = BUILD_NEEDS.min(settings.memory_mb * MIB);
    let in_mb = |bytes: u64| bytes / MIB;
    if machine.available < needed {
        return Err(RoomError::Memory { available: in_mb(machine.available), needed: in_mb(needed) });
    }
    match share {
        Some(share) if share.left() < needed => {
            Err(RoomError::Share { most: in_mb(share.most), left: in_mb(share.left()), needed: in_mb(needed) })
        }
        _ => Ok(()),
    }
}

/// Bytes free for use on the file system of `place`.
///
/// # Errors
/// When it can't be asked.
pub fn free_disk(place: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(place)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_cannot_fit_is_refused_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().to_owned(), "localhost".into(), 80);
        assert!(check(&settings, 1).is_ok());
        let error = check(&settings, 1 << 60).unwrap_err().to_string();
        assert!(error.contains("not enough room on the disk") && error.contains("MB are needed"), "{error}");
    }

    #[test]
    fn memory_is_asked_of_the_machine_and_of_what_apps_may_have() {
        let settings = Settings::new("/".into(), "localhost".into(), 80);
        let machine = |available: u64| Memory { total: 512 * MIB, available: available * MIB };
        let share = |used: u64| Some(Share { most: 384 * MIB, used: used * MIB });
        assert!(check_memory(&settings, machine(200), None).is_ok());
        assert!(check_memory(&settings, machine(200), share(190)).is_ok());
        let short = check_memory(&settings, machine(191), share(0)).unwrap_err().to_string();
        assert!(short.contains("191 MB are available, 192 MB are needed"), "{short}");
        let short = check_memory(&settings, machine(400), share(200)).unwrap_err().to_string();
        assert!(short.contains("of the 384 MB") && short.contains("184 MB are left, 192 MB are needed"), "{short}");
        let frugal = Settings { memory_mb: 128, ..settings };
        assert!(check_memory(&frugal, machine(191), share(200)).is_ok());
    }
}
