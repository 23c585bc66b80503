//! The dyno's root: its layers with the writable one above them, the mounts in it, and what they hide.
//!
//! Made by the host's root in the dyno's own mount namespace; files, with the rights of the dyno's user 0.
#![forbid(unsafe_code)]

use super::Init;
use crate::dyno::scratch::ATTRIBUTES;
use crate::dyno::spec::{FILE, Standard};
use crate::dyno::step::{StepError, step};
use crate::sys::fd;
use crate::sys::mount::{self, Attributes};
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names a layer of the root; the first is the topmost.
const LAYER: &str = "lowerdir+";

/// Where the root is put together.
const STAGE: &str = "/tmp";

/// What every dyno's `/dev` has: all that there is in a container by the OCI runtime specification, linux "Default
/// Devices", but the console.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What is the same in every dyno: the writable layer's directories, and mounts, put over the host's own in this namespace,
/// from where they can be moved.
pub(super) fn make_ahead(init: &Init<'_>, standard: &Standard) -> Result<Vec<OwnedFd>, StepError> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = step("open the root", "/", root)?;
    furnish(init)?;
    // The control groups' directories are below what is covered.
    let mut made = Vec::new();
    for entry in &standard.mounts {
        make(init, entry, &mut made)?;
    }
    act_as(init.shape.first_id())?;
    let mut tops = Vec::new();
    let mut read_only_at_last = Vec::new();
    for Made { target, below, mount, read_only_later } in made {
        let target = target.join(below);
        place(&root, &target, &mount)?;
        if read_only_later {
            read_only_at_last.push((target.clone(), step("keep a mount", target.display(), mount.try_clone())?));
        }
        if Standard::TOPS.iter().any(|top| target == Path::new(top)) {
            tops.push(mount);
        }
    }
    make_dir(&root, Path::new("/dev/shm"))?;
    cover(&root, &standard.read_only, &standard.masked)?;
    make_read_only_at_last(read_only_at_last)?;
    act_as(0)?;
    init.base.practise();
    Ok(tops)
}

/// Whose rights on files count from here on; that of others only with the capabilities of the host's root.
fn act_as(id: u32) -> Result<(), StepError> {
    // They say who it was before, never that they failed; the second call asks.
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(id));
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(id));
    let now = nix::unistd::setfsuid(nix::unistd::Uid::from_raw(id)).as_raw();
    if now == id { Ok(()) } else { Err(StepError::new("change whose files are made", id, "the kernel refuses")) }
}

/// All mounts of the configuration in their order, then what is hidden and what is read-only; as far as that was not
/// made ahead.
pub(super) fn build(init: &Init<'_>, spec: &Spec, ahead: Option<&[OwnedFd]>) -> Result<OwnedFd, StepError> {
    let mut entries = spec.mounts().iter().flatten();
    let root = match entries.next() {
        Some(entry) if entry.destination() == "/" && entry.typ().as_deref() == Some("overlay") => entry,
        _ => return Err(StepError::new("mount the root", "/", "the first mount has to be the root, an overlay")),
    };
    let mut made = Vec::new();
    for entry in entries.filter(|entry| ahead.is_none() || !init.base.standard.has(entry)) {
        make(init, entry, &mut made)?;
    }
    // At last, because it covers a directory of the host's that others may come from.
    if ahead.is_none() {
        furnish(init)?;
    }
    let root = overlay(init, spec, &Words::parse(root.options().as_deref().unwrap_or_default()))?;
    act_as(init.shape.first_id())?;
    for (top, mount) in Standard::TOPS.iter().zip(ahead.into_iter().flatten()) {
        place(&root, Path::new(top), mount)?;
    }
    let mut read_only_at_last = Vec::new();
    for Made { target, below, mount, read_only_later } in made {
        let target = target.join(below);
        place(&root, &target, &mount)?;
        if read_only_later {
            read_only_at_last.push((target, mount));
        }
    }
    if ahead.is_none() {
        let wanted = Standard::of(spec);
        cover(&root, &wanted.read_only, &wanted.masked)?;
    }
    make_read_only_at_last(read_only_at_last)?;
    act_as(0)?;
    Ok(root)
}

