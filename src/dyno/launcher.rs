//! The launcher: a small process with one thread that forks shims, so that the server, large and threaded, never has to.
//! One per instance; it outlives the server, and the next server finds it by its socket.
#![forbid(unsafe_code)]

use super::base::Base;
use super::protocol::{self, Hello, News};
use super::relay::Relay;
use super::scratch::Bounds;
use super::{network, shim, slot};
use crate::domain::instance::Instance;
use crate::sys::cgroup;
use crate::sys::process::{self, Child, Fork, SingleThreaded, Title};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// How often it looks whether its instance is still there.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
const DNS_PORT: u16 = 53;
/// A server says what it wants at once.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// A shim that is to end has this long to take down what it has made.
const ANSWERS_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error("usage: hokku {0}")]
    Usage(&'static str),
    #[error("not the argument of an instance: {0}")]
    Instance(#[from] serde_json::Error),
    #[error("the launcher can't work")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Dyno(#[from] super::StepError),
}

/// `hokku launcher INSTANCE`: serves the listening socket that is its standard input, until it is told to end or the
/// instance's RUN is gone. `INSTANCE` is JSON.
///
/// # Errors
/// When it can't start.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), LauncherError> {
    let [instance] =
        args.into_iter().collect::<Vec<_>>().try_into().map_err(|_| LauncherError::Usage("launcher INSTANCE"))?;
    let instance: Instance = serde_json::from_slice(instance.as_bytes())?;
    let single = SingleThreaded::claim()?;
    process::forget_ignored_signals();
    // Away from the server's session and group, so that what ends the server doesn't end this.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/").map_err(io::Error::from)?;
    let _ = rustix::thread::set_name(c"hokku-launcher");
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let path = socket(&instance);
    let ours = fs::metadata(&path)?.ino();
    // Once: its shims make groups below it only, and none when it is gone. Nor is it made again by a launcher that comes
    // when its instance has been taken away.
    let there = with_run_locked(&instance, || {
        let there = fs::metadata(&path).is_ok_and(|now| now.ino() == ours);
        if there {
            make_groups(&instance);
        }
        Ok(there)
    })?;
    if !there {
        return Ok(());
    }
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null).map_err(io::Error::from)?;
    // It may have to run a program.
    let base = Base::prepare(&instance, true);
    process::forget_children();
    let title = Title::claim(&single).ok();
    if let Some(title) = title {
        title.set(&format!("hokku-launcher {}", instance.name));
    }
    let base = base.map(|base| base.with_title(title));
    let Some(forked) = serve(&single, &instance, &listener, ours)? else { return Ok(()) };
    // As long as any process has it open, servers could connect to a launcher that is dead.
    drop(listener);
    process::remember_children();
    let _ = rustix::process::setsid();
    match (forked, base) {
        (Forked::Waiting { slot, bounds, launcher, connection }, Ok(base)) => {
            shim::wait(&single, &base, &instance, slot, bounds, launcher, connection);
        }
        (Forked::Waiting { .. }, Err(_)) => {}
        (Forked::Asked(connection), Ok(base)) => shim::serve(&single, &base, &instance, connection),
        (Forked::Asked(mut connection), Err(error)) => {
            connection.write_all(&protocol::encode(&News::Failed(error)))?;
        }
        (Forked::Relaying(target), base) => {
            if let Ok(base) = base {
                base.show_waiting(&format!("hokku-dns {}", instance.name));
            }
            relay_names(&instance, target)?;
        }
    }
    Ok(())
}

/// Its own, where it stays when the server's unit is stopped, and that of the dynos.
fn make_groups(instance: &Instance) {
    let made = super::instances::hierarchy(instance).and_then(|hierarchy| {
        cgroup::step_aside(&hierarchy)?;
        cgroup::prepare(&hierarchy, &instance.cgroup())
    });
    if let Err(error) = made {
        // Its log.
        let _ = writeln!(io::stderr(), "hokku launcher: can't make its groups: {error}");
    }
}

/// Where only the host itself can reach its name server, a child of ours asks it for the dynos, for as long as the
/// launcher lives.
#[derive(Default)]
struct Relaying {
    child: Option<(SocketAddr, Child)>,
}

