//! `hokku router`: the process.
//!
//! The server starts it as root with open sockets; it reads `routes.json`, becomes unprivileged, and only then talks to
//! anybody. It has its own session and does not end with the server.
#![forbid(unsafe_code)]

use super::access::Access;
use super::control::{Control, Workers};
use super::settings::Settings;
use super::worker::{self, Parts};
use crate::domain::instance::Instance;
use crate::domain::route::RouteTable;
use crate::sys::cgroup::{self, Hierarchy};
use crate::sys::{inherit, open_files, unprivileged};
use clap::Parser;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

/// The router's own process. The server starts it with --run, --fd and --control; by hand, for measurements:
///
///   hokku router --listen 127.0.0.1:8080 --routes routes.json --access-log access.log
#[derive(Debug, Parser)]
#[command(name = "hokku router", verbatim_doc_comment)]
struct Arguments {
    /// Directory with `routes.json`
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Inherited listening sockets
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        conflicts_with = "listen",
        required_unless_present = "listen"
    )]
    fd: Vec<RawFd>,
    /// Inherited listening sockets for TLS, none or as many
    #[arg(long, value_name = "N", value_delimiter = ',')]
    tls_fd: Vec<RawFd>,
    /// Inherited socket of `router.sock`
    #[arg(long, value_name = "N")]
    control: Option<RawFd>,
    /// Inherited connection to the server
    #[arg(long, value_name = "N")]
    server: Option<RawFd>,
    /// Takes over from a router that runs: serves nobody before the server has sent the first table
    #[arg(long, requires = "server")]
    successor: bool,
    /// Uid and gid to run as (by default those it was started as)
    #[arg(long)]
    uid: Option<u32>,
    /// Timers and limits, as JSON
    #[arg(long, value_name = "JSON", value_parser = settings, default_value = "{}")]
    settings: Settings,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A route table: {"version":1,"hosts":{"HOST":"APP-ID"},"apps":{"APP-ID":{"name":"NAME","maintenance":false,
    /// "target":{"kind":"dynos","dynos":[{"id":"DYNO-ID","name":"web.1","addr":"127.0.0.1:9000"}]}}}}
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    routes: Option<PathBuf>,
    /// Threads (by default one a core)
    #[arg(long, value_name = "N")]
    workers: Option<NonZero<usize>>,
    /// File for access lines, when there is no server to take them
    #[arg(long, value_name = "FILE", conflicts_with = "control")]
    access_log: Option<PathBuf>,
}

fn settings(json: &str) -> Result<Settings, serde_json::Error> {
    serde_json::from_str(json)
}

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot read {}", .0.display())]
    Routes(PathBuf, #[source] io::Error),
    #[error("{} is no route table", .0.display())]
    Table(PathBuf, #[source] serde_json::Error),
    #[error("cannot take over the inherited sockets")]
    Inherit(#[source] io::Error),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot give up root")]
    Unprivileged(#[source] io::Error),
    #[error("cannot open {}", .0.display())]
    AccessLog(PathBuf, #[source] io::Error),
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// The role's entry: `arguments` are those after `router`. Must be called before any thread exists.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let name = OsString::from("hokku router");
    let arguments = match Arguments::try_parse_from(std::iter::once(&name).chain(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed stderr.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // What can't be written, on a full disk for example, is lost and ends nobody.
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).log_internal_errors(false).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(cause, "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), StartError> {
    // As root: what an unprivileged process may not touch.
    if let Some(run) = &arguments.run
        && let Err(error) = step_aside(run)
    {
        tracing::warn!(error, "stays in the control group of the server");
    }
    let table = table(arguments)?;
    let sockets = Sockets::open(arguments)?;
    let log = arguments.access_log.as_deref().map(open_log).transpose()?;
    // Fails only for a process started by hand as the leader of its group, which does not need it.
    let _ = nix::unistd::setsid();
    // Every connection takes two files.
    if let Err(error) = open_files::allow_many() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    if let Some(uid) = arguments.uid {
        unprivileged::become_user(uid).map_err(StartError::Unprivileged)?;
    }
    // Private keys are in its memory: no other process of this user may look there, and there are no core dumps.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| StartError::Unprivileged(error.into()))?;
    let (lines, collected) = mpsc::unbounded_channel();
    let copies = sockets.copies().map_err(StartError::Inherit)?;
    let workers = start_workers(arguments, sockets.plain, sockets.tls, &lines)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.map_err(StartError::Runtime)?.block_on(async move {
        let control = Control::new(workers, copies, arguments.settings.unsent);
        if !arguments.successor {
            control.install(&table).await;
        }
        match sockets.control {
            Some(listener) => {
                let listener = UnixListener::from_std(listener).map_err(StartError::Inherit)?;
                let first = sockets.server.map(tokio::net::UnixStream::from_std).transpose();
                let first = first.map_err(StartError::Inherit)?;
                tokio::select! {
                    () = control.collect(collected) => {}
                    () = Rc::clone(&control).listen(listener, first) => {}
                    () = control.retired() => {}
                }
            }
            None => write_log(log, collected).await,
        }
        Ok(())
    })
}

/// To where systemd, which stops the server's unit, leaves it alone.
fn step_aside(run: &Path) -> Result<(), String> {
    let instance = std::fs::read(run.join("instance.json")).map_err(|error| error.to_string())?;
    let instance: Instance = serde_json::from_slice(&instance).map_err(|error| error.to_string())?;
    let hierarchy = Hierarchy::detect().map_err(|error| error.to_string())?;
    cgroup::step_aside(&hierarchy.within(instance.delegated.as_deref())).map_err(|error| error.to_string())
}

fn table(arguments: &Arguments) -> Result<RouteTable, StartError> {
    let path = match (&arguments.run, &arguments.routes) {
        (Some(run), _) => run.join("routes.json"),
        (None, Some(path)) => path.clone(),
        (None, None) => return Ok(RouteTable::default()),
    };
    match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| StartError::Table(path, error)),
        // A new instance: the server sends the first table.
        Err(error) if error.kind() == io::ErrorKind::NotFound && arguments.run.is_some() => Ok(RouteTable::default()),
        Err(error) => Err(StartError::Routes(path, error)),
    }
}

fn open_log(path: &Path) -> Result<File, StartError> {
    let file = File::options().append(true).create(true).open(path);
    file.map_err(|error| StartError::AccessLog(path.to_owned(), error))
}

/// What the process listens on.
#[derive(Debug)]
struct Sockets {
    plain: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    control: Option<std::os::unix::net::UnixListener>,
    server: Option<std::os::unix::net::UnixStream>,
}

impl Sockets {
    fn open(arguments: &Arguments) -> Result<Self, StartError> {
        if let Some(address) = arguments.listen {
            let plain = super::handle::bind(address, workers(arguments));
            let plain = plain.map_err(|error| StartError::Listen(address, error))?;
            return Ok(Self { plain, tls: Vec::new(), control: None, server: None });
        }
        Self::inherit(arguments).map_err(StartError::Inherit)
    }

    fn inherit(arguments: &Arguments) -> io::Result<Self> {
        let listeners = |fds: &[RawFd]| -> io::Result<Vec<_>> {
            fds.iter().map(|&fd| Ok(TcpListener::from(inherit::take(fd)?))).collect()
        };
        let (plain, tls) = (listeners(&arguments.fd)?, listeners(&arguments.tls_fd)?);
        let control = arguments.control.map(inherit::take).transpose()?.map(std::os::unix::net::UnixListener::from);
        let server = arguments.server.map(inherit::take).transpose()?.map(std::os::unix::net::UnixStream::from);
        if let Some(control) = &control {
            // Listening once more records this process as the one that a connecting server finds (SO_PEERCRED).
            rustix::net::listen(control, 16)?;
            control.set_nonblocking(true)?;
        }
        if let Some(server) = &server {
            server.set_nonblocking(true)?;
        }
        Ok(Self { plain, tls, control, server })
    }

    /// Copies of the listening sockets in the order of the protocol.
    fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let mut copies = Vec::new();
        if let Some(control) = &self.control {
            copies.push(control.try_clone()?.into());
        }
        for listener in self.plain.iter().chain(&self.tls) {
            copies.push(listener.try_clone()?.into());
        }
        Ok(copies)
    }
}

fn workers(arguments: &Arguments) -> usize {
    arguments.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
}

/// One thread for each listening socket: every socket of a group has its own queue.
fn start_workers(
    arguments: &Arguments,
    plain: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    lines: &mpsc::UnboundedSender<Vec<Access>>,
) -> Result<Workers, StartError> {
    let (mut orders, mut tls) = (Vec::new(), tls.into_iter());
    let (sender, current) = watch::channel(None);
    for (number, listener) in plain.into_iter().enumerate() {
        let (order, receiver) = mpsc::unbounded_channel();
        let tls = tls.next().map(|listener| (listener, current.clone()));
        let settings = arguments.settings.clone();
        let parts = Parts { listener, tls, settings, orders: receiver, lines: lines.clone() };
        // A router with a worker less would let a part of all connections wait for ever; the server starts a whole one.
        let work = move || match std::panic::catch_unwind(AssertUnwindSafe(|| worker::run(parts))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "a worker could not start");
                std::process::abort();
            }
            Err(_) => std::process::abort(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        thread.spawn(work).map_err(StartError::Runtime)?;
        orders.push(order);
    }
    Ok(Workers { orders, tls: sender })
}

/// Without a server: lines into a file, or nowhere.
async fn write_log(mut log: Option<File>, mut lines: mpsc::UnboundedReceiver<Vec<Access>>) {
    while let Some(batch) = lines.recv().await {
        let Some(file) = &mut log else { continue };
        let mut text = String::new();
        for access in batch {
            writeln!(text, "{} {}", access.at, access.line).expect("writing to a string does not fail");
        }
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::warn!(%error, "cannot write access lines");
        }
    }
}
