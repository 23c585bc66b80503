//! Who has access to an app beside its owner.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::access::{Permissions, Role};
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{App, AppId};
use jiff::Timestamp;
use rusqlite::Row;
use std::collections::BTreeSet;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collaborator {
    pub id: Uuid,
    pub account: Actor,
    pub permissions: Permissions,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const SELECT: &str = "SELECT collaborators.*, accounts.email
                      FROM collaborators JOIN accounts ON accounts.id = collaborators.account_id";

/// By address.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Collaborator>, StoreError> {
    tx.all(&format!("{SELECT} WHERE app_id = ?1 ORDER BY email"), [text(app)], collaborator)
}

pub fn get(tx: &Tx<'_>, app: AppId, account: AccountId) -> Result<Option<Collaborator>, StoreError> {
    tx.one(&format!("{SELECT} WHERE app_id = ?1 AND account_id = ?2"), (text(app), text(account)), collaborator)
}

/// Adds one, or gives him other permissions than he has.
pub fn put(
    tx: &Tx<'_>,
    app: AppId,
    account: AccountId,
    permissions: &Permissions,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO collaborators (id, app_id, account_id, permissions, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (app_id, account_id) DO UPDATE SET permissions = ?4, updated_at = ?5",
        (text(Uuid::new_v4()), text(app), text(account), text(permissions), nanos(now)),
    )?;
    Ok(())
}

pub fn remove(tx: &Tx<'_>, app: AppId, account: AccountId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM collaborators WHERE app_id = ?1 AND account_id = ?2", (text(app), text(account)))?;
    Ok(())
}

/// How an account that is no administrator stands to an app.
pub fn role(tx: &Tx<'_>, app: &App, account: AccountId) -> Result<Role, StoreError> {
    if app.owner.id == account {
        return Ok(Role::Owner);
    }
    Ok(get(tx, app.id, account)?.map_or(Role::Stranger, |found| Role::Collaborator(found.permissions)))
}

/// The apps that an account owns or has access to.
pub fn apps_of(tx: &Tx<'_>, account: AccountId) -> Result<BTreeSet<AppId>, StoreError> {
    let sql = "SELECT id FROM apps WHERE owner_id = ?1
               UNION SELECT app_id AS id FROM collaborators WHERE account_id = ?1";
    Ok(tx.all(sql, [text(account)], |row| parsed(row, "id"))?.into_iter().collect())
}

fn collaborator(row: &Row<'_>) -> rusqlite::Result<Collaborator> {
    Ok(Collaborator {
        id: parsed(row, "id")?,
        account: Actor { id: parsed(row, "account_id")?, email: row.get("email")? },
        permissions: parsed(row, "permissions")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
