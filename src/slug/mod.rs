//! Slugs: compiled apps as archives, and the trees that dynos are started from.
//!
//! ```text
//!  a build's tree ──pack──▶ slugs/<sha256>.tar.zst ──tree──▶ trees/<sha256>/app/     once per box, shared by all dynos
//!  a client's slug ─import─▶        (as above)
//!  a source tarball ─unpack_source─▶ a directory to build in
//!  an imported layer or runtime ─unpack_tree─▶ a directory ─digest_of_tree─▶ its name
//! ```
//!
//! Invariants: what has a digest for its name has exactly those contents and all of them (made under another name, and
//! renamed when complete and on the disk); nothing half-made outlives the call that made it, or, after a crash, the next
//! [`SlugStore::open`]. Archives are read by an unprivileged process of their own ([`unpack`]), never by this one, which
//! only looks at their bytes to check the digest. The files of a tree may be anything a build can make, so whoever reads
//! one from outside a dyno must not follow links in it.
#![forbid(unsafe_code)]

mod archive;
mod extract;
mod ignore;
mod layer;
mod pack;
mod refusal;
pub mod unpack;

pub use layer::{bundle, digest_of_tree};
pub use refusal::{Name, Refusal};
pub use unpack::Unpacked;

use crate::domain::slug::Digest;
use crate::sys::tree;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use unpack::{Failure, Links, Order, Report, Strip};

/// Owner of trees and sources; `dyno` inside a dyno.
const OWNER: u32 = 1000;
const ZSTD_LEVEL: i32 = 3;
/// In the name of everything that is not complete yet.
const HALF_MADE: &str = ".tmp-";
/// Unpacked to packed bytes of an archive beyond which it is a bomb. Text packs 5 to 20 times.
const RATIO: u64 = 200;

/// Bounds on a slug: what may be packed can be unpacked.
#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes: u64,
    files: u64,
    depth: usize,
}

const SLUG_LIMITS: Limits = Limits { bytes: 4 << 30, files: 500_000, depth: 190 };

/// Bounds on a source, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Of all files together, unpacked.
    pub bytes: u64,
    /// Files, directories and links.
    pub files: u64,
    /// Take away a single top-level directory, as archives of a repository have one.
    pub strip_single_root: bool,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 1 << 30, files: 300_000, strip_single_root: false }
    }
}

/// A slug that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub digest: Digest,
    /// Of the archive, in bytes.
    pub size: u64,
    /// Of its files, in bytes.
    pub unpacked: u64,
    /// Sockets, pipes and devices that were left out.
    pub skipped: u64,
}

/// Why there is no slug, tree or source.
#[derive(Debug, thiserror::Error)]
pub enum SlugError {
    #[error("could not {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no slug {0}")]
    Missing(Digest),
    #[error("the archive's checksum is {found} instead of {expected}")]
    Checksum { expected: Digest, found: Digest },
    #[error("the archive was refused: {0}")]
    Refused(Refusal),
    #[error("the archive could not be unpacked: {0}")]
    Unpack(String),
    #[error("the process that reads the archive ended with {0}")]
    Reader(ExitStatus),
    #[error("the app has more than {} MB", limit / 1_000_000)]
    TooLarge { limit: u64 },
    #[error("the app has more than {limit} files")]
    TooManyFiles { limit: u64 },
    #[error("{} lies deeper than {limit} directories", path.display())]
    TooDeep { path: PathBuf, limit: usize },
    #[error("the path {start}… has more than {limit} bytes")]
    TooLong { start: Name, limit: usize },
    #[error("the app packs to less than a {RATIO}th of its size, as only a decompression bomb does")]
    Bomb,
}

impl SlugError {
    fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: source.into() }
    }
}

/// The slugs and trees of one ROOT. Clones are handles to the same. All methods block.
#[derive(Clone, Debug)]
pub struct SlugStore {
    slugs: PathBuf,
    trees: PathBuf,
    /// The executable that has the role `unpack`.
    program: PathBuf,
    /// Held while a digest's tree is made, so that those who want it too wait for it.
    making: Arc<Mutex<HashMap<Digest, Arc<Mutex<()>>>>>,
}

