//! Pid 1 of a dyno: builds the root from the configuration, gives up every right, starts the program, and reaps.
//!
//! It is root of the host until the root stands: only that can make an overlay over layers of several owners whose own
//! marks (`trusted.*`) nobody inside can forge. Namespaces and mounts therefore stay out of the reach of the dyno's user
//! namespace, which is entered last. While files are made in the root it acts with the file rights of the dyno's user 0.
//!
//! The order matters, so it is one list: [`prepare`]. A failing step is told to the shim over the socket, with its name;
//! the end of that socket without a word means that the program runs.
#![forbid(unsafe_code)]

use super::base::Base;
use super::program::Program;
use super::protocol::{Request, Stdio};
use super::ring::Ring;
use super::scratch::ATTRIBUTES;
use super::shape::{Ahead, Shape};
use super::spec::{self, Config, FILE, Standard};
use super::step::{StepError, step};
use super::{File, protocol};
use crate::sys::cgroup::Group;
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, SingleThreaded};
use crate::sys::{caps, fd, loopback, tty, userns};
use oci_spec::runtime::{PosixRlimitType, Spec};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Names a layer of the root; the first is the topmost.
const LAYER: &str = "lowerdir+";

/// Group `tty` of every Debian.
const TTY_GROUP: u32 = 5;

/// Where the root is put together.
const STAGE: &str = "/tmp";

/// What every dyno's `/dev` has: all that there is in a container by the OCI runtime specification, linux "Default
/// Devices", but the console.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Said to pid 1 when its program may start.
pub(super) const GO: u8 = b'g';

/// What pid 1 is born with. It comes by fork, not by exec.
pub(super) struct Init<'a> {
    pub(super) single: &'a SingleThreaded,
    pub(super) base: &'a Base,
    pub(super) shape: &'a Shape,
    pub(super) group: &'a Group,
    pub(super) ring: &'a Ring,
    /// What to make before it is known what will run.
    pub(super) standard: Option<&'a Standard>,
    pub(super) ahead: Ahead,
    /// The writable layer, attached nowhere.
    pub(super) scratch: OwnedFd,
    pub(super) word: OwnedFd,
    pub(super) orders: UnixStream,
    /// The program's descriptors 0 to 2; `None` for `/dev/null`, and for all of them with a terminal.
    pub(super) pipes: [Option<OwnedFd>; 3],
}

/// What it is told to run.
struct Order {
    config: Config,
    files: Vec<File>,
    stdio: Stdio,
    program: Program,
    /// What else was said already.
    rest: Vec<u8>,
}

/// Runs to the end of the dyno's life.
pub(super) fn run(init: &Init<'_>) -> ! {
    let _ = rustix::thread::set_name(c"hokku-init");
    let main = enter(init).and_then(|()| {
        let ahead = init.standard.map(|standard| make_ahead(init, standard)).transpose()?;
        init.base.show_waiting("hokku-init, waiting");
        let order = await_order(init)?;
        init.base.show("hokku-init", &order.config.spec);
        let terminal = prepare(init, &order, ahead.as_deref())?;
        start(init, &order, terminal.as_ref())
    });
    let main = match main {
        Ok(main) => main,
        Err(error) => fail(&init.word, &error),
    };
    let ring = init.ring;
    process::reap_until(main, |ended| ring.set_ended(ended))
}

fn fail(socket: &OwnedFd, error: &StepError) -> ! {
    // When the shim is gone, so is whoever could want to know.
    let _ = fd::send(socket, &protocol::encode(error), &[]);
    process::exit_now(127)
}

/// Into the namespaces, of which nothing depends on what will run in them.
fn enter(init: &Init<'_>) -> Result<(), StepError> {
    // 1. Die with the shim, also if it died before this line: then nobody holds the other end of the socket.
    tie(init)?;
    // 2. Into the limits, and only then a namespace that has them as its root.
    step("enter the cgroup", "tasks", init.group.enter())?;
    if init.shape.own_cgroup_namespace {
        let flags = nix::sched::CloneFlags::CLONE_NEWCGROUP;
        step("unshare the cgroup namespace", "cgroup", nix::sched::unshare(flags))?;
    }
    if let Some(network) = &init.ahead.network {
        let entered = nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET);
        step("enter the network", "setns", entered)?;
    } else if init.shape.clone_flags & libc::CLONE_NEWNET != 0 {
        step("switch on the loopback interface", "lo", loopback::up())?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    step("make mounts private", "/", mount::make_private())
}

