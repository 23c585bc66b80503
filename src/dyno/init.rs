//! Pid 1 of a dyno: builds the root from the configuration and the mounts that the shim hands over, gives up every
//! right, starts the program, and reaps.
//!
//! The order matters, so it is one list: [`prepare`]. A failing step is told to the shim over the socket, with its name;
//! the end of that socket without a word means that the program runs.
#![forbid(unsafe_code)]

use super::protocol::Stdio;
use super::ring::Ring;
use super::spec::{self, FILE};
use super::step::{StepError, step};
use super::{File, protocol};
use crate::sys::cgroup::Group;
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, Fork, SingleThreaded};
use crate::sys::{caps, fd, loopback, seccomp, tty};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimitType, Spec};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the root is put together.
const STAGE: &str = "/tmp";

/// Where the overlay's layers are handed over: `layer:0` is the topmost.
pub(super) const LAYER: &str = "layer:";

/// What pid 1 is born with. It comes by fork, not by exec.
pub(super) struct Init<'a> {
    pub(super) single: &'a SingleThreaded,
    pub(super) spec: &'a Spec,
    pub(super) env: &'a [(String, String)],
    pub(super) files: &'a [File],
    pub(super) filter: Option<&'a seccomp::Program>,
    pub(super) group: &'a Group,
    pub(super) ring: &'a Ring,
    pub(super) socket: OwnedFd,
    pub(super) stdio: Stdio,
    /// The program's descriptors 0 to 2; `None` for `/dev/null`, and for all of them with a terminal.
    pub(super) pipes: [Option<OwnedFd>; 3],
}

/// The message that comes with the mounts: where each belongs.
pub(super) type Targets = Vec<PathBuf>;

/// Runs to the end of the dyno's life.
pub(super) fn run(init: &Init<'_>) -> ! {
    let _ = rustix::thread::set_name(c"hokku-init");
    let main = match prepare(init).and_then(|terminal| start(init, terminal.as_ref())) {
        Ok(main) => main,
        Err(error) => fail(&init.socket, &error),
    };
    let ring = init.ring;
    process::reap_until(main, |ended| ring.set_ended(ended))
}

fn fail(socket: &OwnedFd, error: &StepError) -> ! {
    // When the shim is gone, so is whoever could want to know.
    let _ = fd::send(socket, &protocol::encode(error), &[]);
    process::exit_now(127)
}

/// From a fresh clone to a finished root with nothing of the host's in it. Returns the program's side of the terminal.
fn prepare(init: &Init<'_>) -> Result<Option<OwnedFd>, StepError> {
    // 1. The shim speaks once the id mappings are written and all mounts made.
    let mounts = receive(&init.socket)?;
    // 2. Become the root of this namespace; without one, stay what we are.
    if has_namespace(init.spec, LinuxNamespaceType::User) {
        become_user(0)?;
    }
    // 3. Die with the shim, also if it died before this line: then nobody holds the other end of the socket.
    step("tie the dyno to its shim", "prctl", process::die_with_parent())?;
    if other_side_is_gone(&init.socket) {
        process::exit_now(127);
    }
    // 4. Into the limits, and only then a namespace that has them as its root.
    step("enter the cgroup", "tasks", init.group.enter())?;
    if has_namespace(init.spec, LinuxNamespaceType::Cgroup) {
        let flags = nix::sched::CloneFlags::CLONE_NEWCGROUP;
        step("unshare the cgroup namespace", "cgroup", nix::sched::unshare(flags))?;
    }
    if spec::note(init.spec, spec::NETWORK) == Some("none") {
        step("switch on the loopback interface", "lo", loopback::up())?;
    }
    if let Some(hostname) = init.spec.hostname() {
        step("set the host name", hostname, nix::unistd::sethostname(hostname))?;
    }
    // 5. The root, under the shim's eyes only: the mount namespace is cut off first.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    step("make mounts private", "/", mount::make_private())?;
    let root = build(init, mounts)?;
    let terminal = match init.stdio {
        Stdio::Attach { tty: Some(size) } => Some(open_terminal(&init.socket, &root, size)?),
        _ => None,
    };
    // 6. Into it; the host's tree is let go.
    step("pivot into the root", "pivot_root", mount::pivot(root))?;
    // 7. Limits, and no way back to a capability.
    rlimits(init.spec)?;
    if init.spec.process().as_ref().is_some_and(|process| process.capabilities().is_some()) {
        step("drop capabilities", "bounding set", caps::drop_bounding())?;
    }
    Ok(terminal)
}

