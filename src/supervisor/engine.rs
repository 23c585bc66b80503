//! What the supervisor asks of the machine. Everything returns at once; what comes of it arrives as events.
#![forbid(unsafe_code)]

use crate::domain::dyno::DynoId;
use crate::dyno::{Dynos, Launch};
use std::time::Duration;

/// The machine that runs dynos: the real one, or a fake in tests.
pub trait Engine: Send + Sync + 'static {
    /// Starts a dyno: `Started` and `Ready`, or `Failed`, follow, and `Exited` in the end.
    fn launch(&self, launch: Launch);
    /// SIGTERM to every process of the dyno; SIGKILL after `grace`.
    fn stop(&self, id: DynoId, grace: Duration);
    /// SIGKILL at once.
    fn kill(&self, id: DynoId);
    /// The record of an ended dyno is no longer needed.
    fn forget(&self, id: DynoId);
}

impl Engine for Dynos {
    fn launch(&self, launch: Launch) {
        Self::launch(self, launch);
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
}
