//! What all dynos and builds of an instance may use of the machine together. The rest is the host's: its own work goes on,
//! and so do server and router, whatever the apps do. At the bound the kernel ends what uses most, a build first.
#![forbid(unsafe_code)]

use super::instances;
use crate::domain::instance::Instance;
use crate::domain::limits;
use crate::sys::cgroup::{self, CgroupError, ParentLimits};
use crate::sys::memory::Memory;
use std::fs;
use std::io;

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub most: u64,
    /// Without what can be dropped, such as files in memory.
    pub used: u64,
}

impl Share {
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot see how much memory there is")]
    Io(#[from] io::Error),
    #[error("apps use {used} MB of memory already, more than the {most} MB that [memory] reserve_mb leaves to them")]
    InUse { used: u64, most: u64 },
}

/// Bounds what there is and what is to come. `reserve` are bytes of memory for the host.
///
/// # Errors
/// When the control groups don't take it, or the apps that run have more memory already: they are not ended for it.
pub(super) fn bound(instance: &Instance, reserve: Option<u64>) -> Result<(), ShareError> {
    let hierarchy = instances::hierarchy(instance)?;
    let name = instance.cgroup();
    // The launcher does it too, but nobody waits for that.
    cgroup::prepare(&hierarchy, &name)?;
    let most = limits::memory_for_apps(Memory::of_this_machine()?.total, reserve);
    let used = cgroup::parent(&hierarchy, &name).stats()?.memory_bytes;
    if used > most {
        return Err(ShareError::InUse { used: used >> 20, most: most >> 20 });
    }
    Ok(cgroup::bound(&hierarchy, &name, ParentLimits { memory_max: most, pids: processes() })?)
}

/// What an instance has; `None` where its dynos have no bound together, or none have run yet.
pub fn of(instance: &Instance) -> Option<Share> {
    let hierarchy = instances::hierarchy(instance).ok()?;
    let parent = cgroup::parent(&hierarchy, &instance.cgroup());
    Some(Share { most: parent.memory_max()?, used: parent.stats().ok()?.memory_bytes })
}

/// Three quarters of the processes and threads that the kernel has numbers and memory for.
fn processes() -> u64 {
    let most = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<u64>().ok();
    let all = most("pid_max").into_iter().chain(most("threads-max")).min().unwrap_or(32768);
    all / 4 * 3
}
