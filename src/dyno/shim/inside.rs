//! A program that is let into a dyno that runs: `run:inside`.
//!
//! ```text
//!  shim ──fork──▶ usher: on the host, stays with the client ──clone3──▶ guest: in the dyno's namespace of processes
//!                 all namespaces but the users'                          group, limits, user namespace, filter, exec
//! ```
//!
//! Code in the dyno may be hostile and is running already, which is the difference to a start. The usher is in no namespace
//! of processes but the host's, so that nothing in the dyno can name it. The guest can be named from its birth on; it is
//! not dumpable, so nobody without rights over the host's user namespace can trace it or look at its memory, descriptors,
//! root or program; what it has open is only what it needs, and that is closed before it becomes the dyno's user.
#![forbid(unsafe_code)]

use super::watch::Connection;
use crate::dyno::Inside;
use crate::dyno::base::Base;
use crate::dyno::init::{become_user, expose, forswear, go_to, own_terminal, rlimits};
use crate::dyno::program::Program;
use crate::dyno::protocol::{self, Request, Stdio};
use crate::dyno::shape::Shape;
use crate::dyno::spec::{self, Config};
use crate::dyno::step::{StepError, step};
use crate::sys::cgroup::Group;
use crate::sys::process::{self, Child, Ended, Fork, SingleThreaded};
use crate::sys::seccomp;
use crate::sys::{caps, fd, tty, userns};
use crate::wire::attach::Frame;
use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Programs at once that were let into one dyno.
pub(super) const MOST: usize = 16;
/// Bytes on their way before the other side has to wait.
const IN_FLIGHT: usize = 256 * 1024;
const CHUNK: usize = 16 * 1024;
/// How long what the program has left behind may go on talking, and a client may take to listen.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a program may take to be started.
const ENTERED_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Between SIGHUP and SIGKILL for a program whose client has gone.
const GRACE: Duration = Duration::from_secs(10);

/// All but those that the guest enters itself: the users' at last, and the control groups' from within its group, as who is
/// in there may move nobody who is not.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET);

/// What a shim knows of its dyno's start.
#[derive(Clone, Copy)]
pub(super) struct House<'a> {
    pub(super) single: &'a SingleThreaded,
    pub(super) base: &'a Base,
    pub(super) request: &'a Request,
}

/// Forks the usher, which takes over the client; the caller lets go of it.
///
/// # Errors
/// `clone3(2)`.
pub(super) fn begin(
    house: House<'_>,
    group: &Group,
    init: &OwnedFd,
    client: &UnixStream,
    (order, input): (&Inside, &[u8]),
) -> std::io::Result<Child> {
    match process::fork(house.single)? {
        Fork::Parent(usher) => Ok(usher),
        Fork::Child => {
            let _ = rustix::thread::set_name(c"hokku-usher");
            let keep: Vec<BorrowedFd<'_>> = group.descriptors().chain([init.as_fd(), client.as_fd()]).collect();
            process::with_only(&keep, || usher(house, group, init, client, order, input))
        }
    }
}

fn usher(house: House<'_>, group: &Group, init: &OwnedFd, client: &UnixStream, order: &Inside, input: &[u8]) -> i32 {
    let Ok(socket) = client.try_clone() else { return 1 };
    let mut client = Connection::of(socket, input.to_vec());
    let word = match attend(house, group, init, &mut client, order) {
        Ok(code) => Frame::Exit(code),
        Err(error) => Frame::Error(error.to_string()),
    };
    client.output.extend(word.encode());
    let until = Instant::now() + LAST_WORDS;
    client.flush();
    while !client.output.is_empty() && !client.gone && Instant::now() < until {
        let mut polled = [PollFd::new(&client.socket, PollFlags::OUT)];
        let _ = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        client.flush();
    }
    0
}

/// What the guest takes along.
struct Baggage<'a> {
    config: Config,
    program: Program,
    filter: Option<std::borrow::Cow<'a, seccomp::Program>>,
}

