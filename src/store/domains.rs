//! Host names of apps' own.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::hostname::{Domain, Hostname};
use rusqlite::Row;

/// The name must not be taken; [`by_hostname`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, domain: &Domain) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO domains (id, app_id, hostname, created_at) VALUES (?1, ?2, ?3, ?4)",
        (text(domain.id), text(domain.app), domain.hostname.as_str(), nanos(domain.created_at)),
    )?;
    Ok(())
}

/// Of whatever app.
pub fn by_hostname(tx: &Tx<'_>, hostname: &Hostname) -> Result<Option<Domain>, StoreError> {
    tx.one("SELECT * FROM domains WHERE hostname = ?1", [hostname.as_str()], domain)
}

/// By host name.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Domain>, StoreError> {
    tx.all("SELECT * FROM domains WHERE app_id = ?1 ORDER BY hostname", [text(app)], domain)
}

pub fn delete(tx: &Tx<'_>, domain: &Domain) -> Result<(), StoreError> {
    tx.execute("DELETE FROM domains WHERE id = ?1", [text(domain.id)])?;
    Ok(())
}

fn domain(row: &Row<'_>) -> rusqlite::Result<Domain> {
    Ok(Domain {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        hostname: parsed(row, "hostname")?,
        created_at: time(row, "created_at")?,
    })
}