fn cover(root: &OwnedFd, read_only: &[String], masked: &[String]) -> Result<(), StepError> {
    read_only.iter().try_for_each(|path| make_read_only(root, Path::new(path)))?;
    if masked.is_empty() {
        return Ok(());
    }
    let mut covers = Covers::new(root)?;
    masked.iter().try_for_each(|path| covers.mask(root, Path::new(path)))
}

/// When the places of mounts below them are made.
fn make_read_only_at_last(mounts: Vec<(PathBuf, OwnedFd)>) -> Result<(), StepError> {
    for (target, mount) in mounts {
        let attributes = Attributes { read_only: true, ..Attributes::default() };
        step("make read-only", target.display(), mount::restrict(mount.as_fd(), attributes, None, false))?;
    }
    Ok(())
}

/// A mount that is attached nowhere yet.
struct Made<'a> {
    target: &'a Path,
    /// Where below the target.
    below: PathBuf,
    mount: OwnedFd,
    /// Only when the places of mounts below it are made.
    read_only_later: bool,
}

/// Makes what an entry of the configuration asks for, with the rights of the host's root.
fn make<'a>(init: &Init<'_>, entry: &'a oci_spec::runtime::Mount, made: &mut Vec<Made<'a>>) -> Result<(), StepError> {
    let target = entry.destination();
    let words = Words::parse(entry.options().as_deref().unwrap_or_default());
    let mut add = |below, mount, read_only_later| made.push(Made { target, below, mount, read_only_later });
    let attributes = Attributes { read_only: words.read_only, ..words.attributes };
    match (entry.typ().as_deref().unwrap_or("bind"), entry.source()) {
        ("bind", Some(source)) => {
            let users = init.ahead.users.as_ref().filter(|_| words.has("idmap"));
            add(PathBuf::new(), copy(source, attributes, users, words.has("rbind"))?, false);
        }
        ("cgroup", _) => {
            for (source, below) in init.group.view() {
                add(below, copy(&source, attributes, None, false)?, false);
            }
        }
        (kind, _) => {
            let options = words.inside(kind, init.shape.first_id())?;
            let options: Vec<_> = options.iter().map(|(key, value)| (*key, value.as_deref())).collect();
            let mount = step("make a mount", target.display(), mount::make(kind, &options, words.attributes))?;
            if target == Path::new("/dev") {
                devices(init, &mount)?;
            }
            add(PathBuf::new(), mount, words.read_only);
        }
    }
    Ok(())
}

/// A detached copy of something of the host's.
fn copy(source: &Path, attributes: Attributes, users: Option<&OwnedFd>, recursive: bool) -> Result<OwnedFd, StepError> {
    let copy = step("copy a mount", source.display(), mount::copy(rustix::fs::CWD, source, recursive))?;
    let users = users.map(AsFd::as_fd);
    step("restrict a mount", source.display(), mount::restrict(copy.as_fd(), attributes, users, recursive))?;
    Ok(copy)
}

/// A mount's options, sorted by who they are for.
struct Words<'a> {
    attributes: Attributes,
    read_only: bool,
    /// For the file system.
    options: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Words<'a> {
    fn parse(words: &'a [String]) -> Self {
        let mut parsed = Self { attributes: Attributes::default(), read_only: false, options: Vec::new() };
        for word in words {
            match word.split_once('=') {
                None => match word.as_str() {
                    "nosuid" => parsed.attributes.nosuid = true,
                    "nodev" => parsed.attributes.nodev = true,
                    "noexec" => parsed.attributes.noexec = true,
                    "ro" => parsed.read_only = true,
                    word => parsed.options.push((word, None)),
                },
                Some((key, value)) => parsed.options.push((key, Some(value))),
            }
        }
        parsed
    }

    fn has(&self, word: &str) -> bool {
        self.options.contains(&(word, None))
    }

    /// The options of a new file system, with the dyno's ids as they are on the host.
    fn inside(&self, kind: &str, first_id: u32) -> Result<Vec<(&'a str, Option<String>)>, StepError> {
        let mut options: Vec<(&str, Option<String>)> = Vec::new();
        if kind == "tmpfs" {
            options.extend(["uid", "gid"].map(|key| (key, Some(first_id.to_string()))));
        }
        for (key, value) in &self.options {
            let value = match (*key, value) {
                ("uid" | "gid", Some(id)) => {
                    let wrong = || StepError::new("make a mount", kind, format!("{key}={id} is no id"));
                    Some((first_id + id.parse::<u32>().map_err(|_| wrong())?).to_string())
                }
                (_, value) => value.map(str::to_owned),
            };
            options.push((*key, value));
        }
        Ok(options)
    }
}

