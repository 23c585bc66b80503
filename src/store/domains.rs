//! Host names of apps' own.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, parsed_or_null, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::hostname::{Domain, Hostname};
use rusqlite::Row;
use uuid::Uuid;

/// The name must not be taken; [`by_hostname`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, domain: &Domain) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO domains (id, app_id, hostname, created_at, sni_endpoint_id) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            text(domain.id),
            text(domain.app),
            domain.hostname.as_str(),
            nanos(domain.created_at),
            domain.sni_endpoint.map(text),
        ),
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

/// Of all apps, by host name.
pub fn all(tx: &Tx<'_>) -> Result<Vec<Domain>, StoreError> {
    tx.all("SELECT * FROM domains ORDER BY hostname", (), domain)
}

/// The endpoint must be one of the same app.
pub fn assign(tx: &Tx<'_>, id: Uuid, endpoint: Option<Uuid>) -> Result<(), StoreError> {
    tx.execute("UPDATE domains SET sni_endpoint_id = ?2 WHERE id = ?1", (text(id), endpoint.map(text)))?;
    Ok(())
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
        sni_endpoint: parsed_or_null(row, "sni_endpoint_id")?,
    })
}
