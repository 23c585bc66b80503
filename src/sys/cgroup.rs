//! Control groups: a group of processes with limits on memory, CPU and their number, that can be killed as one.
#![expect(clippy::missing_errors_doc, reason = "errors are what the kernel says of a file, which they name")]
//!
//! Version 2 is the main road. Where controllers still sit on version 1 mounts (hybrid hosts), each gets its own
//! directory, and an empty version 2 group beside them serves `CLONE_INTO_CGROUP` and `cgroup.kill`.
//!
//! ```text
//! pure v2    MOUNT/parent/name                    memory.max  cpu.weight  pids.max  cgroup.kill
//! hybrid     memory/parent/name  cpu/parent/name  pids/parent/name   and   unified/parent/name (cgroup.kill)
//! ```
//!
//! - Directories are made, controllers enabled and processes killed here; values go through cgroups-rs, whose setters
//!   are checked by reading every limit back: a limit that the kernel changed or ignored is an error.
//! - Nobody writes another process's pid into `cgroup.procs` (on version 1 that waits for an RCU grace period, some
//!   16 ms): a process is born in the version 2 group and moves itself, while it is single-threaded, into the others.

use cgroups_rs::cpu::CpuController;
use cgroups_rs::memory::{MemController, SetMemory};
use cgroups_rs::pid::PidController;
use cgroups_rs::{MaxValue, error::Error as ControllerError};
use rustix::event::EventfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`Group::remove`] waits for killed processes to be gone.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
/// The period that CPU quotas are counted in, in microseconds (the kernel's default).
const CPU_PERIOD: u64 = 100_000;

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

/// A controller that a group needs.
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

/// Which controller is where on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The version 2 directory below which parents are made: its mount point, or a delegated group.
    v2: Option<PathBuf>,
    /// Mount points of the controllers that are on version 1, in the order of [`Controller::ALL`].
    v1: Vec<(Controller, PathBuf)>,
    /// The version 1 CPU accounting, wanted only where no version 2 group counts CPU time.
    cpuacct: Option<PathBuf>,
}

impl Hierarchy {
    /// Looks at the mounts of this process. Fails when memory, cpu or pids is nowhere.
    pub fn detect() -> Result<Self, CgroupError> {
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let on_v2 = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Self::from_mounts(&mounts, on_v2)
    }

    fn from_mounts(mountinfo: &str, controllers_of: impl Fn(&Path) -> String) -> Result<Self, CgroupError> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.clone());
        let on_v2 = v2.as_deref().map(&controllers_of).unwrap_or_default();
        let on_v1 = |name: &str| mounts.iter().find(|mount| mount.has(name)).map(|mount| mount.point.clone());

        let mut v1 = Vec::new();
        for controller in Controller::ALL {
            match on_v1(controller.name()) {
                Some(point) => v1.push((controller, point)),
                None if on_v2.split_whitespace().any(|name| name == controller.name()) => {}
                None => return Err(CgroupError::Missing(controller)),
            }
        }
        let cpuacct = if v2.is_none() { on_v1("cpuacct") } else { None };
        Ok(Self { v2, v1, cpuacct })
    }

    /// The same, with parents made below `group` instead of at the root of version 2: for a process whose own group
    /// was delegated to it (systemd's `Delegate=yes`). `group` must hold no process itself.
    #[must_use]
    pub fn within(mut self, group: &Path) -> Self {
        if let Some(v2) = &mut self.v2 {
            *v2 = v2.join(group.strip_prefix("/").unwrap_or(group));
        }
        self
    }

    /// All controllers are on version 2.
    pub fn is_pure_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// Where version 2 is mounted, on hybrid hosts too.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Controllers to be enabled in the version 2 parents.
    fn v2_controllers(&self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(|wanted| self.v1.iter().all(|(controller, _)| controller != wanted))
    }

    /// Every directory below which a group has a part.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|(_, root)| root.as_path());
        let mut seen: Vec<&Path> = Vec::new();
        for root in v1.chain(self.cpuacct.as_deref()).chain(self.v2.as_deref()) {
            if !seen.contains(&root) {
                seen.push(root);
            }
        }
        seen.into_iter()
    }
}

