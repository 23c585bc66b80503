//! Dyno sizes and what a dyno may use.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// A dyno's size by Heroku's names; read in any case, printed as Heroku spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DynoSize {
    Eco,
    #[default]
    Basic,
    Standard1X,
    Standard2X,
    PerformanceM,
    PerformanceL,
}

impl DynoSize {
    pub const ALL: [Self; 6] =
        [Self::Eco, Self::Basic, Self::Standard1X, Self::Standard2X, Self::PerformanceM, Self::PerformanceL];

    pub fn name(self) -> &'static str {
        match self {
            Self::Eco => "Eco",
            Self::Basic => "Basic",
            Self::Standard1X => "Standard-1X",
            Self::Standard2X => "Standard-2X",
            Self::PerformanceM => "Performance-M",
            Self::PerformanceL => "Performance-L",
        }
    }

    /// What a dyno of this size may use, unless the operator says otherwise (Heroku's table of June 2024 for memory, cpu
    /// share and processes).
    pub fn limits(self) -> Limits {
        let (memory, cpu_shares, pids) = match self {
            Self::Eco | Self::Basic | Self::Standard1X => (512 * MIB, 1, 256),
            Self::Standard2X => (GIB, 2, 512),
            Self::PerformanceM => (2560 * MIB, 12, 16384),
            Self::PerformanceL => (14 * GIB, 50, 32768),
        };
        Limits {
            memory_quota: memory,
            memory_max: 2 * memory,
            cpu_shares: cpu_shares * 100,
            cpu_quota_percent: None,
            pids,
            disk: 2 * memory,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Couldn't find that dyno size: {0}. Sizes are Eco, Basic, Standard-1X, Standard-2X, Performance-M and Performance-L."
)]
pub struct UnknownSize(pub String);

impl FromStr for DynoSize {
    type Err = UnknownSize;
    fn from_str(text: &str) -> Result<Self, UnknownSize> {
        Self::ALL
            .into_iter()
            .find(|size| size.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownSize(text.to_owned()))
    }
}

impl TryFrom<String> for DynoSize {
    type Error = UnknownSize;
    fn try_from(text: String) -> Result<Self, UnknownSize> {
        text.parse()
    }
}

impl From<DynoSize> for String {
    fn from(size: DynoSize) -> Self {
        size.name().to_owned()
    }
}

impl fmt::Display for DynoSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one dyno may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The size's memory in bytes; above it the dyno is over quota (R14).
    pub memory_quota: u64,
    /// Hard limit in bytes, memory and swap together; reaching it ends the dyno (R15).
    pub memory_max: u64,
    /// Relative weight under contention, 100 = one share.
    pub cpu_shares: u64,
    /// Percent of one core, `None` for no ceiling.
    pub cpu_quota_percent: Option<u32>,
    /// Processes and threads.
    pub pids: u64,
    /// The writable layer in bytes.
    pub disk: u64,
}

/// What dynos of each size may use on this box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(BTreeMap<DynoSize, Limits>);

impl Default for Sizes {
    fn default() -> Self {
        Self(DynoSize::ALL.into_iter().map(|size| (size, size.limits())).collect())
    }
}

impl Sizes {
    pub fn of(&self, size: DynoSize) -> Limits {
        self.0.get(&size).copied().unwrap_or_else(|| size.limits())
    }

    /// From now on.
    pub fn set(&mut self, size: DynoSize, limits: Limits) {
        self.0.insert(size, limits);
    }
}

/// Bytes of memory without which even small builds push others out.
pub const BUILD_NEEDS: u64 = 192 * MIB;

/// Bytes of memory that apps and builds together leave to the host, of a machine with `total`, unless the operator says
/// otherwise: a twentieth, but 128 MB at least, for the kernel, the system and our own server and router, and 4 GB at most.
pub fn memory_reserve(total: u64) -> u64 {
    (total / 20).clamp(128 * MIB, 4 * GIB).min(total / 2)
}

/// What all dynos and builds may use of the machine together, in bytes: never less than 64 MB, whatever `reserve` is.
pub fn memory_for_apps(total: u64, reserve: Option<u64>) -> u64 {
    total.saturating_sub(reserve.unwrap_or_else(|| memory_reserve(total))).max(64 * MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_some_memory_however_small_or_large_it_is() {
        let left = |total: u64| (total * MIB - memory_for_apps(total * MIB, None)) / MIB;
        assert_eq!([256, 470, 1024, 8192, 65536, 1 << 20].map(left), [128, 128, 128, 409, 3276, 4096]);
        assert_eq!(memory_for_apps(GIB, Some(300 * MIB)), 724 * MIB);
        assert_eq!(memory_for_apps(GIB, Some(2 * GIB)), 64 * MIB);
    }

    #[test]
    fn sizes_are_read_in_any_case_and_printed_as_heroku_does() {
        assert_eq!("standard-2x".parse::<DynoSize>().unwrap().to_string(), "Standard-2X");
        assert!("huge".parse::<DynoSize>().unwrap_err().to_string().contains("huge"));
        for size in DynoSize::ALL {
            assert_eq!(size.name().parse(), Ok(size));
        }
    }
}
