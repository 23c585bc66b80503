//! The dynos there are, found by id and by app.
#![forbid(unsafe_code)]

use super::launch::Order;
use super::{DynoView, LaunchFailure, RunError};
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, DynoState, Exit};
use crate::dyno::Labels;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use tokio::sync::oneshot;

/// One dyno and what is known of it.
pub(super) struct Dyno {
    pub(super) labels: Labels,
    pub(super) state: DynoState,
    pub(super) addr: Option<SocketAddr>,
    pub(super) timed_out: bool,
    /// Why it could not be started.
    pub(super) message: Option<String>,
    /// Someone waits for its end.
    pub(super) done: Option<oneshot::Sender<Result<Exit, LaunchFailure>>>,
    /// Who asked for it is told once it is sure to outlive this server.
    pub(super) accepted: Option<oneshot::Sender<Result<DynoView, RunError>>>,
    /// It waits for its client.
    pub(super) waiting: Option<Order>,
    pub(super) tty: Option<(u16, u16)>,
}

impl Dyno {
    pub(super) fn new(labels: Labels, state: DynoState) -> Self {
        Self {
            labels,
            state,
            addr: None,
            timed_out: false,
            message: None,
            done: None,
            accepted: None,
            waiting: None,
            tty: None,
        }
    }
}

/// All of them. What is done for an app costs what its own dynos cost.
#[derive(Default)]
pub(super) struct Dynos {
    all: HashMap<DynoId, Dyno>,
    by_app: HashMap<AppId, BTreeSet<DynoId>>,
}

impl Dynos {
    pub(super) fn insert(&mut self, id: DynoId, dyno: Dyno) {
        self.by_app.entry(dyno.labels.app).or_default().insert(id);
        self.all.insert(id, dyno);
    }

    pub(super) fn remove(&mut self, id: DynoId) {
        let Some(dyno) = self.all.remove(&id) else { return };
        let app = dyno.labels.app;
        if let Some(ids) = self.by_app.get_mut(&app) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_app.remove(&app);
            }
        }
    }

    pub(super) fn get(&self, id: DynoId) -> Option<&Dyno> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: DynoId) -> Option<&mut Dyno> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DynoId, &Dyno)> {
        self.all.iter().map(|(id, dyno)| (*id, dyno))
    }

    /// Those of one app.
    pub(super) fn of(&self, app: AppId) -> impl Iterator<Item = (DynoId, &Dyno)> {
        let ids = self.by_app.get(&app).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    /// The apps that have any.
    pub(super) fn apps(&self) -> impl Iterator<Item = AppId> {
        self.by_app.keys().copied()
    }
}