impl Relaying {
    /// Whether this process is that child now. One that asks somebody else is ended first; one that is not needed by new
    /// dynos any more goes on for the others.
    fn adapt(&mut self, single: &SingleThreaded) -> Option<Forked> {
        let target = network::relay_target()?;
        if let Some((_, child)) = self.child.take_if(|(asked, _)| *asked != target) {
            let _ = process::signal(&child.pidfd, libc::SIGKILL);
            let _ = process::wait(child.pidfd.as_fd());
        }
        if self.child.is_some() {
            return None;
        }
        // When there is no process to be had, the next server tries again.
        match process::fork(single).ok()? {
            Fork::Child => Some(Forked::Relaying(target)),
            Fork::Parent(child) => {
                self.child = Some((target, child));
                None
            }
        }
    }
}

fn relay_names(instance: &Instance, target: SocketAddr) -> io::Result<()> {
    process::die_with_parent()?;
    let _relay = Relay::start((instance.gateway(), DNS_PORT).into(), target)?;
    loop {
        std::thread::park();
    }
}

/// This process is a new child.
enum Forked {
    /// Which makes all ready for a launch in that slot, and waits to be asked for it by the server, or to be ended.
    Waiting { slot: u16, bounds: Bounds, launcher: OwnedFd, connection: UnixStream },
    /// Which has a launch to see through.
    Asked(UnixStream),
    /// Which asks that name server for the dynos.
    Relaying(SocketAddr),
}

/// A shim that waits for a launch, as far as the launcher knows.
struct Ahead {
    /// By which it is ended, and says [`TAKEN`] when it has a launch.
    socket: OwnedFd,
    shim: Child,
}

/// What a shim that has waited says when its launch has come: from then on it is none of the launcher's business.
pub(super) const TAKEN: &[u8] = b"t";

impl Ahead {
    /// One that was killed has no launch either, and may have left something.
    fn has_a_launch(&self) -> bool {
        let said = rustix::net::recv(&self.socket, &mut [0; TAKEN.len()], RecvFlags::DONTWAIT);
        matches!(said, Ok((_, 1..)))
    }

    fn has_ended(&self) -> bool {
        happens(&self.shim.pidfd, Timespec::default())
    }

    /// Ends it if it still waits, and does not return before all that it had made is gone: the slot may be used again.
    fn release(self, instance: &Instance, slot: u16) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        if !happens(&self.socket, ANSWERS_WITHIN) {
            // Stopped, or the machine is in a bad state: nobody waits for it any longer.
            let _ = process::signal(&self.shim.pidfd, libc::SIGKILL);
        }
        if let Ok((_, 1..)) = rustix::net::recv(&self.socket, &mut [0; TAKEN.len()], RecvFlags::empty()) {
            return;
        }
        // Ended children vanish by themselves here, which is what this waits for.
        let _ = process::wait(self.shim.pidfd.as_fd());
        // Only one that was killed leaves something.
        slot::clear(instance, slot);
        // With its namespace the link is gone anyway, only a little later.
        let _ = network::release(instance, slot);
    }
}

/// Whether there is something to read, or an end, within that time.
fn happens(fd: impl AsFd, within: Timespec) -> bool {
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut polled, Some(&within)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return matches!(other, Ok(1..)),
        }
    }
}

fn serve(
    single: &SingleThreaded,
    instance: &Instance,
    listener: &UnixListener,
    ours: u64,
) -> Result<Option<Forked>, LauncherError> {
    let mut waiting: HashMap<u16, Ahead> = HashMap::new();
    let mut relaying = Relaying::default();
    if let Some(forked) = relaying.adapt(single) {
        return Ok(Some(forked));
    }
    let path = socket(instance);
    // Hung up when all is gone, which is what whoever asked waits for.
    let mut asked_to_end = None;
    // The server that began anew last: it is hung up on when this dies.
    let mut _server = None;
    // The name leads elsewhere when RUN was removed or another launcher took over.
    while fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&LOOK_EVERY)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        bury(instance, &mut waiting);
        let Ok((connection, _)) = listener.accept() else { continue };
        let hello = hello(&connection);
        // Who waits where the server begins anew has been given up, or was killed.
        if let Some(Hello::Prepare { slot, .. } | Hello::Launch { slot }) = hello
            && let Some(ahead) = waiting.remove(&slot)
        {
            ahead.release(instance, slot);
        }
        let forked = match hello {
            Some(Hello::Quit) => {
                asked_to_end = Some(connection);
                break;
            }
            Some(Hello::Forget) => {
                release(instance, &mut waiting);
                _server = Some(connection);
                // The host's name server may be another one by now.
                relaying.adapt(single)
            }
            Some(Hello::Prepare { slot, bounds }) => prepare(single, slot, bounds, connection, &mut waiting),
            Some(Hello::Launch { .. }) => launch(single, connection),
            None => None,
        };
        if forked.is_some() {
            return Ok(forked);
        }
    }
    release(instance, &mut waiting);
    drop(asked_to_end);
    Ok(None)
}

