//! A dyno's writable layer: bounded, and gone with the dyno.
//!
//! It is made by the first of three ways that this host has: a directory with a project quota, where the file system of
//! ROOT keeps one; a file system of its own, in a file of ROOT that has no name and takes only the room that is used;
//! memory, which counts as the dyno's. What a dyno's shim leaves when it is killed is a directory at most, and swept up.
#![forbid(unsafe_code)]

use super::step::{StepError, step};
use crate::domain::instance::Instance;
use crate::sys::image;
use crate::sys::mount::{self, Attributes};
use crate::sys::quota::{self, Amount};
use crate::sys::tree;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a writable layer is kept, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Quota,
    Image,
    Memory,
}

/// What each writable layer has at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    /// In memory it can't have more than this, whatever it may have on the disk.
    pub(super) memory: u64,
}

/// A writable layer, attached nowhere.
pub(super) struct Layer {
    pub(super) mount: OwnedFd,
    pub(super) kept: Kept,
}

/// A layer, for as long as this is there.
pub(super) struct Kept {
    /// Why it isn't kept the usual way.
    pub(super) instead: Option<StepError>,
    /// Cleared away when it is dropped.
    _rest: Rest,
}

enum Rest {
    /// The directory is locked for as long as anybody has it.
    Project {
        dir: File,
        path: PathBuf,
        id: NonZeroU32,
    },
    Image {
        root: OwnedFd,
    },
    Memory,
}

impl Kept {
    fn new(rest: Rest) -> Self {
        Self { instead: None, _rest: rest }
    }
}

/// Above this many bytes the end of a layer isn't worth writing it to the disk; below, it isn't worth the kernel's word.
const WORTH_DROPPING: u64 = 64 << 20;

pub(super) const ATTRIBUTES: Attributes = Attributes { read_only: false, nosuid: true, nodev: true, noexec: false };

/// Bytes that a disk must have left for another image to be made on it: all of them together are not bounded.
const RESERVE: u64 = 64 << 20;

/// What directories with a quota are called, before something unique.
const PROJECT: &str = "project-";
/// A template until it is whole, or a directory until it is locked; the number of the process that makes it follows.
const HALF_MADE: &str = "new-";

/// One inode for so many bytes, as ext4 has it by default.
const BYTES_PER_INODE: u64 = 16 * 1024;

/// Project ids of writable layers begin here: those that people give out begin at 1.
const FIRST_PROJECT: u32 = 0x6800_0000;

/// Where an instance's writable layers are made.
pub(super) struct Scratch {
    dir: PathBuf,
    way: Way,
}

impl Scratch {
    /// Finds out which way there is, by going it once.
    pub(super) fn new(instance: &Instance, sample: Bounds) -> Self {
        Self::examine(dir(instance), sample).0
    }

