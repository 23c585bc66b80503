//! The one task that owns what is running.
//!
//! It starts from a finished scan ([`Reconciler::run`]'s `found`), so nothing is ever stopped on ignorance, and boot,
//! crash recovery and ordinary work are one path. After that it is kept up to date by events and plans per app: an
//! event costs what its app costs, however many others there are.
#![forbid(unsafe_code)]

use super::dynos::{Dyno, Dynos};
use super::launch::{self, Order};
use super::want::{Verdict, Wanted, settle, wanted};
use super::wording;
use super::{Command, DynoView, LaunchFailure, Parts, RunError, Stop};
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoEvent, DynoId, DynoName, DynoState, Exit, Purpose};
use crate::domain::log::LogFrame;
use crate::domain::plan::{Action, Have, Replacement, Want};
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Release, ReleaseId};
use crate::domain::route::{AppRoute, RouteTable};
use crate::dyno::{Event, Found, Inside, Io, Launch, What};
use crate::logs::OutputWriter;
use crate::store::{self, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// So many commands and events are heard at most before what follows from them is done.
const BATCH: usize = 1024;

/// When the store can't be read or written, as on a full disk, that long passes until the app is looked at again: no event
/// may come that would have it done.
const STORE_AGAIN: Duration = Duration::from_secs(5);

/// An app as it was when it was last planned.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
    pub(super) route: Option<AppRoute>,
    pub(super) wake_at: Option<Timestamp>,
    /// How its web dynos are being replaced.
    pub(super) replacement: Replacement,
    /// By a swap because there was not memory for more, until all is replaced.
    pub(super) short: bool,
}

/// A dyno that is to end: at once, or when its requests have.
pub(super) struct Leaving {
    id: DynoId,
    app: AppId,
    name: DynoName,
    served: bool,
    /// Others wait until it has ended.
    held: bool,
}

pub(super) struct Reconciler {
    pub(super) parts: Parts,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) dynos: Dynos,
    /// Programs that wait for their client, and the dynos that they are to be let into.
    pub(super) visits: HashMap<DynoId, (DynoId, Inside)>,
    /// What was let in, until it is out again.
    pub(super) guests: HashMap<DynoId, CancellationToken>,
    pub(super) apps: BTreeMap<AppId, Seen>,
    pub(super) table: RouteTable,
    /// What is to be done when all that is there has been heard: apps to plan, a table to publish, and dynos to end once
    /// that table holds. Many events of one moment, as of a restart of a whole app, cost one plan and one table.
    pub(super) unplanned: BTreeSet<AppId>,
    pub(super) unpublished: bool,
    pub(super) leaving: Vec<Leaving>,
    pub(super) settling: HashMap<ReleaseId, Vec<oneshot::Sender<Release>>>,
}

impl Reconciler {
    pub(super) fn new(parts: Parts, commands: mpsc::UnboundedSender<Command>) -> Self {
        Self {
            parts,
            commands,
            dynos: Dynos::default(),
            visits: HashMap::new(),
            guests: HashMap::new(),
            apps: BTreeMap::new(),
            table: RouteTable::default(),
            unplanned: BTreeSet::new(),
            unpublished: false,
            leaving: Vec::new(),
            settling: HashMap::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        found: Vec<Found>,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) {
        self.survey(found).await;
        loop {
            let due = self.apps.values().filter_map(|seen| seen.wake_at).min();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                event = events.recv() => match event {
                    Some(event) => self.observe(event),
                    None => return,
                },
                () = until(due) => self.wake_due(),
            }
            for _ in 0..BATCH {
                if let Ok(event) = events.try_recv() {
                    self.observe(event);
                } else if let Ok(command) = inbox.try_recv() {
                    self.obey(command).await;
                } else {
                    break;
                }
            }
            self.settle_down().await;
        }
    }

    /// Does what the events and commands until now have made necessary.
    async fn settle_down(&mut self) {
        let planned = !self.unplanned.is_empty();
        while let Some(app) = self.unplanned.pop_first() {
            self.plan(app).await;
        }
        if self.unpublished {
            self.publish();
        }
        for leaving in std::mem::take(&mut self.leaving) {
            self.see_off(leaving);
        }
        if planned {
            for release in self.settling.keys().copied().collect::<Vec<_>>() {
                self.tell_settled(release).await;
            }
        }
    }

