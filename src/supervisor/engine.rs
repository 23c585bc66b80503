//! What the supervisor asks of the machine. Everything returns at once; what comes of it arrives as events.
#![forbid(unsafe_code)]

use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::egress::Egress;
use crate::dyno::{Dynos, Inside, Launch, Shortage};
use crate::wire::attach::BoxedIo;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The machine that runs dynos: the real one, or a fake in tests.
pub trait Engine: Send + Sync + 'static {
    /// Starts a dyno: `Started` and `Ready`, or `Failed`, follow, and `Exited` in the end.
    fn launch(&self, launch: Launch);
    /// Lets a program into a dyno that runs, as long as its client is there and `until` is not cancelled, as it is in the
    /// end; no events follow, the client is told what becomes of it.
    fn inside(&self, id: DynoId, order: Inside, client: BoxedIo, until: CancellationToken);
    /// SIGTERM to every process of the dyno; SIGKILL after `grace`.
    fn stop(&self, id: DynoId, grace: Duration);
    /// SIGKILL at once.
    fn kill(&self, id: DynoId);
    /// The record of an ended dyno is no longer needed.
    fn forget(&self, id: DynoId);
    /// Where dynos of the app may connect to from now on. `done` is told when that holds, or why it does not.
    fn set_egress(&self, app: AppId, egress: Egress, done: oneshot::Sender<Result<(), String>>);
    /// Whether there is memory for another of each of these dynos.
    ///
    /// # Errors
    /// How much there is less than is needed.
    fn room_beside(&self, dynos: &[DynoId]) -> Result<(), Shortage>;
}

impl Engine for Dynos {
    fn launch(&self, launch: Launch) {
        Self::launch(self, launch);
    }

    fn inside(&self, id: DynoId, order: Inside, client: BoxedIo, until: CancellationToken) {
        Self::inside(self, id, &order, client, until);
    }

    fn stop(&self, id: DynoId, grace: Duration) {
        Self::stop(self, id, grace);
    }

    fn kill(&self, id: DynoId) {
        Self::kill(self, id);
    }

    fn forget(&self, id: DynoId) {
        Self::forget(self, id);
    }

    fn set_egress(&self, app: AppId, egress: Egress, done: oneshot::Sender<Result<(), String>>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let set = engine.set_egress(app, egress).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
            let _ = done.send(set); // who asked may have gone
        });
    }

    fn room_beside(&self, dynos: &[DynoId]) -> Result<(), Shortage> {
        Self::room_beside(self, dynos)
    }
}