/// A line of `/proc/self/mountinfo`, see proc(5).
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.into();
        let mut right = right.split(' ');
        let kind = right.next()?;
        Some(Self { point, kind, options: right.nth(1)? })
    }

    fn has(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }
}

/// What the processes of a group may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory and swap together; at this the kernel kills.
    pub memory_max: u64,
    /// Bytes above which the group is slowed down and its memory reclaimed; version 2 only, version 1 has no such thing.
    pub memory_high: Option<u64>,
    /// Weight under contention, 100 = one share.
    pub cpu_shares: u64,
    /// Percent of one core, at least 1.
    pub cpu_quota_percent: Option<u32>,
    /// Processes and threads.
    pub pids: u64,
}

/// What a group uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes charged to the group, less the page cache that can be dropped at once.
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
    v2: Option<V2Part>,
    v1: Vec<V1Part>,
}

#[derive(Debug)]
struct V2Part {
    dir: PathBuf,
    fd: Option<OwnedFd>,
    /// The controllers are here (pure version 2), not only the processes.
    limited: bool,
}

#[derive(Debug)]
struct V1Part {
    /// `None`: CPU accounting.
    controller: Option<Controller>,
    dir: PathBuf,
    /// Open for [`Group::enter`].
    tasks: Option<File>,
}

impl Group {
    /// Makes the group `parent/name` with `limits`, `parent` too where it is missing. A group of that name left over
    /// by a crash is replaced when it holds no process. On failure nothing but `parent` stays.
    pub fn create(hierarchy: &Hierarchy, parent: &str, name: &str, limits: &GroupLimits) -> Result<Self, CgroupError> {
        make_parents(hierarchy, parent)?;
        let mut group = Self::open(hierarchy, parent, name);
        let mut made = Vec::new();
        let limited = group.make_dirs(&mut made).and_then(|()| group.limit(limits));
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
        Self { v2, v1 }
    }

    fn make_dirs(&mut self, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        for part in &mut self.v1 {
            // Controllers mounted together share a directory.
            if !made.contains(&part.dir) {
                make_dir(&part.dir)?;
                made.push(part.dir.clone());
            }
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

    fn limit(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        for controller in Controller::ALL {
            let Some((dir, v2)) = self.place(controller) else { continue };
            match controller {
                Controller::Memory if v2 => limit_memory_v2(dir, limits)?,
                Controller::Memory => limit_memory_v1(dir, limits.memory_max)?,
                Controller::Cpu => limit_cpu(dir, v2, limits)?,
                Controller::Pids => limit_pids(dir, v2, limits.pids)?,
            }
        }
        Ok(())
    }

    /// The directory that has `controller`'s files, and if they are of version 2.
    fn place(&self, controller: Controller) -> Option<(&Path, bool)> {
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
        self.v1.iter().filter_map(|part| part.tasks.as_ref()).try_for_each(|mut tasks| tasks.write_all(b"0"))
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

    /// The kernel killed a process of the group because the group was at its memory limit.
    pub fn oom_killed(&self) -> io::Result<bool> {
        let Some((dir, v2)) = self.place(Controller::Memory) else { return Ok(false) };
        let events = dir.join(if v2 { "memory.events" } else { "memory.oom_control" });
        Ok(field(&fs::read_to_string(events)?, "oom_kill").unwrap_or(0) > 0)
    }

    /// On version 1, an eventfd that is signalled when the group runs out of memory and when it is removed: version 1
    /// kills one process only, so whoever watches decides what becomes of the others. `None` on version 2, where the
    /// kernel kills the whole group (`memory.oom.group`).
    pub fn oom_eventfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some((dir, false)) = self.place(Controller::Memory) else { return Ok(None) };
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = File::open(dir.join("memory.oom_control"))?;
        let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        write(&dir.join("cgroup.event_control"), &order)?;
        Ok(Some(event))
    }

    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        if let Some((dir, v2)) = self.place(Controller::Memory) {
            let (usage, peak, cache) = if v2 {
                ("memory.current", "memory.peak", "inactive_file")
            } else {
                ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "total_inactive_file")
            };
            let droppable = field(&fs::read_to_string(dir.join("memory.stat"))?, cache).unwrap_or(0);
            stats.memory_bytes = number(&dir.join(usage))?.saturating_sub(droppable);
            stats.memory_peak = number(&dir.join(peak)).ok();
        }
        if let Some((dir, _)) = self.place(Controller::Pids) {
            stats.pids = number(&dir.join("pids.current"))?;
        }
        stats.cpu_usec = self.cpu_usec()?;
        Ok(stats)
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
        let deadline = Instant::now() + REMOVE_WITHIN;
        self.dirs().try_for_each(|dir| remove_dir(dir, deadline))
    }