    /// Takes over what a scan found, then plans every app once.
    async fn survey(&mut self, found: Vec<Found>) {
        for found in found {
            self.adopt(found);
        }
        let stored = self.parts.store.read(store::apps::list).await;
        let stored = stored.unwrap_or_else(|error: StoreError| {
            tracing::error!("can't list the apps: {error}");
            Vec::new()
        });
        let mut apps: BTreeSet<AppId> = stored.iter().map(|app| app.id).collect();
        apps.extend(self.dynos.apps());
        self.unplanned.extend(apps);
        // The first table has all of them: a new server must not unroute what still serves.
        self.unpublished = true;
        self.settle_down().await;
    }

    fn adopt(&mut self, found: Found) {
        let Found { id, labels, addr, exit, was_ready, .. } = found;
        let since = labels.launched_at;
        let purpose = labels.purpose;
        // Only a build needs the server that began it.
        if purpose == Purpose::Build {
            self.parts.engine.kill(id);
        }
        let state = if was_ready { DynoState::Up { since } } else { DynoState::Starting { since } };
        self.dynos.insert(id, Dyno::new(labels, state));
        if let Some(dyno) = self.dynos.get_mut(id) {
            dyno.addr = addr.map(|addr| SocketAddr::new(addr.ip(), super::Settings::PORT));
        }
        if let Some(exit) = exit {
            self.ended(id, exit);
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Wake(app) => drop(self.unplanned.insert(app)),
            Command::Dynos(app, reply) => {
                // What was asked for before is seen.
                self.settle_down().await;
                let _ = reply.send(self.views(app)); // who asked may have gone
            }
            Command::Run(run, reply) => self.one_off(*run, reply).await,
            Command::Inside(dyno, order, actor, reply) => drop(reply.send(self.inside(dyno, *order, &actor))),
            Command::Attach(id, stream, reply) => drop(reply.send(self.attach(id, stream))),
            Command::Stop(app, what, reply) => {
                let _ = reply.send(self.stop_named(app, &what)); // who asked may have gone
                self.unplanned.insert(app);
            }
            Command::Build(launch, reply) => self.build(*launch, reply),
            Command::Kill(id) => self.parts.engine.kill(id),
            Command::OneOffs(reply) => drop(reply.send(self.one_offs())),
            Command::Evict(id) => self.evict(id),
            Command::Settled(release, reply) => self.settled(release, reply).await,
            Command::Prepared(launch) => self.prepared(*launch),
            Command::Unlaunchable(id, message) => self.failed(id, &message),
            Command::Reachable(releases) => releases.into_iter().for_each(|release| self.announce(&release)),
            Command::AttachExpired(id) => self.attach_expired(id),
        }
    }

    /// Plans the app anew when the dyno's state is another one.
    fn observe(&mut self, Event { id, what }: Event) {
        let Some(dyno) = self.dynos.get_mut(id) else { return };
        let (app, name) = (dyno.labels.app, dyno.labels.name.clone());
        match what {
            What::Started => return self.accepted(id),
            What::Ready { addr } => {
                dyno.addr = addr.or(dyno.addr);
                self.step(id, DynoEvent::Ready);
            }
            What::BootTimeout => {
                dyno.timed_out = true;
                self.log(app, wording::of_dyno(&name, wording::R10));
                self.log(app, wording::of_dyno(&name, "Stopping process with SIGKILL"));
                self.parts.engine.kill(id);
                return;
            }
            What::Killed => {
                self.log(app, wording::of_dyno(&name, wording::R12));
                self.log(app, wording::of_dyno(&name, wording::KILLING));
                return;
            }
            What::InMemory { why } => {
                if dyno.labels.purpose != Purpose::Build {
                    self.log(app, wording::of_dyno(&name, wording::in_memory(&why)));
                }
                return;
            }
            What::LessDisk { bytes, wanted } => {
                if dyno.labels.purpose != Purpose::Build {
                    self.log(app, wording::of_dyno(&name, wording::less_disk(bytes, wanted)));
                }
                return;
            }
            What::DiskFull { bytes } => {
                self.log(app, wording::of_dyno(&name, wording::disk_full(bytes)));
                return;
            }
            What::OverQuota { bytes, quota } => {
                if dyno.labels.purpose != Purpose::Build {
                    self.log(app, wording::of_dyno(&name, wording::memory(bytes, quota)));
                    self.log(app, wording::of_dyno(&name, wording::R14));
                }
                return;
            }
            What::Exited(exit) => self.ended(id, exit),
            What::Failed { step, message } => return self.failed(id, &format!("{step}: {message}")),
        }
        self.unplanned.insert(app);
    }

