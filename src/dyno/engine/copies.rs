//! Whether there is memory for second copies of dynos that run.
#![forbid(unsafe_code)]

use super::{Dynos, Shared};
use crate::domain::dyno::DynoId;
use crate::dyno::{shape, share, spec};
use crate::sys::cgroup::Group;
use crate::sys::memory::Memory;

/// Less than what is needed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub needed: u64,
    pub left: u64,
}

/// What the box keeps for itself when a second copy is to fit, whatever apps may have together.
const RESERVE: u64 = 64 << 20;

/// What a dyno is taken to use at least, as one that has just begun uses little.
const LEAST: u64 = 32 << 20;

impl Dynos {
    /// Whether there is memory for another of each of these dynos: as much as each uses now, and a quarter more. One that
    /// can't be measured may use its whole quota.
    ///
    /// # Errors
    /// How much there is less than is needed.
    pub fn room_beside(&self, dynos: &[DynoId]) -> Result<(), Shortage> {
        let needed = dynos.iter().map(|id| copy_of(&self.shared, *id)).fold(0, u64::saturating_add);
        // Where it can't be told, as little is known as on a box with enough.
        let machine = Memory::of_this_machine().map_or(u64::MAX, |memory| memory.available.saturating_sub(RESERVE));
        let left = machine.min(share::of(&self.shared.instance).map_or(u64::MAX, |share| share.left()));
        if needed > left { Err(Shortage { needed, left }) } else { Ok(()) }
    }
}

/// What another dyno of the same code is expected to use.
fn copy_of(shared: &Shared, id: DynoId) -> u64 {
    let config = spec::Config::read(&shared.instance.dyno_dir(id)).ok();
    let Some(config) = config else { return LEAST };
    let quota = spec::memory_quota(&config.spec).unwrap_or(u64::MAX);
    let group = shape::group(&config.spec).ok().zip(shared.hierarchy.as_ref());
    let group = group.map(|((parent, name), hierarchy)| Group::open(hierarchy, &parent, &name));
    let used = group.and_then(|group| group.stats().ok()).map(|stats| stats.memory_bytes);
    used.map_or(quota, |used| used.saturating_add(used / 4).max(LEAST))
}