    /// What to show a process of the group so that runtimes find their limits: host directories, and where below
    /// `/sys/fs/cgroup` each belongs (the empty path: there itself).
    pub fn view(&self) -> Vec<(PathBuf, PathBuf)> {
        if self.v1.is_empty() {
            return self.v2.iter().map(|part| (part.dir.clone(), PathBuf::new())).collect();
        }
        let named = |part: &V1Part| part.controller.map(|controller| (part.dir.clone(), controller.name().into()));
        self.v1.iter().filter_map(named).collect()
    }

    /// Every directory of the group, each once.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().enumerate().filter(|(at, part)| self.v1[..*at].iter().all(|p| p.dir != part.dir));
        v1.map(|(_, part)| part.dir.as_path()).chain(self.v2.iter().map(|part| part.dir.as_path()))
    }
}

/// Removes `parent` from every hierarchy; it must have no groups left.
pub fn remove_parent(hierarchy: &Hierarchy, parent: &str) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_WITHIN;
    hierarchy.roots().try_for_each(|root| remove_dir(&root.join(parent), deadline))
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

fn make_parents(hierarchy: &Hierarchy, parent: &str) -> Result<(), CgroupError> {
    for root in hierarchy.roots() {
        let path = root.join(parent);
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Make { path, source });
            }
            _ => {}
        }
    }
    let Some(v2) = &hierarchy.v2 else { return Ok(()) };
    let wanted: Vec<Controller> = hierarchy.v2_controllers().collect();
    enable(v2, &wanted)?;
    enable(&v2.join(parent), &wanted)
}

/// Hands `wanted` down to the groups below `dir`.
fn enable(dir: &Path, wanted: &[Controller]) -> Result<(), CgroupError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let on = read(&path)?;
    for controller in wanted.iter().filter(|wanted| !on.split_whitespace().any(|name| name == wanted.name())) {
        put(&path, &format!("+{controller}"))?;
    }
    Ok(())
}

fn limit_memory_v2(dir: &Path, limits: &GroupLimits) -> Result<(), CgroupError> {
    let max = page_aligned(limits.memory_max);
    let memory = MemController::new(dir.into(), true);
    let value = |bytes: u64| Some(MaxValue::Value(signed(bytes)));
    let high = limits.memory_high.map(page_aligned);
    let set = SetMemory { max: value(max), high: high.and_then(value), ..SetMemory::default() };
    memory.set_mem(set).map_err(|source| CgroupError::Set { path: dir.join("memory.max"), value: max, source })?;
    kept(&dir.join("memory.max"), &max.to_string())?;
    if let Some(high) = high {
        kept(&dir.join("memory.high"), &high.to_string())?;
    }
    // Without swap accounting the file is missing; then a host with swap could not bound the group.
    let swap = dir.join("memory.swap.max");
    if swap.exists() || host_has_swap() {
        put(&swap, "0")?;
        kept(&swap, "0")?;
    }
    put(&dir.join("memory.oom.group"), "1")?;
    kept(&dir.join("memory.oom.group"), "1")
}

fn limit_memory_v1(dir: &Path, max: u64) -> Result<(), CgroupError> {
    let max = page_aligned(max);
    let memory = MemController::new(dir.into(), false);
    let path = dir.join("memory.limit_in_bytes");
    let set = memory.set_limit(signed(max));
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: max, source })?;
    kept(&path, &max.to_string())?;

    let path = dir.join("memory.memsw.limit_in_bytes");
    if path.exists() {
        let set = memory.set_memswap_limit(signed(max));
        set.map_err(|source| CgroupError::Set { path: path.clone(), value: max, source })?;
        return kept(&path, &max.to_string());
    }
    // Swap is not accounted (`swapaccount=0`). In a version 1 group, swappiness 0 forbids swapping altogether.
    put(&dir.join("memory.swappiness"), "0")?;
    kept(&dir.join("memory.swappiness"), "0")
}

