//! Epochs: a dyno launched in an older epoch of its name is to be replaced.
#![forbid(unsafe_code)]

use super::column::{parsed, text};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::dyno::DynoName;
use std::collections::BTreeMap;

/// Names that are not listed are in epoch 0.
pub fn get(tx: &Tx<'_>, app: AppId) -> Result<BTreeMap<DynoName, u64>, StoreError> {
    let rows = tx.all("SELECT dyno, epoch FROM epochs WHERE app_id = ?1", [text(app)], |row| {
        Ok((parsed(row, "dyno")?, u64::try_from(row.get::<_, i64>("epoch")?).unwrap_or(0)))
    })?;
    Ok(rows.into_iter().collect())
}

/// Begins the next epoch of these names.
pub fn bump(tx: &Tx<'_>, app: AppId, names: &[DynoName]) -> Result<(), StoreError> {
    for name in names {
        tx.execute(
            "INSERT INTO epochs (app_id, dyno, epoch) VALUES (?1, ?2, 1)
             ON CONFLICT (app_id, dyno) DO UPDATE SET epoch = epoch + 1",
            (text(app), text(name)),
        )?;
    }
    Ok(())
}
