//! Placeholder.
#![forbid(unsafe_code)]
pub mod builds;
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoId, Exit};
use crate::domain::release::{Release, ReleaseId};
use crate::dyno::Launch;
#[derive(Clone, Debug)]
pub struct Supervisor;
#[derive(Debug, thiserror::Error)]
#[error("{step}: {message}")]
pub struct LaunchFailure {
    pub step: String,
    pub message: String,
}
impl Supervisor {
    pub fn wake(&self, _app: AppId) {}
    pub async fn settled(&self, _release: ReleaseId) -> Option<Release> {
        None
    }
    pub async fn run_build(&self, _launch: Launch) -> Result<Exit, LaunchFailure> {
        Err(LaunchFailure { step: String::new(), message: String::new() })
    }
    pub fn kill(&self, _id: DynoId) {}
}
