//! Limits are set one file at a time, and each is read back.

use super::CgroupError;
use super::files::{kept, number, put};
use cgroups_rs::MaxValue;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::memory::{MemController, SetMemory};
use cgroups_rs::pid::PidController;
use std::fs;
use std::path::Path;

/// The period that CPU quotas are counted in, in microseconds (the kernel's default).
const CPU_PERIOD: u64 = 100_000;

/// What the processes of a group may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory and swap together; at this the kernel kills.
    pub memory_max: u64,
    /// Bytes above which the group is slowed down and its memory reclaimed; version 2 only, version 1 has no such thing.
    pub memory_high: Option<u64>,
    /// Weight under contention, 100 = one share: of the CPU, and on version 2 of disks where the kernel weighs those.
    pub shares: u64,
    /// Percent of one core, at least 1.
    pub cpu_quota_percent: Option<u32>,
    /// Processes and threads.
    pub pids: u64,
}

/// What all groups below a parent may use together. None of them has to lose anything for it as long as there is enough:
/// at the bound the kernel kills whoever uses most, in the way that one's own group has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentLimits {
    /// Bytes of memory.
    pub memory_max: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Memory of a parent. Swap is for its groups to bound, and there is no kill of all of them.
pub(super) fn bound_memory(dir: &Path, v2: bool, max: u64) -> Result<(), CgroupError> {
    let max = page_aligned(max);
    if !v2 {
        // Kernels before 5.11 count a group's memory as its parent's only where this was asked for.
        let hierarchy = dir.join("memory.use_hierarchy");
        if number(&hierarchy).is_ok_and(|on| on == 0) {
            put(&hierarchy, "1")?;
        }
    }
    let path = dir.join(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    put(&path, &max.to_string())?;
    kept(&path, &max.to_string())
}

pub(super) fn limit_memory_v2(dir: &Path, limits: &GroupLimits) -> Result<(), CgroupError> {
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

pub(super) fn limit_memory_v1(dir: &Path, max: u64) -> Result<(), CgroupError> {
    let max = page_aligned(max);
    let memory = MemController::new(dir.into(), false);
    let path = dir.join("memory.limit_in_bytes");
    let with_swap = dir.join("memory.memsw.limit_in_bytes");
    let limit_swap = || {
        let set = memory.set_memswap_limit(signed(max));
        set.map_err(|source| CgroupError::Set { path: with_swap.clone(), value: max, source })
    };
    let accounted = number(&with_swap);
    // Memory's limit may at no time be above that of memory and swap.
    if accounted.as_ref().is_ok_and(|now| *now < max) {
        limit_swap()?;
    }
    let set = memory.set_limit(signed(max));
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: max, source })?;
    kept(&path, &max.to_string())?;
    if accounted.is_ok() {
        limit_swap()?;
        return kept(&with_swap, &max.to_string());
    }
    // Swap is not accounted (`swapaccount=0`). In a version 1 group, swappiness 0 forbids swapping altogether.
    put(&dir.join("memory.swappiness"), "0")?;
    kept(&dir.join("memory.swappiness"), "0")
}

pub(super) fn limit_cpu(dir: &Path, v2: bool, limits: &GroupLimits) -> Result<(), CgroupError> {
    let cpu = CpuController::new(dir.into(), v2);
    let (file, weight) = if v2 {
        ("cpu.weight", limits.shares.clamp(1, 10_000))
    } else {
        ("cpu.shares", (limits.shares * 1024 / 100).clamp(2, 262_144))
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

pub(super) fn limit_pids(dir: &Path, v2: bool, max: u64) -> Result<(), CgroupError> {
    let path = dir.join("pids.max");
    let set = PidController::new(dir.into(), v2).set_pid_max(MaxValue::Value(signed(max)));
    set.map_err(|source| CgroupError::Set { path: path.clone(), value: max, source })?;
    kept(&path, &max.to_string())
}

/// A weight for the scheduler of each disk that has one, and one for the kernel's own accounting where that is on
/// (`io.cost.qos`). Neither is on every host, and without them nothing is weighed.
pub(super) fn limit_io(dir: &Path, shares: u64) -> Result<(), CgroupError> {
    for (file, most) in [("io.bfq.weight", 1000), ("io.weight", 10_000)] {
        let path = dir.join(file);
        if path.exists() {
            let weight = format!("default {}", shares.clamp(1, most));
            put(&path, &weight)?;
            kept(&path, &weight)?;
        }
    }
    Ok(())
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