fn limit_cpu(dir: &Path, v2: bool, limits: &GroupLimits) -> Result<(), CgroupError> {
    let cpu = CpuController::new(dir.into(), v2);
    let (file, weight) = if v2 {
        ("cpu.weight", limits.cpu_shares.clamp(1, 10_000))
    } else {
        ("cpu.shares", (limits.cpu_shares * 1024 / 100).clamp(2, 262_144))
    };
    let path = dir.join(file);
    let set = cpu.set_shares(weight);
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: weight, source })?;
    kept(&path, &weight.to_string())?;

    let Some(percent) = limits.cpu_quota_percent else { return Ok(()) };
    let quota = u64::from(percent) * CPU_PERIOD / 100;
    // Version 1 takes the two values in two files, version 2 in one.
    let (file, expected) =
        if v2 { ("cpu.max", format!("{quota} {CPU_PERIOD}")) } else { ("cpu.cfs_quota_us", quota.to_string()) };
    let path = dir.join(file);
    let period = v2.then_some(CPU_PERIOD);
    let set = cpu.set_cfs_quota_and_period(Some(signed(quota)), period);
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: quota, source })?;
    if !v2 {
        kept(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
    }
    kept(&path, &expected)
}

fn limit_pids(dir: &Path, v2: bool, max: u64) -> Result<(), CgroupError> {
    let path = dir.join("pids.max");
    let set = PidController::new(dir.into(), v2).set_pid_max(MaxValue::Value(signed(max)));
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: max, source })?;
    kept(&path, &max.to_string())
}

/// The kernel keeps memory limits in whole pages, rounded down.
fn page_aligned(bytes: u64) -> u64 {
    let page = rustix::param::page_size() as u64;
    bytes / page * page
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn host_has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })
}

fn put(path: &Path, value: &str) -> Result<(), CgroupError> {
    write(path, value).map_err(|source| CgroupError::Write { path: path.into(), value: value.into(), source })
}

/// Unlike [`fs::write`], says that a file is missing instead of failing to create it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn kept(path: &Path, wanted: &str) -> Result<(), CgroupError> {
    let found = read(path)?.trim().to_owned();
    if found == wanted {
        return Ok(());
    }
    Err(CgroupError::NotKept { path: path.into(), wanted: wanted.into(), found })
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The value of `name` in a flat keyed file: one `name value` a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir).map(OwnedFd::from)
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    let create = || DirBuilder::new().mode(0o755).create(path);
    let made = match create() {
        // Left over by a crash: fine if no process is in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_dir(path).and_then(|()| create()),
        other => other,
    };
    made.map_err(|source| CgroupError::Make { path: path.into(), source })
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