impl SlugStore {
    /// Opens the store below `root` and removes what a stopped server has left half-made.
    ///
    /// # Errors
    /// Directories that cannot be made or read.
    pub fn open(root: &Path) -> io::Result<Self> {
        let (slugs, trees) = (root.join("slugs"), root.join("trees"));
        for dir in [&slugs, &trees] {
            fs::create_dir_all(dir)?;
            // Files in there belong to a uid that people of this host may have.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            sweep(dir)?;
        }
        Ok(Self::look(root))
    }

    /// The store as it is, which may be a running server's: nothing is made or removed.
    pub fn look(root: &Path) -> Self {
        let (slugs, trees) = (root.join("slugs"), root.join("trees"));
        Self { slugs, trees, program: "/proc/self/exe".into(), making: Arc::default() }
    }

    /// The same store, with another executable in the role `unpack` than this process's own.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Packs what is in the directory `tree`. The same tree gives the same digest.
    ///
    /// # Errors
    /// A tree that is beyond what may be unpacked again, a disk that is full.
    pub fn pack(&self, tree: &Path) -> Result<Packed, SlugError> {
        let made = HalfMade::new(&self.slugs, "pack");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (digest, size, totals) = write_archive(tree, &made.0, threads)?;
        if totals.bytes > archive::RATIO_FROM && totals.bytes / size.max(1) > RATIO {
            return Err(SlugError::Bomb);
        }
        let place = self.archive(&digest);
        if !place.exists() {
            let renamed = fs::rename(&made.0, &place).and_then(|()| sync(&self.slugs));
            renamed.map_err(SlugError::io("put in place", &place))?;
        }
        Ok(Packed { digest, size, unpacked: totals.bytes, skipped: totals.skipped })
    }

