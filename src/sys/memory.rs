//! The machine's memory, as the kernel counts it.
#![forbid(unsafe_code)]

use std::fs;
use std::io;

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What can be had without swapping: what is free, and what can be dropped.
    pub available: u64,
}

impl Memory {
    /// # Errors
    /// When `/proc/meminfo` can't be read or does not say it.
    pub fn of_this_machine() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// From the text of `/proc/meminfo`, see proc(5).
    pub fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Self { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
    }
}
