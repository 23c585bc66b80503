//! Formations.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time, unreadable};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::formation::{Formation, Scale};
use crate::domain::procfile::ProcessType;
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

/// One process type's part of a formation; its id stays as long as the type is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormationRow {
    pub id: Uuid,
    pub kind: ProcessType,
    pub scale: Scale,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

pub fn get(tx: &Tx<'_>, app: AppId) -> Result<Formation, StoreError> {
    Ok(Formation(rows(tx, app)?.into_iter().map(|row| (row.kind, row.scale)).collect()))
}

/// By process type.
pub fn rows(tx: &Tx<'_>, app: AppId) -> Result<Vec<FormationRow>, StoreError> {
    tx.all("SELECT * FROM formations WHERE app_id = ?1 ORDER BY type", [text(app)], row)
}

/// Types that are no longer there go, new ones come, those that stay the same are not touched.
pub fn put(tx: &Tx<'_>, app: AppId, formation: &Formation) -> Result<(), StoreError> {
    let now = nanos(Timestamp::now());
    for old in rows(tx, app)? {
        if !formation.0.contains_key(&old.kind) {
            tx.execute("DELETE FROM formations WHERE id = ?1", [text(old.id)])?;
        }
    }
    for (kind, scale) in &formation.0 {
        tx.execute(
            "INSERT INTO formations (id, app_id, type, quantity, size, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
             ON CONFLICT (app_id, type) DO UPDATE SET quantity = ?4, size = ?5, updated_at = ?6
             WHERE quantity <> ?4 OR size <> ?5",
            (text(Uuid::new_v4()), text(app), kind.as_str(), scale.quantity, scale.size.name(), now),
        )?;
    }
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<FormationRow> {
    let kind: String = row.get("type")?;
    Ok(FormationRow {
        id: parsed(row, "id")?,
        kind: ProcessType::parse(&kind).map_err(|error| unreadable(row, "type", error))?,
        scale: Scale { quantity: row.get("quantity")?, size: parsed(row, "size")? },
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