    /// Takes in a slug that somebody else has packed, as tar, plain or compressed by gzip or zstd, with the app's files
    /// at its top or in a directory `app` as Heroku's have them. `expected` is the sha256 of the bytes as they come, which
    /// is returned too; `most` what its files may have together, in bytes.
    ///
    /// # Errors
    /// Another checksum than expected; anything [`Refusal`] names.
    pub fn import(
        &self,
        archive: impl Read,
        expected: Option<&Digest>,
        most: u64,
    ) -> Result<(Packed, Digest), SlugError> {
        let upload = HalfMade::new(&self.slugs, "upload");
        let found = receive(archive, &upload.0).map_err(SlugError::io("write", &upload.0))?;
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(SlugError::Checksum { expected: expected.clone(), found });
        }
        let tree = HalfMade::new(&self.trees, "import");
        make_dir(&tree.0, OWNER)?;
        let mut order = slug_order(Strip::Named("app".into()), Links::Inside);
        order.bytes = order.bytes.min(most);
        self.unpack(open(&upload.0)?, &tree.0, &order)?;
        Ok((self.pack(&tree.0)?, found))
    }

    /// The directory whose `app/` is the slug: made at the first call, the same for all. Its archive's digest is
    /// checked before anything can use it (R17).
    ///
    /// # Errors
    /// No such slug, one that is damaged on the disk, a disk that is full.
    pub fn tree(&self, digest: &Digest) -> Result<PathBuf, SlugError> {
        let place = self.trees.join(digest.as_str());
        let one = self.making(digest);
        let made = {
            let _alone = one.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever removes trees that nobody uses goes by the time of the last call.
            if place.is_dir() { touch(&place) } else { self.make_tree(digest, &place) }
        };
        drop(one);
        self.made(digest);
        made.map(|()| place)
    }

    /// Unpacks a source into `dest`, which must not exist or be empty, without `.git` and what its `.slugignore` names.
    ///
    /// # Errors
    /// Anything [`Refusal`] names, a disk that is full. `dest` is then as before.
    pub fn unpack_source(&self, archive: &Path, dest: &Path, limits: UnpackLimits) -> Result<Unpacked, SlugError> {
        let made = HalfMade::beside(dest);
        let order = Order {
            id: OWNER,
            bytes: limits.bytes,
            files: limits.files,
            ratio: RATIO,
            strip: if limits.strip_single_root { Strip::Any } else { Strip::No },
            links: Links::Inside,
            prune: true,
        };
        make_dir(&made.0, OWNER)?;
        let unpacked = self.unpack(open(archive)?, &made.0, &order)?;
        fs::rename(&made.0, dest).map_err(SlugError::io("put in place", dest))?;
        Ok(unpacked)
    }

    /// Removes a slug and its tree. No dyno may be using it.
    ///
    /// # Errors
    /// Files that cannot be removed; to be tried again.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        let one = self.making(digest);
        let _alone = one.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(self.archive(digest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.take_tree_away(digest)
    }

    /// Whether the slug itself is here, so that dynos can be started from it.
    pub fn has(&self, digest: &Digest) -> bool {
        self.archive(digest).is_file()
    }

    /// The slugs that are unpacked here.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn unpacked(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.trees)? {
            // Others are half-made.
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(found)
    }

    /// Removes a slug's tree, which the next [`SlugStore::tree`] makes again, unless that was called within `lately`. No
    /// dyno may be using it. Says whether it was removed.
    ///
    /// # Errors
    /// Files that cannot be removed; to be tried again.
    pub fn remove_tree(&self, digest: &Digest, lately: Duration) -> io::Result<bool> {
        let one = self.making(digest);
        let _alone = one.lock().unwrap_or_else(PoisonError::into_inner);
        let used = fs::metadata(self.trees.join(digest.as_str()))?.modified()?;
        // A clock that was set back says nothing.
        if used.elapsed().is_ok_and(|ago| ago < lately) {
            return Ok(false);
        }
        self.take_tree_away(digest).map(|()| true)
    }

    /// With the digest's lock held.
    fn take_tree_away(&self, digest: &Digest) -> io::Result<()> {
        // First it loses its name, which would promise that it is complete.
        let gone = HalfMade::new(&self.trees, digest.as_str());
        match fs::rename(self.trees.join(digest.as_str()), &gone.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Err(_) => Ok(()),
            Ok(()) => tree::remove(&gone.0),
        }
    }

    fn make_tree(&self, digest: &Digest, place: &Path) -> Result<(), SlugError> {
        let archive = self.archive(digest);
        let stdin = match File::open(&archive) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(SlugError::Missing(digest.clone())),
            file => file.map_err(SlugError::io("open", &archive))?,
        };
        let made = HalfMade::new(&self.trees, digest.as_str());
        make_dir(&made.0, 0)?;
        let app = made.0.join("app");
        make_dir(&app, OWNER)?;
        // Checked while it is unpacked: both read the same pages, and nobody sees the tree before both are done. A
        // damaged archive is told by its checksum, whatever the reader made of it.
        let (found, unpacked) = std::thread::scope(|scope| {
            let found = scope.spawn(|| digest_of(&archive));
            let unpacked = self.unpack(stdin, &app, &slug_order(Strip::No, Links::Any));
            (found.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), unpacked)
        });
        let found = found.map_err(SlugError::io("read", &archive))?;
        if found != *digest {
            return Err(SlugError::Checksum { expected: digest.clone(), found });
        }
        unpacked?;
        let synced = File::open(&made.0).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
        synced.map_err(SlugError::io("write to disk", &made.0))?;
        let renamed = fs::rename(&made.0, place).and_then(|()| sync(&self.trees));
        renamed.map_err(SlugError::io("put in place", place))
    }

    /// Lets the unprivileged process fill `dest`, an empty directory.
    fn unpack(&self, archive: File, dest: &Path, order: &Order) -> Result<Unpacked, SlugError> {
        let order = serde_json::to_string(order).expect("numbers and words can be written as JSON");
        let mut command = Command::new(&self.program);
        command.arg("unpack").arg(order).env_clear().current_dir(dest);
        command.stdin(archive).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = command.output().map_err(SlugError::io("start the reader of the archive from", &self.program))?;
        match serde_json::from_slice(&output.stdout) {
            Ok(Report::Done(unpacked)) => Ok(unpacked),
            Ok(Report::Failed(Failure::Refused(refusal))) => Err(SlugError::Refused(refusal)),
            Ok(Report::Failed(Failure::System(message))) => Err(SlugError::Unpack(message)),
            Err(_) => Err(SlugError::Reader(output.status)),
        }
    }

    fn archive(&self, digest: &Digest) -> PathBuf {
        self.slugs.join(format!("{digest}.tar.zst"))
    }

    fn making(&self, digest: &Digest) -> Arc<Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.entry(digest.clone()).or_default().clone()
    }

    /// Forgets the lock when nobody holds or waits for it.
    fn made(&self, digest: &Digest) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if making.get(digest).is_some_and(|one| Arc::strong_count(one) == 1) {
            making.remove(digest);
        }
    }
}

