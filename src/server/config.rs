//! `ROOT/hokku.toml`: what an operator may set. Flags and `HOKKU_*` variables win over it.
#![forbid(unsafe_code)]

use crate::domain::limits::{DynoSize, Limits, Sizes};
use crate::domain::stack::StackName;
use crate::dyno::firewall::HostPort;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The whole file; every key has a default, an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub server: ServerConfig,
    pub build: BuildConfig,
    pub network: NetworkConfig,
    pub memory: MemoryConfig,
    pub disk: DiskConfig,
    pub stack: StackConfig,
    pub dyno: DynoConfig,
    pub sizes: BTreeMap<DynoSize, SizeConfig>,
}

/// `[server]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServerConfig {
    /// Where the API and git listen; 127.0.0.1:5000 when not set.
    pub api: Option<SocketAddr>,
    /// Where apps are served; 127.0.0.1:8080 when not set.
    pub router: Option<SocketAddr>,
    /// Where apps are served over TLS; nowhere when not set.
    pub router_tls: Option<SocketAddr>,
    /// Apps are served at `APP.DOMAIN`; `localhost` when not set.
    pub domain: Option<String>,
    /// Minutes that a router which an upgrade has replaced may go on with the connections it has; 60 when not set.
    pub router_drain_minutes: Option<u64>,
}

/// `[build]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BuildConfig {
    /// Variables every build gets: proxies, certificates, mirrors.
    pub env: BTreeMap<String, String>,
    /// Minutes a build may take; 15 when not set.
    pub time_limit_minutes: Option<u64>,
    /// Builds at once; by default one for every two cores.
    pub at_once: Option<usize>,
    /// Megabytes of memory a build may use; 2048 when not set.
    pub memory_mb: Option<u64>,
    /// Megabytes a compressed slug may have; 1024 when not set.
    pub slug_mb: Option<u64>,
    /// Megabytes that an app's cache may have; 2048 when not set.
    pub cache_mb: Option<u64>,
}

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NetworkConfig {
    /// Ports of the host that dynos may reach: `["tcp/5432"]`.
    #[serde(deserialize_with = "ports")]
    pub allow_host: Vec<HostPort>,
}

/// `[memory]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MemoryConfig {
    /// Megabytes of the machine's memory that apps and builds together leave to the host; when not set, a twentieth, but
    /// between 128 and 4096.
    pub reserve_mb: Option<u64>,
}

/// `[disk]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DiskConfig {
    /// Megabytes of ROOT's file system that stay free: below, no build begins; below twice that, caches and old slugs go. 256
    /// when not set.
    pub reserve_mb: Option<u64>,
    /// Megabytes that the caches of all apps' builds have together at most; 10240 when not set.
    pub caches_mb: Option<u64>,
    /// Slugs of an app, those of its newest releases, that are kept however little room there is; 10 when not set.
    pub keep_slugs: Option<usize>,
}

/// `[stack]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StackConfig {
    /// The stack of new apps.
    #[serde(deserialize_with = "stack")]
    pub default: StackName,
    /// Debian archives that layers are made from, instead of those of the host's own apt sources.
    pub mirrors: Vec<String>,
    pub host: HostStackConfig,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self { default: StackName::Host, mirrors: Vec::new(), host: HostStackConfig::default() }
    }
}

/// `[stack.host]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HostStackConfig {
    /// Directories beside /usr that dynos see, read-only.
    pub paths: Vec<PathBuf>,
}

/// `[dyno]`
#[expect(clippy::struct_field_names, reason = "units belong in the names of what people write")]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DynoConfig {
    /// Seconds a web dyno has to listen on its port; 60 when not set.
    pub boot_timeout_seconds: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL; 30 when not set.
    pub stop_timeout_seconds: Option<u64>,
    /// Seconds between two looks at how much memory each dyno uses (R14); 20 when not set.
    pub memory_check_seconds: Option<u64>,
}

/// `[sizes.NAME]`: what dynos of a size may use. What is not set stays as it is by default, but for the two that follow
/// the memory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SizeConfig {
    /// Megabytes of memory; above it the dyno is over quota (R14).
    pub memory_mb: Option<u64>,
    /// Megabytes of memory and swap that end the dyno (R15); twice `memory_mb` when not set.
    pub memory_max_mb: Option<u64>,
    /// Weight under contention; a Standard-1X dyno has 1.
    pub cpu_share: Option<u64>,
    /// Percent of one core that it may use at most; no limit when not set.
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Megabytes that it may write; twice `memory_mb` when not set.
    pub disk_mb: Option<u64>,
}

impl SizeConfig {
    /// # Errors
    /// What no dyno could run with, in words.
    fn limits(&self, size: DynoSize) -> Result<Limits, String> {
        const MIB: u64 = 1 << 20;
        let usual = size.limits();
        let bytes = |megabytes: Option<u64>, otherwise: u64| megabytes.map_or(otherwise, |mb| mb.saturating_mul(MIB));
        let memory_quota = bytes(self.memory_mb, usual.memory_quota);
        let limits = Limits {
            memory_quota,
            memory_max: bytes(self.memory_max_mb, memory_quota.saturating_mul(2)),
            cpu_shares: self.cpu_share.map_or(usual.cpu_shares, |share| share.saturating_mul(100)),
            cpu_quota_percent: self.cpu_percent.or(usual.cpu_quota_percent),
            pids: self.processes.unwrap_or(usual.pids),
            disk: bytes(self.disk_mb, memory_quota.saturating_mul(2)),
        };
        let wrong = [
            (limits.memory_quota < 16 * MIB, "memory_mb has to be at least 16"),
            (limits.memory_max < limits.memory_quota, "memory_max_mb can't be below memory_mb"),
            (limits.memory_max > 1 << 50, "memory_mb and memory_max_mb can't be that large"),
            (!(1..=100).contains(&(limits.cpu_shares / 100)), "cpu_share has to be between 1 and 100"),
            (limits.cpu_quota_percent == Some(0), "cpu_percent has to be at least 1; leave it out for no limit"),
            (!(16..=1 << 22).contains(&limits.pids), "processes has to be between 16 and 4194304"),
            (!(16 * MIB..1 << 44).contains(&limits.disk), "disk_mb has to be between 16 and 16777215"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, message)) => Err(format!("[sizes.{}] {message}", size.name().to_lowercase())),
            None => Ok(limits),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("can't read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a valid configuration: {message}")]
    Parse { path: PathBuf, message: String },
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HostPort>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    entries.iter().map(|entry| entry.parse().map_err(D::Error::custom)).collect()
}

