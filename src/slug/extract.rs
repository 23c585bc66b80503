//! Making the files of an archive below `/`, which is the destination: the caller has changed its root.
//!
//! ```text
//!  decompress + read headers ──▶ directories, large files
//!            │ batches of small files
//!            └──▶ writers ──▶ files            then: hard links, and symbolic links last of all
//! ```
//!
//! A path is judged by what the archive itself has said so far, kept in memory, so several threads can write without
//! asking the file system what they may write over. No symbolic link exists while files are written, which is why
//! nothing can be written through one.
#![forbid(unsafe_code)]

use super::archive::{Bounds, Entry, Kind, TarReader, decompress};
use super::refusal::{Name, Refusal};
use super::unpack::{Failure, Links, Order, Strip};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, mkdirat, openat, symlinkat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Files above this are written straight from the stream.
const SMALL_FILE: u64 = 256 << 10;
const BATCH_BYTES: usize = 512 << 10;
const BATCH_FILES: usize = 128;
/// Batches that wait for a writer: bounds the memory.
const BATCHES: usize = 8;
/// The kernel's own bounds (`PATH_MAX`, `NAME_MAX`), and one on nesting so that removing a tree stays cheap.
pub(super) const LONGEST_PATH: usize = 4000;
const LONGEST_NAME: usize = 255;
const DEEPEST: usize = 200;

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File,
    Link,
}

#[derive(Default)]
struct Batch {
    contents: Vec<u8>,
    files: Vec<SmallFile>,
}

struct SmallFile {
    path: Vec<u8>,
    executable: bool,
    size: usize,
}

struct Extraction<'a> {
    order: &'a Order,
    /// What the archive has said so far.
    nodes: HashMap<Vec<u8>, Node>,
    symlinks: Vec<(Vec<u8>, Vec<u8>)>,
    hard_links: Vec<(Vec<u8>, Vec<u8>)>,
    batch: Batch,
    made: Made,
}

/// Unpacks `input` into the root directory, with `writers` threads beside this one.
pub(super) fn extract(input: impl Read, order: &Order, writers: usize) -> Result<Made, Failure> {
    // Headers and padding count as well, so that an archive of empty files has an end, too.
    let bytes = order.bytes + 2048 * order.files + (1 << 20);
    let tar = TarReader::new(decompress(input, Bounds { bytes, ratio: order.ratio })?);
    let mut extraction = Extraction {
        order,
        nodes: HashMap::new(),
        symlinks: Vec::new(),
        hard_links: Vec::new(),
        batch: Batch::default(),
        made: Made::default(),
    };
    extraction.write_files(tar, writers)?;
    extraction.link()?;
    extraction.strip()?;
    Ok(extraction.made)
}

