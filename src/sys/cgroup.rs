//! Control groups: a group of processes with limits on memory, CPU and their number, that can be killed as one.
#![expect(clippy::missing_errors_doc, reason = "errors are what the kernel says of a file, which they name")]
//!
//! Version 2 is the main road. Where controllers still sit on version 1 mounts (hybrid hosts), each gets its own
//! directory, and an empty version 2 group beside them serves `CLONE_INTO_CGROUP` and `cgroup.kill`.
//!
//! ```text
//! pure v2    MOUNT/[delegated/]parent/name        memory.max  cpu.weight  pids.max  cgroup.kill
//! hybrid     memory/parent/name  cpu/parent/name  pids/parent/name   and   unified/parent/name (cgroup.kill)
//! ```
//!
//! - Directories are made, controllers enabled and processes killed here; values go through cgroups-rs, whose setters
//!   are checked by reading every limit back: a limit that the kernel changed or ignored is an error.
//! - Nobody writes another process's pid into `cgroup.procs` (on version 1 that waits for an RCU grace period, some
//!   16 ms): a process is born in the version 2 group and moves itself, while it is single-threaded, into the others.
//! - On pure version 2 a group with controllers for its children holds no processes, and under systemd only what was
//!   delegated is ours: see [`Hierarchy::within_delegated`].

mod files;
mod group;
mod hierarchy;
mod limits;
mod parents;
#[cfg(test)]
mod tests;

pub use group::{Group, Stats};
pub use hierarchy::Hierarchy;
pub use limits::{GroupLimits, ParentLimits};
pub use parents::{bound, children, parent, prepare, remove_parent, step_aside};

use cgroups_rs::error::Error as ControllerError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {path}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("cannot set {path} to {value}")]
    Set { path: PathBuf, value: u64, source: ControllerError },
    #[error("{path} was set to {wanted:?} but says {found:?}")]
    NotKept { path: PathBuf, wanted: String, found: String },
    #[error("cannot make the group {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("the kernel offers no {0} controller for control groups")]
    Missing(Controller),
}

/// A controller that a group has limits of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
