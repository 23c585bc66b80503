//! How much memory a dyno uses, and when that is more than its size has.
#![forbid(unsafe_code)]

use super::Shared;
use crate::sys::cgroup::Group;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// One dyno's memory, looked at now and then.
pub(super) struct Memory {
    group: Option<Group>,
    quota: u64,
    ticks: Interval,
}

impl Memory {
    /// Of the dyno in that slot, whose size has `quota` bytes.
    pub(super) fn new(shared: &Shared, slot: u16, quota: u64) -> Self {
        let every = shared.settings.measured_every.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (parent, name) = (shared.instance.cgroup(), shared.instance.group(slot));
        let group = shared.hierarchy.as_ref().map(|hierarchy| Group::open(hierarchy, &parent, &name));
        Self { group, quota, ticks }
    }

    /// Waits until it is time to look and there is too much; tells how many bytes, and how many there should be at most.
    pub(super) async fn over_quota(&mut self) -> (u64, u64) {
        loop {
            self.ticks.tick().await;
            // A group that is gone uses none.
            let used = self.group.as_ref().and_then(|group| group.memory_above(self.quota).ok().flatten());
            if let Some(used) = used {
                return (used, self.quota);
            }
        }
    }
}
