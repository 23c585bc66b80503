//! Placeholder with the real one's signatures: what is wanted is at once so. Replaced when the real module is merged.
#![forbid(unsafe_code)]

pub mod builds;

use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::dyno::{DynoId, DynoName, DynoState, Purpose};
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Release, ReleaseId, ReleaseStatus};
use crate::logs::Outputs;
use crate::store::{self, Store, StoreError};
use crate::wire::attach::{BoxedIo, Frame};
use builds::Builder;
use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

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

#[derive(Clone, Debug)]
pub struct Run {
    pub app: App,
    pub command: String,
    pub env: Vec<(String, String)>,
    pub size: Option<DynoSize>,
    pub attach: Option<Attach>,
    pub actor: Actor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    pub tty: Option<(u16, u16)>,
}

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
    #[error("{0}")]
    Store(String),
    #[error("the server is shutting down")]
    Shutdown,
}

#[derive(Clone, Debug)]
pub struct Supervisor {
    store: Store,
    builder: Builder,
    runs: Arc<Mutex<Vec<(AppId, DynoView, bool)>>>,
}

impl Supervisor {
    pub fn placeholder(store: Store, outputs: Outputs) -> Self {
        Self { builder: Builder::placeholder(store.clone(), outputs), store, runs: Arc::default() }
    }

    pub fn wake(&self, app: AppId) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let settled: Result<(), StoreError> = store
                .write(move |tx| {
                    while let Some(release) = store::releases::oldest_pending(tx, app)? {
                        let slug = store::slugs::get(tx, release.slug.unwrap())?.unwrap();
                        let formation = store::formations::get(tx, app)?;
                        let first = formation.0.is_empty();
                        store::formations::put(tx, app, &formation.adapt(&slug.process_types, first))?;
                        store::releases::settle(tx, release.id, ReleaseStatus::Succeeded, None, Timestamp::now())?;
                    }
                    Ok(())
                })
                .await;
            settled.unwrap();
        });
    }

    pub async fn dynos(&self, app: AppId) -> Vec<DynoView> {
        let views: Result<Vec<DynoView>, StoreError> = self
            .store
            .read(move |tx| {
                let Some(current) = store::releases::current(tx, app)? else { return Ok(vec![]) };
                let Some(slug) = current.slug else { return Ok(vec![]) };
                let types = store::slugs::get(tx, slug)?.unwrap().process_types;
                let mut views = Vec::new();
                for row in store::formations::rows(tx, app)? {
                    for number in 1..=row.scale.quantity {
                        views.push(DynoView {
                            id: DynoId(Uuid::new_v5_like(row.id, number)),
                            name: DynoName::new(row.kind.clone(), number),
                            purpose: Purpose::Formation,
                            state: DynoState::Up { since: current.updated_at },
                            release_version: current.version,
                            command: types[&row.kind].clone(),
                            size: row.scale.size,
                            created_at: current.updated_at,
                            updated_at: current.updated_at,
                        });
                    }
                }
                Ok(views)
            })
            .await;
        let mut views = views.unwrap();
        views.extend(self.runs.lock().unwrap().iter().filter(|(a, ..)| *a == app).map(|(_, view, _)| view.clone()));
        views
    }

    pub async fn run(&self, run: Run) -> Result<DynoView, RunError> {
        let app = run.app.id;
        let current: Result<_, StoreError> = self.store.read(move |tx| store::releases::current(tx, app)).await;
        let current = current.unwrap().filter(|release| release.slug.is_some()).ok_or(RunError::NoCode)?;
        let now = Timestamp::now();
        let view = DynoView {
            id: DynoId(Uuid::new_v4()),
            name: "run.4821".parse().unwrap(),
            purpose: Purpose::Run,
            state: DynoState::Starting { since: now },
            release_version: current.version,
            command: run.command,
            size: run.size.unwrap_or_default(),
            created_at: now,
            updated_at: now,
        };
        self.runs.lock().unwrap().push((app, view.clone(), run.attach.is_some()));
        Ok(view)
    }

    pub async fn attach(&self, id: DynoId, mut stream: BoxedIo) -> Result<(), RunError> {
        let command = {
            let mut runs = self.runs.lock().unwrap();
            let run = runs.iter_mut().find(|(_, view, waits)| view.id == id && *waits).ok_or(RunError::NotWaiting)?;
            run.2 = false;
            run.1.command.clone()
        };
        tokio::spawn(async move {
            let mut text = format!("ran {command}; read ").into_bytes();
            while let Ok(Some(frame)) = Frame::read(&mut stream).await {
                match frame {
                    Frame::Stdin(bytes) => text.extend(bytes),
                    Frame::StdinEnd => break,
                    _ => {}
                }
            }
            stream.write_all(&Frame::Stdout(text).encode()).await.unwrap();
            stream.write_all(&Frame::Exit(7).encode()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        Ok(())
    }

    pub async fn stop(&self, app: AppId, what: Stop) -> usize {
        self.dynos(app)
            .await
            .iter()
            .filter(|view| match &what {
                Stop::Dyno(name) => view.name == *name,
                Stop::Type(kind) => view.name.kind == *kind,
                Stop::All => true,
            })
            .count()
    }

    pub async fn settled(&self, release: ReleaseId) -> Option<Release> {
        let row: Result<_, StoreError> = self.store.read(move |tx| store::releases::get(tx, release)).await;
        row.unwrap()
    }

    pub fn kill(&self, _: DynoId) {}

    pub fn builds(&self) -> &Builder {
        &self.builder
    }
}

trait Like {
    fn new_v5_like(base: Uuid, number: u32) -> Uuid;
}
impl Like for Uuid {
    fn new_v5_like(base: Uuid, number: u32) -> Uuid {
        Uuid::from_u128(base.as_u128() ^ u128::from(number))
    }
}