    /// Also tells what the better ways failed of.
    fn examine(dir: PathBuf, sample: Bounds) -> (Self, Vec<StepError>) {
        let mut missing = Vec::new();
        let mut scratch = Self { dir, way: Way::Memory };
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&scratch.dir) {
            missing.push(StepError::new("make the writable layers' directory", scratch.dir.display(), error));
            return (scratch, missing);
        }
        sweep_below(&scratch.dir);
        for way in [Way::Quota, Way::Image] {
            match scratch.make_by(way, sample) {
                Ok(_) => {
                    scratch.way = way;
                    break;
                }
                Err(error) => {
                    // There may be room again when it is wanted.
                    let passing =
                        error.errno().is_some_and(|errno| [libc::ENOSPC, libc::EDQUOT, libc::EIO].contains(&errno));
                    missing.push(error);
                    if passing {
                        scratch.way = way;
                        break;
                    }
                }
            }
        }
        (scratch, missing)
    }

    /// For dynos that have no instance.
    pub(super) fn in_memory() -> Self {
        Self { dir: PathBuf::new(), way: Way::Memory }
    }

    /// A new layer. One that can't be had by the usual way, on a full disk for example, is kept in memory.
    pub(super) fn make(&self, bounds: Bounds) -> Result<Layer, StepError> {
        self.make_by(self.way, bounds).or_else(|error| {
            let mut layer = memory(bounds)?;
            layer.kept.instead = Some(error);
            Ok(layer)
        })
    }

    fn make_by(&self, way: Way, bounds: Bounds) -> Result<Layer, StepError> {
        match way {
            Way::Quota => self.project(bounds.bytes),
            Way::Image => self.image(bounds.bytes),
            Way::Memory => memory(bounds),
        }
    }

    fn project(&self, bytes: u64) -> Result<Layer, StepError> {
        let make = || {
            if !quota::is_enforced(File::open(&self.dir)?)? {
                return Err(io::Error::other("the file system does not enforce project quota"));
            }
            // Unique for as long as this process lives, which is until its directory is gone.
            let id = NonZeroU32::new(FIRST_PROJECT + std::process::id()).ok_or(io::ErrorKind::InvalidInput)?;
            let (path, dir) = locked_dir(&self.dir)?;
            let kept = Kept::new(Rest::Project { dir: dir.try_clone()?, path: path.clone(), id });
            quota::assign(&dir, id)?;
            quota::limit(&dir, id, Amount { bytes, inodes: bytes.div_ceil(BYTES_PER_INODE) })?;
            let mount = mount::copy(rustix::fs::CWD, &path, false)?;
            mount::restrict(mount.as_fd(), ATTRIBUTES, None, false)?;
            Ok(Layer { mount, kept })
        };
        step("make the writable layer with a quota", self.dir.display(), make())
    }

    fn image(&self, bytes: u64) -> Result<Layer, StepError> {
        let doing = "make the writable layer in a loop image";
        let room = step(doing, self.dir.display(), rustix::fs::statvfs(&self.dir))?;
        if room.f_bavail * room.f_frsize < RESERVE {
            return step(doing, self.dir.display(), Err(rustix::io::Errno::NOSPC));
        }
        self.mounted_image(bytes).or_else(|error| {
            // A template can be damaged, by a power cut for example; a new one is made once.
            let path = self.template_path(bytes);
            if error.errno() == Some(libc::ENOSPC) || fs::remove_file(path).is_err() {
                return Err(error);
            }
            self.mounted_image(bytes)
        })
    }

    fn mounted_image(&self, bytes: u64) -> Result<Layer, StepError> {
        let doing = "make the writable layer in a loop image";
        let template = self.template(bytes)?;
        let image = step(doing, self.dir.display(), self.copy(&template))?;
        let device = step(doing, "/dev/loop*", image::attach(&image))?;
        let path = device.path.to_string_lossy();
        // A thread for each of them would go through tables that nobody needs, and nothing of it outlives the machine.
        let options = [("source", Some(&*path)), ("noinit_itable", None), ("nobarrier", None)];
        let mount = step(doing, &path, mount::make("ext4", &options, ATTRIBUTES))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = step(doing, &path, rustix::fs::openat(&mount, ".", flags, Mode::empty()))?;
        Ok(Layer { mount, kept: Kept::new(Rest::Image { root }) })
    }

    fn template_path(&self, bytes: u64) -> PathBuf {
        self.dir.join(format!("ext4-{bytes}"))
    }

    /// An empty file system of that size, made once.
    fn template(&self, bytes: u64) -> Result<File, StepError> {
        let path = self.template_path(bytes);
        let open = || fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return step("open the empty file system", path.display(), other),
        }
        let half_made = self.dir.join(format!("{HALF_MADE}{}", std::process::id()));
        let made = format(&half_made, bytes).and_then(|()| fs::rename(&half_made, &path));
        if made.is_err() {
            let _ = fs::remove_file(&half_made);
        }
        step("make an empty file system", path.display(), made)?;
        step("open the empty file system", path.display(), open())
    }

    /// The template's contents in a file without a name, with its holes.
    fn copy(&self, template: &File) -> io::Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let image = rustix::fs::open(&self.dir, flags, Mode::from_raw_mode(0o600))?;
        let length = template.metadata()?.len();
        rustix::fs::ftruncate(&image, length)?;
        let mut end = 0;
        loop {
            let mut at = match rustix::fs::seek(template, rustix::fs::SeekFrom::Data(end)) {
                Ok(at) => at,
                // Only a hole is left.
                Err(rustix::io::Errno::NXIO) => return Ok(image),
                Err(error) => return Err(error.into()),
            };
            end = rustix::fs::seek(template, rustix::fs::SeekFrom::Hole(at))?;
            let mut to = at;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX);
                if rustix::fs::copy_file_range(template, Some(&mut at), &image, Some(&mut to), most)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// Which way there is for an instance that has its state in `root`, and what the better ways fail of. Leaves nothing.
pub fn examine(root: &Path) -> (Way, Vec<StepError>) {
    let dir = root.join(format!(".hokku-{}", std::process::id()));
    let (scratch, missing) = Scratch::examine(dir, Bounds { bytes: EXAMINED, memory: EXAMINED });
    let _ = tree::remove(&scratch.dir);
    (scratch.way, missing)
}

/// Bytes that are enough to try it.
const EXAMINED: u64 = 16 << 20;

