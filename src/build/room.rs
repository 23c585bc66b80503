//! Whether this machine has room for a build: refused early and in plain words, instead of halfway by the kernel.
#![forbid(unsafe_code)]

use super::environment::Settings;
use std::io;
use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// Less memory than this and even small builds push others out.
const LEAST_MEMORY: u64 = 192 * MIB;

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
    match available_memory()? {
        Some(available) if available < LEAST_MEMORY => {
            Err(RoomError::Memory { available: available / MIB, needed: LEAST_MEMORY / MIB })
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

fn available_memory() -> io::Result<Option<u64>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map(|kib| kib * 1024))
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
}