impl Extraction<'_> {
    fn write_files(&mut self, mut tar: TarReader<impl Read>, writers: usize) -> Result<(), Failure> {
        let (sender, receiver) = sync_channel(BATCHES);
        let receiver = Mutex::new(receiver);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| write_batches(&receiver, &failed));
            }
            let sender = sender;
            while let Some(entry) = tar.next()? {
                self.entry(entry, &mut tar, &sender)?;
                if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    return Ok(());
                }
            }
            tar.finish()?;
            self.send(&sender);
            Ok::<(), Failure>(())
        })?;
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn entry(&mut self, entry: Entry, tar: &mut TarReader<impl Read>, to: &SyncSender<Batch>) -> Result<(), Failure> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            // `./`, the tree itself.
            return if entry.kind == Kind::Dir { Ok(()) } else { Err(Refusal::NoName(Name::new(&entry.path)).into()) };
        }
        self.made.files += 1;
        if self.made.files > self.order.files {
            return Err(Refusal::TooManyFiles(self.order.files).into());
        }
        self.make_parents(&path)?;
        match entry.kind {
            Kind::Dir => self.make_dir(&path),
            Kind::File { size, executable } => self.file(path, size, executable, tar, to),
            Kind::Symlink { target } => {
                self.claim(&path, Node::Link)?;
                self.symlinks.push((path, target));
                Ok(())
            }
            Kind::HardLink { target } => {
                let to = clean(&target).ok().filter(|to| self.nodes.get(to) == Some(&Node::File));
                let refused = || Refusal::HardLink { path: Name::new(&path), target: Name::new(&target) };
                let to = to.ok_or_else(refused)?;
                self.claim(&path, Node::File)?;
                self.hard_links.push((path, to));
                Ok(())
            }
        }
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), Failure> {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for parent in slashes.map(|at| &path[..at]) {
            match self.nodes.get(parent) {
                Some(Node::Dir) => {}
                Some(_) => {
                    return Err(Refusal::NotADirectory { path: Name::new(path), parent: Name::new(parent) }.into());
                }
                None => self.make_dir(parent)?,
            }
        }
        Ok(())
    }

    /// A directory may be named again, as when archives are put one after the other.
    fn make_dir(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.nodes.get(path) == Some(&Node::Dir) {
            return Ok(());
        }
        self.claim(path, Node::Dir)?;
        mkdirat(CWD, path, Mode::from_raw_mode(0o755)).map_err(Failure::at("make the directory", path))
    }

    fn claim(&mut self, path: &[u8], node: Node) -> Result<(), Refusal> {
        match self.nodes.insert(path.to_owned(), node) {
            None => Ok(()),
            Some(_) => Err(Refusal::Twice(Name::new(path))),
        }
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        size: u64,
        executable: bool,
        tar: &mut TarReader<impl Read>,
        to: &SyncSender<Batch>,
    ) -> Result<(), Failure> {
        self.claim(&path, Node::File)?;
        self.made.bytes += size;
        if self.made.bytes > self.order.bytes {
            return Err(Refusal::TooLarge(self.order.bytes / 1_000_000).into());
        }
        if size > SMALL_FILE {
            return write_large(&path, size, executable, tar);
        }
        tar.read_contents(size, &mut self.batch.contents)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.batch.files.push(SmallFile { path, executable, size });
        if self.batch.files.len() >= BATCH_FILES || self.batch.contents.len() >= BATCH_BYTES {
            self.send(to);
        }
        Ok(())
    }

    fn send(&mut self, to: &SyncSender<Batch>) {
        // Writers go on taking batches after one of them has failed, so somebody is there as long as we are.
        let next = Batch { contents: Vec::with_capacity(BATCH_BYTES), files: Vec::new() };
        let _ = to.send(std::mem::replace(&mut self.batch, next));
    }

    fn link(&self) -> Result<(), Failure> {
        for (path, target) in &self.hard_links {
            linkat(CWD, &**target, CWD, &**path, AtFlags::empty()).map_err(Failure::at("make the link", path))?;
        }
        let stripped = self.single_root().map_or(0, |root| root.len() + 1);
        for (path, target) in &self.symlinks {
            if self.order.links == Links::Inside && !stays_inside(&path[stripped.min(path.len())..], target) {
                return Err(Refusal::LinkLeaves { path: Name::new(path), target: Name::new(target) }.into());
            }
            symlinkat(&**target, CWD, &**path).map_err(Failure::at("make the link", path))?;
        }
        Ok(())
    }

    /// The one top-level directory that is to be taken away, if that is asked for and it is the only thing there.
    fn single_root(&self) -> Option<&[u8]> {
        let mut top = self.nodes.iter().filter(|(path, _)| !path.contains(&b'/'));
        let (name, node) = top.next()?;
        let wanted = match &self.order.strip {
            Strip::No => false,
            Strip::Any => true,
            Strip::Named(wanted) => wanted.as_bytes() == name,
        };
        (wanted && *node == Node::Dir && top.next().is_none()).then_some(name.as_slice())
    }

    fn strip(&self) -> Result<(), Failure> {
        let Some(root) = self.single_root() else { return Ok(()) };
        // A name that no child can have while it is moved up: children are in the archive, and this is not.
        let mut aside = b"hokku-".to_vec();
        while self.nodes.contains_key(&[root, b"/", &*aside].concat()) {
            aside.push(b'-');
        }
        let aside = Path::new(OsStr::from_bytes(&aside)).to_owned();
        let move_up = || {
            fs::rename(OsStr::from_bytes(root), &aside)?;
            for child in fs::read_dir(&aside)? {
                let child = child?;
                fs::rename(child.path(), child.file_name())?;
            }
            fs::remove_dir(&aside)
        };
        move_up().map_err(Failure::at("move up what is in", root))
    }
}