    /// The process has ended: log it, tell who waits, let the state say what that means.
    fn ended(&mut self, id: DynoId, exit: Exit) {
        let Some(dyno) = self.dynos.get_mut(id) else { return };
        let (app, name, purpose) = (dyno.labels.app, dyno.labels.name.clone(), dyno.labels.purpose);
        let limits = self.parts.settings.sizes.of(dyno.labels.size);
        if let Some(done) = dyno.done.take() {
            let _ = done.send(Ok(exit)); // the builder may have given up
        }
        if purpose != Purpose::Build {
            if exit.oom {
                if exit.box_full {
                    self.log(app, wording::of_dyno(&name, wording::BOX_FULL));
                } else {
                    // It was killed for having all that it may have.
                    self.log(app, wording::of_dyno(&name, wording::memory(limits.memory_max, limits.memory_quota)));
                    self.log(app, wording::of_dyno(&name, wording::R15));
                }
                self.log(app, wording::of_dyno(&name, "Stopping process with SIGKILL"));
            }
            // It may have ended while no server was there.
            self.log(app, LogFrame { at: exit.at, ..wording::of_dyno(&name, wording::exited(&exit)) });
        }
        self.step(id, DynoEvent::Exited(exit));
        if matches!(purpose, Purpose::Run | Purpose::Build) {
            self.forget(id);
        }
    }

    fn failed(&mut self, id: DynoId, message: &str) {
        let Some(dyno) = self.dynos.get_mut(id) else { return };
        let (app, name, purpose) = (dyno.labels.app, dyno.labels.name.clone(), dyno.labels.purpose);
        dyno.message = Some(message.to_owned());
        if let Some(done) = dyno.done.take() {
            let _ = done.send(Err(LaunchFailure { step: "launch".into(), message: message.to_owned() }));
        }
        if let Some(asked) = dyno.accepted.take() {
            let _ = asked.send(Err(RunError::Launch(message.to_owned()))); // who asked may have gone
        }
        tracing::warn!(dyno = %name, "could not be started: {message}");
        self.log(app, wording::of_dyno(&name, format!("Could not be started: {message}")));
        self.step(id, DynoEvent::LaunchFailed);
        match purpose {
            Purpose::Run | Purpose::Build => self.forget(id),
            // A release phase that could not run has failed.
            Purpose::Release => {
                if let Some(dyno) = self.dynos.get_mut(id) {
                    dyno.state = DynoState::Crashed { at: Timestamp::now(), streak: 1, exit: None };
                }
            }
            Purpose::Formation => {}
        }
        self.unplanned.insert(app);
    }

    /// Moves a dyno to its next state and says so in the app's log.
    pub(super) fn step(&mut self, id: DynoId, event: DynoEvent) {
        let Some(dyno) = self.dynos.get_mut(id) else { return };
        let before = dyno.state;
        dyno.state = before.on(event, dyno.labels.purpose, dyno.labels.streak, Timestamp::now());
        let (from, to) = (before.word(), dyno.state.word());
        if from != to && dyno.labels.purpose != Purpose::Build && !matches!(event, DynoEvent::StopAsked) {
            let (app, line) = (dyno.labels.app, wording::of_dyno(&dyno.labels.name, wording::changed(from, to)));
            self.log(app, line);
        }
    }

    fn wake_due(&mut self) {
        let now = Timestamp::now();
        let due = |seen: &Seen| seen.wake_at.is_some_and(|at| at <= now);
        self.unplanned.extend(self.apps.iter().filter(|(_, seen)| due(seen)).map(|(app, _)| *app));
    }

