//! `ROOT/hokku.toml`: what an operator may set. Flags and `HOKKU_*` variables win over it.
#![forbid(unsafe_code)]

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The whole file; every key has a default, an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub build: BuildConfig,
    pub network: NetworkConfig,
    pub stack: StackConfig,
    pub dyno: DynoConfig,
}

/// `[build]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildConfig {
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
pub struct NetworkConfig {
    /// Ports of the host that dynos may reach: `["tcp/5432"]`.
    pub allow_host: Vec<String>,
}

/// `[stack]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    pub host: HostStackConfig,
}

/// `[stack.host]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostStackConfig {
    /// Directories beside /usr that dynos see, read-only.
    pub paths: Vec<PathBuf>,
}

/// `[dyno]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynoConfig {
    /// Seconds a web dyno has to listen on its port; 60 when not set.
    pub boot_timeout_seconds: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL; 30 when not set.
    pub stop_timeout_seconds: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a valid configuration: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("{path}: {entry:?} in network.allow_host is not of the form tcp/5432 or udp/53")]
    AllowHost { path: PathBuf, entry: String },
}

impl Config {
    /// Reads `ROOT/hokku.toml`; no file means all defaults.
    ///
    /// # Errors
    /// When the file can't be read or holds something that is not a setting.
    pub fn read(root: &Path) -> Result<Self, ConfigError> {
        let path = root.join("hokku.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.clone(), message: error.to_string() })?;
        config.allowed_ports().map_err(|entry| ConfigError::AllowHost { path, entry })?;
        Ok(config)
    }

    /// `network.allow_host` as protocol and port.
    ///
    /// # Errors
    /// The first entry that is none.
    pub fn allowed_ports(&self) -> Result<Vec<(String, u16)>, String> {
        let parse = |entry: &String| {
            let (protocol, port) = entry.split_once('/')?;
            let protocol = ["tcp", "udp"].contains(&protocol).then(|| protocol.to_owned())?;
            Some((protocol, port.parse().ok().filter(|port| *port > 0)?))
        };
        self.network.allow_host.iter().map(|entry| parse(entry).ok_or_else(|| entry.clone())).collect()
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
        let config = read("[build.env]\nHTTPS_PROXY = \"http://p:1\"\n[network]\nallow_host = [\"tcp/5432\"]\n").unwrap();
        assert_eq!(config.build.env["HTTPS_PROXY"], "http://p:1");
        assert_eq!(config.allowed_ports().unwrap(), [("tcp".to_owned(), 5432)]);
        assert!(read("[buidl]\n").unwrap_err().to_string().contains("buidl"));
        assert!(read("[network]\nallow_host = [\"5432\"]\n").unwrap_err().to_string().contains("5432"));
    }
}
