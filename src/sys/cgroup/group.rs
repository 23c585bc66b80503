//! A group, from its making to its removal.

use super::files::{field, ignore_gone, number, write};
use super::limits::{bound_memory, limit_cpu, limit_io, limit_memory_v1, limit_memory_v2, limit_pids};
use super::parents::{make_dir, make_parents, remove_dirs};
use super::{CgroupError, Controller, GroupLimits, Hierarchy, ParentLimits};
use rustix::event::EventfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More bytes than this are no limit (`PAGE_COUNTER_MAX` of the kernel is in pages, just below 2^63 bytes).
const UNLIMITED: u64 = 1 << 62;

/// `MEMCG_CHARGE_BATCH` of the kernel is 64 pages.
const CHARGED_AT_ONCE: u64 = 64 * 4096;

/// What a group uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes charged to the group, less the page cache, which can be dropped.
    pub memory_bytes: u64,
    /// The highest charge seen, page cache included; `None` on version 2 kernels before 5.19.
    pub memory_peak: Option<u64>,
    pub cpu_usec: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A group: one directory per hierarchy. Dropping it removes nothing.
#[derive(Debug)]
pub struct Group {
    pub(super) v2: Option<V2Part>,
    pub(super) v1: Vec<V1Part>,
    /// In the hierarchies that limit nothing, the groups of all that have the same parent: the parents themselves.
    pub(super) for_show: Vec<V1Part>,
}

#[derive(Debug)]
pub(super) struct V2Part {
    pub(super) dir: PathBuf,
    fd: Option<OwnedFd>,
    /// The controllers are here (pure version 2), not only the processes.
    limited: bool,
}

#[derive(Debug)]
pub(super) struct V1Part {
    /// `None`: CPU accounting.
    pub(super) controller: Option<Controller>,
    pub(super) dir: PathBuf,
    /// Open for [`Group::enter`].
    pub(super) tasks: Option<File>,
}

impl Group {
    /// Makes the group `parent/name` with `limits`, `parent` too where it is missing. A group of that name left over
    /// by a crash is replaced when it holds no process. On failure nothing but `parent` stays.
    pub fn create(hierarchy: &Hierarchy, parent: &str, name: &str, limits: &GroupLimits) -> Result<Self, CgroupError> {
        make_parents(hierarchy, parent)?;
        Self::create_below(hierarchy, parent, name, limits)
    }

    /// The same where `parent` must be there, as it is from [`super::prepare`] until [`super::remove_parent`]: what comes
    /// late leaves nothing.
    pub fn create_below(
        hierarchy: &Hierarchy,
        parent: &str,
        name: &str,
        limits: &GroupLimits,
    ) -> Result<Self, CgroupError> {
        let mut group = Self::open(hierarchy, parent, name);
        let mut made = Vec::new();
        let limited = group.make_dirs(&mut made).and_then(|()| group.set_limits(limits));
        if let Err(error) = limited {
            for dir in made {
                // New and empty, so nothing is in the way; if something were, `error` tells more.
                let _ = fs::remove_dir(dir);
            }
            return Err(error);
        }
        Ok(group)
    }

    /// The group `parent/name`, whether it is there or not: for cleaning up after a crash. Cannot be entered.
    pub fn open(hierarchy: &Hierarchy, parent: &str, name: &str) -> Self {
        let below = |root: &Path| root.join(parent).join(name);
        let limited = |controller| hierarchy.v1.iter().all(|(there, _)| *there != controller);
        let v2 = hierarchy.v2.as_deref().map(below).map(|dir| {
            let fd = open_dir(&dir).ok();
            V2Part { dir, fd, limited: Controller::ALL.into_iter().any(limited) }
        });
        let mut v1: Vec<V1Part> = Vec::new();
        let accounting = hierarchy.cpuacct.iter().map(|root| (None, root));
        for (controller, root) in hierarchy.v1.iter().map(|(c, root)| (Some(*c), root)).chain(accounting) {
            v1.push(V1Part { controller, dir: below(root), tasks: None });
        }
        let shown = |root: &PathBuf| V1Part { controller: None, dir: root.join(parent), tasks: None };
        let for_show = hierarchy.for_show.iter().map(shown).collect();
        Self { v2, v1, for_show }
    }

