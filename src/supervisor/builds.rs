//! Builds: a queue, and one job after the other per app.
//!
//! ```text
//!  submit ─▶ row pending ─▶ the app's turn ─▶ a free slot ─▶ [`job`]: source, dyno, slug ─▶ release committed ─▶ settled
//!                 │               └───────────────┴─ cancel ends it here ─┘                        │
//!                 └──▶ failed: refused, cancelled, not compiled; no release, the cache as before   └▶ only reported
//! ```
//!
//! A build succeeds or fails in the very transaction that makes its release, so a server that dies leaves no build
//! undecided but those that have not got that far; the next server fails them ([`recover`]). What becomes of the release
//! is told in the build's output, which ends with it.
#![forbid(unsafe_code)]

mod intake;
mod job;
mod postdeploy;
mod report;
mod stack;

pub use crate::build::Settings;

use super::{Parts, Reach};
use crate::build::room::RoomError;
use crate::build::{Buildpack, BuildpackError, stage};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::build::{Build, BuildId, BuildStatus};
use crate::logs::{OutputReader, OutputWriter};
use crate::slug::SlugError;
use crate::store::{self, StoreError};
use jiff::Timestamp;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const STOPPED: &str = "The server was stopped during this build. Build again with a push, or hokku rebuild.";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    pub app: App,
    pub actor: Actor,
    pub source: Source,
    /// What the client calls its source; builds see it as `SOURCE_VERSION`.
    pub version: Option<String>,
    /// Instead of the app's own, for this build only.
    pub buildpacks: Vec<String>,
    /// When the version is a commit.
    pub commit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A checked archive on this machine. It is consumed: kept as the app's last source or removed.
    Archive(PathBuf),
    /// What the app's current code was built from.
    Last,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("there is no source yet to build again; push or deploy first")]
    NoSource,
    #[error(transparent)]
    Buildpack(#[from] BuildpackError),
    #[error(transparent)]
    Room(#[from] RoomError),
    #[error(transparent)]
    Slug(#[from] SlugError),
    #[error("the slug has {size}, more than the {limit} MB that are allowed")]
    Large { size: String, limit: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("can't keep the build's output")]
    Io(#[from] io::Error),
}

/// The queue's handle.
#[derive(Clone, Debug)]
pub struct Builder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    settings: Settings,
    reach: Reach,
    slots: Arc<Semaphore>,
    turns: Mutex<HashMap<AppId, Arc<tokio::sync::Mutex<()>>>>,
    running: Mutex<HashMap<BuildId, Arc<Cancel>>>,
    recovered: OnceCell<()>,
}

/// One accepted build on its way.
#[derive(Debug)]
struct Ticket {
    build: Build,
    request: BuildRequest,
    listed: Vec<Buildpack>,
    output: OutputWriter,
    cancel: Arc<Cancel>,
}

/// Whether a build may still be stopped. Decided under one lock: a cancelled build never commits, a committed one is
/// never said to be cancelled.
#[derive(Debug, Default)]
struct Cancel {
    token: CancellationToken,
    committed: Mutex<bool>,
}

impl Cancel {
    fn cancel(&self) -> bool {
        let committed = lock(&self.committed);
        if !*committed {
            self.token.cancel();
        }
        !*committed
    }

    /// False when it was cancelled before.
    fn commit(&self) -> bool {
        let mut committed = lock(&self.committed);
        *committed = !self.token.is_cancelled();
        *committed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Builder {
    /// Needs the runtime that it will work in.
    pub(crate) fn new(parts: Parts, settings: Settings, reach: Reach) -> Self {
        let slots = Arc::new(Semaphore::new(settings.at_once.max(1)));
        let inner = Inner {
            parts,
            settings,
            reach,
            slots,
            turns: Mutex::default(),
            running: Mutex::default(),
            recovered: OnceCell::new(),
        };
        let builder = Self(Arc::new(inner));
        let first = builder.clone();
        tokio::spawn(async move { first.recovered().await });
        builder
    }

    /// Accepts a build and queues it.
    ///
    /// # Errors
    /// When a buildpack is none, there is nothing to build again, or the store or disk refuses.
    pub async fn submit(&self, request: BuildRequest) -> Result<Build, BuildError> {
        self.recovered().await;
        let listed = request.buildpacks.iter().map(|text| Buildpack::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if request.source == Source::Last && !self.0.kept_source(request.app.id).is_file() {
            return Err(BuildError::NoSource);
        }
        let now = Timestamp::now();
        let build = Build {
            id: BuildId(Uuid::now_v7()),
            app: request.app.id,
            actor: request.actor.clone(),
            status: BuildStatus::Pending,
            source_version: request.version.clone(),
            buildpacks: request.buildpacks.clone(),
            stack: request.app.stack.to_string(),
            created_at: now,
            updated_at: now,
        };
        let output = self.0.parts.outputs.create(build.id.0)?;
        let row = build.clone();
        self.0.parts.store.write(move |tx| store::builds::insert(tx, &row)).await?;
        let ticket = Ticket { build: build.clone(), request, listed, output, cancel: Arc::default() };
        lock(&self.0.running).insert(build.id, Arc::clone(&ticket.cancel));
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.process(ticket).await });
        Ok(build)
    }

    /// Ends a build that has made no release yet; false when there is nothing to end any more.
    pub fn cancel(&self, id: BuildId) -> bool {
        lock(&self.0.running).get(&id).is_some_and(|cancel| cancel.cancel())
    }

    /// The build's output from its beginning; it ends when the release has settled or the build failed.
    pub fn output(&self, id: BuildId) -> Option<OutputReader> {
        self.0.parts.outputs.follow(id.0)
    }

    async fn recovered(&self) {
        self.0.recovered.get_or_init(|| self.0.recover()).await;
    }
}

impl Inner {
    /// Fails the builds of a server that died, and removes what they left. Builds wait until this has decided.
    async fn recover(&self) {
        let failed = self.parts.store.write(|tx| {
            let status = BuildStatus::Failed { reason: STOPPED.to_owned() };
            let pending = store::builds::pending(tx)?;
            for build in &pending {
                store::builds::settle(tx, build.id, &status, Timestamp::now())?;
            }
            Ok::<_, StoreError>(pending)
        });
        match failed.await {
            Ok(builds) => {
                for build in builds {
                    self.log(build.app, "Build failed -- the server was stopped");
                    if let Err(error) = self.parts.outputs.append(build.id.0, &format!("\n !     {STOPPED}\n\n")) {
                        tracing::warn!("can't complete the output of build {}: {error}", build.id);
                    }
                }
            }
            Err(error) => tracing::error!("can't fail the builds of the last server: {error}"),
        }
        match stage::left_behind(&self.settings.root) {
            // In the background: the dynos that still write there are being ended at this moment.
            Ok(stages) => drop(tokio::task::spawn_blocking(move || stage::remove_all(stages))),
            Err(error) => tracing::warn!("can't look for what unfinished builds left: {error}"),
        }
    }

    /// A build from its first to its last line.
    async fn process(self: Arc<Self>, ticket: Ticket) {
        let done = self.attempt(&ticket).await;
        match done {
            Ok(released) => self.follow(&ticket, released).await,
            Err(failure) => {
                let failure = self.of_a_destroyed_app(&ticket).await.unwrap_or(failure);
                self.consume_source(&ticket, false).await;
                self.fail(&ticket, &failure).await;
            }
        }
        lock(&self.running).remove(&ticket.build.id);
        self.forget_turn(ticket.build.app);
        ticket.output.finish();
    }

    /// Whatever it is that a build without its app fails at, that is the reason.
    async fn of_a_destroyed_app(&self, ticket: &Ticket) -> Option<report::Failure> {
        let app = ticket.build.app;
        let found: Result<Option<App>, StoreError> = self.parts.store.read(move |tx| store::apps::get(tx, app)).await;
        matches!(found, Ok(None)).then_some(report::Failure::NoApp)
    }

    fn turn_of(&self, app: AppId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.turns).entry(app).or_default())
    }

    fn forget_turn(&self, app: AppId) {
        let mut turns = lock(&self.turns);
        if turns.get(&app).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&app);
        }
    }

    /// The source of the code that the app has, for building it again.
    fn kept_source(&self, app: AppId) -> PathBuf {
        self.settings.root.join("sources").join(format!("{app}.tar.zst"))
    }
}
