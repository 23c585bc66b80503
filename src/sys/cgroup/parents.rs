//! Parents: the directories that hold groups, and hand controllers down to them.

use super::files::{ignore_gone, put, read, write};
use super::{CgroupError, Controller, Group, Hierarchy, ParentLimits};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long removing a group waits for killed processes to be gone.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
/// The group for the processes of a delegated group, which may have none once it hands controllers down.
const ASIDE: &str = "processes";

/// Those that were moved aside manage the others: under contention they get this much more of the processor, see cpu.weight.
const ASIDE_WEIGHT: u32 = 1000;

/// `parent` as a group, for what all below it use together.
pub fn parent(hierarchy: &Hierarchy, parent: &str) -> Group {
    Group::open(hierarchy, "", parent)
}

/// Bounds what the groups below `parent`, which must be there, use together, now and in future. On version 2 a bound below
/// what they use already would have the kernel kill; whoever asks has to look first.
pub fn bound(hierarchy: &Hierarchy, parent: &str, limits: ParentLimits) -> Result<(), CgroupError> {
    self::parent(hierarchy, parent).bound(limits)?;
    if let (Some(v2), Some(_)) = (&hierarchy.v2, hierarchy.delegated()) {
        let weight = v2.join(ASIDE).join("cpu.weight");
        if weight.exists() {
            put(&weight, &ASIDE_WEIGHT.to_string())?;
        }
    }
    Ok(())
}

/// Removes `parent` from every hierarchy; it must have no groups left.
pub fn remove_parent(hierarchy: &Hierarchy, parent: &str) -> io::Result<()> {
    remove_dirs(hierarchy.roots().map(|root| root.join(parent)))
}

/// The names of the groups there are below `parent`.
pub fn children(hierarchy: &Hierarchy, parent: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for root in hierarchy.roots() {
        let entries = match fs::read_dir(root.join(parent)) {
            Ok(entries) => entries,
            Err(error) => {
                ignore_gone(Err(error))?;
                continue;
            }
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Makes `parent` ready to hold groups before the first is made. Of a delegated group, all processes are moved aside.
pub fn prepare(hierarchy: &Hierarchy, parent: &str) -> Result<(), CgroupError> {
    make_parents(hierarchy, parent)?;
    match (&hierarchy.v2, hierarchy.delegated()) {
        // Also where there was no controller to be handed down.
        (Some(v2), Some(_)) => move_aside(v2),
        _ => Ok(()),
    }
}

/// Moves this process to those that were moved aside in a delegated group, so that it stays when the unit that has
/// started it is stopped. Without such a group nothing changes.
pub fn step_aside(hierarchy: &Hierarchy) -> Result<(), CgroupError> {
    let (Some(v2), Some(_)) = (&hierarchy.v2, hierarchy.delegated()) else { return Ok(()) };
    make_if_missing(&v2.join(ASIDE))?;
    put(&v2.join(ASIDE).join("cgroup.procs"), "0")
}

pub(super) fn make_parents(hierarchy: &Hierarchy, parent: &str) -> Result<(), CgroupError> {
    for root in hierarchy.roots() {
        make_if_missing(&root.join(parent))?;
    }
    for root in &hierarchy.for_show {
        // Without them nobody can be in there.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let _ =
                fs::read_to_string(root.join(file)).and_then(|all| write(&root.join(parent).join(file), all.trim()));
        }
    }
    let Some(v2) = &hierarchy.v2 else { return Ok(()) };
    let wanted: Vec<Controller> = hierarchy.v2_controllers().collect();
    match hand_down(v2, &wanted) {
        Err(CgroupError::Write { source, .. })
            if hierarchy.delegated().is_some() && source.raw_os_error() == Some(libc::EBUSY) =>
        {
            move_aside(v2)?;
            hand_down(v2, &wanted)?;
        }
        other => other?,
    }
    hand_down(&v2.join(parent), &wanted)
}

fn make_if_missing(path: &Path) -> Result<(), CgroupError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Make { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Gives the groups below `dir` the controllers `wanted`, and what else there is of use.
fn hand_down(dir: &Path, wanted: &[Controller]) -> Result<(), CgroupError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let on = read(&path)?;
    let is_on = |name: &str| on.split_whitespace().any(|there| there == name);
    for controller in wanted.iter().filter(|wanted| !is_on(wanted.name())) {
        put(&path, &format!("+{controller}"))?;
    }
    if !is_on("io") {
        // Not every kernel has it, and dynos do without.
        let _ = write(&path, "+io");
    }
    Ok(())
}

/// Moves the processes of a delegated group, ours among them, into one below it.
fn move_aside(dir: &Path) -> Result<(), CgroupError> {
    let aside = dir.join(ASIDE);
    make_if_missing(&aside)?;
    // As long as some were forked by others that had not been moved yet.
    loop {
        let there = read(&dir.join("cgroup.procs"))?;
        if there.trim().is_empty() {
            return Ok(());
        }
        for pid in there.lines() {
            match write(&aside.join("cgroup.procs"), pid) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other.map_err(|source| CgroupError::Write {
                    path: aside.join("cgroup.procs"),
                    value: pid.into(),
                    source,
                })?,
            }
        }
    }
}

pub(super) fn make_dir(path: &Path) -> Result<(), CgroupError> {
    let create = || DirBuilder::new().mode(0o755).create(path);
    let made = match create() {
        // Left over by a crash: fine if no process is in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_dir(path).and_then(|()| create()),
        other => other,
    };
    made.map_err(|source| CgroupError::Make { path: path.into(), source })
}

/// Waits, a bounded time for all of them, for killed processes to be gone.
pub(super) fn remove_dirs(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_WITHIN;
    paths.into_iter().try_for_each(|path| remove_dir(path.as_ref(), deadline))
}

fn remove_dir(path: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            result => return ignore_gone(result),
        }
    }
}
