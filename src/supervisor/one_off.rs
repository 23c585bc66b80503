//! Dynos that run once: `hokku run`, attached or not, and builds.
#![forbid(unsafe_code)]

use super::dynos::Dyno;
use super::launch::{self, Order};
use super::reconcile::Reconciler;
use super::want::current_code;
use super::{Attach, Command, DynoView, LaunchFailure, OneOff, Run, RunError, wording};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoEvent, DynoId, DynoName, DynoState, Exit, Purpose};
use crate::domain::procfile::ProcessType;
use crate::dyno::{Inside, Io, Labels, Launch};
use crate::wire::attach::BoxedIo;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// So many may wait to be let into one dyno.
const VISITS: usize = 16;

impl Reconciler {
    /// Answers a client that will attach at once, anyone else when the dyno has been launched: from then on it needs
    /// no server to run and to leave word of its end.
    pub(super) async fn one_off(&mut self, run: Run, reply: oneshot::Sender<Result<DynoView, RunError>>) {
        let detached = run.attach.is_none();
        match self.begin(run).await {
            Ok(id) if detached => {
                if let Some(dyno) = self.dynos.get_mut(id) {
                    dyno.accepted = Some(reply);
                }
            }
            Ok(id) => drop(reply.send(self.view(id))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn accepted(&mut self, id: DynoId) {
        let Some(asked) = self.dynos.get_mut(id).and_then(|dyno| dyno.accepted.take()) else { return };
        let _ = asked.send(self.view(id)); // who asked may have gone
    }

    fn view(&self, id: DynoId) -> Result<DynoView, RunError> {
        let views = self.dynos.get(id).map(|dyno| self.views(dyno.labels.app)).unwrap_or_default();
        views.into_iter().find(|view| view.id == id).ok_or(RunError::NotWaiting)
    }

    async fn begin(&mut self, run: Run) -> Result<DynoId, RunError> {
        let app = run.app.id;
        let current = self.parts.store.read(move |tx| current_code(tx, app)).await;
        let code = current.map_err(|error| RunError::Store(error.to_string()))?.ok_or(RunError::NoCode)?;
        let id = DynoId(Uuid::new_v4());
        let order = Order {
            id,
            app,
            name: self.free_name(app, &ProcessType::parse("run").expect("run is a process type")),
            purpose: Purpose::Run,
            version: code.version,
            epoch: 0,
            streak: 0,
            size: run.size.unwrap_or_default(),
            command: launch::expand(&run.command, &code.types),
            env: run.env,
            by: run.by,
        };
        let line = format!("Starting process with command `{}` by user {}", order.command, run.actor.email);
        self.log(app, wording::of_dyno(&order.name, line));
        let now = Timestamp::now();
        let labels = order.labels(run.app.name.as_str(), now);
        self.dynos.insert(id, Dyno::new(labels, DynoState::Starting { since: now }));
        match run.attach {
            None => self.spawn_launch(order, Io::Log),
            Some(Attach { tty }) => {
                if let Some(dyno) = self.dynos.get_mut(id) {
                    (dyno.waiting, dyno.tty) = (Some(order), tty);
                }
                self.later(self.parts.settings.attach_timeout, Command::AttachExpired(id));
            }
        }
        Ok(id)
    }

    pub(super) fn inside(&mut self, dyno: DynoId, order: Inside, actor: &Actor) -> Result<DynoId, RunError> {
        let there = self.dynos.get(dyno).filter(|there| matches!(there.state, DynoState::Up { .. }));
        let labels = &there.ok_or(RunError::NotUp)?.labels;
        if self.visits.values().filter(|(there, _)| *there == dyno).count() >= VISITS {
            return Err(RunError::Crowded);
        }
        let command = order.command.last().map_or("", String::as_str);
        let line = format!("Starting process with command `{command}` inside by user {}", actor.email);
        self.log(labels.app, wording::of_dyno(&labels.name, line));
        let id = DynoId(Uuid::new_v4());
        self.visits.insert(id, (dyno, order));
        self.later(self.parts.settings.attach_timeout, Command::AttachExpired(id));
        Ok(id)
    }

    pub(super) fn attach(&mut self, id: DynoId, stream: BoxedIo) -> Result<(), RunError> {
        if let Some((dyno, order)) = self.visits.remove(&id) {
            let until = CancellationToken::new();
            self.guests.retain(|_, until| !until.is_cancelled());
            self.guests.insert(id, until.clone());
            self.parts.engine.inside(dyno, order, stream, until);
            return Ok(());
        }
        let dyno = self.dynos.get_mut(id).ok_or(RunError::NotWaiting)?;
        let order = dyno.waiting.take().ok_or(RunError::NotWaiting)?;
        let tty = dyno.tty;
        self.spawn_launch(order, Io::Attach { tty, stream });
        Ok(())
    }

    pub(super) fn attach_expired(&mut self, id: DynoId) {
        self.visits.remove(&id);
        let Some(dyno) = self.dynos.get(id).filter(|dyno| dyno.waiting.is_some()) else { return };
        self.log(dyno.labels.app, wording::of_dyno(&dyno.labels.name, wording::R13));
        self.dynos.remove(id);
    }

    /// Those that live or wait for their client, and what waits for one to be let into a dyno.
    pub(super) fn one_offs(&self) -> Vec<OneOff> {
        let one_off = |(id, dyno): (DynoId, &Dyno)| {
            let Labels { app, by, .. } = dyno.labels;
            (dyno.labels.purpose == Purpose::Run && dyno.state.is_live()).then_some(OneOff { id, app, by })
        };
        let visit = |(id, (dyno, _)): (&DynoId, &(DynoId, Inside))| {
            let app = self.dynos.get(*dyno)?.labels.app;
            Some(OneOff { id: *id, app, by: None })
        };
        self.dynos.iter().filter_map(one_off).chain(self.visits.iter().filter_map(visit)).collect()
    }

    /// At once: whoever began it is not to look on while it takes its time.
    pub(super) fn evict(&mut self, id: DynoId) {
        if let Some(until) = self.guests.remove(&id) {
            return until.cancel();
        }
        let Some(dyno) = self.dynos.get(id) else { return };
        let (app, name) = (dyno.labels.app, dyno.labels.name.clone());
        if dyno.waiting.is_some() {
            self.dynos.remove(id);
        } else if matches!(dyno.state, DynoState::Starting { .. } | DynoState::Up { .. }) {
            self.step(id, DynoEvent::StopAsked);
            self.parts.engine.kill(id);
        } else {
            return;
        }
        self.log(app, wording::of_dyno(&name, wording::EVICTED));
    }

    pub(super) fn build(&mut self, launch: Launch, reply: oneshot::Sender<Result<Exit, LaunchFailure>>) {
        let id = launch.id;
        let state = DynoState::Starting { since: Timestamp::now() };
        self.dynos.insert(id, Dyno { done: Some(reply), ..Dyno::new(launch.labels.clone(), state) });
        self.parts.engine.launch(launch);
    }

    /// `run.4821`: four digits that no dyno of the app has now.
    pub(super) fn free_name(&self, app: AppId, kind: &ProcessType) -> DynoName {
        loop {
            let number = u32::from(u16::from_be_bytes([random_byte(), random_byte()])) % 9000 + 1000;
            let name = DynoName::new(kind.clone(), number);
            if !self.dynos.of(app).any(|(_, dyno)| dyno.labels.name == name) {
                return name;
            }
        }
    }
}

fn random_byte() -> u8 {
    Uuid::new_v4().as_bytes()[0]
}
