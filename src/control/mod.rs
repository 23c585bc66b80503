//! The use cases, one file per noun: what the API and the git bridge ask for.
//!
//! Each is the same few steps: one transaction that reads, lets the domain decide and writes; then the app's log is
//! told and the supervisor woken, which makes it so. Nothing here waits for a dyno.
#![forbid(unsafe_code)]

pub mod access;
pub mod accounts;
pub mod addons;
pub mod apps;
pub mod audit;
pub mod buildpacks;
pub mod builds;
pub mod certs;
pub mod collaborators;
pub mod config;
pub mod disk;
pub mod domains;
pub mod drains;
pub mod dynos;
pub mod egress;
mod error;
pub mod features;
pub mod formation;
pub mod grants;
pub mod guesses;
pub mod keys;
pub mod logs;
pub mod oauth_clients;
pub mod pipelines;
pub mod releases;
pub mod repositories;
pub mod runtimes;
pub mod slugs;
pub mod sources;
pub mod stacks;
pub mod tokens;
pub mod transfers;

pub use error::{ControlError, Resource};

use crate::domain::app::AppId;
use crate::domain::instance::Instance;
use crate::domain::log::{LogFrame, Source};
use crate::domain::stack::StackName;
use crate::drains::Drains;
use crate::logs::{Hub, Outputs};
use crate::slug::SlugStore;
use crate::stack::Stacks;
use crate::store::Store;
use crate::supervisor::Supervisor;
use jiff::Timestamp;
use repositories::Repositories;
use slugs::Drafts;
use sources::Sources;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the use cases work with. Clones share it.
#[derive(Clone)]
pub struct Control {
    pub store: Store,
    pub supervisor: Supervisor,
    pub hub: Hub,
    pub outputs: Outputs,
    pub slugs: SlugStore,
    pub place: Arc<Place>,
    /// Cancelled when the server goes down: streams that would never end then do.
    pub closing: CancellationToken,
    pub sources: Sources,
    pub drafts: Drafts,
    pub stacks: Stacks,
    pub drains: Drains,
    pub repositories: Repositories,
    pub(crate) jobs: stacks::Jobs,
    /// Told when host names or certificates may have changed.
    names: Arc<tokio::sync::Notify>,
    /// What is open for as long as somebody may.
    grants: grants::Grants,
    /// Wrong passwords.
    pub(crate) guesses: guesses::Guesses,
    /// What was refused in this minute.
    refusals: audit::Refusals,
    /// Held while an app's egress is changed.
    egress_turn: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where this instance is and how it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    pub instance: Instance,
    /// Apps are reached as `<app>.<domain>`.
    pub domain: String,
    /// The router's port, part of an app's URL unless it is 80.
    pub router_port: u16,
    /// The stack of new apps.
    pub stack: StackName,
    /// The largest source archive, in bytes.
    pub source_limit: u64,
    pub keep: disk::Keep,
}

impl Place {
    /// What a source archive may have unless the settings say otherwise (Heroku's limit for a checkout).
    pub const SOURCE_LIMIT: u64 = 1 << 30;

    /// The host name an app answers to.
    pub fn hostname(&self, app: &str) -> String {
        format!("{app}.{}", self.domain)
    }

    /// An app's address for people.
    pub fn web_url(&self, app: &str) -> String {
        let host = self.hostname(app);
        if self.router_port == 80 { format!("http://{host}/") } else { format!("http://{host}:{}/", self.router_port) }
    }
}

/// What [`Control::new`] is made of.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub supervisor: Supervisor,
    pub hub: Hub,
    pub outputs: Outputs,
    pub slugs: SlugStore,
    pub stacks: Stacks,
    pub drains: Drains,
    pub place: Place,
    pub closing: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Control {
    /// # Errors
    /// When ROOT's folder for sources can't be made ready.
    pub fn new(parts: Parts) -> std::io::Result<Self> {
        let Parts { store, supervisor, hub, outputs, slugs, stacks, drains, place, closing } = parts;
        let sources = Sources::open(place.instance.root.join("sources"), place.source_limit)?;
        let (place, jobs, egress_turn) = (Arc::new(place), stacks::Jobs::default(), Arc::default());
        let control = Self {
            store,
            supervisor,
            hub,
            outputs,
            slugs,
            place,
            closing,
            sources,
            drafts: Drafts::default(),
            stacks,
            drains,
            repositories: Repositories::default(),
            jobs,
            names: Arc::default(),
            grants: grants::Grants::default(),
            guesses: guesses::Guesses::default(),
            refusals: audit::Refusals::default(),
            egress_turn,
        };
        tokio::spawn(grants::watch(control.clone()));
        tokio::spawn(audit::count(control.clone()));
        Ok(control)
    }

    /// A line `app[api]: …` in the app's log.
    fn log(&self, app: AppId, line: impl Into<String>) {
        self.hub.write(app, LogFrame::platform(Timestamp::now(), Source::App, "api", line));
    }
}