/// Makes the directories of the writable layer: the first of a new file system take longest.
fn furnish(init: &Init<'_>) -> Result<(), StepError> {
    let make = |at: &OwnedFd, name: &str, mode| {
        step("make a directory", name, rustix::fs::mkdirat(at, name, Mode::from(mode)))
    };
    make(&init.scratch, PLACE, 0o755)?;
    let layer = &place_in(&init.scratch)?;
    let id = init.shape.first_id();
    for name in [UPPER, WORK, ROOT].into_iter().chain(LAYERS) {
        make(layer, name, 0o755)?;
    }
    let (user, group) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
    let given = rustix::fs::chownat(layer, UPPER, user, group, AtFlags::SYMLINK_NOFOLLOW);
    step("give the root away", UPPER, given)?;
    act_as(id)?;
    let temporary = format!("{UPPER}/tmp");
    make(layer, &temporary, 0o700)?;
    step(
        "open a directory to all",
        &temporary,
        rustix::fs::chmodat(layer, &temporary, Mode::from(0o1777), AtFlags::empty()),
    )?;
    act_as(0)
}

fn place_in(layer: &OwnedFd) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    step("open a directory", PLACE, fd::open_below(layer, Path::new(PLACE), flags, 0))
}

/// Where all of that is in the writable layer. Directly below its root, ext4 would spread them over the disk.
const PLACE: &str = "dyno";
/// In the writable layer: what the dyno has written, what overlayfs works with, and where the root is put together.
const UPPER: &str = "upper";
const WORK: &str = "work";
const ROOT: &str = "root";
/// Places for the layers below.
const LAYERS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// The root: the layers below, and above them the writable one.
fn overlay(init: &Init<'_>, spec: &Spec, words: &Words<'_>) -> Result<OwnedFd, StepError> {
    let layers = words.options.iter().filter(|(key, _)| *key == LAYER);
    // Under an overlay nothing is written to its layers; it refuses layers that say so themselves.
    let layers =
        layers.map(|(_, path)| copy(Path::new(path.unwrap_or_default()), ATTRIBUTES, init.ahead.users.as_ref(), false));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    // In this namespace only, on a directory that surely is there and can be entered. Not on the root itself: what is
    // stacked there would come off in place of the host's tree after the pivot.
    let stage =
        step("open a directory", STAGE, rustix::fs::open(STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))?;
    step("place the writable layer", STAGE, mount::attach(&init.scratch, stage))?;
    let staging = &place_in(&init.scratch)?;
    // Layers and work directories are named to overlayfs by short names from here.
    step("go to the writable layer", STAGE, rustix::process::fchdir(staging))?;
    act_as(init.shape.first_id())?;
    write_texts(spec, Path::new(UPPER))?;
    act_as(0)?;
    let mut lower = Vec::new();
    for layer in layers {
        let name = lower.len().to_string();
        if lower.len() >= LAYERS.len() {
            step("make a directory", &name, fs::create_dir(&name))?;
        }
        let target = step("open a layer's place", &name, fd::open_below(staging, Path::new(&name), OFlags::PATH, 0))?;
        step("place a layer", &name, mount::attach(&layer, target))?;
        lower.push(name);
    }
    let lower = lower.join(":");
    let mut options = vec![("lowerdir", Some(lower.as_str())), ("upperdir", Some(UPPER)), ("workdir", Some(WORK))];
    options.extend(words.options.iter().filter(|(key, _)| !matches!(*key, LAYER | "size")));
    let root = step("mount the root", "overlay", mount::make("overlay", &options, words.attributes))?;
    let target = step("open the root's place", ROOT, fd::open_below(staging, Path::new(ROOT), OFlags::PATH, 0))?;
    step("place the root", ROOT, mount::attach(&root, target))?;
    Ok(root)
}

