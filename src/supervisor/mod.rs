//! Placeholder.
#![forbid(unsafe_code)]
pub mod builds;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, Exit};
use crate::domain::release::{Release, ReleaseId};
use crate::dyno::Launch;
use crate::logs::{Hub, Outputs};
use crate::slug::SlugStore;
use crate::stack::Stack;
use crate::store::Store;
use std::sync::Arc;
#[derive(Clone, Debug)]
pub struct Settings {
    pub domain: String,
}
#[derive(Clone, Debug)]
pub struct Parts {
    pub store: Store,
    pub hub: Hub,
    pub outputs: Outputs,
    pub slugs: SlugStore,
    pub stack: Arc<Stack>,
    pub settings: Settings,
}
#[derive(Debug, thiserror::Error)]
#[error("{step}: {message}")]
pub struct LaunchFailure {
    pub step: String,
    pub message: String,
}
#[derive(Clone, Debug)]
pub(crate) struct Reach;
impl Reach {
    pub(crate) fn wake(&self, _app: AppId) {}
    pub(crate) async fn settled(&self, _release: ReleaseId) -> Option<Release> {
        None
    }
    pub(crate) async fn run_build(&self, _launch: Launch) -> Result<Exit, LaunchFailure> {
        Err(LaunchFailure { step: String::new(), message: String::new() })
    }
    pub(crate) fn kill(&self, _id: DynoId) {}
}
