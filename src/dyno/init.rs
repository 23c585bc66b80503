//! Pid 1 of a dyno: builds the root from the configuration, gives up every right, starts the program, and reaps.
//!
//! It is root of the host until the root stands: only that can make an overlay over layers of several owners whose own
//! marks (`trusted.*`) nobody inside can forge. Namespaces and mounts therefore stay out of the reach of the dyno's user
//! namespace, which is entered last. While files are made in the root it acts with the file rights of the dyno's user 0.
//!
//! The order matters, so it is one list: [`prepare`]. A failing step is told to the shim over the socket, with its name;
//! the end of that socket without a word means that the program runs.
#![forbid(unsafe_code)]

mod root;

use super::base::Base;
use super::program::Program;
use super::protocol::{Request, Stdio};
use super::ring::Ring;
use super::shape::{Ahead, Shape};
use super::spec::{self, Config, Standard};
use super::step::{StepError, step};
use super::{File, protocol};
use crate::sys::cgroup::Group;
use crate::sys::mount;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::{caps, fd, loopback, tty, userns};
use oci_spec::runtime::{PosixRlimitType, Spec};
use rustix::fs::{Gid, Mode, Uid};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Group `tty` of every Debian.
const TTY_GROUP: u32 = 5;

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
        let ahead = init.standard.map(|standard| root::make_ahead(init, standard)).transpose()?;
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
    let root = root::build(init, spec, ahead)?;
    let terminal = match order.stdio {
        Stdio::Attach { tty: Some(size) } => Some(open_terminal(init, &root, size)?),
        _ => None,
    };
    // 4. Into it; the host's tree is let go.
    step("pivot into the root", "pivot_root", mount::pivot(root))?;
    // 5. Limits, and no way back to a capability.
    rlimits(spec)?;
    expose(spec)?;
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

/// How soon the kernel ends this process and its children where there is no memory left: the launcher's is not theirs.
pub(super) fn expose(spec: &Spec) -> Result<(), StepError> {
    let Some(score) = spec.process().as_ref().and_then(oci_spec::runtime::Process::oom_score_adj) else {
        return Ok(());
    };
    let path = "/proc/self/oom_score_adj";
    step("set how soon it is ended", path, std::fs::write(path, score.to_string()))
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