fn touch(dir: &Path) -> Result<(), SlugError> {
    let set = File::open(dir).and_then(|file| file.set_modified(SystemTime::now()));
    set.map_err(SlugError::io("note the use of", dir))
}

fn slug_order(strip: Strip, links: Links) -> Order {
    let Limits { bytes, files, .. } = SLUG_LIMITS;
    Order { id: OWNER, bytes, files, ratio: RATIO, strip, links, prune: false }
}

/// Something under a name that says it is not complete. Removed when dropped, unless it was renamed.
struct HalfMade(PathBuf);

impl HalfMade {
    fn new(dir: &Path, what: &str) -> Self {
        Self(dir.join(format!("{what}{HALF_MADE}{}", uuid::Uuid::new_v4())))
    }

    fn beside(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(path.parent().unwrap_or(Path::new("/")), &name)
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start; there is nobody to tell here.
        let _ = remove(&self.0);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match tree::remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(HALF_MADE) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, SlugError> {
    File::open(path).map_err(SlugError::io("open", path))
}

fn make_dir(path: &Path, owner: u32) -> Result<(), SlugError> {
    let made = fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::os::unix::fs::chown(path, Some(owner), Some(owner)));
    made.map_err(SlugError::io("make the directory", path))
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes the archive of `tree` to `path` and to the disk.
fn write_archive(tree: &Path, path: &Path, threads: usize) -> Result<(Digest, u64, pack::Totals), SlugError> {
    let failed = || SlugError::io("write", path);
    let file = File::create_new(path).map_err(failed())?;
    let mut encoder = zstd::Encoder::new(Hashed::new(file), ZSTD_LEVEL).map_err(failed())?;
    // Also with one processor: the frame differs between none and some, and a digest must not depend on the box.
    let threads = u32::try_from(threads.clamp(1, 16)).unwrap_or(1);
    encoder.multithread(threads).map_err(failed())?;
    let mut buffered = BufWriter::with_capacity(1 << 20, encoder);
    let totals = pack::pack(tree, &mut buffered, SLUG_LIMITS)?;
    let encoder = buffered.into_inner().map_err(|e| failed()(e.into_error()))?;
    let hashed = encoder.finish().map_err(failed())?;
    hashed.inner.sync_data().map_err(failed())?;
    let (digest, size) = hashed.finish();
    Ok((digest, size, totals))
}

/// Writes what comes to `path`. Returns its digest.
fn receive(mut from: impl Read, path: &Path) -> io::Result<Digest> {
    let mut to = Hashed::new(File::create_new(path)?);
    io::copy(&mut from, &mut to)?;
    Ok(to.finish().0)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut to = Hashed::new(io::sink());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(to.finish().0),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (Digest, u64) {
        (Digest::of(self.hash.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_how_many_processors_the_box_has() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // More than several threads get a share of, and neither all alike nor all different.
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..24 << 20)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_le_bytes()[7] & 0x0f
            })
            .collect();
        fs::write(tree.join("noise"), noise).unwrap();
        let digest = |threads| write_archive(&tree, &dir.path().join(format!("{threads}")), threads).unwrap().0;
        let one = digest(1);
        assert_eq!(digest(2), one);
        assert_eq!(digest(7), one);
    }

    #[test]
    fn a_tree_that_could_not_be_unpacked_again_is_not_packed() {
        let dir = tempfile::tempdir().unwrap();
        let pack = |tree: &Path, limits| pack::pack(tree, io::sink(), limits).unwrap_err().to_string();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/file"), vec![0; 2_000_001]).unwrap();
        let deep = Limits { depth: 2, ..SLUG_LIMITS };
        assert_eq!(pack(&tree, deep), "a/b/c lies deeper than 2 directories");
        assert_eq!(pack(&tree, Limits { files: 3, ..SLUG_LIMITS }), "the app has more than 3 files");
        assert_eq!(pack(&tree, Limits { bytes: 2_000_000, ..SLUG_LIMITS }), "the app has more than 2 MB");
        assert_eq!(
            pack(&dir.path().join("none"), SLUG_LIMITS),
            format!("could not open {}/none", dir.path().display())
        );
    }
}
