//! Certificates of apps. Their private keys are sealed by whatever writes them and opened by [`all`] only.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::sni_endpoint::SniEndpoint;
use rusqlite::Row;
use uuid::Uuid;

/// The name must not be taken; [`is_taken`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, endpoint: &SniEndpoint, key: &str) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(key.as_bytes(), endpoint.id.as_bytes())?;
    tx.execute(
        "INSERT INTO sni_endpoints (id, app_id, name, chain, private_key, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            text(endpoint.id),
            text(endpoint.app),
            &endpoint.name,
            &endpoint.chain,
            sealed,
            nanos(endpoint.created_at),
            nanos(endpoint.updated_at),
        ),
    )?;
    Ok(())
}

/// Chain, key and time are new.
pub fn update(tx: &Tx<'_>, endpoint: &SniEndpoint, key: &str) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(key.as_bytes(), endpoint.id.as_bytes())?;
    tx.execute(
        "UPDATE sni_endpoints SET chain = ?2, private_key = ?3, updated_at = ?4 WHERE id = ?1",
        (text(endpoint.id), &endpoint.chain, sealed, nanos(endpoint.updated_at)),
    )?;
    Ok(())
}

/// Host names that it was for have none then.
pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sni_endpoints WHERE id = ?1", [text(id)])?;
    Ok(())
}

pub fn is_taken(tx: &Tx<'_>, name: &str) -> Result<bool, StoreError> {
    Ok(tx.one("SELECT 1 FROM sni_endpoints WHERE name = ?1", [name], |_| Ok(()))?.is_some())
}

/// Oldest first.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<SniEndpoint>, StoreError> {
    tx.all("SELECT * FROM sni_endpoints WHERE app_id = ?1 ORDER BY created_at, id", [text(app)], endpoint)
}

/// Of all apps, oldest first, with their private keys.
pub fn all(tx: &Tx<'_>) -> Result<Vec<(SniEndpoint, String)>, StoreError> {
    let sealed = |row: &Row<'_>| Ok((endpoint(row)?, row.get::<_, Vec<u8>>("private_key")?));
    let rows = tx.all("SELECT * FROM sni_endpoints ORDER BY created_at, id", (), sealed)?;
    rows.into_iter()
        .map(|(endpoint, sealed)| {
            let key = tx.seal.open(&sealed, endpoint.id.as_bytes()).and_then(|key| String::from_utf8(key).ok());
            let key = key.ok_or(StoreError::SealedEndpoint(endpoint.id))?;
            Ok((endpoint, key))
        })
        .collect()
}

fn endpoint(row: &Row<'_>) -> rusqlite::Result<SniEndpoint> {
    Ok(SniEndpoint {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        name: row.get("name")?,
        chain: row.get("chain")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
