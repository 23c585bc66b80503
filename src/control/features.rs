//! What is switched on for an app. Dynos that are started from then on have it.
#![forbid(unsafe_code)]

use super::{Control, ControlError};
use crate::domain::app::AppId;
use crate::domain::feature::Feature;
use crate::store;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Each with the time since when.
///
/// # Errors
/// When the store can't be read.
pub async fn get(control: &Control, app: AppId) -> Result<BTreeMap<Feature, Timestamp>, ControlError> {
    control.store.read(move |tx| Ok(store::features::get(tx, app)?)).await
}

/// # Errors
/// When the store refuses.
pub async fn set(control: &Control, app: AppId, feature: Feature, on: bool) -> Result<(), ControlError> {
    control
        .store
        .write(move |tx| Ok::<_, ControlError>(store::features::set(tx, app, feature, on, Timestamp::now())?))
        .await
}
