//! What is switched on for an app.
#![forbid(unsafe_code)]

use super::column::{nanos, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::feature::Feature;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Each with the time since when. A name that this version does not know is passed over.
pub fn get(tx: &Tx<'_>, app: AppId) -> Result<BTreeMap<Feature, Timestamp>, StoreError> {
    let rows = tx.all("SELECT feature, created_at FROM features WHERE app_id = ?1", [text(app)], |row| {
        Ok((row.get::<_, String>("feature")?, time(row, "created_at")?))
    })?;
    Ok(rows.into_iter().filter_map(|(name, at)| Some((name.parse().ok()?, at))).collect())
}

pub fn set(tx: &Tx<'_>, app: AppId, feature: Feature, on: bool, now: Timestamp) -> Result<(), StoreError> {
    if on {
        let sql = "INSERT INTO features (app_id, feature, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        tx.execute(sql, (text(app), text(feature), nanos(now)))?;
    } else {
        tx.execute("DELETE FROM features WHERE app_id = ?1 AND feature = ?2", (text(app), text(feature)))?;
    }
    Ok(())
}
