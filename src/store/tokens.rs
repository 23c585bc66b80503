//! Tokens: what clients show instead of a password. Only their digests are kept.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time, time_or_null};
use super::{StoreError, Tx};
use crate::domain::actor::{AccountId, Actor};
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: Uuid,
    pub account: AccountId,
    pub description: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

pub fn insert(
    tx: &Tx<'_>,
    account: AccountId,
    sha256: &[u8; 32],
    description: &str,
    expires_at: Option<Timestamp>,
) -> Result<TokenRow, StoreError> {
    let token = TokenRow {
        id: Uuid::new_v4(),
        account,
        description: description.to_owned(),
        created_at: Timestamp::now(),
        expires_at,
    };
    tx.execute(
        "INSERT INTO tokens (id, account_id, sha256, description, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            text(token.id),
            text(account),
            sha256.as_slice(),
            description,
            nanos(token.created_at),
            expires_at.map(nanos),
        ),
    )?;
    Ok(token)
}

/// Whose token it is; `None` when there is none of that digest or it has expired.
pub fn actor_of(tx: &Tx<'_>, sha256: &[u8; 32], now: Timestamp) -> Result<Option<Actor>, StoreError> {
    tx.one(
        "SELECT accounts.id, accounts.email FROM tokens JOIN accounts ON accounts.id = tokens.account_id
         WHERE sha256 = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        (sha256.as_slice(), nanos(now)),
        |row| Ok(Actor { id: parsed(row, "id")?, email: row.get("email")? }),
    )
}

/// Oldest first, without those that have expired.
pub fn list(tx: &Tx<'_>, account: AccountId, now: Timestamp) -> Result<Vec<TokenRow>, StoreError> {
    tx.all(
        "SELECT * FROM tokens WHERE account_id = ?1 AND (expires_at IS NULL OR expires_at > ?2) ORDER BY created_at, id",
        (text(account), nanos(now)),
        token,
    )
}

pub fn get(tx: &Tx<'_>, account: AccountId, id: Uuid) -> Result<Option<TokenRow>, StoreError> {
    tx.one("SELECT * FROM tokens WHERE id = ?1 AND account_id = ?2", (text(id), text(account)), token)
}

/// The row of a token that a client shows.
pub fn by_digest(tx: &Tx<'_>, sha256: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
    tx.one("SELECT * FROM tokens WHERE sha256 = ?1", [sha256.as_slice()], token)
}

/// Whether there was one.
pub fn delete(tx: &Tx<'_>, account: AccountId, id: Uuid) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM tokens WHERE id = ?1 AND account_id = ?2", (text(id), text(account)))? > 0)
}

fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        id: parsed(row, "id")?,
        account: parsed(row, "account_id")?,
        description: row.get("description")?,
        created_at: time(row, "created_at")?,
        expires_at: time_or_null(row, "expires_at")?,
    })
}
