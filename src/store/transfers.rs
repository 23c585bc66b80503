//! Apps on their way to another owner.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{AppId, AppName};
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub id: Uuid,
    pub app: AppId,
    pub app_name: AppName,
    pub owner: Actor,
    pub recipient: Actor,
    /// `pending`, `accepted` or `declined`.
    pub state: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const SELECT: &str = "SELECT transfers.*, apps.name AS app_name, owners.email AS owner, recipients.email AS recipient
                      FROM transfers JOIN apps ON apps.id = transfers.app_id
                      JOIN accounts AS owners ON owners.id = transfers.owner_id
                      JOIN accounts AS recipients ON recipients.id = transfers.recipient_id";

/// Makes one that waits for its answer, instead of what waits for the app already.
pub fn insert(
    tx: &Tx<'_>,
    app: AppId,
    owner: AccountId,
    recipient: AccountId,
    now: Timestamp,
) -> Result<Uuid, StoreError> {
    tx.execute("DELETE FROM transfers WHERE app_id = ?1 AND state = 'pending'", [text(app)])?;
    let id = Uuid::new_v4();
    tx.execute(
        "INSERT INTO transfers (id, app_id, owner_id, recipient_id, state, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, 'pending', ?5, ?5)",
        (text(id), text(app), text(owner), text(recipient), nanos(now)),
    )?;
    Ok(id)
}

/// Oldest first.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Transfer>, StoreError> {
    tx.all(&format!("{SELECT} ORDER BY transfers.created_at, transfers.id"), (), transfer)
}

pub fn get(tx: &Tx<'_>, id: Uuid) -> Result<Option<Transfer>, StoreError> {
    tx.one(&format!("{SELECT} WHERE transfers.id = ?1"), [text(id)], transfer)
}

pub fn set_state(tx: &Tx<'_>, id: Uuid, state: &str, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE transfers SET state = ?2, updated_at = ?3 WHERE id = ?1", (text(id), state, nanos(now)))?;
    Ok(())
}

pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM transfers WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn transfer(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    Ok(Transfer {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        app_name: parsed(row, "app_name")?,
        owner: Actor { id: parsed(row, "owner_id")?, email: row.get("owner")? },
        recipient: Actor { id: parsed(row, "recipient_id")?, email: row.get("recipient")? },
        state: row.get("state")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
