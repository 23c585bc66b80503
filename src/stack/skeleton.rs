//! A small tree of files, first in memory, then on disk under the digest of what is in it.
#![forbid(unsafe_code)]

use super::{StackError, io_error};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Dir { mode: u32 },
    File { contents: Vec<u8>, executable: bool },
    Link { target: PathBuf },
}

/// Sorted, so that a directory comes before what is in it and the digest does not depend on the order of making.
#[derive(Debug, Default)]
pub(super) struct Skeleton(BTreeMap<PathBuf, Node>);

impl Skeleton {
    pub(super) fn dir(&mut self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), Node::Dir { mode: 0o755 });
    }

    /// One that everybody may write into, like `/tmp`.
    pub(super) fn shared_dir(&mut self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), Node::Dir { mode: 0o1777 });
    }

    pub(super) fn file(&mut self, path: impl AsRef<Path>, contents: impl Into<Vec<u8>>) {
        self.put(path.as_ref(), Node::File { contents: contents.into(), executable: false });
    }

    pub(super) fn executable(&mut self, path: impl AsRef<Path>, contents: Vec<u8>) {
        self.put(path.as_ref(), Node::File { contents, executable: true });
    }

    pub(super) fn link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.put(path.as_ref(), Node::Link { target: target.into() });
    }

    fn put(&mut self, path: &Path, node: Node) {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.0.entry(parent.to_owned()).or_insert(Node::Dir { mode: 0o755 });
        }
        self.0.insert(path.to_owned(), node);
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, node) in &self.0 {
            field(path.as_os_str().as_bytes());
            match node {
                Node::Dir { mode } => field(format!("dir {mode:o}").as_bytes()),
                Node::File { contents, executable } => {
                    field(if *executable { b"program" } else { b"file" });
                    field(contents);
                }
                Node::Link { target } => {
                    field(b"link");
                    field(target.as_os_str().as_bytes());
                }
            }
        }
        hex::encode(hash.finalize())
    }

    /// Writes the tree to `parent/<digest>` unless it is there already.
    pub(super) fn write(&self, parent: &Path) -> Result<PathBuf, StackError> {
        let place = parent.join(self.digest());
        if place.is_dir() {
            return Ok(place);
        }
        fs::create_dir_all(parent).map_err(io_error("make", parent))?;
        sweep(parent).map_err(io_error("clear half-made files in", parent))?;
        let made = tempfile_in(parent);
        self.write_into(&made)?;
        // The name promises the contents, so they have to be on the disk before it is given.
        let synced = fs::File::open(&made).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
        synced.map_err(io_error("write to disk", &made))?;
        match fs::rename(&made, &place) {
            Err(e) if !place.is_dir() => Err(io_error("put in place", &place)(e)),
            // Somebody else was faster with the same contents.
            Err(_) => fs::remove_dir_all(&made).map(|()| place).map_err(io_error("remove", &made)),
            Ok(()) => Ok(place),
        }
    }

    fn write_into(&self, dir: &Path) -> Result<(), StackError> {
        make_dir(dir, 0o755).map_err(io_error("make", dir))?;
        for (path, node) in &self.0 {
            let path = dir.join(path);
            match node {
                Node::Dir { mode } => make_dir(&path, *mode),
                Node::File { contents, executable } => make_file(&path, contents, *executable),
                Node::Link { target } => std::os::unix::fs::symlink(target, &path),
            }
            .map_err(io_error("make", &path))?;
        }
        Ok(())
    }
}

const HALF_MADE: &str = "tmp-";

fn tempfile_in(parent: &Path) -> PathBuf {
    parent.join(format!("{HALF_MADE}{}", uuid::Uuid::new_v4()))
}

/// Removes what a stopped server left. One server at a time owns ROOT, so nobody is still at it; within one process the
/// directory may be in the making by another thread, which is why only those of an earlier boot of it are old enough.
fn sweep(parent: &Path) -> io::Result<()> {
    const OLD: std::time::Duration = std::time::Duration::from_secs(600);
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let half_made = entry.file_name().as_bytes().starts_with(HALF_MADE.as_bytes());
        let age = entry.metadata().ok().and_then(|meta| meta.modified().ok()).and_then(|at| at.elapsed().ok());
        if half_made && age.is_some_and(|age| age > OLD) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The mode is set by itself afterwards because the process's umask takes away from the one given at creation.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn make_file(path: &Path, contents: &[u8], executable: bool) -> io::Result<()> {
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}