/// What is the same in every dyno: the writable layer's directories, and mounts, put over the host's own in this namespace,
/// from where they can be moved.
fn make_ahead(init: &Init<'_>, standard: &Standard) -> Result<Vec<OwnedFd>, StepError> {
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

/// The request, and the configuration that it is about.
fn await_order(init: &Init<'_>) -> Result<Order, StepError> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let request = loop {
        let decoded = protocol::decode::<Request>(&mut buffer);
        if let Some(request) = step("understand the order", "orders", decoded)? {
            break request;
        }
        match step("wait for an order", "orders", (&init.orders).read(&mut chunk))? {
            0 => process::exit_now(0),
            length => buffer.extend(&chunk[..length]),
        }
    };
    let Request { bundle, env, files, stdio } = request;
    let config = step("read the configuration", bundle.display(), Config::read(&bundle))?;
    let program = Program::new(&config.spec, &env)?;
    Ok(Order { config, files, stdio, program, rest: buffer })
}

/// Everything is in its place, says the shim.
fn await_go(init: &Init<'_>, order: &Order) -> Result<(), StepError> {
    let mut said = order.rest.first().copied();
    if said.is_none() {
        let mut byte = [0];
        let length = step("wait for the word to go on", "orders", (&init.orders).read(&mut byte))?;
        said = byte.get(..length).and_then(|byte| byte.first().copied());
    }
    if said == Some(GO) { Ok(()) } else { process::exit_now(127) }
}

/// From namespaces to a finished root with nothing of the host's in it. Returns the program's side of the terminal.
fn prepare(init: &Init<'_>, order: &Order, ahead: Option<&[OwnedFd]>) -> Result<Option<OwnedFd>, StepError> {
    let spec = &order.config.spec;
    if let Some(hostname) = spec.hostname() {
        step("set the host name", hostname, nix::unistd::sethostname(hostname))?;
    }
    // 3. The root, under the shim's eyes only: the mount namespace was cut off first.
    let root = build(init, spec, ahead)?;
    let terminal = match order.stdio {
        Stdio::Attach { tty: Some(size) } => Some(open_terminal(init, &root, size)?),
        _ => None,
    };
    // 4. Into it; the host's tree is let go.
    step("pivot into the root", "pivot_root", mount::pivot(root))?;
    // 5. Limits, and no way back to a capability.
    rlimits(spec)?;
    if let Some(users) = &init.ahead.users {
        step("enter the user namespace", "setns", userns::enter(users))?;
        become_user(0)?;
        // Changed rights have untied it.
        tie(init)?;
    }
    if spec.process().as_ref().is_some_and(|process| process.capabilities().is_some()) {
        step("drop capabilities", "bounding set", caps::drop_bounding())?;
    }
    Ok(terminal)
}

fn tie(init: &Init<'_>) -> Result<(), StepError> {
    step("tie the dyno to its shim", "prctl", process::die_with_parent())?;
    if other_side_is_gone(&init.word) {
        process::exit_now(127);
    }
    Ok(())
}

fn other_side_is_gone(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_err() || polled[0].revents().contains(PollFlags::HUP)
}