fn receive(socket: &OwnedFd) -> Result<Vec<(PathBuf, OwnedFd)>, StepError> {
    let mut buffer = vec![0; 64 * 1024];
    let (length, fds) = step("receive the mounts", "socket", fd::receive(socket, &mut buffer))?;
    if length == 0 {
        process::exit_now(127);
    }
    buffer.truncate(length);
    let targets: Targets = step("receive the mounts", "message", protocol::decode(&mut buffer))?.unwrap_or_default();
    if targets.len() != fds.len() {
        return Err(StepError::new("receive the mounts", "message", "descriptors are missing"));
    }
    Ok(targets.into_iter().zip(fds).collect())
}

fn other_side_is_gone(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_err() || polled[0].revents().contains(PollFlags::HUP)
}

fn become_user(id: u32) -> Result<(), StepError> {
    step("leave all groups", id, nix::unistd::setgroups(&[]))?;
    let group = nix::unistd::Gid::from_raw(id);
    step("change the group", id, nix::unistd::setresgid(group, group, group))?;
    let user = nix::unistd::Uid::from_raw(id);
    step("change the user", id, nix::unistd::setresuid(user, user, user))
}

fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| namespaces.iter().any(|namespace| namespace.typ() == kind))
}

/// All mounts of the configuration in their order, then what is hidden and what is read-only.
fn build(init: &Init<'_>, mut handed: Vec<(PathBuf, OwnedFd)>) -> Result<OwnedFd, StepError> {
    let mut root: Option<OwnedFd> = None;
    let mut read_only_at_last = Vec::new();
    for entry in init.spec.mounts().iter().flatten() {
        let target = entry.destination();
        let words = Words::parse(entry.options().as_deref().unwrap_or_default());
        let kind = entry.typ().as_deref().unwrap_or("bind");
        let Some(root) = &root else {
            if target != Path::new("/") || kind != "overlay" {
                return Err(StepError::new("mount the root", target.display(), "the first mount has to be the root"));
            }
            root = Some(overlay(&words, &mut handed)?);
            continue;
        };
        match kind {
            "bind" | "cgroup" => {
                let (here, rest) = handed
                    .into_iter()
                    .partition(|(at, _)| at == target || (kind == "cgroup" && at.starts_with(target)));
                handed = rest;
                for (at, mount) in here {
                    place(root, &at, &mount)?;
                }
            }
            _ => {
                let mount =
                    step("make a mount", target.display(), mount::make(kind, &words.options, words.attributes))?;
                place(root, target, &mount)?;
                if target == Path::new("/dev") {
                    device_links(&mount)?;
                }
                if words.read_only {
                    read_only_at_last.push((target, mount));
                }
            }
        }
    }
    let root = root.ok_or_else(|| StepError::new("mount the root", "/", "the configuration has none"))?;
    write_texts(init.spec, &root)?;
    let linux = init.spec.linux().as_ref();
    for path in linux.and_then(|linux| linux.readonly_paths().as_ref()).into_iter().flatten() {
        make_read_only(&root, Path::new(path))?;
    }
    for path in linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten() {
        mask(&root, Path::new(path))?;
    }
    for (target, mount) in read_only_at_last {
        let attributes = Attributes { read_only: true, ..Attributes::default() };
        step("make read-only", target.display(), mount::restrict(mount.as_fd(), attributes, None, false))?;
    }
    Ok(root)
}

/// A mount's options, sorted by who they are for.
struct Words<'a> {
    attributes: Attributes,
    read_only: bool,
    /// For the file system.
    options: Vec<(&'a str, Option<&'a str>)>,
    size: Option<&'a str>,
}

impl<'a> Words<'a> {
    fn parse(words: &'a [String]) -> Self {
        let mut parsed = Self { attributes: Attributes::default(), read_only: false, options: Vec::new(), size: None };
        for word in words {
            match word.split_once('=') {
                None => match word.as_str() {
                    "nosuid" => parsed.attributes.nosuid = true,
                    "nodev" => parsed.attributes.nodev = true,
                    "noexec" => parsed.attributes.noexec = true,
                    "ro" => parsed.read_only = true,
                    word => parsed.options.push((word, None)),
                },
                Some((key, value)) => {
                    if key == "size" {
                        parsed.size = Some(value);
                    }
                    parsed.options.push((key, Some(value)));
                }
            }
        }
        parsed
    }
}

