//! The files of control groups: read, written, and read back.

use super::CgroupError;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })
}

pub(super) fn put(path: &Path, value: &str) -> Result<(), CgroupError> {
    write(path, value).map_err(|source| CgroupError::Write { path: path.into(), value: value.into(), source })
}

/// Unlike [`fs::write`], says that a file is missing instead of failing to create it.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn kept(path: &Path, wanted: &str) -> Result<(), CgroupError> {
    let found = read(path)?.trim().to_owned();
    if found == wanted {
        return Ok(());
    }
    Err(CgroupError::NotKept { path: path.into(), wanted: wanted.into(), found })
}

pub(super) fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The value of `name` in a flat keyed file: one `name value` a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A group that is gone (ENOENT, or ENODEV on a file of it that was open) is as good as done with.
pub(super) fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        other => other,
    }
}
