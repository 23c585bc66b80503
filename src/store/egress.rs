//! Where apps' dynos may connect to.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::egress::Egress;
use jiff::Timestamp;
use std::collections::BTreeMap;

pub fn get(tx: &Tx<'_>, app: AppId) -> Result<Egress, StoreError> {
    let row = tx.one("SELECT allowed FROM egress WHERE app_id = ?1", [text(app)], |row| parsed(row, "allowed"))?;
    Ok(row.unwrap_or_default())
}

/// Of all apps that do not have the Internet.
pub fn all(tx: &Tx<'_>) -> Result<BTreeMap<AppId, Egress>, StoreError> {
    let row = |row: &rusqlite::Row<'_>| Ok((parsed(row, "app_id")?, parsed(row, "allowed")?));
    Ok(tx.all("SELECT app_id, allowed FROM egress", (), row)?.into_iter().collect())
}

pub fn put(tx: &Tx<'_>, app: AppId, egress: &Egress) -> Result<(), StoreError> {
    if *egress == Egress::Internet {
        tx.execute("DELETE FROM egress WHERE app_id = ?1", [text(app)])?;
        return Ok(());
    }
    tx.execute(
        "INSERT INTO egress (app_id, allowed, updated_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (app_id) DO UPDATE SET allowed = excluded.allowed, updated_at = excluded.updated_at",
        (text(app), text(egress), nanos(Timestamp::now())),
    )?;
    Ok(())
}
