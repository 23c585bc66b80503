//! What a shim that waits has on the host under its slot's names, and leaves there when it is killed: its control group and
//! its log ring. (Its link goes with its network namespace.)
#![forbid(unsafe_code)]

use super::instances;
use crate::domain::instance::Instance;
use crate::sys::cgroup::{self, Group};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{fs, io};

const RING: &str = "slot-";

/// Where the ring is until a dyno has the slot.
pub(super) fn ring(instance: &Instance, slot: u16) -> PathBuf {
    instance.run.join(format!("{RING}{slot}.ring"))
}

/// Ends what is in the group of a slot that nobody has, and removes what there is of it. What can't be removed now, the
/// next who looks finds.
pub(super) fn clear(instance: &Instance, slot: u16) {
    if let Ok(hierarchy) = instances::hierarchy(instance) {
        let group = Group::open(&hierarchy, &instance.cgroup(), &instance.group(slot));
        let _ = group.kill().and_then(|()| group.remove());
    }
    let _ = fs::remove_file(ring(instance, slot));
}

/// The slots of which something is there.
///
/// # Errors
/// When RUN or the control groups can't be read.
pub(super) fn traces(instance: &Instance) -> io::Result<BTreeSet<u16>> {
    let hierarchy = instances::hierarchy(instance).map_err(io::Error::other)?;
    let groups = cgroup::children(&hierarchy, &instance.cgroup())?;
    let mut slots: BTreeSet<u16> = groups.iter().filter_map(|name| name.strip_prefix("dyno-")?.parse().ok()).collect();
    for entry in fs::read_dir(&instance.run)? {
        let name = entry?.file_name();
        slots
            .extend(name.to_str().and_then(|name| name.strip_prefix(RING)?.strip_suffix(".ring")?.parse::<u16>().ok()));
    }
    Ok(slots)
}
