//! Dynos: look at them, restart and stop them, run one-off ones.
#![forbid(unsafe_code)]

use super::grants::{self, Bearer, Grant, Held};
use super::{Control, ControlError, Resource, formation, tokens};
use crate::domain::access::Permission;
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::dyno::{DynoId, DynoName, Purpose};
use crate::domain::formation::Formation;
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::domain::release::ReleaseId;
use crate::dyno::Inside;
use crate::dyno::shell::shell_command;
use crate::store::{self, StoreError};
use crate::supervisor::{Attach, DynoView, Run, RunError, Stop};
use crate::wire::attach::BoxedIo;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A one-off dyno that a client asks for.
#[derive(Clone, Debug)]
pub struct NewRun {
    pub command: String,
    pub env: Vec<(String, String)>,
    pub size: Option<DynoSize>,
    pub attach: Option<Attach>,
}

/// A dyno with the release it runs.
#[derive(Clone, Debug)]
pub struct DynoRow {
    pub dyno: DynoView,
    pub release: ReleaseId,
}

/// By name. Builds are not among them: `builds` shows those.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<DynoRow>, ControlError> {
    let mut dynos = control.supervisor.dynos(app).await;
    dynos.retain(|dyno| dyno.purpose != Purpose::Build);
    dynos.sort_by(|a, b| a.name.cmp(&b.name).then(a.created_at.cmp(&b.created_at)));
    rows(control, app, dynos).await
}

async fn rows(control: &Control, app: AppId, dynos: Vec<DynoView>) -> Result<Vec<DynoRow>, ControlError> {
    let mut versions: Vec<u32> = dynos.iter().map(|dyno| dyno.release_version).collect();
    versions.sort_unstable();
    versions.dedup();
    let ids = control
        .store
        .read(move |tx| {
            let mut ids = BTreeMap::new();
            for version in versions {
                ids.extend(store::releases::by_version(tx, app, version)?.map(|release| (version, release.id)));
            }
            Ok::<_, StoreError>(ids)
        })
        .await?;
    let row = |dyno: DynoView| Some(DynoRow { release: *ids.get(&dyno.release_version)?, dyno });
    Ok(dynos.into_iter().filter_map(row).collect())
}

/// By name or UUID; of two with one name, while one replaces the other, the newer.
///
/// # Errors
/// When the app has no such dyno.
pub async fn find(control: &Control, app: AppId, which: &str) -> Result<DynoRow, ControlError> {
    let dynos = list(control, app).await?;
    let id: Option<DynoId> = which.parse().ok();
    let is_it = |row: &DynoRow| Some(row.dyno.id) == id || row.dyno.name.to_string() == which;
    dynos.into_iter().rev().find(is_it).ok_or(ControlError::NotFound(Resource::Dyno))
}

/// Replaces dynos by new ones: of the formation all, those of a type, or one. A one-off dyno is stopped.
///
/// # Errors
/// When there is no such dyno or process type.
pub async fn restart(control: &Control, app: AppId, what: Stop) -> Result<(), ControlError> {
    let formation = formation_of(control, app).await?;
    let names = match &what {
        Stop::All => formation.0.iter().flat_map(|(kind, scale)| formation::names(kind, *scale)).collect(),
        Stop::Type(kind) => names_of_type(&formation, kind)?,
        Stop::Dyno(name) if formation.quantity(&name.kind) >= name.number => vec![name.clone()],
        Stop::Dyno(_) => return stop(control, app, what).await,
    };
    let bumped: Result<(), StoreError> = control.store.write(move |tx| store::epochs::bump(tx, app, &names)).await;
    bumped?;
    control.supervisor.wake(app);
    Ok(())
}

/// Stops dynos; those of the formation are started again.
///
/// # Errors
/// When there is no such dyno or process type.
pub async fn stop(control: &Control, app: AppId, what: Stop) -> Result<(), ControlError> {
    match &what {
        Stop::Dyno(name) => {
            let dynos = control.supervisor.dynos(app).await;
            if !dynos.iter().any(|dyno| dyno.name == *name) {
                return Err(ControlError::NotFound(Resource::Dyno));
            }
        }
        Stop::Type(kind) => {
            names_of_type(&formation_of(control, app).await?, kind)?;
        }
        Stop::All => {}
    }
    control.supervisor.stop(app, what).await;
    Ok(())
}

async fn formation_of(control: &Control, app: AppId) -> Result<Formation, ControlError> {
    control.store.read(move |tx| Ok(store::formations::get(tx, app)?)).await
}

fn names_of_type(formation: &Formation, kind: &ProcessType) -> Result<Vec<DynoName>, ControlError> {
    let scale = formation.0.get(kind).ok_or(ControlError::NotFound(Resource::ProcessType))?;
    Ok(formation::names(kind, *scale).collect())
}