/// Puts a mount at `target` below the root, following no link of the root's on the way.
fn place(root: &OwnedFd, target: &Path, mount: &OwnedFd) -> Result<(), StepError> {
    let is_dir = step("look at a mount", target.display(), rustix::fs::fstat(mount))?;
    let is_dir = FileType::from_raw_mode(is_dir.st_mode) == FileType::Directory;
    let place = if is_dir {
        make_dir(root, target)?
    } else {
        let parent = make_dir(root, target.parent().unwrap_or(Path::new("/")))?;
        let name = Path::new(target.file_name().unwrap_or_default());
        match fd::open_below(&parent, name, OFlags::PATH, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = fd::open_below(&parent, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o644);
                step("make a mount's place", target.display(), made)?
            }
            other => step("open a mount's place", target.display(), other)?,
        }
    };
    step("place a mount", target.display(), mount::attach(mount, place))
}

fn make_dir(root: &OwnedFd, path: &Path) -> Result<OwnedFd, StepError> {
    step("make a mount's place", path.display(), fd::make_dir_below(root, path, 0o755))
}

fn devices(init: &Init<'_>, dev: &OwnedFd) -> Result<(), StepError> {
    const LINKS: &[(&str, &str)] = &[
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    let id = init.shape.first_id();
    let usual = rustix::process::umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let (mode, number) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor));
        step("make a device", name, rustix::fs::mknodat(dev, name, FileType::CharacterDevice, mode, number))?;
        let (user, group) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
        step("give a device away", name, rustix::fs::chownat(dev, name, user, group, AtFlags::SYMLINK_NOFOLLOW))?;
    }
    rustix::process::umask(usual);
    LINKS.iter().try_for_each(|(to, name)| step("make a link in /dev", name, rustix::fs::symlinkat(*to, dev, *name)))
}

/// The texts that annotations carry. In the writable layer they cover whatever the others have in their place.
fn write_texts(spec: &Spec, upper: &Path) -> Result<(), StepError> {
    for (key, text) in spec.annotations().iter().flatten() {
        let Some(path) = key.strip_prefix(FILE) else { continue };
        let file = upper.join(path.trim_start_matches('/'));
        if let Some(dir) = file.parent() {
            step("make a directory", path, fs::create_dir_all(dir))?;
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&file);
        step("write a file", path, step("make a file", path, made)?.write_all(text.as_bytes()))?;
    }
    Ok(())
}

fn make_read_only(root: &OwnedFd, path: &Path) -> Result<(), StepError> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let copy = step("copy a mount", path.display(), mount::copy(target.as_fd(), Path::new(""), false))?;
    let attributes = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
    step("make read-only", path.display(), mount::restrict(copy.as_fd(), attributes, None, false))?;
    step("place a mount", path.display(), mount::attach(copy, target))
}

/// What hides: the null device files, and an empty directory directories.
struct Covers {
    null: OwnedFd,
    empty: Option<OwnedFd>,
}

impl Covers {
    fn new(root: &OwnedFd) -> Result<Self, StepError> {
        // Ours, and checked to be what it is called: a root that could bring its own would decide what is shown.
        let null = fd::open_below(root, Path::new("dev/null"), OFlags::PATH, 0);
        let null = step("open the null device", "/dev/null", null)?;
        let status = step("look at the null device", "/dev/null", rustix::fs::fstat(&null))?;
        let is_null = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)) == (1, 3);
        if !is_null {
            return Err(StepError::new("hide paths", "masked paths", "/dev/null is not the null device"));
        }
        Ok(Self { null, empty: None })
    }

    fn mask(&mut self, root: &OwnedFd, path: &Path) -> Result<(), StepError> {
        let Some(target) = existing(root, path)? else { return Ok(()) };
        let status = step("look at a path", path.display(), rustix::fs::fstat(&target))?;
        let hide = |cover: &OwnedFd| step("hide a path", path.display(), mount::attach(cover, &target));
        let cover = if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            let Some(empty) = &self.empty else {
                // Only once it is attached can it be copied, before Linux 6.15.
                return hide(self.empty.insert(empty_directory()?));
            };
            empty
        } else {
            &self.null
        };
        hide(&step("copy a cover", path.display(), mount::copy(cover.as_fd(), Path::new(""), false))?)
    }
}

fn empty_directory() -> Result<OwnedFd, StepError> {
    let attributes = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
    let options = [("size", Some("0")), ("nr_inodes", Some("1")), ("mode", Some("555"))];
    step("make an empty directory", "tmpfs", mount::make("tmpfs", &options, attributes))
}

/// The path, opened; `None` when this kernel has no such thing.
fn existing(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, StepError> {
    match fd::open_below(root, path, OFlags::PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => step("open a path", path.display(), other).map(Some),
    }
}
