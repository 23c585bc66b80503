//! Makes what is wanted so: observe, plan, act, and again.
//!
//! ```text
//!   control ──wake(app)──┐                       ┌──▶ engine: launch, stop
//!   engine ───events─────┼──▶ one task: ─────────┼──▶ store: promote, fail, phase passed
//!   clock ────back-off───┘    plan(want, have)   └──▶ router: the next route table
//! ```
//!
//! One task ([`reconcile`]) owns what is running. Wake-ups carry no payload: a lost or doubled one is harmless, because
//! `want` is read anew from the store each time. Whatever takes long — unpacking a slug, draining a dyno, a build — is
//! a job of its own that reports back.
#![forbid(unsafe_code)]

pub mod builds;
mod dynos;
mod engine;
mod launch;
mod one_off;
mod reconcile;
mod routing;
mod settling;
mod want;
mod wording;

pub use engine::Engine;

use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{App, AppId};
use crate::domain::dyno::{DynoId, DynoName, DynoState, Exit, Purpose};
use crate::domain::egress::Egress;
use crate::domain::limits::{DynoSize, Sizes};
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Release, ReleaseId};
use crate::dyno::{Event, Found, Inside, Launch};
use crate::logs::{Hub, Outputs};
use crate::router::Router;
use crate::slug::SlugStore;
use crate::stack::Stacks;
use crate::store::Store;
use crate::wire::attach::BoxedIo;
use builds::Builder;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A web dyno listens on its port within this, or is killed (R10).
    pub boot_timeout: Duration,
    /// Between SIGTERM and SIGKILL (R12).
    pub grace: Duration,
    /// Requests in flight to a dyno that is to stop may take this long.
    pub drain: Duration,
    /// The same, while others are held until it has stopped.
    pub hold_drain: Duration,
    /// `hokku run` waits this long for its client (R13).
    pub attach_timeout: Duration,
    /// Apps are reached as `<app>.<domain>`.
    pub domain: String,
    /// What dynos may use.
    pub sizes: Sizes,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            boot_timeout: seconds(60),
            grace: seconds(30),
            drain: seconds(30),
            hold_drain: seconds(10),
            attach_timeout: seconds(60),
            domain: "localhost".to_owned(),
            sizes: Sizes::default(),
        }
    }
}

/// What the supervisor works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub hub: Hub,
    pub outputs: Outputs,
    pub slugs: SlugStore,
    pub stacks: Stacks,
    pub engine: Arc<dyn Engine>,
    /// `None` in tests that need no traffic.
    pub router: Option<Router>,
    pub settings: Settings,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A dyno as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynoView {
    pub id: DynoId,
    pub name: DynoName,
    pub purpose: Purpose,
    pub state: DynoState,
    pub release_version: u32,
    pub command: String,
    pub size: DynoSize,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A one-off dyno that is asked for.
#[derive(Clone, Debug)]
pub struct Run {
    pub app: App,
    pub command: String,
    pub env: Vec<(String, String)>,
    pub size: Option<DynoSize>,
    /// `None`: detached, its output goes to the log.
    pub attach: Option<Attach>,
    pub actor: Actor,
    /// Whose access it ends with; none when root of the box began it.
    pub by: Option<AccountId>,
}

/// A one-off dyno, and whose access it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneOff {
    pub id: DynoId,
    pub app: AppId,
    /// None when root of the box began it.
    pub by: Option<AccountId>,
}

/// How a client wants to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Columns and rows of the client's terminal; `None` for plain pipes.
    pub tty: Option<(u16, u16)>,
}

/// What to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    Dyno(DynoName),
    Type(ProcessType),
    All,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("the app has no code yet; deploy it first")]
    NoCode,
    #[error("couldn't find that dyno, or it is not waiting for a client any more")]
    NotWaiting,
    #[error("nothing can be started in a dyno that is not up")]
    NotUp,
    #[error("too many wait to be let into that dyno already")]
    Crowded,
    #[error("the dyno could not be started: {0}")]
    Launch(String),
    #[error("{0}")]
    Store(String),
    #[error("the server is shutting down")]
    Shutdown,
}

/// A dyno that could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {message}")]
pub struct LaunchFailure {
    pub step: String,
    pub message: String,
}

enum Command {
    Wake(AppId),
    Dynos(AppId, oneshot::Sender<Vec<DynoView>>),
    Run(Box<Run>, oneshot::Sender<Result<DynoView, RunError>>),
    Inside(DynoId, Box<Inside>, Actor, oneshot::Sender<Result<DynoId, RunError>>),
    Attach(DynoId, BoxedIo, oneshot::Sender<Result<(), RunError>>),
    Stop(AppId, Stop, oneshot::Sender<usize>),
    Build(Box<Launch>, oneshot::Sender<Result<Exit, LaunchFailure>>),
    Kill(DynoId),
    OneOffs(oneshot::Sender<Vec<OneOff>>),
    Evict(DynoId),
    Settled(ReleaseId, oneshot::Sender<Release>),
    /// A job has made a launch, or could not.
    Prepared(Box<Launch>),
    Unlaunchable(DynoId, String),
    /// The router works by the table that makes these releases reachable.
    Reachable(Vec<Release>),
    AttachExpired(DynoId),
}

