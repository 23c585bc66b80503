//! Apps.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time, time_or_null};
use super::{StoreError, Tx};
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{App, AppId, AppName};
use crate::domain::stack::StackName;
use jiff::Timestamp;
use rusqlite::Row;

const SELECT: &str = "SELECT apps.*, accounts.email AS owner_email
                      FROM apps JOIN accounts ON accounts.id = apps.owner_id";

pub fn insert(tx: &Tx<'_>, app: &App) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO apps (id, name, owner_id, stack, stack_chosen, maintenance, created_at, updated_at, released_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            text(app.id),
            app.name.as_str(),
            text(app.owner.id),
            app.stack.as_str(),
            app.stack_chosen,
            app.maintenance,
            nanos(app.created_at),
            nanos(app.updated_at),
            app.released_at.map(nanos),
        ),
    )?;
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: AppId) -> Result<Option<App>, StoreError> {
    tx.one(&format!("{SELECT} WHERE apps.id = ?1"), [text(id)], app)
}

/// By name or UUID; a name is too short to be a UUID.
pub fn find(tx: &Tx<'_>, name_or_id: &str) -> Result<Option<App>, StoreError> {
    if let Ok(id) = name_or_id.parse() {
        return get(tx, id);
    }
    tx.one(&format!("{SELECT} WHERE apps.name = ?1"), [name_or_id], app)
}

/// The apps of an account, by name.
pub fn owned_by(tx: &Tx<'_>, account: AccountId) -> Result<Vec<AppName>, StoreError> {
    tx.all("SELECT name FROM apps WHERE owner_id = ?1 ORDER BY name", [text(account)], |row| parsed(row, "name"))
}

pub fn set_owner(tx: &Tx<'_>, id: AppId, owner: AccountId) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET owner_id = ?2 WHERE id = ?1", (text(id), text(owner)))?;
    tx.touch(id, Timestamp::now())
}

pub fn set_locked(tx: &Tx<'_>, id: AppId, on: bool) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET locked = ?2 WHERE id = ?1", (text(id), on))?;
    tx.touch(id, Timestamp::now())
}

/// By name.
pub fn list(tx: &Tx<'_>) -> Result<Vec<App>, StoreError> {
    tx.all(&format!("{SELECT} ORDER BY apps.name"), (), app)
}

/// The name must not be taken; [`find`] tells in the same transaction.
pub fn rename(tx: &Tx<'_>, id: AppId, name: &AppName) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET name = ?2 WHERE id = ?1", (text(id), name.as_str()))?;
    tx.touch(id, Timestamp::now())
}

pub fn set_maintenance(tx: &Tx<'_>, id: AppId, on: bool) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET maintenance = ?2 WHERE id = ?1", (text(id), on))?;
    tx.touch(id, Timestamp::now())
}

/// What the app's owner chooses.
pub fn set_stack(tx: &Tx<'_>, id: AppId, stack: StackName) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET stack = ?2, stack_chosen = 1 WHERE id = ?1", (text(id), stack.as_str()))?;
    tx.touch(id, Timestamp::now())
}

/// What the app's first code wants, unless its owner has chosen another meanwhile.
pub fn pin_stack(tx: &Tx<'_>, id: AppId, stack: StackName) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET stack = ?2 WHERE id = ?1 AND NOT stack_chosen", (text(id), stack.as_str()))?;
    tx.touch(id, Timestamp::now())
}

/// When code was released last.
pub fn set_released_at(tx: &Tx<'_>, id: AppId, at: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE apps SET released_at = ?2 WHERE id = ?1", (text(id), nanos(at)))?;
    tx.touch(id, at)
}

/// With everything that belongs to it. Whether there was one.
pub fn delete(tx: &Tx<'_>, id: AppId) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM apps WHERE id = ?1", [text(id)])? > 0)
}

fn app(row: &Row<'_>) -> rusqlite::Result<App> {
    Ok(App {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        owner: Actor { id: parsed(row, "owner_id")?, email: row.get("owner_email")? },
        stack: parsed(row, "stack")?,
        stack_chosen: row.get("stack_chosen")?,
        maintenance: row.get("maintenance")?,
        locked: row.get("locked")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        released_at: time_or_null(row, "released_at")?,
    })
}