/// The path within the tree, without `.` and doubled slashes.
fn clean(path: &[u8]) -> Result<Vec<u8>, Refusal> {
    let name = || Name::new(path);
    if path.starts_with(b"/") {
        return Err(Refusal::Absolute(name()));
    }
    if path.is_empty() || path.contains(&0) {
        return Err(Refusal::NoName(name()));
    }
    let mut clean = Vec::with_capacity(path.len());
    let mut depth = 0;
    for part in path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return Err(Refusal::Climbs(name()));
        }
        depth += 1;
        if part.len() > LONGEST_NAME || clean.len() + part.len() > LONGEST_PATH || depth > DEEPEST {
            return Err(Refusal::LongName(name()));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    Ok(clean)
}

/// Where a symbolic link of an app may lead: within the app, by a relative path or by where it is in a dyno, or to what
/// every dyno has and nobody keeps a secret in (a virtualenv's `python` is such a link, a log file that is `/dev/stdout`
/// another).
const OUTSIDE: [&str; 9] = ["/app", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/tmp", "/proc/self/fd"];

fn stays_inside(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.len() > LONGEST_PATH || target.contains(&0) {
        return false;
    }
    if target.starts_with(b"/") {
        let normal = normal(target);
        return OUTSIDE.iter().any(|allowed| normal.starts_with(allowed));
    }
    let mut depth = path.split(|b| *b == b'/').count() - 1;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

fn normal(absolute: &[u8]) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in absolute.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(normal.pop()),
            part => normal.push(OsStr::from_bytes(part)),
        }
    }
    normal
}

fn write_batches(batches: &Mutex<Receiver<Batch>>, failed: &Mutex<Option<Failure>>) {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return };
        if let Err(failure) = write_batch(&batch) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }
}

fn write_batch(batch: &Batch) -> Result<(), Failure> {
    let mut rest = &*batch.contents;
    for small in &batch.files {
        let (contents, after) = rest.split_at(small.size);
        rest = after;
        let mut file = create(&small.path, small.executable)?;
        file.write_all(contents).map_err(Failure::at("write", &small.path))?;
    }
    Ok(())
}

fn write_large(path: &[u8], size: u64, executable: bool, tar: &mut TarReader<impl Read>) -> Result<(), Failure> {
    let mut file = create(path, executable)?;
    let mut buffer = Vec::new();
    let mut rest = size;
    while rest > 0 {
        let part = rest.min(SMALL_FILE);
        buffer.clear();
        tar.read_contents(part, &mut buffer)?;
        file.write_all(&buffer).map_err(Failure::at("write", path))?;
        rest -= part;
    }
    Ok(())
}

/// Only whether a file may be executed is taken over from its mode: no set-uid, nothing unreadable.
fn create(path: &[u8], executable: bool) -> Result<File, Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    openat(CWD, path, flags, mode).map(File::from).map_err(Failure::at("make the file", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_may_lead_within_the_app_and_to_what_every_dyno_has() {
        for (path, target) in [
            ("a", "b"),
            ("a/b", "../c"),
            ("a/b/c", "../../d"),
            ("a", "/app/x"),
            ("bin/python", "/usr/bin/python3"),
            ("log", "/dev/stdout"),
        ] {
            assert!(stays_inside(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", ".."),
            ("a", "../etc/passwd"),
            ("a/b", "../../x"),
            ("a/b", "c/../../../x"),
            ("a", "/etc/passwd"),
            ("a", "/"),
            ("a", "/app/../etc/passwd"),
            ("a", "/application"),
            ("a", "/usr/../root"),
            ("a", "/proc/self/root"),
            ("a", ""),
        ] {
            assert!(!stays_inside(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_path_has_only_plain_parts(path in "[a./]{0,12}") {
            if let Ok(clean) = clean(path.as_bytes()) {
                let clean = String::from_utf8(clean).unwrap();
                prop_assert!(!clean.starts_with('/'));
                prop_assert!(clean.is_empty() || clean.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