/// The root: the layers below, and above them a writable one in memory, bounded and thrown away.
fn overlay(words: &Words<'_>, handed: &mut Vec<(PathBuf, OwnedFd)>) -> Result<OwnedFd, StepError> {
    let size = words.size.ok_or_else(|| StepError::new("mount the root", "/", "its size is not bounded"))?;
    let attributes = Attributes { nosuid: true, nodev: true, ..Attributes::default() };
    let options = [("size", Some(size)), ("mode", Some("755"))];
    let staging = step("make the writable layer", "tmpfs", mount::make("tmpfs", &options, attributes))?;
    // In this namespace only, on a directory that surely is there and can be entered. Not on the root itself: what is
    // stacked there would come off in place of the host's tree after the pivot.
    let stage =
        step("open a directory", STAGE, rustix::fs::open(STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))?;
    step("place the writable layer", STAGE, mount::attach(&staging, stage))?;
    // Layers and work directories are named to overlayfs by short names from here.
    step("go to the writable layer", STAGE, rustix::process::fchdir(&staging))?;
    for name in ["upper", "work", "root"] {
        step("make a directory", name, fs::create_dir(name))?;
    }
    let mut lower = Vec::new();
    let (layers, rest) = handed.drain(..).partition(|(at, _)| at.to_string_lossy().starts_with(LAYER));
    *handed = rest;
    for (index, (_, layer)) in Vec::into_iter(layers).enumerate() {
        let name = index.to_string();
        step("make a directory", &name, fs::create_dir(&name))?;
        let target = step("open a layer's place", &name, fd::open_below(&staging, Path::new(&name), OFlags::PATH, 0))?;
        step("place a layer", &name, mount::attach(layer, target))?;
        lower.push(name);
    }
    let lower = lower.join(":");
    let mut options = vec![("lowerdir", Some(lower.as_str())), ("upperdir", Some("upper")), ("workdir", Some("work"))];
    options.extend(words.options.iter().filter(|(key, _)| !matches!(*key, "lowerdir+" | "size")));
    let root = step("mount the root", "overlay", mount::make("overlay", &options, words.attributes))?;
    let target = step("open the root's place", "root", fd::open_below(&staging, Path::new("root"), OFlags::PATH, 0))?;
    step("place the root", "root", mount::attach(&root, target))?;
    Ok(root)
}

