//! Drains. Their URLs are sealed in [`insert`] and opened by whatever reads them.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::drain::{Drain, DrainUrl};
use rusqlite::{Params, Row};
use uuid::Uuid;

pub fn insert(tx: &Tx<'_>, drain: &Drain) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(drain.url.as_str().as_bytes(), drain.id.as_bytes())?;
    tx.execute(
        "INSERT INTO drains (id, app_id, token, url, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (text(drain.id), text(drain.app), &drain.token, sealed, nanos(drain.created_at)),
    )?;
    Ok(())
}

/// Oldest first.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Drain>, StoreError> {
    some(tx, "WHERE app_id = ?1", [text(app)])
}

/// Of all apps.
pub fn all(tx: &Tx<'_>) -> Result<Vec<Drain>, StoreError> {
    some(tx, "", ())
}

pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM drains WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn some(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Vec<Drain>, StoreError> {
    let rows = tx.all(&format!("SELECT * FROM drains {clause} ORDER BY created_at, id"), params, sealed)?;
    rows.into_iter()
        .map(|(id, app, token, url, created_at)| {
            let plain = tx.seal.open(&url, id.as_bytes()).and_then(|plain| String::from_utf8(plain).ok());
            let url = plain.and_then(|text| DrainUrl::parse(&text).ok()).ok_or(StoreError::SealedDrain(id))?;
            Ok(Drain { id, app, token, url, created_at })
        })
        .collect()
}

type Sealed = (Uuid, AppId, String, Vec<u8>, jiff::Timestamp);

fn sealed(row: &Row<'_>) -> rusqlite::Result<Sealed> {
    Ok((parsed(row, "id")?, parsed(row, "app_id")?, row.get("token")?, row.get("url")?, time(row, "created_at")?))
}