    /// Plans one app until there is nothing more to do right now.
    async fn plan(&mut self, app: AppId) {
        loop {
            let mut wanted = match self.parts.store.read(move |tx| wanted(tx, app)).await {
                Ok(wanted) => wanted,
                Err(error) => {
                    tracing::error!("can't read what is wanted of app {app}: {error}");
                    return self.later(STORE_AGAIN, Command::Wake(app));
                }
            };
            let mut want = wanted.as_ref().map(|wanted| wanted.want.clone()).unwrap_or_default();
            let have = self.have(app);
            let plan = self.plan_within_room(app, &mut want, &have);
            if let Some(wanted) = &mut wanted {
                wanted.want.replacement = want.replacement;
            }
            self.forget_decided_phases(app, &want);
            let replan = self.act(app, wanted.as_ref(), &plan.actions).await;
            self.route(app, wanted.as_ref());
            if let Some(seen) = self.apps.get_mut(&app) {
                seen.wake_at = plan.wake_at;
            }
            if wanted.is_none() {
                self.abandon(app);
            }
            if !replan {
                break;
            }
        }
    }

    /// Does what was planned; `true` when it changed what is wanted, so that the plan has to be made anew.
    async fn act(&mut self, app: AppId, wanted: Option<&Wanted>, actions: &[Action]) -> bool {
        let mut replan = false;
        for action in actions {
            match action {
                Action::Launch { name, version, epoch, streak } => {
                    if let Some(wanted) = wanted {
                        self.launch_formation(wanted, name, *version, *epoch, *streak);
                    }
                }
                Action::Stop { id } => self.stop(*id),
                Action::Forget { id } => self.forget(*id),
                Action::RunPhase { version } => {
                    if let Some(wanted) = wanted {
                        self.run_phase(wanted, *version);
                    }
                }
                Action::PassPhase { version } => replan |= self.decide(app, *version, Verdict::PhasePassed).await,
                Action::Promote { version } => replan |= self.decide(app, *version, Verdict::Promoted).await,
                Action::Fail { version, cause } => {
                    let reason = self.reason(*cause);
                    if !self.decide(app, *version, Verdict::Failed(reason)).await {
                        // What decided it is needed to decide it again.
                        return replan;
                    }
                    replan = true;
                }
            }
        }
        replan
    }

    /// Writes the planner's verdict about a pending release.
    async fn decide(&mut self, app: AppId, version: u32, verdict: Verdict) -> bool {
        let stored = verdict.clone();
        let result = self.parts.store.write(move |tx| settle(tx, app, version, &stored)).await;
        match (&result, &verdict) {
            (Err(error), _) => {
                tracing::error!("can't store what became of release v{version} of app {app}: {error}");
                self.later(STORE_AGAIN, Command::Wake(app));
            }
            (Ok(()), Verdict::Failed(reason)) => {
                self.log(app, wording::of_api(format!("Release v{version} failed: {reason}")));
            }
            (Ok(()), _) => {}
        }
        result.is_ok()
    }

    fn launch_formation(&mut self, wanted: &Wanted, name: &DynoName, version: u32, epoch: u64, streak: u32) {
        let want = &wanted.want;
        let pending = want.pending.as_ref().filter(|pending| pending.code.version == version);
        let (code, formation) = match (pending, &want.current) {
            (Some(pending), _) => (&pending.code, &pending.formation),
            (None, Some(current)) => (current, &want.formation),
            (None, None) => return,
        };
        let Some(command) = code.types.get(&name.kind) else { return };
        let order = Order {
            id: DynoId(Uuid::new_v4()),
            app: wanted.app.id,
            name: name.clone(),
            purpose: Purpose::Formation,
            version,
            epoch,
            streak,
            size: formation.0.get(&name.kind).map(|scale| scale.size).unwrap_or_default(),
            command: command.clone(),
            env: Vec::new(),
            by: None,
        };
        self.log(order.app, wording::of_dyno(name, wording::changed("down", "starting")));
        self.launch(order, wanted.app.name.as_str(), Io::Log);
    }