/// Puts a mount at `target` below the root, following no link of the root's on the way.
fn place(root: &OwnedFd, target: &Path, mount: &OwnedFd) -> Result<(), StepError> {
    let is_dir = step("look at a mount", target.display(), rustix::fs::fstat(mount))?;
    let is_dir = FileType::from_raw_mode(is_dir.st_mode) == FileType::Directory;
    let place = if is_dir {
        step("make a mount's place", target.display(), fd::make_dir_below(root, target, 0o755))?
    } else {
        let parent = target.parent().unwrap_or(Path::new("/"));
        let parent = step("make a mount's place", target.display(), fd::make_dir_below(root, parent, 0o755))?;
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

fn device_links(dev: &OwnedFd) -> Result<(), StepError> {
    const LINKS: &[(&str, &str)] = &[
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    LINKS.iter().try_for_each(|(to, name)| step("make a link in /dev", name, rustix::fs::symlinkat(*to, dev, *name)))
}

/// The texts that annotations carry, in place of what the layers have.
fn write_texts(spec: &Spec, root: &OwnedFd) -> Result<(), StepError> {
    for (key, text) in spec.annotations().iter().flatten() {
        let Some(path) = key.strip_prefix(FILE).map(Path::new) else { continue };
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = step("make a directory", path.display(), fd::make_dir_below(root, parent, 0o755))?;
        let name = Path::new(path.file_name().unwrap_or_default());
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(StepError::new("replace a file", path.display(), io::Error::from(error))),
        }
        let made = fd::open_below(&parent, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o644);
        let mut file = fs::File::from(step("make a file", path.display(), made)?);
        step("write a file", path.display(), file.write_all(text.as_bytes()))?;
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

/// Hides a file behind the null device and a directory behind an empty one.
fn mask(root: &OwnedFd, path: &Path) -> Result<(), StepError> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let status = step("look at a path", path.display(), rustix::fs::fstat(&target))?;
    let attributes = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
    let cover = if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        let options = [("size", Some("0")), ("nr_inodes", Some("1")), ("mode", Some("555"))];
        step("make an empty directory", path.display(), mount::make("tmpfs", &options, attributes))?
    } else {
        // Ours, and checked to be what it is called: a root that could bring its own would decide what is shown.
        let null =
            step("open the null device", "/dev/null", fd::open_below(root, Path::new("dev/null"), OFlags::PATH, 0))?;
        let status = step("look at the null device", "/dev/null", rustix::fs::fstat(&null))?;
        let is_null = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(status.st_rdev), rustix::fs::minor(status.st_rdev)) == (1, 3);
        if !is_null {
            return Err(StepError::new("hide a path", path.display(), "/dev/null is not the null device"));
        }
        step("copy the null device", path.display(), mount::copy(null.as_fd(), Path::new(""), false))?
    };
    step("hide a path", path.display(), mount::attach(cover, target))
}

/// The path, opened; `None` when this kernel has no such thing.
fn existing(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, StepError> {
    match fd::open_below(root, path, OFlags::PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => step("open a path", path.display(), other).map(Some),
    }
}

/// A terminal of the dyno's own; its other side goes to the shim.
fn open_terminal(socket: &OwnedFd, root: &OwnedFd, size: (u16, u16)) -> Result<OwnedFd, StepError> {
    let (master, slave) = step("open a terminal", "/dev/pts/ptmx", tty::open(root, Path::new("dev/pts")))?;
    step("size the terminal", "/dev/pts", tty::resize(&slave, size.0, size.1))?;
    let owner = rustix::fs::fchown(&slave, Some(Uid::from_raw(spec::USER)), Some(Gid::from_raw(5)));
    step("give the terminal away", "/dev/pts", owner)?;
    step("hand over the terminal", "socket", fd::send(socket, b"t", &[master.as_fd()]))?;
    Ok(slave)
}

fn rlimits(spec: &Spec) -> Result<(), StepError> {
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
fn start(init: &Init<'_>, terminal: Option<&OwnedFd>) -> Result<i32, StepError> {
    let main = match step("fork the program", "clone3", process::fork(init.single))? {
        Fork::Child => {
            let Err(error) = become_program(init, terminal);
            fail(&init.socket, &error)
        }
        Fork::Parent(child) => child.pid,
    };
    step("make pid 1 unreadable", "prctl", rustix::process::set_dumpable_behavior(UNREADABLE))?;
    forswear(init)?;
    Ok(main)
}

const UNREADABLE: rustix::process::DumpableBehavior = rustix::process::DumpableBehavior::NotDumpable;

/// No capability, none to come, and only the calls that are allowed.
fn forswear(init: &Init<'_>) -> Result<(), StepError> {
    let Some(process) = init.spec.process() else { return Ok(()) };
    if process.capabilities().is_some() {
        step("drop capabilities", "all sets", caps::drop_all())?;
    }
    if process.no_new_privileges() == Some(true) {
        step("forbid new privileges", "prctl", rustix::thread::set_no_new_privs(true))?;
    }
    if let Some(filter) = init.filter {
        step("filter system calls", "seccomp", filter.load())?;
    }
    Ok(())
}

fn become_program(init: &Init<'_>, terminal: Option<&OwnedFd>) -> Result<std::convert::Infallible, StepError> {
    let process = init.spec.process().as_ref();
    let process =
        process.ok_or_else(|| StepError::new("start the program", "process", "the configuration has none"))?;
    process::reset_signals();
    step("start a session", "setsid", rustix::process::setsid())?;
    stdio(init, terminal)?;
    become_user(process.user().uid())?;
    for file in init.files {
        step("write a file", file.path.display(), write_file(file))?;
    }
    step("go to the working directory", process.cwd().display(), rustix::process::chdir(process.cwd()))?;
    // What a leaked descriptor would lead out of the root shows as a path that is none.
    let here = step("look where we are", process.cwd().display(), rustix::process::getcwd(Vec::new()))?;
    if !here.as_bytes().starts_with(b"/") {
        return Err(StepError::new("go to the working directory", process.cwd().display(), "outside of the root"));
    }
    let argv: Vec<&str> = process.args().iter().flatten().map(String::as_str).collect();
    let mut env: Vec<String> = process.env().iter().flatten().cloned().collect();
    env.extend(init.env.iter().map(|(key, value)| format!("{key}={value}")));
    let (argv_c, env_c) = (strings(&argv)?, strings(&env)?);
    let name = argv.first().ok_or_else(|| StepError::new("start the program", "args", "there is no command"))?;
    let candidates = candidates(name, &env);
    step("close descriptors", "close_range", process::close_on_exec_from(3))?;
    forswear(init)?;
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for path in candidates {
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { continue };
        let tried = process::exec(&path, &argv_c, &env_c);
        if tried.kind() != io::ErrorKind::NotFound {
            error = tried;
        }
    }
    Err(StepError::new("start the program", name, error))
}

fn stdio(init: &Init<'_>, terminal: Option<&OwnedFd>) -> Result<(), StepError> {
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    if let Some(terminal) = terminal {
        step("take the terminal", "/dev/pts", tty::take(terminal))?;
    }
    for (number, pipe) in (0..).zip(&init.pipes) {
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

fn strings(texts: &[impl AsRef<str>]) -> Result<Vec<CString>, StepError> {
    let nul = |_| StepError::new("start the program", "arguments and environment", "a text contains a NUL byte");
    texts.iter().map(|text| CString::new(text.as_ref()).map_err(nul)).collect()
}

/// Where a command could be, as the shell would look for it in the dyno's own `PATH`.
fn candidates(name: &str, env: &[String]) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name)).collect()
}
