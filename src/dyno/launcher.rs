//! The launcher: a small process with one thread that forks shims, so that the server, large and threaded, never has to.
//! One per instance; it outlives the server, and the next server finds it by its socket.
#![forbid(unsafe_code)]

use super::network;
use super::protocol::{self, Hello, Request, Stdio};
use super::relay::Relay;
use super::shim;
use crate::domain::instance::Instance;
use crate::sys::process::{self, Fork, SingleThreaded};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
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
    // Away from the server's session and group, so that what ends the server doesn't end this.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/").map_err(io::Error::from)?;
    let _ = rustix::thread::set_name(c"hokku-launcher");
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null).map_err(io::Error::from)?;
    process::forget_children();
    if relay_names(&single, &instance)? {
        return Ok(());
    }
    match serve(&single, &instance, &listener)? {
        None => Ok(()),
        Some(Forked { connection, network }) => {
            // As long as any process has it open, servers could connect to a launcher that is dead.
            drop(listener);
            be_shim(&single, &instance, connection, network)
        }
    }
}

/// Where only the host itself can reach its name server, a child of ours asks it for the dynos, for as long as the
/// launcher lives. Whether this is that child.
fn relay_names(single: &SingleThreaded, instance: &Instance) -> io::Result<bool> {
    let Some(target) = network::relay_target() else { return Ok(false) };
    let Fork::Child = process::fork(single)? else { return Ok(false) };
    process::die_with_parent()?;
    let _relay = Relay::start((instance.gateway(), DNS_PORT).into(), target)?;
    loop {
        std::thread::park();
    }
}

/// This process is the new child, and has a launch to see through.
struct Forked {
    connection: UnixStream,
    network: Option<OwnedFd>,
}

fn serve(
    single: &SingleThreaded,
    instance: &Instance,
    listener: &UnixListener,
) -> Result<Option<Forked>, LauncherError> {
    let mut prepared: HashMap<u16, OwnedFd> = HashMap::new();
    let path = socket(instance);
    let ours = fs::metadata(&path)?.ino();
    // The name leads elsewhere when RUN was removed or another launcher took over.
    while fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&LOOK_EVERY)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let Ok((connection, _)) = listener.accept() else { continue };
        match hello(&connection) {
            Some(Hello::Quit) => break,
            Some(Hello::Forget) => release(instance, &mut prepared),
            Some(Hello::Prepare { slot }) => {
                // When it can't be made now, the launch will say why.
                if let Ok(namespace) = network::prepare(instance, slot) {
                    prepared.insert(slot, namespace);
                }
            }
            Some(Hello::Launch { slot }) => {
                let network = prepared.remove(&slot);
                // A failed fork shows to the server as a connection that ends without a word.
                if let Ok(Fork::Child) = process::fork(single) {
                    return Ok(Some(Forked { connection, network }));
                }
            }
            None => {}
        }
    }
    release(instance, &mut prepared);
    Ok(None)
}

fn release(instance: &Instance, prepared: &mut HashMap<u16, OwnedFd>) {
    for (slot, _) in prepared.drain() {
        // With its namespace the link is gone anyway, only a little later.
        let _ = network::release(instance, slot);
    }
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

/// In the forked child: reads the launch and sees it through.
fn be_shim(
    single: &SingleThreaded,
    instance: &Instance,
    mut connection: UnixStream,
    network: Option<OwnedFd>,
) -> Result<(), LauncherError> {
    process::remember_children();
    let _ = rustix::process::setsid();
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let request = loop {
        if let Some(request) = protocol::decode::<Request>(&mut buffer)? {
            break request;
        }
        match connection.read(&mut chunk)? {
            0 => return Ok(()),
            length => buffer.extend(&chunk[..length]),
        }
    };
    shim::run(single, instance, &request, network, Some(connection))?;
    Ok(())
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
    let instance = match instance {
        Some(instance) => serde_json::from_slice(instance.as_bytes())?,
        None => Instance::new(crate::domain::instance::InstanceName::default(), bundle.clone(), 0),
    };
    let single = SingleThreaded::claim()?;
    let request = Request { bundle, env: Vec::new(), files: Vec::new(), stdio: Stdio::Inherit };
    Ok(shim::run(&single, &instance, &request, None, None)?)
}
