//! Public keys of people.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::actor::AccountId;
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: Uuid,
    pub account: AccountId,
    /// As in an `authorized_keys` file.
    pub public_key: String,
    pub comment: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    pub created_at: Timestamp,
}

/// The fingerprint must not be taken; [`is_known`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, key: &Key) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO keys (id, account_id, public_key, comment, fingerprint, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (text(key.id), text(key.account), &key.public_key, &key.comment, &key.fingerprint, nanos(key.created_at)),
    )?;
    Ok(())
}

pub fn is_known(tx: &Tx<'_>, fingerprint: &str) -> Result<bool, StoreError> {
    Ok(tx.one("SELECT 1 FROM keys WHERE fingerprint = ?1", [fingerprint], |_| Ok(()))?.is_some())
}

/// Oldest first.
pub fn list(tx: &Tx<'_>, account: AccountId) -> Result<Vec<Key>, StoreError> {
    tx.all("SELECT * FROM keys WHERE account_id = ?1 ORDER BY created_at, id", [text(account)], key)
}

pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM keys WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        id: parsed(row, "id")?,
        account: parsed(row, "account_id")?,
        public_key: row.get("public_key")?,
        comment: row.get("comment")?,
        fingerprint: row.get("fingerprint")?,
        created_at: time(row, "created_at")?,
    })
}
