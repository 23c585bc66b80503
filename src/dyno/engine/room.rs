//! The disk that writable layers are on: what a new one may have, and what is done when all together have too much.
//!
//! Layers take only the room that is used, and are not reserved: most dynos write next to nothing. So that they don't take
//! what the rest of the box needs, a new one gets no more than there is above the reserve, and when half of the reserve is
//! gone all the same, the dyno that has written most is ended: it goes on with an empty layer.
#![forbid(unsafe_code)]

use super::{Shared, record};
use crate::domain::dyno::{DynoId, Purpose};
use crate::dyno::protocol::Order;
use crate::dyno::{What, shape, spec};
use crate::sys::cgroup::Group;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Less makes no useful layer.
const SMALLEST: u64 = 16 << 20;
/// How often it is looked how much is free.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A dyno that was ended gives back its room in that time, also when much of what it wrote is on its way to a slow disk:
/// until then another would be ended for what the first has taken.
const AFTER_AN_END: Duration = Duration::from_secs(30);

impl Shared {
    /// Bytes that a new layer may have of `wanted`: halved until there is room for all of them above the reserve, so that
    /// there are few sizes.
    pub(super) fn fitted(&self, wanted: u64) -> u64 {
        fit(wanted, free(&self.instance.root).map_or(u64::MAX, |free| free.saturating_sub(self.settings.disk_reserve)))
    }
}

fn fit(wanted: u64, room: u64) -> u64 {
    let mut fitted = wanted;
    while fitted > room && fitted / 2 >= SMALLEST {
        fitted /= 2;
    }
    fitted
}

/// Ends what has written most, for as long as the engine works and there is less than half of the reserve. When others than
/// dynos have filled the disk, ending dynos would not help, and they go on.
pub(super) async fn keep_free(shared: Arc<Shared>) {
    let least = shared.settings.disk_reserve / 2;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let missing = free(&shared.instance.root).map_or(0, |free| least.saturating_sub(free));
        if missing == 0 {
            continue;
        }
        let looking = shared.clone();
        let found = tokio::task::spawn_blocking(move || largest(&looking, missing)).await;
        let Ok(Some((id, bytes))) = found else { continue };
        tracing::warn!(dyno = %id, "the disk is nearly full: ending the dyno that has written most, {} MB", bytes >> 20);
        shared.tell(id, What::DiskFull { bytes });
        shared.order(id, Order::Kill);
        tokio::time::sleep(AFTER_AN_END).await;
    }
}

/// The dyno with the most on the disk, and how many bytes that are, when all dynos together have what is missing. Builds are
/// watched by who runs them.
fn largest(shared: &Shared, missing: u64) -> Option<(DynoId, u64)> {
    let all = record::all(&shared.instance.run).ok()?.into_iter();
    let written = all.filter_map(|(id, dir)| Some((id, written(shared, &dir)?)));
    let written: Vec<_> = written.filter(|(_, bytes)| *bytes >= SMALLEST).collect();
    let together: u64 = written.iter().map(|(_, bytes)| bytes).sum();
    written.into_iter().max_by_key(|(_, bytes)| *bytes).filter(|_| together >= missing)
}

/// Bytes that a live dyno has written; `None` when it writes into memory.
fn written(shared: &Shared, dir: &Path) -> Option<u64> {
    let purpose = record::labels(dir).ok()?.purpose;
    let config = spec::Config::read(dir).ok()?;
    let bounds = shape::bounds(&config.spec).ok()?;
    let (parent, name) = shape::group(&config.spec).ok()?;
    let group = Group::open(shared.hierarchy.as_ref()?, &parent, &name);
    let process = group.procs().ok()?.first().copied()?;
    // As the dyno sees it: of its layer.
    let layer = rustix::fs::statvfs(format!("/proc/{process}/root")).ok()?;
    let size = layer.f_blocks * layer.f_frsize;
    let in_memory = size == bounds.memory && bounds.memory < bounds.bytes;
    (purpose != Purpose::Build && !in_memory).then_some((layer.f_blocks - layer.f_bfree) * layer.f_frsize)
}

/// Bytes free for use on the file system of `place`.
fn free(place: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(place)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_gets_what_there_is_room_for() {
        const MIB: u64 = 1 << 20;
        let fitted = |room: u64| fit(1024 * MIB, room * MIB) / MIB;
        assert_eq!([5000, 1024, 1023, 300, 40, 15, 0].map(fitted), [1024, 1024, 512, 256, 32, 16, 16]);
        assert_eq!(fit(20 * MIB, 0), 20 * MIB);
    }
}
