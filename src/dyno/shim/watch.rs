//! A dyno's life after its start: one loop over everything that can happen.
//!
//! Output goes to the ring, or raw to the client that is attached. The loop ends when pid 1 is gone and all output is
//! where it belongs, or can't get there.
#![forbid(unsafe_code)]

use super::berth::Running;
use super::inside::{self, House};
use super::lines::Lines;
use crate::dyno::Inside;
use crate::dyno::protocol::{self, ATTACH, CONTROL, INSIDE, News, Order, Stdio, VERSION};
use crate::dyno::ring::Stream;
use crate::sys::process::{self, Child, Ended};
use crate::sys::tty;
use crate::wire::attach::Frame;
use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes on their way to or from an attached client before the other side has to wait.
const IN_FLIGHT: usize = 256 * 1024;
/// How long output waits for a client: to attach at first, to take the rest at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the kernel's word that memory is used up it is looked, and how often, whom it has killed.
const KILL_EXPECTED: Duration = Duration::from_secs(2);
const KILL_LOOK: Duration = Duration::from_millis(10);
/// What one read takes at most, and so the most that a ring without room makes wait.
const CHUNK: usize = 16 * 1024;

/// Stays with the dyno until it has ended, and tells how, whether it had run out of memory, and who waits to see us hang
/// up.
pub(super) fn watch(
    running: &mut Running,
    control: Option<&UnixStream>,
    house: House<'_>,
) -> (Ended, bool, Vec<UnixStream>) {
    let mut watch = Watch::new(running, control, house);
    loop {
        let happened = watch.wait();
        watch.handle(&happened);
        if let Some(ended) = watch.over() {
            let controls = watch.connections.into_iter().filter(|connection| connection.kind == Some(CONTROL));
            return (ended, watch.out_of_memory, controls.map(|connection| connection.socket).collect());
        }
    }
}

/// One of the program's outputs.
struct Source {
    fd: OwnedFd,
    stream: Stream,
    lines: Lines,
}

/// Who gets the output of an attached dyno.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Awaited,
    Came,
    Left,
}

pub(super) struct Connection {
    pub(super) socket: UnixStream,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// `None` until its first two bytes have said it.
    kind: Option<u8>,
    pub(super) gone: bool,
    /// An attached client has been told the exit status.
    told: bool,
}

struct Watch<'a> {
    running: &'a mut Running,
    house: House<'a>,
    /// Those that let programs in.
    ushers: Vec<Child>,
    sources: Vec<Source>,
    connections: Vec<Connection>,
    /// For the program's input, and whether its end is to follow.
    input: Vec<u8>,
    input_ends: bool,
    client: Client,
    /// When those that ignore SIGTERM are killed.
    grace: Option<Instant>,
    ended: Option<(Ended, Instant)>,
    started: Instant,
    oom: Option<OwnedFd>,
    out_of_memory: bool,
    /// Until when the kernel may be about to kill a process of the dyno's.
    kill_expected: Option<Instant>,
    signals: Option<SignalFd>,
    /// Lines that are not in the ring yet.
    held: VecDeque<(Stream, i64, Vec<u8>)>,
}

/// What a round of the loop has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Init,
    Listener,
    Oom,
    Signals,
    Input,
    Usher(usize),
    Source(usize),
    Connection(usize),
}