/// When that can't be done now, the connection ends, and a launch by [`launch`] will fail and say why.
fn prepare(
    single: &SingleThreaded,
    slot: u16,
    bounds: Bounds,
    connection: UnixStream,
    waiting: &mut HashMap<u16, Ahead>,
) -> Option<Forked> {
    waiting.retain(|_, ahead| !ahead.has_a_launch());
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.ok()?;
    match process::fork(single).ok()? {
        Fork::Child => Some(Forked::Waiting { slot, bounds, launcher: theirs, connection }),
        Fork::Parent(shim) => {
            waiting.insert(slot, Ahead { socket: ours, shim });
            None
        }
    }
}

/// Hands the connection to a new shim. A failed fork shows to the server as a connection that ends without a word.
fn launch(single: &SingleThreaded, connection: UnixStream) -> Option<Forked> {
    match process::fork(single) {
        Ok(Fork::Child) => Some(Forked::Asked(connection)),
        Ok(Fork::Parent(_)) | Err(_) => None,
    }
}

/// Clears away those that were killed while they waited. A launch that was to have one gets another shim.
fn bury(instance: &Instance, waiting: &mut HashMap<u16, Ahead>) {
    for (slot, ahead) in waiting.extract_if(|_, ahead| ahead.has_ended()) {
        if !ahead.has_a_launch() {
            slot::clear(instance, slot);
        }
    }
}

fn release(instance: &Instance, waiting: &mut HashMap<u16, Ahead>) {
    for (slot, ahead) in waiting.drain() {
        ahead.release(instance, slot);
    }
}

/// Removes the launcher's socket: the launcher ends, and one that is only about to start makes nothing any more.
pub(super) fn forget(instance: &Instance) -> io::Result<()> {
    let removed = with_run_locked(instance, || fs::remove_file(socket(instance)));
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn with_run_locked<T>(instance: &Instance, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let run = File::open(&instance.run)?;
    run.lock()?;
    work()
}

/// The launcher's socket in RUN.
pub(super) fn socket(instance: &Instance) -> PathBuf {
    instance.run.join("launcher.sock")
}

fn hello(connection: &UnixStream) -> Option<Hello> {
    if rustix::net::sockopt::socket_peercred(connection).ok()?.uid != rustix::process::geteuid() {
        return None;
    }
    connection.set_nonblocking(false).ok()?;
    connection.set_read_timeout(Some(HELLO_WITHIN)).ok()?;
    let mut bytes = [0; Hello::LENGTH];
    let mut connection = connection;
    connection.read_exact(&mut bytes).ok()?;
    Hello::decode(bytes)
}

/// `hokku dyno run --bundle DIR`: runs a bundle by hand, in the foreground, with this process' standard streams. The
/// instance matters only to a bundle with a network. Returns the exit status.
///
/// # Errors
/// When the dyno can't be launched.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<i32, LauncherError> {
    const USAGE: LauncherError = LauncherError::Usage("dyno run --bundle DIR [--instance JSON]");
    let (mut bundle, mut instance) = (None, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--bundle") => bundle = args.next().map(PathBuf::from),
            Some("--instance") => instance = args.next(),
            _ => return Err(USAGE),
        }
    }
    let bundle = bundle.ok_or(USAGE)?.canonicalize()?;
    let on_disk = instance.is_some();
    let instance = match instance {
        Some(instance) => serde_json::from_slice(instance.as_bytes())?,
        None => Instance::new(crate::domain::instance::InstanceName::default(), bundle.clone(), 0),
    };
    let single = SingleThreaded::claim()?;
    process::forget_ignored_signals();
    Ok(shim::by_hand(&single, &Base::prepare(&instance, on_disk)?, &instance, bundle)?)
}
