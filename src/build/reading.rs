//! Reading small text files from directories that strangers' code wrote into.
#![forbid(unsafe_code)]

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Bytes; nobody writes a Procfile, an app.json or a `bin/release` longer than this.
pub(super) const TEXT_LIMIT: u64 = 256 * 1024;

/// A small text file below `dir`, or `None` when there is none. No way leads out of `dir`, and no device, pipe or
/// endless file is read.
pub(super) fn text_below(dir: &Path, name: &str, resolve: ResolveFlags) -> io::Result<Option<String>> {
    let dir = openat(CWD, dir, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat2(&dir, name, flags, Mode::empty(), ResolveFlags::BENEATH | resolve) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    if rustix::fs::FileType::from_raw_mode(fstat(&file)?.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = String::new();
    let read = File::from(file).take(TEXT_LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > TEXT_LIMIT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(text)) }
}
