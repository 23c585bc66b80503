//! Which requests go where: hostname → app → dynos. The router knows nothing else.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::dyno::{DynoId, DynoName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The whole of what the router needs to know, in one numbered snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Counts up with every snapshot; the router acknowledges it.
    pub version: u64,
    /// Lower-case hostname without a port → app.
    pub hosts: BTreeMap<String, AppId>,
    pub apps: BTreeMap<AppId, AppRoute>,
}

/// How one app is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoute {
    /// For the access lines.
    pub name: String,
    pub maintenance: bool,
    pub target: Target,
}

/// What answers an app's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// No code yet: H81.
    Blank,
    /// `web` is scaled to zero or not declared: H14.
    NoWeb,
    /// Web dynos are wanted and none is up, but some are booting: hold the request, H20 after 75 s.
    Booting,
    /// All web dynos have crashed: H10.
    Crashed,
    Dynos {
        dynos: Vec<Backend>,
    },
}

/// A dyno that accepts requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub id: DynoId,
    pub name: DynoName,
    pub addr: SocketAddr,
}