fn check_command(command: &str) -> Result<(), ControlError> {
    if command.trim().is_empty() || command.contains('\0') {
        return Err(ControlError::Invalid("A one-off dyno needs a command.".into()));
    }
    Ok(())
}

/// Makes a one-off dyno; one with `attach` starts when its client comes.
///
/// # Errors
/// When the app has no code or the command is empty.
pub async fn run(
    control: &Control,
    (actor, bearer): (&Actor, Bearer),
    app: App,
    new: NewRun,
) -> Result<DynoRow, ControlError> {
    check_command(&new.command)?;
    let NewRun { command, env, size, attach } = new;
    let (id, actor) = (app.id, actor.clone());
    let by = (bearer != Bearer::Root).then_some(actor.id);
    let dyno = control.supervisor.run(Run { app, command, env, size, attach, actor, by }).await?;
    rows(control, id, vec![dyno]).await?.pop().ok_or(ControlError::NotFound(Resource::Release))
}

/// Has a program wait for its client, to be let into a dyno that runs. Returns the dyno and what to attach by.
///
/// # Errors
/// When there is no such dyno, it is not up, or the command is empty.
pub async fn run_inside(
    control: &Control,
    actor: &Actor,
    app: AppId,
    which: &str,
    new: NewRun,
) -> Result<(DynoRow, DynoId), ControlError> {
    check_command(&new.command)?;
    let row = find(control, app, which).await?;
    let tty = new.attach.and_then(|attach| attach.tty);
    let order = Inside { command: shell_command(&new.command), env: new.env, tty };
    let id = control.supervisor.inside(row.dyno.id, order, actor.clone()).await?;
    Ok((row, id))
}

/// What an attached dyno's client says to show that it is the one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Our own.
    Frames,
    /// That of Heroku's CLI.
    Rendezvous { tty: bool },
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Frames, Self::Rendezvous { tty: true }, Self::Rendezvous { tty: false }];

    fn word(self) -> &'static str {
        match self {
            Self::Frames => "attach",
            Self::Rendezvous { tty: true } => "rendezvous",
            Self::Rendezvous { tty: false } => "rendezvous without a terminal",
        }
    }
}

/// The length of what [`attach_secret`] makes.
pub const ATTACH_SECRET: usize = 96;

/// What a client says to be connected with the dyno that waits for it: lower-case hexadecimal digits, of a fixed number,
/// since not every client says where they end.
pub fn attach_secret(control: &Control, bearer: Bearer, dyno: DynoId, protocol: Protocol) -> String {
    let secret = bearer.secret(control, protocol.word(), dyno.0);
    format!("{}{}{secret}", dyno.0.simple(), bearer.id().simple())
}

/// A client that has said what [`attach_secret`] made.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub dyno: DynoId,
    pub protocol: Protocol,
    bearer: Bearer,
}

/// Who says that.
///
/// # Errors
/// When it is nothing that was ever made, or by a token that has ended.
pub async fn client(control: &Control, said: &str) -> Result<Client, ControlError> {
    let missing = || ControlError::NotFound(Resource::Dyno);
    let part = |from: usize| said.get(from..from + 32)?.parse::<Uuid>().ok();
    let (dyno, whose) = part(0).zip(part(32)).ok_or_else(missing)?;
    let dyno = DynoId(dyno);
    let bearer = grants::bearer(control, whose).await.map_err(grants::hidden(Resource::Dyno))?;
    let is = |protocol: &Protocol| tokens::equal(&attach_secret(control, bearer, dyno, *protocol), said);
    let protocol = Protocol::ALL.into_iter().find(is).ok_or_else(missing)?;
    Ok(Client { dyno, protocol, bearer })
}

/// Hands a client's connection to the dyno that waits for it. It is the client's for as long as the answer is held.
///
/// # Errors
/// When no dyno of that id waits any more, or the client may not run dynos any more.
pub async fn attach(control: &Control, client: Client, stream: BoxedIo) -> Result<Held, ControlError> {
    let dynos = control.supervisor.one_offs().await;
    let dyno = dynos.into_iter().find(|dyno| dyno.id == client.dyno).ok_or(RunError::NotWaiting)?;
    let grant = Grant { bearer: client.bearer, on: Some((dyno.app, Permission::Deploy)) };
    let held = grants::hold(control, grant).await.map_err(grants::hidden(Resource::Dyno))?;
    control.supervisor.attach(client.dyno, stream).await?;
    Ok(held)
}

/// What a client is told whose dyno ends for that.
pub const ACCESS_ENDED: &str = "your access to this app has ended, and with it what you ran there";
