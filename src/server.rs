//! Placeholder: the wiring, with the signatures the command line is written against.
#![forbid(unsafe_code)]

use crate::domain::instance::InstanceName;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What the command line and the environment say; what they do not say is in `ROOT/hokku.toml` or has a default.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub root: PathBuf,
    pub name: Option<InstanceName>,
    /// Where the API and git listen.
    pub api: Option<SocketAddr>,
    /// Where apps are served.
    pub router: Option<SocketAddr>,
    /// Apps are served at `APP.DOMAIN`.
    pub domain: Option<String>,
}

/// # Errors
/// When the server can't start.
pub fn run(_options: ServerOptions) -> anyhow::Result<()> {
    anyhow::bail!("the server is not built in yet")
}

/// Stops the instance and removes every trace of it; with `purge` its root too.
///
/// # Errors
/// When something can't be removed.
pub fn down(_root: &Path, _name: Option<&InstanceName>, _purge: bool) -> anyhow::Result<()> {
    anyhow::bail!("the server is not built in yet")
}