    fn make_dirs(&mut self, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        for part in &mut self.v1 {
            // Controllers mounted together share a directory.
            if !made.contains(&part.dir) {
                make_dir(&part.dir)?;
                made.push(part.dir.clone());
            }
        }
        for part in self.v1.iter_mut().chain(&mut self.for_show) {
            let path = part.dir.join("tasks");
            let tasks = OpenOptions::new().write(true).open(&path);
            part.tasks = Some(tasks.map_err(|source| CgroupError::Make { path, source })?);
        }
        if let Some(part) = &mut self.v2 {
            make_dir(&part.dir)?;
            made.push(part.dir.clone());
            let fd = open_dir(&part.dir).map_err(|source| CgroupError::Make { path: part.dir.clone(), source })?;
            part.fd = Some(fd);
        }
        Ok(())
    }

    /// Sets limits other than those it was made with.
    pub fn set_limits(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        for controller in Controller::ALL {
            let Some((dir, v2)) = self.place(controller) else { continue };
            match controller {
                Controller::Memory if v2 => limit_memory_v2(dir, limits)?,
                Controller::Memory => limit_memory_v1(dir, limits.memory_max)?,
                Controller::Cpu => limit_cpu(dir, v2, limits)?,
                Controller::Pids => limit_pids(dir, v2, limits.pids)?,
            }
        }
        if let Some(part) = self.v2.as_ref().filter(|part| part.limited) {
            limit_io(&part.dir, limits.shares)?;
        }
        Ok(())
    }

    /// Bounds what the groups below this one use together. Nothing but what is not to be exceeded is set.
    pub(super) fn bound(&self, limits: ParentLimits) -> Result<(), CgroupError> {
        if let Some((dir, v2)) = self.place(Controller::Memory) {
            bound_memory(dir, v2, limits.memory_max)?;
        }
        if let Some((dir, v2)) = self.place(Controller::Pids) {
            limit_pids(dir, v2, limits.pids)?;
        }
        Ok(())
    }

    /// Bytes of memory that the group and those below it may have; `None` where it is not limited.
    pub fn memory_max(&self) -> Option<u64> {
        let (dir, v2) = self.place(Controller::Memory)?;
        let max = number(&dir.join(if v2 { "memory.max" } else { "memory.limit_in_bytes" })).ok()?;
        // Version 1 has no word for it, but a number that no machine has.
        (max < UNLIMITED).then_some(max)
    }

    /// The directory that has `controller`'s files, and if they are of version 2.
    pub(super) fn place(&self, controller: Controller) -> Option<(&Path, bool)> {
        let v1 = self.v1.iter().find(|part| part.controller == Some(controller));
        match (v1, &self.v2) {
            (Some(part), _) => Some((&part.dir, false)),
            (None, Some(part)) if part.limited => Some((&part.dir, true)),
            (None, _) => None,
        }
    }