fn stack<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StackName, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

impl Config {
    /// Reads `ROOT/hokku.toml`; no file means all defaults.
    ///
    /// # Errors
    /// When the file can't be read or holds something that is not a setting.
    pub(super) fn read(root: &Path) -> Result<Self, ConfigError> {
        let path = root.join("hokku.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let wrong = |message: String| ConfigError::Parse { path: path.clone(), message };
        let config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        config.limits().map_err(wrong)?;
        Ok(config)
    }

    /// What dynos may use.
    pub(super) fn sizes(&self) -> Sizes {
        self.limits().unwrap_or_default()
    }

    fn limits(&self) -> Result<Sizes, String> {
        let mut sizes = Sizes::default();
        for (size, config) in &self.sizes {
            sizes.set(*size, config.limits(*size)?);
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("hokku.toml"), text).unwrap();
        Config::read(root.path())
    }

    #[test]
    fn every_key_can_be_left_out_and_a_wrong_one_is_named() {
        assert!(read("").unwrap().build.env.is_empty());
        assert!(Config::read(Path::new("/nowhere")).is_ok());
        let config =
            read("[build.env]\nHTTPS_PROXY = \"http://p:1\"\n[network]\nallow_host = [\"tcp/5432\"]\n").unwrap();
        assert_eq!(config.build.env["HTTPS_PROXY"], "http://p:1");
        assert_eq!(config.network.allow_host, ["tcp/5432".parse().unwrap()]);
        assert!(read("[buidl]\n").unwrap_err().to_string().contains("buidl"));
        assert_eq!(read("[stack]\ndefault = \"heroku-24\"\n").unwrap().stack.default, StackName::Debian13);
        assert!(read("[stack]\ndefault = \"cedar\"\n").unwrap_err().to_string().contains("cedar"));
        assert!(read("[network]\nallow_host = [\"5432\"]\n").unwrap_err().to_string().contains("5432"));
    }

    #[test]
    fn what_install_writes_documents_every_key() {
        let template = crate::install::CONFIG;
        let is_setting = |line: &&str| line.starts_with('[') || line.starts_with('#') && !line.starts_with("# ");
        let settings = template.lines().filter(is_setting).map(|line| line.trim_start_matches('#'));
        let all = settings.collect::<Vec<_>>().join("\n");
        let config = read(&all).unwrap();
        assert_eq!((config.build.time_limit_minutes, config.sizes.len()), (Some(15), 1), "{all}");
        assert!(read(template).unwrap().sizes.is_empty());
        // The error names all keys that there are.
        for section in
            ["server", "build", "network", "memory", "disk", "stack", "stack.host", "dyno", "sizes.standard-1x"]
        {
            let error = read(&format!("[{section}]\nnonsense = 1\n")).unwrap_err().to_string();
            let (_, keys) = error.split_once("expected ").unwrap();
            let keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
            assert!(!keys.is_empty(), "{error}");
            let start = all.find(&format!("[{section}]")).unwrap();
            let rest = &all[start + 1..];
            let part = &rest[..rest.find("\n[").unwrap_or(rest.len())];
            for key in keys.into_iter().filter(|key| *key != "host") {
                assert!(part.contains(&format!("\n{key} = ")), "{key} of [{section}] is not in hokku.toml");
            }
        }
    }

    #[test]
    fn sizes_are_changed_one_key_at_a_time_and_what_can_not_be_is_named() {
        let text = "[sizes.standard-2x]\nmemory_mb = 100\n[sizes.eco]\ndisk_mb = 64\ncpu_percent = 50\n";
        let sizes = read(text).unwrap().sizes();
        let large = sizes.of(DynoSize::Standard2X);
        let usual = DynoSize::Standard2X.limits();
        assert_eq!((large.memory_quota, large.memory_max, large.disk), (100 << 20, 200 << 20, 200 << 20));
        assert_eq!((large.pids, large.cpu_shares), (usual.pids, usual.cpu_shares));
        let small = sizes.of(DynoSize::Eco);
        assert_eq!((small.disk, small.cpu_quota_percent), (64 << 20, Some(50)));
        assert_eq!(sizes.of(DynoSize::Basic), DynoSize::Basic.limits());
        for (text, said) in [
            ("[sizes.huge]\n", "huge"),
            ("[sizes.eco]\nmemory = 1\n", "memory"),
            ("[sizes.eco]\nmemory_mb = 0\n", "[sizes.eco] memory_mb has to be at least 16"),
            ("[sizes.eco]\nmemory_max_mb = 511\n", "can't be below"),
            ("[sizes.eco]\nmemory_mb = 9999999999999999\n", "that large"),
            ("[sizes.eco]\ndisk_mb = 1\n", "disk_mb"),
            ("[sizes.eco]\nprocesses = 0\n", "processes"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