/// A group that is gone (ENOENT, or ENODEV on a file of it that was open) is as good as done with.
fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    const MIB: u64 = 1024 * 1024;
    const SMALL: GroupLimits =
        GroupLimits { memory_max: 32 * MIB, memory_high: None, cpu_shares: 200, cpu_quota_percent: Some(50), pids: 20 };

    /// A group with a parent of its own, gone when dropped, whatever is in it.
    struct Fixture {
        hierarchy: Hierarchy,
        parent: String,
        group: Group,
    }

    impl Fixture {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let parent = format!("hokku-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let hierarchy = Hierarchy::detect().unwrap();
            let group = Group::create(&hierarchy, &parent, "dyno", &SMALL).unwrap();
            Self { hierarchy, parent, group }
        }

        /// Runs `script` in the group: as a dyno is, or (`v2` false) only in the version 1 parts.
        fn spawn(&self, script: &str, v2: bool) -> Child {
            let born = match &self.group.v2 {
                Some(part) if v2 => format!("echo 0 > {}/cgroup.procs; ", part.dir.display()),
                _ => String::new(),
            };
            let mut command = Command::new("sh");
            command.arg("-c").arg(born + script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let entry = Group { v2: None, v1: self.group.v1.iter().map(V1Part::again).collect() };
            // SAFETY: runs in the single-threaded child; `enter` only writes to files that are open, without allocating.
            unsafe { command.pre_exec(move || entry.enter()) };
            command.spawn().unwrap()
        }

        fn file(&self, controller: Controller, name: &str) -> String {
            let (dir, _) = self.group.place(controller).unwrap();
            fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let gone = self.group.kill().and_then(|()| self.group.remove());
            let gone = gone.and_then(|()| remove_parent(&self.hierarchy, &self.parent));
            assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
        }
    }

    impl V1Part {
        fn again(&self) -> Self {
            let tasks = self.tasks.as_ref().map(|file| file.try_clone().unwrap());
            Self { controller: self.controller, dir: self.dir.clone(), tasks }
        }
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "not within ten seconds: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn limits_are_what_the_files_say() {
        let fixture = Fixture::new();
        let v2 = fixture.hierarchy.is_pure_v2();
        let (memory, cpu, quota) = if v2 {
            ("memory.max", ("cpu.weight", "200"), ("cpu.max", "50000 100000"))
        } else {
            ("memory.limit_in_bytes", ("cpu.shares", "2048"), ("cpu.cfs_quota_us", "50000"))
        };
        assert_eq!(fixture.file(Controller::Memory, memory), (32 * MIB).to_string());
        assert_eq!(fixture.file(Controller::Cpu, cpu.0), cpu.1);
        assert_eq!(fixture.file(Controller::Cpu, quota.0), quota.1);
        assert_eq!(fixture.file(Controller::Pids, "pids.max"), "20");
        if !v2 && fixture.group.place(Controller::Memory).unwrap().0.join("memory.memsw.limit_in_bytes").exists() {
            assert_eq!(fixture.file(Controller::Memory, "memory.memsw.limit_in_bytes"), (32 * MIB).to_string());
        }
    }

    #[test]
    fn a_limit_the_kernel_refuses_is_an_error_that_names_the_file_and_leaves_no_group() {
        let fixture = Fixture::new();
        let refused = GroupLimits { cpu_quota_percent: Some(0), ..SMALL };
        let error = Group::create(&fixture.hierarchy, &fixture.parent, "bad", &refused).unwrap_err();
        assert!(error.to_string().contains("/bad/cpu."), "{error}");
        assert_eq!(children(&fixture.hierarchy, &fixture.parent).unwrap(), ["dyno"]);
    }

    #[test]
    fn a_limit_that_did_not_stick_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pids.max");
        fs::write(&path, "max\n").unwrap();
        let error = kept(&path, "20").unwrap_err().to_string();
        assert!(error.contains("pids.max") && error.contains("20") && error.contains("max"), "{error}");
    }

    #[test]
    fn version_2_gets_its_own_files_and_units() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { v2: Some(dir.path().into()), v1: Vec::new(), cpuacct: None };
        let group_dir = dir.path().join("parent/dyno");
        fs::create_dir_all(&group_dir).unwrap();
        let files = ["memory.max", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.weight", "pids.max"];
        for file in files {
            fs::write(group_dir.join(file), "").unwrap();
        }
        fs::write(group_dir.join("cpu.max"), "max 100000").unwrap();

        let group = Group::open(&hierarchy, "parent", "dyno");
        group.limit(&GroupLimits { memory_high: Some(16 * MIB), ..SMALL }).unwrap();

        let says = |file: &str| fs::read_to_string(group_dir.join(file)).unwrap();
        let found = files.map(says).join(" ");
        assert_eq!(found, format!("{} {} 0 1 200 20", 32 * MIB, 16 * MIB));
        assert_eq!(says("cpu.max"), "50000 100000");
        assert_eq!(group.view(), [(group_dir.clone(), PathBuf::new())]);
        assert!(group.oom_eventfd().unwrap().is_none());
    }

    #[test]
    fn a_fork_bomb_is_bounded_and_killed_whole() {
        let fixture = Fixture::new();
        let mut child = fixture.spawn("b() { b | b & }; b & exec sleep 60", true);
        let refused = || field(&fixture.file(Controller::Pids, "pids.events"), "max").unwrap() > 0;
        eventually("a fork is refused", refused);
        assert!(fixture.group.stats().unwrap().pids <= 20);

        fixture.group.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        eventually("the group is empty", || fixture.group.procs().unwrap().is_empty());
    }

    #[test]
    fn processes_outside_the_version_2_part_are_killed_too() {
        let fixture = Fixture::new();
        let mut child = fixture.spawn("sleep 60 & sleep 60", false);
        if fixture.hierarchy.is_pure_v2() {
            // There is no other part to be in.
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        eventually("both sleep", || fixture.group.procs().unwrap().len() == 3);
        fixture.group.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        eventually("the group is empty", || fixture.group.procs().unwrap().is_empty());
    }

    #[test]
    fn a_memory_hog_is_killed_and_the_group_says_so() {
        let fixture = Fixture::new();
        let watch = fixture.group.oom_eventfd().unwrap();
        assert!(!fixture.group.oom_killed().unwrap());
        let mut child = fixture.spawn("head -c 128M /dev/zero | tail; exit 3", true);
        child.wait().unwrap();
        assert!(fixture.group.oom_killed().unwrap());
        if let Some(watch) = watch {
            let mut count = [0; 8];
            assert_eq!(rustix::io::read(&watch, &mut count), Ok(8));
        }
    }

    #[test]
    fn a_signal_reaches_all_but_the_spared() {
        let fixture = Fixture::new();
        let mut spared = fixture.spawn("exec sleep 60", true);
        let mut hit = fixture.spawn("exec sleep 60", true);
        eventually("both are in", || fixture.group.procs().unwrap().len() == 2);
        let pid = i32::try_from(spared.id()).unwrap();
        fixture.group.signal(libc::SIGTERM, &[pid]).unwrap();
        assert_eq!(hit.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(fixture.group.procs().unwrap(), [pid]);
        spared.kill().unwrap();
        spared.wait().unwrap();
    }

    #[test]
    fn use_is_counted() {
        let fixture = Fixture::new();
        let mut child = fixture.spawn("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exec sleep 60", true);
        eventually("cpu time is counted", || fixture.group.stats().unwrap().cpu_usec > 10_000);
        let stats = fixture.group.stats().unwrap();
        assert!(stats.memory_bytes > 0 && stats.pids == 1, "{stats:?}");
        assert!(stats.memory_peak.is_none_or(|peak| peak >= stats.memory_bytes), "{stats:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_group_left_by_a_crash_is_found_and_replaced_unless_it_is_in_use() {
        let mut fixture = Fixture::new();
        fixture.group = Group::create(&fixture.hierarchy, &fixture.parent, "dyno", &SMALL).unwrap();
        let mut child = fixture.spawn("exec sleep 60", true);
        eventually("it is in", || !fixture.group.procs().unwrap().is_empty());
        Group::create(&fixture.hierarchy, &fixture.parent, "dyno", &SMALL).unwrap_err();

        let found = Group::open(&fixture.hierarchy, &fixture.parent, "dyno");
        assert_eq!(found.procs().unwrap(), [i32::try_from(child.id()).unwrap()]);
        found.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_gone_can_be_killed_and_removed_again() {
        let fixture = Fixture::new();
        let never = Group::open(&fixture.hierarchy, &fixture.parent, "never");
        never.kill().unwrap();
        never.signal(libc::SIGTERM, &[]).unwrap();
        never.remove().unwrap();
        assert!(never.view().iter().all(|(dir, _)| dir.ends_with(format!("{}/never", fixture.parent))));
    }

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn controllers_are_found_where_they_are() {
        let v1 = Hierarchy::from_mounts(HYBRID, |_| String::new()).unwrap();
        assert_eq!((v1.v2(), v1.cpuacct.as_deref()), (None, Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))));
        assert_eq!(v1.roots().count(), 3);

        let hybrid = Hierarchy::from_mounts(&(HYBRID.to_owned() + UNIFIED), |_| "hugetlb\n".to_owned()).unwrap();
        assert_eq!(hybrid.v2_controllers().count(), 0);
        assert_eq!(hybrid.roots().count(), 4);

        let pure = "26 23 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let pure = Hierarchy::from_mounts(pure, |_| "cpuset cpu io memory pids\n".to_owned()).unwrap();
        assert!(pure.is_pure_v2());
        assert_eq!(pure.v2_controllers().count(), 3);
        let own = pure.within(Path::new("/system.slice/hokku-dynos.service"));
        assert_eq!(own.v2(), Some(Path::new("/sys/fs/cgroup/system.slice/hokku-dynos.service")));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let without = HYBRID.replace("pids", "misc");
        let error = Hierarchy::from_mounts(&without, |_| String::new()).unwrap_err();
        assert_eq!(error.to_string(), "the kernel offers no pids controller for control groups");
    }
}