    fn run_phase(&mut self, wanted: &Wanted, version: u32) {
        let Some(pending) = &wanted.want.pending else { return };
        let Some(command) = pending.code.types.get(&ProcessType::release()) else { return };
        let order = Order {
            id: DynoId(Uuid::new_v4()),
            app: wanted.app.id,
            name: self.free_name(wanted.app.id, &ProcessType::release()),
            purpose: Purpose::Release,
            version,
            epoch: 0,
            streak: 0,
            size: pending.formation.0.get(&ProcessType::release()).map(|scale| scale.size).unwrap_or_default(),
            command: command.clone(),
            env: Vec::new(),
            by: None,
        };
        let io = match wanted.pending.as_ref().map(|release| self.parts.outputs.create(release.id.0)) {
            Some(Ok(output)) => Io::Lines(copy_to(output)),
            Some(Err(error)) => {
                tracing::warn!("the release phase's output is kept only in the log: {error}");
                Io::Log
            }
            None => Io::Log,
        };
        self.launch(order, wanted.app.name.as_str(), io);
    }

    /// Records the dyno as starting and lets a job do the rest.
    fn launch(&mut self, order: Order, app_name: &str, io: Io) {
        let now = Timestamp::now();
        let labels = order.labels(app_name, now);
        self.log(
            order.app,
            wording::of_dyno(&order.name, format!("Starting process with command `{}`", order.command)),
        );
        self.dynos.insert(order.id, Dyno::new(labels, DynoState::Starting { since: now }));
        self.spawn_launch(order, io);
    }

    pub(super) fn spawn_launch(&self, order: Order, io: Io) {
        let (parts, commands, id) = (self.parts.clone(), self.commands.clone(), order.id);
        tokio::spawn(async move {
            // Sending fails only while the server goes down.
            let _ = match launch::prepare(&parts, order, io).await {
                Ok(launch) => commands.send(Command::Prepared(Box::new(launch))),
                Err(error) => commands.send(Command::Unlaunchable(id, error.to_string())),
            };
        });
    }

    /// A job has made the launch; meanwhile the dyno may have been told to stop.
    fn prepared(&mut self, launch: Launch) {
        let id = launch.id;
        match self.dynos.get(id).map(|dyno| (dyno.state, dyno.labels.app)) {
            Some((DynoState::Starting { .. }, _)) => self.parts.engine.launch(launch),
            Some((_, app)) => {
                self.step(id, DynoEvent::LaunchFailed);
                self.unplanned.insert(app);
            }
            None => {}
        }
    }

    /// Takes a dyno out of the routes, lets its requests finish, then ends it.
    fn stop(&mut self, id: DynoId) {
        let Some(dyno) = self.dynos.get(id) else { return };
        let (app, name) = (dyno.labels.app, dyno.labels.name.clone());
        let served = matches!(dyno.state, DynoState::Up { .. }) && name.kind.is_web();
        self.step(id, DynoEvent::StopAsked);
        let held = self.reroute(app, id) && served;
        if held {
            self.log(app, wording::of_dyno(&name, wording::HOLDING));
        }
        self.leaving.push(Leaving { id, app, name, served, held });
    }

    /// The table without it is published: ends it when the router has that, and its requests are done.
    fn see_off(&self, Leaving { id, app, name, served, held }: Leaving) {
        let parts = self.parts.clone();
        let version = self.table.version;
        tokio::spawn(async move {
            if let (true, Some(router)) = (served, &parts.router) {
                router.acknowledged(version).await;
                router.drained(id, if held { parts.settings.hold_drain } else { parts.settings.drain }).await;
            }
            parts.hub.write(app, wording::of_dyno(&name, wording::STOPPING));
            parts.engine.stop(id, parts.settings.grace);
        });
    }

    fn stop_named(&mut self, app: AppId, what: &Stop) -> usize {
        let wanted = |dyno: &Dyno| {
            matches!(dyno.state, DynoState::Starting { .. } | DynoState::Up { .. })
                && match what {
                    Stop::Dyno(name) => dyno.labels.name == *name,
                    Stop::Type(kind) => dyno.labels.name.kind == *kind,
                    Stop::All => true,
                }
        };
        let ids: Vec<DynoId> = self.dynos.of(app).filter(|(_, dyno)| wanted(dyno)).map(|(id, _)| id).collect();
        for id in &ids {
            self.stop(*id);
        }
        ids.len()
    }

    fn forget(&mut self, id: DynoId) {
        self.dynos.remove(id);
        self.parts.engine.forget(id);
    }

