//! `ROOT/hokku.toml`: what an operator may set. Flags and `HOKKU_*` variables win over it.
#![forbid(unsafe_code)]

use crate::dyno::network::HostPort;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The whole file; every key has a default, an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub build: BuildConfig,
    pub network: NetworkConfig,
    pub stack: StackConfig,
    pub dyno: DynoConfig,
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
}

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NetworkConfig {
    /// Ports of the host that dynos may reach: `["tcp/5432"]`.
    #[serde(deserialize_with = "ports")]
    pub allow_host: Vec<HostPort>,
}

/// `[stack]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StackConfig {
    pub host: HostStackConfig,
}

/// `[stack.host]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HostStackConfig {
    /// Directories beside /usr that dynos see, read-only.
    pub paths: Vec<PathBuf>,
}

/// `[dyno]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DynoConfig {
    /// Seconds a web dyno has to listen on its port; 60 when not set.
    pub boot_timeout_seconds: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL; 30 when not set.
    pub stop_timeout_seconds: Option<u64>,
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
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path, message: error.to_string() })
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
        assert!(read("[network]\nallow_host = [\"5432\"]\n").unwrap_err().to_string().contains("5432"));
    }
}
