//! The role `hokku unpack`: reads an archive that anybody may have made, as nobody in particular.
//!
//! A process of its own, begun in the destination directory with the archive as its standard input and its [`Order`] as
//! its only argument. Before it reads the first byte it makes the destination its root, and gives up root, every
//! capability, the network and all other files; what a flaw in a decoder could reach is the half-made tree that is
//! thrown away. Its [`Report`] goes to standard output.
#![forbid(unsafe_code)]

use super::refusal::{Name, Refusal};
use super::{extract, ignore};
use crate::sys::confine::{Confinement, confine};
use nix::sys::resource::Resource;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What to make of an archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Uid and gid to work as, and to own what is made.
    pub(super) id: u32,
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) ratio: u64,
    pub(super) strip: Strip,
    pub(super) links: Links,
    /// Remove `.git` and what `.slugignore` names.
    pub(super) prune: bool,
}

/// Whether a single top-level directory is taken away, its contents moved up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Strip {
    No,
    Any,
    Named(String),
}

/// Which symbolic links are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Links {
    /// Those that stay within the tree or lead to what every dyno has.
    Inside,
    /// All: in a slug that was packed here they are what the build has made, and only ever resolved inside a dyno.
    Any,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Files, directories and links.
    pub files: u64,
    /// Of all files together.
    pub bytes: u64,
    /// Removed because `.slugignore` says so; a whole directory counts as one.
    pub ignored: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Done(Unpacked),
    Failed(Failure),
}

/// Why it was not unpacked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The archive's fault.
    Refused(Refusal),
    /// The machine's.
    System(String),
}

impl Failure {
    pub(super) fn at<E: Into<io::Error>>(doing: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self + use<E> {
        let name = Name::new(path);
        move |e| Self::System(format!("could not {doing} {name}: {}", e.into()))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Threads that make files, beside the one that decompresses. More only wait for the same directories.
const MOST_WRITERS: usize = 4;
/// Address space, stacks and decoder windows included. Bounds what a decoder can be talked into.
const MEMORY: u64 = 2 << 30;
const CPU_SECONDS: u64 = 900;

/// Does the role. `args` are those after its name.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let order = args.next().and_then(|order| serde_json::from_str(order.to_str()?).ok());
    let Some(order) = order else { return ExitCode::from(64) };
    let report = match work(&order) {
        Ok(unpacked) => Report::Done(unpacked),
        Err(failure) => Report::Failed(failure),
    };
    match serde_json::to_writer(io::stdout().lock(), &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(order: &Order) -> Result<Unpacked, Failure> {
    let limits = [
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, CPU_SECONDS),
        (Resource::RLIMIT_FSIZE, order.bytes),
        (Resource::RLIMIT_NOFILE, 64),
    ];
    let writers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WRITERS);
    confine(&Confinement { id: order.id, root: Path::new("."), limits: &limits })
        .map_err(|e| Failure::System(format!("could not confine the reader of the archive: {e}")))?;
    rustix::process::umask(rustix::fs::Mode::empty());

    let made = extract::extract(io::stdin().lock(), order, writers)?;
    let ignored = if order.prune { ignore::prune()? } else { 0 };
    Ok(Unpacked { files: made.files, bytes: made.bytes, ignored })
}