impl<'a> Watch<'a> {
    fn new(running: &'a mut Running, control: Option<&UnixStream>, house: House<'a>) -> Self {
        let source = |fd: Option<OwnedFd>, stream| fd.map(|fd| Source { fd, stream, lines: Lines::default() });
        let terminal = running.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok());
        let sources = [
            source(running.stderr.take(), Stream::Stderr),
            source(running.stdout.take(), Stream::Stdout),
            source(terminal, Stream::Stdout),
        ];
        let oom = running.walls.group.oom_eventfd().ok().flatten();
        let by_hand = running.stdio == Stdio::Inherit;
        let mut watch = Self {
            running,
            house,
            ushers: Vec::new(),
            sources: sources.into_iter().flatten().collect(),
            connections: Vec::new(),
            input: Vec::new(),
            input_ends: false,
            client: Client::Awaited,
            grace: None,
            ended: None,
            started: Instant::now(),
            oom,
            out_of_memory: false,
            kill_expected: None,
            signals: if by_hand { catch_signals() } else { None },
            held: VecDeque::new(),
        };
        if let Some(socket) = control.and_then(|control| control.try_clone().ok()) {
            watch.add(socket, Some(CONTROL));
        }
        watch
    }

    fn add(&mut self, socket: UnixStream, kind: Option<u8>) {
        if socket.set_nonblocking(true).is_ok() {
            self.connections.push(Connection { kind, ..Connection::of(socket, Vec::new()) });
        }
    }

    /// Whether the output is for a client and not for the ring.
    fn is_attached_kind(&self) -> bool {
        matches!(self.running.stdio, Stdio::Attach { .. })
    }

    fn client(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.kind == Some(ATTACH) && !connection.gone)
    }

    /// Whether there is somewhere for output to go.
    fn can_read(&self) -> bool {
        if !self.is_attached_kind() {
            return self.held.is_empty();
        }
        match self.client() {
            Some(client) => client.output.len() < IN_FLIGHT,
            // Before the client is here, the program waits; after it has left, nobody listens.
            None => self.client != Client::Awaited || self.started.elapsed() > PATIENCE,
        }
    }

    /// Everything that can happen, and now does; or nothing, when a deadline is near.
    fn wait(&mut self) -> Vec<What> {
        let mut looked_at: Vec<(What, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if self.ended.is_none() {
            looked_at.push((What::Init, self.running.child.pidfd.as_fd(), PollFlags::IN));
        }
        if let Some(listener) = &self.running.listener {
            looked_at.push((What::Listener, listener.as_fd(), PollFlags::IN));
        }
        if let Some(oom) = &self.oom {
            looked_at.push((What::Oom, oom.as_fd(), PollFlags::IN));
        }
        if let Some(signals) = &self.signals {
            looked_at.push((What::Signals, signals.as_fd(), PollFlags::IN));
        }
        for (index, usher) in self.ushers.iter().enumerate() {
            looked_at.push((What::Usher(index), usher.pidfd.as_fd(), PollFlags::IN));
        }
        if let Some(stdin) = self.stdin().filter(|_| !self.input.is_empty()) {
            looked_at.push((What::Input, stdin, PollFlags::OUT));
        }
        if self.can_read() {
            for (index, source) in self.sources.iter().enumerate() {
                looked_at.push((What::Source(index), source.fd.as_fd(), PollFlags::IN));
            }
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.input.len() < IN_FLIGHT);
            flags.set(PollFlags::OUT, !connection.output.is_empty());
            looked_at.push((What::Connection(index), connection.socket.as_fd(), flags));
        }
        let mut polled: Vec<PollFd<'_>> =
            looked_at.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = self.until_next_deadline();
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let happened = looked_at.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        happened.map(|((what, ..), _)| *what).collect()
    }

    fn until_next_deadline(&self) -> Option<Timespec> {
        let waiting = (self.is_attached_kind() && self.client == Client::Awaited).then(|| self.started + PATIENCE);
        let ended = self.ended.map(|(_, at)| at + PATIENCE);
        let look = self.kill_expected.map(|_| Instant::now() + KILL_LOOK);
        let next = [self.grace, self.running.limit, waiting, ended, look].into_iter().flatten().min()?;
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Some(Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() })
    }

    fn handle(&mut self, happened: &[What]) {
        // Connections first: they tell who gets the output. Pid 1 last: what it printed before is read first.
        for what in happened.iter().rev() {
            match *what {
                What::Connection(index) => self.serve(index),
                What::Source(index) => self.read(index),
                What::Input => self.feed(),
                What::Signals => self.pass_signals_on(),
                What::Oom => self.expect_a_kill(),
                What::Listener => self.accept(),
                What::Usher(index) => drop(process::wait(self.ushers.remove(index).pidfd.as_fd())),
                What::Init => self.ended(),
            }
        }
        self.pass_deadlines();
        self.sources.retain(|source| source.stream != Stream::Dropped);
        if self.connections.iter().any(|connection| connection.gone && connection.kind == Some(ATTACH)) {
            self.client_left();
        }
        self.connections.retain(|connection| !connection.gone);
    }

    fn ended(&mut self) {
        let Ok(status) = process::wait(self.running.child.pidfd.as_fd()) else { return };
        // Pid 1's own word says more: it exits with 128 + n for a signal of its child's.
        let ended = self.running.ring.ended().unwrap_or(status);
        self.ended = Some((ended, Instant::now()));
        self.grace = None;
        self.running.limit = None;
    }

    /// Version 1 kills one process, and tells before it does all groups that it may be of: at the limit of all dynos
    /// together those are all.
    fn expect_a_kill(&mut self) {
        if let Some(oom) = &self.oom {
            let _ = rustix::io::read(oom, &mut [0; 8]);
        }
        // At its own limit it is one of this dyno's: before the others can go on without it.
        if self.running.walls.group.is_at_its_limit().unwrap_or(false) {
            return self.out_of_memory();
        }
        self.kill_expected = Some(Instant::now() + KILL_EXPECTED);
        self.look_for_a_kill();
    }

    fn look_for_a_kill(&mut self) {
        if self.running.walls.group.oom_killed().unwrap_or(false) {
            self.out_of_memory();
        }
    }

    /// A dyno that loses one of its own processes is in no state to go on.
    fn out_of_memory(&mut self) {
        self.kill_expected = None;
        self.oom = None;
        self.out_of_memory = true;
        self.kill();
    }

    fn pass_signals_on(&mut self) {
        while let Some(Ok(Some(signal))) = self.signals.as_ref().map(SignalFd::read_signal) {
            self.signal(i32::try_from(signal.ssi_signo).unwrap_or(libc::SIGTERM));
        }
    }

    /// To every process; pid 1 takes none from outside but SIGKILL.
    fn signal(&self, signal: i32) {
        // A group that is gone has no one to be told.
        let _ = self.running.walls.group.signal(signal, &[self.running.child.pid]);
    }

    fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.running.walls.group.kill();
            // Also where the group could not be killed: with pid 1 goes its whole namespace.
            let _ = process::signal(&self.running.child.pidfd, libc::SIGKILL);
        }
    }

    fn pass_deadlines(&mut self) {
        let now = Instant::now();
        if let Some(until) = self.kill_expected {
            self.look_for_a_kill();
            if until <= now {
                self.kill_expected = None;
            }
        }
        if self.grace.is_some_and(|grace| grace <= now) {
            self.grace = None;
            self.tell(&News::Killed);
            self.kill();
        }
        if self.running.limit.is_some_and(|limit| limit <= now) {
            self.running.limit = None;
            self.kill();
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((socket, _))) = self.running.listener.as_ref().map(std::os::unix::net::UnixListener::accept) {
            self.add(socket, None);
        }
    }

    fn tell(&mut self, news: &News) {
        let bytes = protocol::encode(news);
        for connection in self.connections.iter_mut().filter(|connection| connection.kind == Some(CONTROL)) {
            connection.output.extend(&bytes);
            connection.flush();
        }
    }

    /// Reads what a connection says and writes what it has to get.
    fn serve(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.flush();
        connection.fill();
        if connection.kind.is_none() {
            match connection.input.first_chunk::<2>() {
                Some([VERSION, kind @ (CONTROL | ATTACH | INSIDE)]) => {
                    connection.kind = Some(*kind);
                    connection.input.drain(..2);
                    if connection.kind == Some(ATTACH) {
                        self.client = Client::Came;
                    } else if connection.kind == Some(CONTROL) {
                        // It may have looked at the ring, and want to be told of lines, before it was known here.
                        connection.output.extend(protocol::encode(&News::Lines));
                        connection.flush();
                    }
                }
                Some(_) => connection.gone = true,
                None => return,
            }
        }
        match self.connections[index].kind {
            Some(CONTROL) => self.obey(index),
            Some(INSIDE) => self.let_in(index),
            _ => self.take_frames(index),
        }
    }

    fn obey(&mut self, index: usize) {
        loop {
            match protocol::decode::<Order>(&mut self.connections[index].input) {
                Ok(Some(Order::Stop { grace })) => {
                    self.signal(libc::SIGTERM);
                    let grace = Instant::now() + Duration::from_millis(grace);
                    self.grace = Some(self.grace.map_or(grace, |earlier| earlier.min(grace)));
                }
                Ok(Some(Order::Kill)) => self.kill(),
                Ok(Some(Order::Room)) => self.append_held(),
                Ok(None) => return,
                Err(_) => {
                    self.connections[index].gone = true;
                    return;
                }
            }
        }
    }

    /// Lets a program in, once it is known which: an usher takes over its client.
    fn let_in(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let refused = match protocol::decode::<Inside>(&mut connection.input) {
            Ok(None) => return,
            Ok(Some(_)) if self.ushers.len() >= inside::MOST => {
                Some("too many programs were let into this dyno".into())
            }
            Ok(Some(order)) => {
                let (group, init) = (&self.running.walls.group, &self.running.child.pidfd);
                let begun = inside::begin(self.house, group, init, &connection.socket, (&order, &connection.input));
                match begun {
                    Ok(usher) => {
                        self.ushers.push(usher);
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
            Err(_) => None,
        };
        if let Some(why) = refused {
            connection.output.extend(Frame::Error(why).encode());
            connection.flush();
        }
        connection.gone = true;
    }

    fn take_frames(&mut self, index: usize) {
        loop {
            match Frame::decode(&mut self.connections[index].input) {
                Ok(Some(Frame::Stdin(bytes))) => self.input.extend(bytes),
                Ok(Some(Frame::StdinEnd)) => self.input_ends = true,
                Ok(Some(Frame::Resize { columns, rows })) => {
                    if let Some(terminal) = &self.running.terminal {
                        // A terminal without a size works too.
                        let _ = tty::resize(terminal, columns, rows);
                    }
                }
                Ok(Some(Frame::Signal(number))) => self.signal(number.into()),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.connections[index].gone = true;
                    break;
                }
            }
        }
        self.feed();
    }

    /// Where the program's input goes.
    fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.running.terminal.as_ref().or(self.running.stdin.as_ref()).map(AsFd::as_fd)
    }

    fn feed(&mut self) {
        if self.input_ends && self.running.terminal.is_some() {
            // A terminal has no end of input but the character that says so.
            self.input.push(END_OF_TRANSMISSION);
            self.input_ends = false;
        }
        while let Some(stdin) = self.stdin().filter(|_| !self.input.is_empty()) {
            match rustix::io::write(stdin, &self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => self.input.clear(),
            }
        }
        if self.input_ends {
            self.running.stdin = None;
        }
    }

    fn client_left(&mut self) {
        if self.ended.is_none() && self.client != Client::Left {
            self.client = Client::Left;
            self.signal(libc::SIGHUP);
        }
    }

    /// Reads one chunk of output.
    fn read(&mut self, index: usize) {
        let mut chunk = [0; CHUNK];
        let attached = self.is_attached_kind();
        let source = &mut self.sources[index];
        let stream = source.stream;
        let length = match rustix::io::read(&source.fd, &mut chunk) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            // A terminal whose last program is gone says EIO.
            Err(_) => 0,
        };
        let held = &mut self.held;
        let micros = Timestamp::now().as_microsecond();
        let mut keep = |line: &[u8]| held.push_back((stream, micros, line.to_vec()));
        if length == 0 {
            if !attached {
                source.lines.finish(&mut keep);
            }
            source.stream = Stream::Dropped;
        } else if !attached {
            source.lines.push(&chunk[..length], &mut keep);
        } else if let Some(client) = self.connections.iter_mut().find(|connection| connection.kind == Some(ATTACH)) {
            let bytes = chunk[..length].to_vec();
            let frame = if stream == Stream::Stderr { Frame::Stderr(bytes) } else { Frame::Stdout(bytes) };
            client.output.extend(frame.encode());
            client.flush();
        }
        self.append_held();
    }

    /// Puts lines into the ring. One that may lose none keeps what has no room, until the server has made some.
    fn append_held(&mut self) {
        let lossless = self.running.stdio == Stdio::Log { lossless: true };
        let mut wanted = false;
        while let Some((stream, micros, line)) = self.held.front() {
            let ring = &self.running.ring;
            let patient = self.ended.is_none_or(|(_, at)| at.elapsed() < PATIENCE);
            if lossless && patient && !ring.has_room(line.len()) && ring.wait_for_room(line.len()) {
                break;
            }
            wanted |= ring.append(*stream, *micros, line);
            self.held.pop_front();
        }
        if wanted {
            self.tell(&News::Lines);
        }
    }

    /// How it ended, once nothing is left to be done for it.
    fn over(&mut self) -> Option<Ended> {
        let (ended, at) = self.ended?;
        let patient = at.elapsed() < PATIENCE;
        let reading = !self.sources.is_empty()
            && (!self.is_attached_kind() || self.client().is_some() || self.client == Client::Awaited);
        if patient && (reading || !self.held.is_empty()) {
            return None;
        }
        self.append_held();
        if let Some(client) = self.connections.iter_mut().find(|connection| connection.kind == Some(ATTACH)) {
            if !client.told {
                let frame = Frame::Exit(code(ended));
                client.output.extend(frame.encode());
                client.told = true;
            }
            client.flush();
            if patient && !client.output.is_empty() && !client.gone {
                return None;
            }
        }
        Some(ended)
    }
}

/// Ctrl-D.
pub(super) const END_OF_TRANSMISSION: u8 = 4;

fn code(ended: Ended) -> i32 {
    match ended {
        Ended::Exited(code) => code,
        Ended::Signalled(signal) => 128 + signal,
    }
}

impl Connection {
    /// One that does not block, with what it has said already.
    pub(super) fn of(socket: UnixStream, input: Vec<u8>) -> Self {
        Self { socket, input, output: Vec::new(), kind: None, gone: false, told: false }
    }

    pub(super) fn fill(&mut self) {
        let mut chunk = [0; CHUNK];
        match self.socket.read(&mut chunk) {
            Ok(0) => self.gone = true,
            Ok(length) => self.input.extend(&chunk[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
    }

    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() && !self.gone {
            match self.socket.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }
}

/// The signals that a person at the terminal sends a shim started by hand.
fn catch_signals() -> Option<SignalFd> {
    let mut caught = SigSet::empty();
    caught.add(Signal::SIGINT);
    caught.add(Signal::SIGTERM);
    caught.add(Signal::SIGHUP);
    caught.thread_block().ok()?;
    SignalFd::with_flags(&caught, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok()
}