    /// The version 2 directory for `CLONE_INTO_CGROUP`; `None` where the host has no version 2 mount.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().and_then(|part| part.fd.as_ref()).map(AsFd::as_fd)
    }

    /// Moves the calling thread, which must be the only one of its process, into the version 1 parts; nothing to do on
    /// pure version 2. Does not allocate. Call it before the cgroup namespace is unshared, so that the group is its root.
    pub fn enter(&self) -> io::Result<()> {
        let parts = self.v1.iter().chain(&self.for_show);
        parts.filter_map(|part| part.tasks.as_ref()).try_for_each(|mut tasks| tasks.write_all(b"0"))
    }

    /// What a process that is to come into the group has to keep open.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let tasks = self.v1.iter().chain(&self.for_show).filter_map(|part| part.tasks.as_ref()).map(AsFd::as_fd);
        tasks.chain(self.v2_dir())
    }

    /// Sends SIGKILL to every process of the group, also to those that are being forked right now. Returns when all are
    /// signalled; they may take a moment to be gone (see [`Group::remove`]).
    pub fn kill(&self) -> io::Result<()> {
        let by_kernel = self.kill_file().is_some_and(|file| write(&file, "1").is_ok());
        if by_kernel && self.v1.is_empty() {
            return Ok(());
        }
        if self.procs()?.is_empty() {
            return Ok(());
        }
        // Not all are in the version 2 group, or the kernel is older than 5.14. Without forks, two rounds reach all.
        if let Some((dir, _)) = self.place(Controller::Pids) {
            ignore_gone(write(&dir.join("pids.max"), "0"))?;
        }
        for _ in 0..2 {
            self.signal(libc::SIGKILL, &[])?;
        }
        Ok(())
    }

    /// What the kernel kills the group by, where there is a version 2 mount. The kernel has it since 5.14.
    pub fn kill_file(&self) -> Option<PathBuf> {
        self.v2.as_ref().map(|part| part.dir.join("cgroup.kill"))
    }

    /// Sends `signal` to every process of the group except the pids given. A pid that was given to another process
    /// meanwhile is never hit.
    pub fn signal(&self, signal: i32, except: &[i32]) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        let mut held = Vec::new();
        for pid in self.procs()?.into_iter().filter(|pid| !except.contains(pid)) {
            let Some(target) = Pid::from_raw(pid) else { continue };
            match rustix::process::pidfd_open(target, PidfdFlags::empty()) {
                Ok(fd) => held.push((pid, fd)),
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A pid that is still listed after its handle was opened: the handle is of a member, or of one that has ended.
        let still = self.procs()?;
        for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            match rustix::process::pidfd_send_signal(fd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The processes of the group, as seen from the caller's pid namespace. Empty when the group is gone.
    pub fn procs(&self) -> io::Result<Vec<i32>> {
        let mut all = Vec::new();
        for dir in self.dirs() {
            match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) => ignore_gone(Err(error))?,
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// The kernel killed a process of the group because the group was at its memory limit, or those above it were at
    /// theirs: [`Group::was_at_its_limit`] tells.
    pub fn oom_killed(&self) -> io::Result<bool> {
        let Some((dir, v2)) = self.place(Controller::Memory) else { return Ok(false) };
        let events = dir.join(if v2 { "memory.events" } else { "memory.oom_control" });
        Ok(field(&fs::read_to_string(events)?, "oom_kill").unwrap_or(0) > 0)
    }

    /// On version 1, an eventfd that is signalled when the group runs out of memory and when it is removed: version 1
    /// kills one process only, so whoever watches decides what becomes of the others. `None` on version 2, where the
    /// kernel kills the whole group (`memory.oom.group`). Also readable when the limit was that of a parent, and then in all
    /// groups below: [`Group::oom_killed`] tells which one was hit.
    pub fn oom_eventfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some((dir, false)) = self.place(Controller::Memory) else { return Ok(None) };
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = File::open(dir.join("memory.oom_control"))?;
        let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        write(&dir.join("cgroup.event_control"), &order)?;
        Ok(Some(event))
    }

    /// Whether the group has ever had all the memory that it may have; on version 1 also if what it had could be dropped.
    pub fn was_at_its_limit(&self) -> io::Result<bool> {
        let Some((dir, v2)) = self.place(Controller::Memory) else { return Ok(false) };
        if v2 {
            let events = fs::read_to_string(dir.join("memory.events.local"));
            let events = events.or_else(|_| fs::read_to_string(dir.join("memory.events")))?;
            return Ok(field(&events, "oom").unwrap_or(0) > 0);
        }
        // Failures are not counted by every kernel. Charges come in batches, and one that does not fit leaves some room.
        let most = number(&dir.join("memory.max_usage_in_bytes"))?;
        Ok(most + CHARGED_AT_ONCE >= number(&dir.join("memory.limit_in_bytes"))?)
    }

    /// Whether the group has all the memory now that it may have; on version 1 also if what it has could be dropped.
    pub fn is_at_its_limit(&self) -> io::Result<bool> {
        let (Some((dir, v2)), Some(most)) = (self.place(Controller::Memory), self.memory_max()) else {
            return Ok(false);
        };
        let used = number(&dir.join(if v2 { "memory.current" } else { "memory.usage_in_bytes" }))?;
        Ok(used + CHARGED_AT_ONCE >= most)
    }

    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        if let Some((dir, v2)) = self.place(Controller::Memory) {
            let peak = if v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
            stats.memory_bytes = memory(dir, v2, 0)?;
            stats.memory_peak = number(&dir.join(peak)).ok();
        }
        if let Some((dir, _)) = self.place(Controller::Pids) {
            stats.pids = number(&dir.join("pids.current"))?;
        }
        stats.cpu_usec = self.cpu_usec()?;
        Ok(stats)
    }

    /// Bytes in use beyond what the kernel would drop of the file cache, when that is more than `quota`. One file is read
    /// where it is not: this is asked for every dyno, again and again.
    pub fn memory_above(&self, quota: u64) -> io::Result<Option<u64>> {
        let Some((dir, v2)) = self.place(Controller::Memory) else { return Ok(None) };
        let used = memory(dir, v2, quota)?;
        Ok((used > quota).then_some(used))
    }

    /// Version 2 counts CPU time in every group, controller or not.
    fn cpu_usec(&self) -> io::Result<u64> {
        if let Some(part) = &self.v2 {
            return Ok(field(&fs::read_to_string(part.dir.join("cpu.stat"))?, "usage_usec").unwrap_or(0));
        }
        match self.v1.iter().find(|part| part.controller.is_none()) {
            Some(part) => Ok(number(&part.dir.join("cpuacct.usage"))? / 1000),
            None => Ok(0),
        }
    }

    /// Removes the group, also when parts of it are gone already. Kills nothing, but waits a bounded time for killed
    /// processes to be gone.
    pub fn remove(&self) -> io::Result<()> {
        remove_dirs(self.dirs())
    }

    /// What to show a process of the group so that runtimes find their limits: host directories, and where below
    /// `/sys/fs/cgroup` each belongs (the empty path: there itself).
    pub fn view(&self) -> Vec<(PathBuf, PathBuf)> {
        if self.v1.is_empty() {
            return self.v2.iter().map(|part| (part.dir.clone(), PathBuf::new())).collect();
        }
        let shared = |part: &V1Part| self.v1.iter().any(|other| other.controller.is_some() && other.dir == part.dir);
        let named = |part: &V1Part| match part.controller {
            Some(controller) => Some((part.dir.clone(), controller.name().into())),
            None => (!shared(part)).then(|| (part.dir.clone(), "cpuacct".into())),
        };
        // The mount point's name is the controller's, or both when two share it.
        let name = |dir: &Path| Some(PathBuf::from(dir.parent()?.file_name()?));
        let for_show = self.for_show.iter().filter_map(|part| Some((part.dir.clone(), name(&part.dir)?)));
        self.v1.iter().filter_map(named).chain(for_show).collect()
    }

    /// Every directory of the group, each once.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().enumerate().filter(|(at, part)| self.v1[..*at].iter().all(|p| p.dir != part.dir));
        v1.map(|(_, part)| part.dir.as_path()).chain(self.v2.iter().map(|part| part.dir.as_path()))
    }
}

/// Bytes in use without what can be dropped of the file cache; with it, when that is `enough` or less.
fn memory(dir: &Path, v2: bool, enough: u64) -> io::Result<u64> {
    let (usage, prefix) = if v2 { ("memory.current", "") } else { ("memory.usage_in_bytes", "total_") };
    let used = number(&dir.join(usage))?;
    if used <= enough {
        return Ok(used);
    }
    let text = fs::read_to_string(dir.join("memory.stat"))?;
    let cache = ["inactive_file", "active_file"].map(|name| field(&text, &format!("{prefix}{name}")).unwrap_or(0));
    Ok(used.saturating_sub(cache.iter().sum()))
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir).map(OwnedFd::from)
}