/// The handle: cheap to clone, talks to the one task.
#[derive(Clone)]
pub struct Supervisor {
    commands: mpsc::UnboundedSender<Command>,
    builder: Builder,
    engine: Arc<dyn Engine>,
    sizes: Arc<Sizes>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supervisor")
    }
}

impl Supervisor {
    /// Starts the task with what a scan of the machine found; every app is planned at once.
    pub fn start(
        parts: Parts,
        found: Vec<Found>,
        events: mpsc::UnboundedReceiver<Event>,
        builds: builds::Settings,
    ) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let sizes = Arc::new(parts.settings.sizes.clone());
        let builder = Builder::new(parts.clone(), builds, Reach { commands: commands.clone() });
        let engine = parts.engine.clone();
        tokio::spawn(reconcile::Reconciler::new(parts, commands.clone()).run(found, inbox, events));
        Self { commands, builder, engine, sizes }
    }

    /// Something about the app has changed: look again.
    pub fn wake(&self, app: AppId) {
        self.send(Command::Wake(app));
    }

    pub async fn dynos(&self, app: AppId) -> Vec<DynoView> {
        self.ask(|reply| Command::Dynos(app, reply)).await.unwrap_or_default()
    }

    /// Makes a one-off dyno. With `attach` it starts when the client comes ([`Supervisor::attach`]).
    ///
    /// # Errors
    /// When the app has no code or the store can't be read.
    pub async fn run(&self, run: Run) -> Result<DynoView, RunError> {
        self.ask(|reply| Command::Run(Box::new(run), reply)).await.unwrap_or(Err(RunError::Shutdown))
    }

    /// Has a program wait for its client, to be let into a dyno that runs. The id is to attach by, as if it were a dyno's.
    ///
    /// # Errors
    /// When the dyno does not run.
    pub async fn inside(&self, dyno: DynoId, order: Inside, actor: Actor) -> Result<DynoId, RunError> {
        let command = |reply| Command::Inside(dyno, Box::new(order), actor, reply);
        self.ask(command).await.unwrap_or(Err(RunError::Shutdown))
    }

    /// Hands the client's connection to a dyno that waits for it; returns when it is handed over.
    ///
    /// # Errors
    /// When no dyno of that id waits for a client.
    pub async fn attach(&self, id: DynoId, stream: BoxedIo) -> Result<(), RunError> {
        self.ask(|reply| Command::Attach(id, stream, reply)).await.unwrap_or(Err(RunError::Shutdown))
    }

    /// Stops dynos; those of the formation are started again by the next plan. Says how many were told.
    pub async fn stop(&self, app: AppId, what: Stop) -> usize {
        self.ask(|reply| Command::Stop(app, what, reply)).await.unwrap_or(0)
    }

    /// Waits until the release has succeeded and is reachable, or has failed; `None` when it does not exist.
    pub async fn settled(&self, release: ReleaseId) -> Option<Release> {
        self.ask(|reply| Command::Settled(release, reply)).await
    }

    /// Where dynos of the app may connect to. Returns when it holds for all there are.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn set_egress(&self, app: AppId, egress: Egress) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        self.engine.set_egress(app, egress, done);
        told.await.unwrap_or_else(|_| Err(RunError::Shutdown.to_string()))
    }

    pub fn kill(&self, id: DynoId) {
        self.send(Command::Kill(id));
    }

    /// Those that live or wait for their client.
    pub async fn one_offs(&self) -> Vec<OneOff> {
        self.ask(Command::OneOffs).await.unwrap_or_default()
    }

    /// Kills a dyno because the access that it was begun by has ended, and says so in the app's log.
    pub fn evict(&self, id: DynoId) {
        self.send(Command::Evict(id));
    }

    /// What dynos may use, by their size.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub fn builds(&self) -> &Builder {
        &self.builder
    }

    fn send(&self, command: Command) {
        Reach { commands: self.commands.clone() }.send(command);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        Reach { commands: self.commands.clone() }.ask(command).await
    }
}

/// What the builder needs of the supervisor that it is a part of.
#[derive(Clone)]
pub(crate) struct Reach {
    commands: mpsc::UnboundedSender<Command>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach")
    }
}

impl Reach {
    pub(crate) fn wake(&self, app: AppId) {
        self.send(Command::Wake(app));
    }

    pub(crate) fn kill(&self, id: DynoId) {
        self.send(Command::Kill(id));
    }

    /// Runs a build dyno to its end.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn run_build(&self, launch: Launch) -> Result<Exit, LaunchFailure> {
        let gone = || LaunchFailure { step: "server".into(), message: "the server is shutting down".into() };
        self.ask(|reply| Command::Build(Box::new(launch), reply)).await.unwrap_or_else(|| Err(gone()))
    }

    pub(crate) async fn settled(&self, release: ReleaseId) -> Option<Release> {
        self.ask(|reply| Command::Settled(release, reply)).await
    }

    fn send(&self, command: Command) {
        // Only when the task has ended, that is while the server goes down: nobody is left to do anything.
        let _ = self.commands.send(command);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        answer.await.ok()
    }
}