/// Lets the program in and stays until it has ended. Returns its exit status.
fn attend(
    house: House<'_>,
    group: &Group,
    init: &OwnedFd,
    client: &mut Connection,
    order: &Inside,
) -> Result<i32, StepError> {
    step("hide the usher", "prctl", rustix::process::set_dumpable_behavior(HIDDEN))?;
    step("tie the usher to its shim", "prctl", process::die_with_parent())?;
    // All that is the host's is read while this is still there.
    let bundle = &house.request.bundle;
    let config = step("read the configuration", bundle.display(), Config::read(bundle))?;
    let env: Vec<_> = house.request.env.iter().chain(&order.env).cloned().collect();
    let program = Program::of(&order.command, &config.spec, &env)?;
    let filter = house.base.filter(&config.filter)?;
    let baggage = Baggage { config, program, filter };

    step("enter the dyno", "setns", nix::sched::setns(init, NAMESPACES))?;
    let ends = Ends::open(&baggage.config, order.tty)?;
    let (word, said) = step(
        "make a socket",
        "usher",
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None),
    )?;
    let born = process::clone3(house.single, 0, group.v2_dir());
    let guest = match step("clone into the dyno", "clone3", born)? {
        Fork::Child => {
            let entered = enter(&baggage, group, init, &ends.theirs);
            process::with_only(&[said.as_fd()], || {
                let Err(error) = entered.and_then(|()| become_program(&baggage));
                // When the usher is gone, so is whoever could want to know.
                let _ = fd::send(&said, &protocol::encode(&error), &[]);
                127
            })
        }
        Fork::Parent(guest) => guest,
    };
    drop((said, ends.theirs));
    if !said_within(&word, ENTERED_WITHIN) {
        // Until it is another program, whoever has the same user in there can stop it.
        let _ = process::signal(&guest.pidfd, libc::SIGKILL);
        let _ = process::wait(guest.pidfd.as_fd());
        return Err(StepError::new("wait for the program", "guest", "something in the dyno keeps it from starting"));
    }
    let mut buffer = vec![0; 8192];
    let (length, _) = step("wait for the program", "guest", fd::receive(&word, &mut buffer))?;
    if length > 0 {
        buffer.truncate(length);
        let _ = process::wait(guest.pidfd.as_fd());
        let unclear = || StepError::new("wait for the program", "guest", "it said something unclear");
        return Err(protocol::decode(&mut buffer).ok().flatten().unwrap_or_else(unclear));
    }
    drop(word);
    Ok(Relay { guest, ours: ends.ours, input: Vec::new(), input_ends: false, left: None, ended: None }.run(client))
}

const HIDDEN: rustix::process::DumpableBehavior = rustix::process::DumpableBehavior::NotDumpable;

/// Into the dyno's limits and what pid 1 gave up for all: as it did, in its order; see [`crate::dyno::init`].
fn enter(baggage: &Baggage<'_>, group: &Group, init: &OwnedFd, stdio: &[Option<OwnedFd>; 3]) -> Result<(), StepError> {
    let spec = &baggage.config.spec;
    step("enter the cgroup", "tasks", group.enter())?;
    step("enter the cgroup namespace", "setns", nix::sched::setns(init, CloneFlags::CLONE_NEWCGROUP))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rlimits(spec)?;
    expose(spec)?;
    if spec::has_namespace(spec, LinuxNamespaceType::User) {
        step("enter the user namespace", "setns", userns::enter(init))?;
        become_user(0)?;
    }
    if spec.process().as_ref().is_some_and(|process| process.capabilities().is_some()) {
        step("drop capabilities", "bounding set", caps::drop_bounding())?;
    }
    if let Some(filter) = &baggage.filter {
        step("filter system calls", "seccomp", filter.load())?;
    }
    process::attend_to_signals();
    step("start a session", "setsid", rustix::process::setsid())?;
    take(stdio)
}

/// With nothing open but the standard streams and what tells of a failure.
fn become_program(baggage: &Baggage<'_>) -> Result<Infallible, StepError> {
    let spec = &baggage.config.spec;
    let wanted = spec.process().as_ref();
    let wanted = wanted.ok_or_else(|| StepError::new("start the program", "process", "the configuration has none"))?;
    become_user(wanted.user().uid())?;
    // Changed ids make a process what the host's settings say.
    step("hide the guest", "prctl", rustix::process::set_dumpable_behavior(HIDDEN))?;
    go_to(wanted.cwd())?;
    step("close descriptors", "close_range", process::close_on_exec_from(3))?;
    forswear(spec)?;
    baggage.program.exec()
}

fn take(stdio: &[Option<OwnedFd>; 3]) -> Result<(), StepError> {
    let [Some(input), output, errors] = stdio else {
        return Err(StepError::new("open a standard stream", "stdio", "there is none"));
    };
    let (output, errors) = (output.as_ref().unwrap_or(input), errors.as_ref().unwrap_or(input));
    if rustix::termios::isatty(input) {
        step("take the terminal", "/dev/pts", tty::take(input))?;
    }
    let done = rustix::stdio::dup2_stdin(input)
        .and_then(|()| rustix::stdio::dup2_stdout(output))
        .and_then(|()| rustix::stdio::dup2_stderr(errors));
    step("open a standard stream", "stdio", done)
}

/// A terminal of the dyno's, or three pipes.
struct Ends {
    ours: Ours,
    /// A terminal is the first alone.
    theirs: [Option<OwnedFd>; 3],
}

struct Ours {
    /// The same as the one output.
    terminal: bool,
    stdin: Option<OwnedFd>,
    /// And whether it is that for errors.
    outputs: Vec<(OwnedFd, bool)>,
}

