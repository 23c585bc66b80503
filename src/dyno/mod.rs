//! The engine: dynos as the kernel sees them.
//!
//! ```text
//!  server                   launcher            shim                       init (pid 1)            app
//!                             fork ───────────▶ network, ids, cgroup ────▶ /proc, /dev, /sys
//!                                               waits                      waits
//!  Dynos::launch ─request─▶ passes it on ─────▶ request ─────────────────▶ root, pivot ─────────▶ exec
//!        ◀──────────────────Started / Failed─────      ◀─ Failed, or nothing─ drop everything     uid 1000
//!        ◀── shim.sock, log.ring, exit.json ──── pipes or pty              reap
//! ```
//!
//! What is above the request is made ahead, for the next launches (`docs/decisions/0005`).
//!
//! The server may die at any moment and comes back to the same dynos: what lasts is in `RUN/dynos/<id>/`. A dyno never
//! outlives its shim, and nothing that a dyno uses is visible on the host, so a crash leaves nothing to clean up but a
//! cgroup and that directory.
//!
//! Identity is a pidfd or a socket, never a number; secrets travel by socket, never by file or argument.
#![forbid(unsafe_code)]

mod base;
mod engine;
pub mod firewall;
mod init;
pub mod instances;
pub mod launcher;
pub mod network;
pub mod policy;
mod program;
mod protocol;
mod record;
pub mod relay;
mod remedy;
mod ring;
mod roots;
pub mod scratch;
mod shape;
pub mod share;
pub mod shell;
mod shim;
mod slot;
pub mod spec;
mod step;

pub use engine::{Dynos, EngineError, Settings, Shortage, destroy};
pub use remedy::ADVICE;
pub use roots::{Root, roots};
pub use step::StepError;

use crate::domain::actor::AccountId;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, DynoName, Exit, Purpose};
use crate::domain::limits::{DynoSize, Limits};
use crate::wire::attach::BoxedIo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a dyno is, for whoever finds it: kept in `RUN/dynos/<id>/labels.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    pub app: AppId,
    pub app_name: String,
    pub name: DynoName,
    pub purpose: Purpose,
    /// The release's number.
    pub version: u32,
    /// Counts `ps:restart`s.
    pub epoch: u64,
    /// Crashes in a row before this launch.
    pub streak: u32,
    pub size: DynoSize,
    pub command: String,
    pub launched_at: Timestamp,
    /// Whose access it ends with; none for what is the app's own.
    #[serde(default)]
    pub by: Option<AccountId>,
}

/// What runs, in what.
#[derive(Clone, Debug)]
pub struct Body {
    /// Lower layers of the root, topmost first: the slug's tree, then the stack's base.
    pub layers: Vec<PathBuf>,
    /// Directories and files of the host that are seen inside, owned inside by whom they are owned on the disk.
    pub binds: Vec<Mount>,
    pub command: Vec<String>,
    /// Secrets included.
    pub env: Vec<(String, String)>,
    /// Written by the dyno's own user before the command starts.
    pub files: Vec<File>,
    pub limits: Limits,
    pub hostname: String,
    /// Without it there is only a loopback interface.
    pub network: bool,
    /// After it the dyno is killed.
    pub time_limit: Option<Duration>,
}

/// Something of the host's that a dyno sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// A file made for one launch. Contents may be secret; they are not written to any disk of the host's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub path: PathBuf,
    pub mode: u32,
    pub contents: Vec<u8>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:o}, {} bytes)", self.path.display(), self.mode, self.contents.len())
    }
}

/// A program to be let into a dyno that runs, with the same rights and limits as the dyno's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    pub command: Vec<String>,
    /// Beside the dyno's own.
    pub env: Vec<(String, String)>,
    /// Columns and rows of its terminal; `None` for three pipes.
    pub tty: Option<(u16, u16)>,
}

/// When a dyno counts as up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as its program runs.
    Started,
    /// When `port` accepts; after `within` it is killed (R10).
    Port { port: u16, within: Duration },
}

/// Where a dyno's output goes, and where its input comes from.
pub enum Io {
    /// Lines to the app's log; no input.
    Log,
    /// Each line, without its end, to the receiver; a release phase's lines to the log too. No input. None is dropped:
    /// when nobody takes them, the dyno waits.
    Lines(mpsc::UnboundedSender<Vec<u8>>),
    /// Frames of [`crate::wire::attach`] over `stream`, with a terminal of that many columns and rows or with three
    /// pipes. When the client goes, every process gets SIGHUP.
    Attach { tty: Option<(u16, u16)>, stream: BoxedIo },
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("Log"),
            Self::Lines(_) => f.write_str("Lines"),
            Self::Attach { tty, .. } => write!(f, "Attach({tty:?})"),
        }
    }
}

/// One launch.
#[derive(Debug)]
pub struct Launch {
    pub id: DynoId,
    pub labels: Labels,
    pub body: Body,
    pub ready: Ready,
    pub io: Io,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: DynoId,
    pub what: What,
}

/// What became of a dyno. `Exited` and `Failed` are the last of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its program runs.
    Started,
    /// It is up; with an address when it has a port.
    Ready { addr: Option<SocketAddr> },
    /// Its port did not accept in time; it is being killed and `Exited` follows.
    BootTimeout,
    /// All its output is stored by now.
    Exited(Exit),
    /// It could not be launched: what was being done, what the kernel said, and, after [`ADVICE`], what to do about it.
    Failed { step: String, message: String },
    /// SIGKILL had to end it after its grace (R12); `Exited` follows.
    Killed,
    /// What it writes is kept in memory, for that reason.
    InMemory { why: String },
    /// The disk has no room for all that it might write; in bytes.
    LessDisk { bytes: u64, wanted: u64 },
    /// The disk is nearly full, and it is ended for having written most: so many bytes.
    DiskFull { bytes: u64 },
    /// It uses that many bytes of memory, which is more than its size has (R14). Told again while it does.
    OverQuota { bytes: u64, quota: u64 },
}

/// A dyno that a starting server comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: DynoId,
    pub labels: Labels,
    pub addr: Option<SocketAddr>,
    /// `None`: it lives, and its events go on from here.
    pub exit: Option<Exit>,
    pub ready_port: Option<u16>,
    /// Its port has accepted once, or it has none.
    pub was_ready: bool,
}
