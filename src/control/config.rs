//! Config vars.
#![forbid(unsafe_code)]

use super::{Control, ControlError, releases};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::config_vars::{ConfigPatch, ConfigVars};
use crate::domain::release::{Change, Release, ReleaseError};
use crate::store;
use jiff::Timestamp;

/// What was set last, whether or not it serves yet.
///
/// # Errors
/// When the store can't be read.
pub async fn get(control: &Control, app: AppId) -> Result<ConfigVars, ControlError> {
    control
        .store
        .read(move |tx| Ok(store::releases::newest(tx, app)?.map(|release| release.vars()).unwrap_or_default()))
        .await
}

/// Sets and unsets, and answers the whole set. The release is there when this returns; a patch that changes nothing
/// makes none.
///
/// # Errors
/// When a key or value is not allowed or all become too large; then nothing is changed.
pub async fn set(
    control: &Control,
    actor: &Actor,
    app: AppId,
    patch: ConfigPatch,
) -> Result<(ConfigVars, Option<Release>), ControlError> {
    let actor = actor.clone();
    let (config, release) = control
        .store
        .write(move |tx| match releases::record(tx, app, &Change::Config(&patch), &actor, Timestamp::now()) {
            Ok(release) => Ok((release.vars(), Some(release))),
            Err(ControlError::Release(ReleaseError::NoChange)) => {
                let newest = store::releases::newest(tx, app)?;
                Ok((newest.map(|release| release.vars()).unwrap_or_default(), None))
            }
            Err(error) => Err(error),
        })
        .await?;
    if let Some(release) = &release {
        releases::log(control, release);
        control.supervisor.wake(app);
    }
    Ok((config, release))
}
