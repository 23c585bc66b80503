//! Packing a tree: the same tree gives the same bytes, whoever made it and when.
//!
//! Names are sorted, owner and times are constant, of a mode only the right to execute is kept. The tree is what a build
//! has left, so nothing in it is trusted: it is walked by descriptors, and no link is ever followed. Sockets, pipes and
//! devices are left out; hard links become files of their own.
#![forbid(unsafe_code)]

use super::extract::LONGEST_PATH;
use super::{Limits, Name, SlugError};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Uid and gid of the app's files; inside a dyno that is `dyno`.
const OWNER: u64 = 1000;
const COPY_BUFFER: usize = 256 << 10;

/// What went into an archive.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// Things that an archive cannot hold.
    pub(super) skipped: u64,
}

struct Packer<W> {
    out: W,
    limits: Limits,
    totals: Totals,
    buffer: Vec<u8>,
    /// Of what is being packed, from the tree's top.
    path: Vec<u8>,
    depth: usize,
}

/// Writes `tree` as tar to `out`.
pub(super) fn pack(tree: &Path, out: impl Write, limits: Limits) -> Result<Totals, SlugError> {
    let mut packer = Packer::new(out, limits);
    packer.tree(tree)?;
    packer.finish()
}

/// Writes several trees as one tar to `out`, each below its name.
pub(super) fn pack_several(trees: &[(&str, &Path)], out: impl Write, limits: Limits) -> Result<Totals, SlugError> {
    let mut packer = Packer::new(out, limits);
    for (name, tree) in trees {
        packer.path = [name.as_bytes(), b"/"].concat();
        packer.header(EntryType::Directory, 0, 0o755, b"")?;
        packer.path.pop();
        packer.tree(tree)?;
    }
    packer.finish()
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Not waiting matters where a pipe has been put in the place of a file.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl<W: Write> Packer<W> {
    fn new(out: W, limits: Limits) -> Self {
        let totals = Totals::default();
        Self { out, limits, totals, buffer: vec![0; COPY_BUFFER], path: Vec::new(), depth: 0 }
    }

    fn tree(&mut self, tree: &Path) -> Result<(), SlugError> {
        let root = openat(CWD, tree, DIRECTORY, Mode::empty()).map_err(SlugError::io("open", tree))?;
        self.directory(&root)
    }

    fn finish(mut self) -> Result<Totals, SlugError> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(|e| self.failed("write the archive at", e))?;
        Ok(self.totals)
    }

    fn directory(&mut self, dir: &OwnedFd) -> Result<(), SlugError> {
        let mut names = self.list(dir)?;
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (name, kind) in names {
            let before = self.path.len();
            if before > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(dir.as_fd(), &name, kind)?;
            self.path.truncate(before);
        }
        Ok(())
    }

    fn list(&self, dir: &OwnedFd) -> Result<Vec<(CString, FileType)>, SlugError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(|e| self.failed("list", e))? {
            let entry = entry.map_err(|e| self.failed("list", e))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(names)
    }

    fn entry(&mut self, dir: BorrowedFd, name: &CStr, kind: FileType) -> Result<(), SlugError> {
        let kind = match kind {
            FileType::Unknown => {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed("look at", e))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::Directory => self.subdirectory(dir, name),
            FileType::RegularFile => self.file(dir, name),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(|e| self.failed("read the link", e))?;
                self.header(EntryType::Symlink, 0, 0o777, target.as_bytes())
            }
            _ => {
                self.totals.skipped += 1;
                Ok(())
            }
        }
    }

    fn subdirectory(&mut self, dir: BorrowedFd, name: &CStr) -> Result<(), SlugError> {
        if self.depth == self.limits.depth {
            return Err(SlugError::TooDeep { path: self.shown(), limit: self.limits.depth });
        }
        let child = openat(dir, name, DIRECTORY, Mode::empty()).map_err(|e| self.failed("open", e))?;
        self.path.push(b'/');
        self.header(EntryType::Directory, 0, 0o755, b"")?;
        self.path.pop();
        self.depth += 1;
        self.directory(&child)?;
        self.depth -= 1;
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd, name: &CStr) -> Result<(), SlugError> {
        let file = File::from(openat(dir, name, FILE, Mode::empty()).map_err(|e| self.failed("open", e))?);
        let stat = fstat(&file).map_err(|e| self.failed("look at", e))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.totals.bytes += size;
        if self.totals.bytes > self.limits.bytes {
            return Err(SlugError::TooLarge { limit: self.limits.bytes });
        }
        let mode = if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 };
        self.header(EntryType::Regular, size, mode, b"")?;
        self.contents(file, size)
    }

    fn contents(&mut self, mut file: File, size: u64) -> Result<(), SlugError> {
        let mut rest = size;
        while rest > 0 {
            let room = usize::try_from(rest).unwrap_or(usize::MAX).min(COPY_BUFFER);
            let read = match file.read(&mut self.buffer[..room]) {
                // Somebody is still writing to the tree.
                Ok(0) => return Err(self.failed("read", io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(read) => read,
                Err(e) => return Err(self.failed("read", e)),
            };
            let written = self.out.write_all(&self.buffer[..read]);
            written.map_err(|e| self.failed("write the archive at", e))?;
            rest -= read as u64;
        }
        self.pad(size)
    }

    fn header(&mut self, kind: EntryType, size: u64, mode: u32, target: &[u8]) -> Result<(), SlugError> {
        if self.path.len() > LONGEST_PATH {
            return Err(SlugError::TooLong { start: Name::new(&self.path[..100]), limit: LONGEST_PATH });
        }
        self.totals.files += 1;
        if self.totals.files > self.limits.files {
            return Err(SlugError::TooManyFiles { limit: self.limits.files });
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(OWNER);
        header.set_gid(OWNER);
        header.set_mtime(0);
        let path = std::mem::take(&mut self.path);
        self.long_name(EntryType::GNULongName, &path, header.as_old().name.len())?;
        self.long_name(EntryType::GNULongLink, target, header.as_old().linkname.len())?;
        put(&mut header.as_old_mut().name, &path);
        put(&mut header.as_old_mut().linkname, target);
        self.path = path;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// GNU's way for names that do not fit: an entry before, whose contents are the name and a zero.
    fn long_name(&mut self, kind: EntryType, name: &[u8], room: usize) -> Result<(), SlugError> {
        if name.len() <= room {
            return Ok(());
        }
        let size = name.len() as u64 + 1;
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        put(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(name)?;
        self.write(&[0])?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), SlugError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.write(&[0; BLOCK][over..]) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SlugError> {
        let written = self.out.write_all(bytes);
        written.map_err(|e| self.failed("write the archive at", e))
    }

    fn failed(&self, doing: &'static str, e: impl Into<io::Error>) -> SlugError {
        SlugError::Io { doing, path: self.shown(), source: e.into() }
    }

    fn shown(&self) -> PathBuf {
        OsStr::from_bytes(&self.path).into()
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let fits = bytes.len().min(field.len());
    field[..fits].copy_from_slice(&bytes[..fits]);
}
