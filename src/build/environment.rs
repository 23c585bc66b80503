//! What a build may use, and the environment it begins with.
#![forbid(unsafe_code)]

use crate::domain::app::AppName;
use crate::domain::limits::Limits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The bundle of trusted certificates inside every dyno; the host stack brings the host's own to this place.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const CA_DIR: &str = "/etc/ssl/certs";

/// Every tool has its own name for the bundle; some (node, pip) would otherwise trust only a list of their own, which
/// fails in networks with their own authority.
const CA_VARIABLES: [&str; 7] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];

/// Passed on as they are when the server has them: the way to the package registries.
const PASSED: [&str; 14] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "npm_config_registry",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "GOPROXY",
    "GOSUMDB",
    "BUNDLE_MIRROR__ALL",
    "MAVEN_MIRROR_URL",
];

const MIB: u64 = 1024 * 1024;

/// Where builds happen and what one may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The instance's ROOT.
    pub root: PathBuf,
    /// Apps are reached as `<app>.<domain>`, at the router's port.
    pub domain: String,
    pub router_port: u16,
    /// `[build.env]`: variables for every build, stronger than what hokku itself sets.
    pub env: BTreeMap<String, String>,
    pub time_limit: Duration,
    /// Builds at the same time on this box.
    pub at_once: usize,
    pub memory_mb: u64,
    /// The writable layer, `/tmp` with it; what is compiled lies beside it and is bounded by `reserve_mb`.
    pub scratch_mb: u64,
    pub processes: u64,
    /// The largest slug, compressed.
    pub slug_mb: u64,
    /// The largest cache that an app may keep from one build to the next.
    pub cache_mb: u64,
    /// A build ends rather than leave less room than this on the disk.
    pub reserve_mb: u64,
}

impl Settings {
    pub fn new(root: PathBuf, domain: String, router_port: u16) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            root,
            domain,
            router_port,
            env: BTreeMap::new(),
            time_limit: Duration::from_secs(15 * 60),
            at_once: (cores / 2).max(1),
            memory_mb: 2048,
            scratch_mb: 512,
            processes: 4096,
            slug_mb: 1024,
            cache_mb: 2048,
            reserve_mb: 256,
        }
    }

    pub fn limits(&self) -> Limits {
        Limits {
            memory_quota: self.memory_mb * MIB,
            memory_max: self.memory_mb * MIB,
            // A fifth of what the smallest dyno has: apps that serve come first.
            cpu_shares: 20,
            cpu_quota_percent: None,
            pids: self.processes,
            disk: self.scratch_mb * MIB,
        }
    }

    /// An app's address for people.
    pub fn web_url(&self, app: &AppName) -> String {
        match self.router_port {
            80 => format!("http://{app}.{}/", self.domain),
            port => format!("http://{app}.{}:{port}/", self.domain),
        }
    }
}

/// Trust and the way to the registries: the host's, as `host` (the server's environment) knows it, then `[build.env]`.
pub fn network(settings: &Settings, host: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> =
        CA_VARIABLES.iter().map(|name| ((*name).to_owned(), CA_BUNDLE.to_owned())).collect();
    env.insert("SSL_CERT_DIR".to_owned(), CA_DIR.to_owned());
    let passed = PASSED.iter().filter_map(|name| Some(((*name).to_owned(), host(name)?)));
    env.extend(passed);
    env.extend(settings.env.clone());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_the_hosts_and_the_operator_has_the_last_word() {
        let settings = Settings {
            env: [("PIP_CERT".to_owned(), "/x".to_owned())].into(),
            ..Settings::new("/".into(), "d".into(), 80)
        };
        let host = |name: &str| match name {
            "PIP_CERT" => Some("/somewhere/on/the/host.pem".to_owned()),
            "https_proxy" => Some("http://proxy:3128".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("never".to_owned()),
            _ => None,
        };
        let env = network(&settings, host);
        assert_eq!(env["NODE_EXTRA_CA_CERTS"], CA_BUNDLE);
        assert_eq!(env["PIP_CERT"], "/x");
        assert_eq!(env["https_proxy"], "http://proxy:3128");
        assert!(!env.contains_key("AWS_SECRET_ACCESS_KEY") && !env.contains_key("GOPROXY"));
    }
}