    /// Release dynos whose verdict is written are of no more use.
    fn forget_decided_phases(&mut self, app: AppId, want: &Want) {
        let undecided = want.pending.as_ref().filter(|pending| !pending.phase_passed).map(|p| p.code.version);
        let decided = |dyno: &Dyno| {
            dyno.labels.purpose == Purpose::Release && !dyno.state.is_live() && Some(dyno.labels.version) != undecided
        };
        let ids: Vec<DynoId> = self.dynos.of(app).filter(|(_, dyno)| decided(dyno)).map(|(id, _)| id).collect();
        for id in ids {
            self.forget(id);
        }
    }

    /// The app is gone: so is everything that runs for it.
    fn abandon(&mut self, app: AppId) {
        let ids: Vec<DynoId> = self.dynos.of(app).map(|(id, _)| id).collect();
        for id in ids {
            match self.dynos.get(id).map(|dyno| (dyno.state, dyno.labels.purpose)) {
                Some((state, Purpose::Formation)) if state.is_live() => {} // the plan has stopped it
                Some((state, _)) if state.is_live() => self.parts.engine.kill(id),
                _ => self.forget(id),
            }
        }
        self.apps.remove(&app);
        self.unpublished = true;
    }

    pub(super) fn have(&self, app: AppId) -> Vec<Have> {
        let mut have: Vec<Have> = self
            .dynos
            .of(app)
            .map(|(id, dyno)| Have {
                id,
                name: dyno.labels.name.clone(),
                purpose: dyno.labels.purpose,
                version: dyno.labels.version,
                epoch: dyno.labels.epoch,
                state: dyno.state,
                addr: dyno.addr,
            })
            .collect();
        have.sort_by(|a, b| (&a.name, a.version, a.epoch, a.id).cmp(&(&b.name, b.version, b.epoch, b.id)));
        have
    }

    pub(super) fn views(&self, app: AppId) -> Vec<DynoView> {
        let mut views: Vec<DynoView> = self
            .dynos
            .of(app)
            .filter(|(_, dyno)| dyno.labels.purpose != Purpose::Build)
            .filter(|(_, dyno)| !matches!(dyno.state, DynoState::Gone | DynoState::Complete { .. }))
            .map(|(id, dyno)| DynoView {
                id,
                name: dyno.labels.name.clone(),
                purpose: dyno.labels.purpose,
                state: dyno.state,
                release_version: dyno.labels.version,
                command: dyno.labels.command.clone(),
                size: dyno.labels.size,
                created_at: dyno.labels.launched_at,
                updated_at: dyno.state.since().unwrap_or(dyno.labels.launched_at),
            })
            .collect();
        views.sort_by(|a, b| (&a.name, a.release_version, a.id).cmp(&(&b.name, b.release_version, b.id)));
        views
    }

    /// Why the dyno that decided against a release did so.
    fn reason(&self, cause: DynoId) -> String {
        let Some(dyno) = self.dynos.get(cause) else { return "its dyno is gone".to_owned() };
        let exit = match &dyno.state {
            DynoState::Crashed { exit, .. } => exit.as_ref(),
            DynoState::Complete { exit } => Some(exit),
            _ => None,
        };
        match dyno.labels.purpose {
            Purpose::Release => wording::phase_failed(exit, dyno.message.as_deref()),
            _ => wording::did_not_boot(&dyno.labels.name, exit, dyno.timed_out, dyno.message.as_deref()),
        }
    }

    pub(super) fn later(&self, wait: Duration, command: Command) {
        let commands = self.commands.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = commands.send(command); // the server goes down
        });
    }

    pub(super) fn log(&self, app: AppId, frame: LogFrame) {
        self.parts.hub.write(app, frame);
    }
}

/// A sender whose lines end up in `output`; finished when the dyno has ended.
fn copy_to(output: OutputWriter) -> mpsc::UnboundedSender<Vec<u8>> {
    let (lines, mut received) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(line) = received.recv().await {
            output.write(&line);
        }
        output.finish();
    });
    lines
}

async fn until(due: Option<Timestamp>) {
    match due {
        Some(due) => {
            let wait = Duration::try_from(due - Timestamp::now()).unwrap_or(Duration::ZERO);
            tokio::time::sleep(wait).await;
        }
        None => std::future::pending().await,
    }
}