pub(super) fn become_user(id: u32) -> Result<(), StepError> {
    step("leave all groups", id, nix::unistd::setgroups(&[]))?;
    let group = nix::unistd::Gid::from_raw(id);
    step("change the group", id, nix::unistd::setresgid(group, group, group))?;
    let user = nix::unistd::Uid::from_raw(id);
    step("change the user", id, nix::unistd::setresuid(user, user, user))
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
fn build(init: &Init<'_>, spec: &Spec, ahead: Option<&[OwnedFd]>) -> Result<OwnedFd, StepError> {
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

/// A terminal of the dyno's own; its other side goes to the shim.
fn open_terminal(init: &Init<'_>, root: &OwnedFd, size: (u16, u16)) -> Result<OwnedFd, StepError> {
    let (master, slave) = own_terminal(root, init.shape.first_id(), size)?;
    step("hand over the terminal", "socket", fd::send(&init.word, b"t", &[master.as_fd()]))?;
    Ok(slave)
}

/// Both sides of a new terminal below that root, for the user of a dyno whose user 0 is `first` on the host.
pub(super) fn own_terminal(root: &OwnedFd, first: u32, size: (u16, u16)) -> Result<(OwnedFd, OwnedFd), StepError> {
    let (master, slave) = step("open a terminal", "/dev/pts/ptmx", tty::open(root, Path::new("dev/pts")))?;
    step("size the terminal", "/dev/pts", tty::resize(&slave, size.0, size.1))?;
    let (user, group) = (Uid::from_raw(first + spec::USER), Gid::from_raw(first + TTY_GROUP));
    step("give the terminal away", "/dev/pts", rustix::fs::fchown(&slave, Some(user), Some(group)))?;
    Ok((master, slave))
}

pub(super) fn rlimits(spec: &Spec) -> Result<(), StepError> {
    use rustix::process::{Resource, Rlimit};
    let process = spec.process().as_ref();
    for limit in process.and_then(|process| process.rlimits().as_ref()).into_iter().flatten() {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitNofile => Resource::Nofile,
            PosixRlimitType::RlimitCore => Resource::Core,
            PosixRlimitType::RlimitNproc => Resource::Nproc,
            PosixRlimitType::RlimitFsize => Resource::Fsize,
            other => return Err(StepError::new("limit a resource", other, "not supported")),
        };
        // Only ever lowered: raising needs a capability that a virtual machine's root may lack.
        let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let (soft, hard) = (limit.soft().min(ceiling), limit.hard().min(ceiling));
        let new = Rlimit { current: Some(soft), maximum: Some(hard) };
        step("limit a resource", limit.typ(), rustix::process::setrlimit(resource, new))?;
    }
    Ok(())
}

/// Starts the program, then gives up what pid 1 itself still has. Returns the program's number in here.
fn start(init: &Init<'_>, order: &Order, terminal: Option<&OwnedFd>) -> Result<i32, StepError> {
    // Once for both: loading takes a while, because the kernel tries every call. What they still do is allowed.
    if let Some(filter) = init.base.filter(&order.config.filter)? {
        step("filter system calls", "seccomp", filter.load())?;
    }
    await_go(init, order)?;
    let main = process::spawn_sharing(init.single, || match become_program(init, order, terminal) {
        Ok(never) => never,
        Err(error) => fail(&init.word, &error),
    });
    let main = step("fork the program", "clone", main)?;
    step("make pid 1 unreadable", "prctl", rustix::process::set_dumpable_behavior(UNREADABLE))?;
    forswear(&order.config.spec)?;
    Ok(main)
}

const UNREADABLE: rustix::process::DumpableBehavior = rustix::process::DumpableBehavior::NotDumpable;

/// No capability, and none to come.
pub(super) fn forswear(spec: &Spec) -> Result<(), StepError> {
    let Some(process) = spec.process() else { return Ok(()) };
    if process.capabilities().is_some() {
        step("drop capabilities", "all sets", caps::drop_all())?;
    }
    if process.no_new_privileges() == Some(true) {
        step("forbid new privileges", "prctl", rustix::thread::set_no_new_privs(true))?;
    }
    Ok(())
}

fn become_program(
    init: &Init<'_>,
    order: &Order,
    terminal: Option<&OwnedFd>,
) -> Result<std::convert::Infallible, StepError> {
    let process = order.config.spec.process().as_ref();
    let process =
        process.ok_or_else(|| StepError::new("start the program", "process", "the configuration has none"))?;
    process::attend_to_signals();
    step("start a session", "setsid", rustix::process::setsid())?;
    stdio(init, order.stdio, terminal)?;
    become_user(process.user().uid())?;
    for file in &order.files {
        step("write a file", file.path.display(), write_file(file))?;
    }
    go_to(process.cwd())?;
    step("close descriptors", "close_range", process::close_on_exec_from(3))?;
    forswear(&order.config.spec)?;
    order.program.exec()
}

pub(super) fn go_to(dir: &Path) -> Result<(), StepError> {
    step("go to the working directory", dir.display(), rustix::process::chdir(dir))?;
    // What a leaked descriptor would lead out of the root shows as a path that is none.
    let here = step("look where we are", dir.display(), rustix::process::getcwd(Vec::new()))?;
    if !here.as_bytes().starts_with(b"/") {
        return Err(StepError::new("go to the working directory", dir.display(), "outside of the root"));
    }
    Ok(())
}

fn stdio(init: &Init<'_>, wanted: Stdio, terminal: Option<&OwnedFd>) -> Result<(), StepError> {
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    if let Some(terminal) = terminal {
        step("take the terminal", "/dev/pts", tty::take(terminal))?;
    }
    let [input, output, errors] = init.pipes.each_ref().map(Option::as_ref);
    // Where it waited before that was known, it has a pipe for the input too.
    let input = input.filter(|_| !matches!(wanted, Stdio::Log { .. }));
    for (number, pipe) in (0..).zip([input, output, errors]) {
        let made = match (terminal, pipe) {
            (Some(terminal), _) => terminal.try_clone(),
            (None, Some(pipe)) => pipe.try_clone(),
            (None, None) => null(),
        };
        let source = step("open a standard stream", number, made)?;
        let done = match number {
            0 => rustix::stdio::dup2_stdin(source),
            1 => rustix::stdio::dup2_stdout(source),
            _ => rustix::stdio::dup2_stderr(source),
        };
        step("open a standard stream", number, done)?;
    }
    Ok(())
}

/// As the dyno's own user, so that a path that leads astray leads nowhere it could not go itself.
fn write_file(file: &File) -> io::Result<()> {
    if let Some(parent) = file.path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(file.mode & 0o777);
    options.open(&file.path)?.write_all(&file.contents)
}