impl Ends {
    fn open(config: &Config, tty: Option<(u16, u16)>) -> Result<Self, StepError> {
        let first = Shape::of(&config.spec)?.first_id();
        if let Some(size) = tty {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let (master, slave) = own_terminal(&step("open the root", "/", root)?, first, size)?;
            step("take the terminal", "non-blocking", rustix::io::ioctl_fionbio(&master, true))?;
            let input = step("take the terminal", "descriptor", master.try_clone())?;
            let ours = Ours { terminal: true, stdin: Some(input), outputs: vec![(master, false)] };
            return Ok(Self { ours, theirs: [Some(slave), None, None] });
        }
        let [ours, theirs] = super::berth::pipes(Stdio::Attach { tty: None }, first + spec::USER)?;
        let [stdin, stdout, stderr] = ours;
        let outputs = [(stdout, false), (stderr, true)].into_iter().filter_map(|(fd, errors)| Some((fd?, errors)));
        Ok(Self { ours: Ours { terminal: false, stdin, outputs: outputs.collect() }, theirs })
    }
}

/// Between the client and the guest, until that has ended.
struct Relay {
    guest: Child,
    ours: Ours,
    /// For the guest.
    input: Vec<u8>,
    input_ends: bool,
    /// When the client had gone.
    left: Option<Instant>,
    ended: Option<(Ended, Instant)>,
}

impl Relay {
    fn run(mut self, client: &mut Connection) -> i32 {
        loop {
            self.take_frames(client);
            self.feed();
            client.flush();
            if client.gone && self.left.is_none() && self.ended.is_none() {
                self.left = Some(Instant::now());
                self.signal(libc::SIGHUP);
            }
            if self.left.is_some_and(|left| left.elapsed() > GRACE) {
                self.signal(libc::SIGKILL);
            }
            if let Some((ended, at)) = self.ended
                && (self.ours.outputs.is_empty() || client.gone || at.elapsed() > LAST_WORDS)
            {
                return match ended {
                    Ended::Exited(code) => code,
                    Ended::Signalled(signal) => 128 + signal,
                };
            }
            self.wait(client);
        }
    }

    /// To the program and those that it has started in its group. It is a child that was not waited for, so that the number
    /// is still its own.
    fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            let _ = process::signal_group(&self.guest, signal);
        }
    }

    /// For something to happen, a second at most, and reads what has come.
    fn wait(&mut self, client: &mut Connection) {
        let listening = client.output.len() < IN_FLIGHT || client.gone;
        let mut polled = Vec::new();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.input.len() < IN_FLIGHT && !client.gone);
        flags.set(PollFlags::OUT, !client.output.is_empty() && !client.gone);
        if !client.gone {
            polled.push(PollFd::new(&client.socket, flags));
        }
        if self.ended.is_none() {
            polled.push(PollFd::new(&self.guest.pidfd, PollFlags::IN));
        }
        if let Some(stdin) = self.ours.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            polled.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if listening {
            polled.extend(self.ours.outputs.iter().map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        }
        let _ = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        let hung_up = !client.gone && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let guest_ended = self.ended.is_none() && has_ended(&self.guest.pidfd);
        drop(polled);
        // Also when nothing more of its input can be taken.
        client.gone |= hung_up;
        if self.input.len() < IN_FLIGHT && !client.gone {
            client.fill();
        }
        if listening {
            self.read(client);
        }
        if guest_ended && let Ok(ended) = process::wait(self.guest.pidfd.as_fd()) {
            self.ended = Some((ended, Instant::now()));
        }
    }

    fn read(&mut self, client: &mut Connection) {
        let mut chunk = [0; CHUNK];
        self.ours.outputs.retain(|(fd, errors)| match rustix::io::read(fd, &mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                let bytes = chunk[..length].to_vec();
                let frame = if *errors { Frame::Stderr(bytes) } else { Frame::Stdout(bytes) };
                client.output.extend(frame.encode());
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            // A terminal whose last program is gone says EIO.
            Err(_) => false,
        });
    }

    fn take_frames(&mut self, client: &mut Connection) {
        loop {
            match Frame::decode(&mut client.input) {
                Ok(Some(Frame::Stdin(bytes))) => self.input.extend(bytes),
                Ok(Some(Frame::StdinEnd)) => self.input_ends = true,
                Ok(Some(Frame::Resize { columns, rows })) => {
                    if let Some(terminal) = self.ours.stdin.as_ref().filter(|_| self.ours.terminal) {
                        // A terminal without a size works too.
                        let _ = tty::resize(terminal, columns, rows);
                    }
                }
                Ok(Some(Frame::Signal(number))) => self.signal(number.into()),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    client.gone = true;
                    return;
                }
            }
        }
    }

    fn feed(&mut self) {
        if self.input_ends && self.ours.terminal {
            // A terminal has no end of input but the character that says so.
            self.input.push(super::watch::END_OF_TRANSMISSION);
            self.input_ends = false;
        }
        while let Some(stdin) = self.ours.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            match rustix::io::write(stdin, &self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => self.input.clear(),
            }
        }
        if self.input_ends {
            self.ours.stdin = None;
        }
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    said_within(pidfd, Timespec { tv_sec: 0, tv_nsec: 0 })
}

/// Whether there is something to be read, or an end of it, within that time.
fn said_within(fd: &OwnedFd, time: Timespec) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&time)).is_ok_and(|ready| ready > 0)
}