fn dir(instance: &Instance) -> PathBuf {
    instance.root.join("scratch")
}

fn memory(bounds: Bounds) -> Result<Layer, StepError> {
    let size = bounds.bytes.min(bounds.memory).to_string();
    let options = [("size", Some(size.as_str())), ("mode", Some("755"))];
    let mount = step("make the writable layer", "tmpfs", mount::make("tmpfs", &options, ATTRIBUTES))?;
    Ok(Layer { mount, kept: Kept::new(Rest::Memory) })
}

/// Without what makes one safe and slow: it never outlives the machine's uptime.
fn format(path: &Path, bytes: u64) -> io::Result<()> {
    const FEATURES: &str =
        "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,large_file,sparse_super,uninit_bg";
    File::create(path)?.set_len(bytes - bytes % u64::from(image::BLOCK))?;
    let mut command = Command::new("mke2fs");
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-F", "-t", "ext4", "-m", "0", "-I", "256"]);
    command.args(["-b", &image::BLOCK.to_string(), "-i", &BYTES_PER_INODE.to_string(), "-O", FEATURES]);
    let made = command.args(["-E", "lazy_itable_init=1,nodiscard"]).arg(path).output();
    let made = made.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "there is no mke2fs (package e2fsprogs)"),
        _ => error,
    })?;
    if made.status.success() {
        // Half of it is worse than none of it.
        return File::open(path)?.sync_all();
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(io::Error::other(format!("mke2fs: {}", said.trim().replace('\n', "; "))))
}

impl Drop for Rest {
    fn drop(&mut self) {
        match self {
            Self::Project { dir, path, id } => {
                // What can't be removed now stays bounded, and is swept up later.
                if tree::remove(path).is_ok() {
                    let _ = quota::limit(dir, *id, Amount::default());
                }
            }
            Self::Image { root } => {
                let used = rustix::fs::fstatvfs(&*root).map_or(0, |now| (now.f_blocks - now.f_bfree) * now.f_frsize);
                if used > WORTH_DROPPING {
                    let _ = image::shut_down(root);
                }
            }
            Self::Memory => {}
        }
    }
}

/// A new directory for a layer. It is locked before it has the name by which [`sweep`] knows it, so that no other process
/// ever takes it for one that nobody has.
fn locked_dir(parent: &Path) -> io::Result<(PathBuf, File)> {
    let unique = uuid::Uuid::now_v7().simple();
    let half_made = parent.join(format!("{HALF_MADE}{}-{unique}", std::process::id()));
    fs::create_dir(&half_made)?;
    let dir = File::open(&half_made)?;
    dir.lock()?;
    let path = parent.join(format!("{PROJECT}{unique}"));
    fs::rename(&half_made, &path)?;
    Ok((path, dir))
}

/// Removes what the shims that were killed have left.
pub(super) fn sweep(instance: &Instance) {
    sweep_below(&dir(instance));
}

fn sweep_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if name.starts_with(PROJECT)
            && let Ok(left) = File::open(&path)
            && left.try_lock().is_ok()
        {
            let _ = tree::remove(&path);
        }
        let maker = name.strip_prefix(HALF_MADE).map(|rest| rest.split_once('-').map_or(rest, |(pid, _)| pid));
        if let Some(maker) = maker.and_then(|pid| pid.parse().ok())
            && !is_alive(maker)
        {
            let _ = if path.is_dir() { tree::remove(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn is_alive(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_any_more_is_swept_up() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let own = format!("{HALF_MADE}{}", std::process::id());
        for name in ["project-left", "project-held", "new-4194304-left"] {
            fs::create_dir_all(at(name).join("upper/some")).unwrap();
        }
        // No process has the last number.
        for name in [own.as_str(), "new-4194304", "ext4-1048576"] {
            fs::write(at(name), "").unwrap();
        }
        let held = File::open(at("project-held")).unwrap();
        held.lock().unwrap();
        sweep_below(dir.path());
        let left = |names: [&str; 5]| names.map(|name| at(name).exists());
        let names = ["project-left", "project-held", own.as_str(), "new-4194304", "ext4-1048576"];
        assert_eq!(left(names), [false, true, true, false, true]);
        assert!(!at("new-4194304-left").exists());
        drop(held);
        sweep_below(dir.path());
        assert!(!at("project-held").exists());
    }

    #[test]
    fn a_directory_is_never_swept_up_while_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep_below(dir.path());
                }
            });
            // The only one there is, so that whoever sweeps is at it at once.
            let made = (0..10_000).try_for_each(|_| locked_dir(dir.path()).and_then(|(path, _)| fs::remove_dir(path)));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            made.unwrap();
        });
    }
}
