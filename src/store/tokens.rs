//! Tokens: what clients show instead of a password. Only their digests are kept.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time, time_or_null};
use super::{StoreError, Tx};
use crate::domain::access::Caller;
use crate::domain::actor::{AccountId, Actor};
use crate::domain::scope::Scopes;
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: Uuid,
    pub account: AccountId,
    pub description: String,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// It was had by address and password.
    pub login: bool,
}

pub fn insert(
    tx: &Tx<'_>,
    account: AccountId,
    sha256: &[u8; 32],
    description: &str,
    scopes: &Scopes,
    expires_at: Option<Timestamp>,
    login: bool,
) -> Result<TokenRow, StoreError> {
    let now = Timestamp::now();
    let token = TokenRow {
        id: Uuid::new_v4(),
        account,
        description: description.to_owned(),
        scopes: scopes.clone(),
        created_at: now,
        updated_at: now,
        expires_at,
        login,
    };
    tx.execute(
        "INSERT INTO tokens (id, account_id, sha256, description, scopes, created_at, updated_at, expires_at, login)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
        (
            text(token.id),
            text(account),
            sha256.as_slice(),
            description,
            text(scopes),
            nanos(now),
            expires_at.map(nanos),
            login,
        ),
    )?;
    Ok(token)
}

/// Whose token it is, what it is good for and its id; `None` when there is none of that digest or it has expired.
pub fn caller_of(tx: &Tx<'_>, sha256: &[u8; 32], now: Timestamp) -> Result<Option<(Caller, Scopes, Uuid)>, StoreError> {
    tx.one(
        "SELECT accounts.id, accounts.email, accounts.admin, tokens.scopes, tokens.id AS token FROM tokens JOIN accounts ON accounts.id = tokens.account_id
         WHERE sha256 = ?1 AND (expires_at IS NULL OR expires_at > ?2) AND accounts.removed_at IS NULL",
        (sha256.as_slice(), nanos(now)),
        |row| {
            let actor = Actor { id: parsed(row, "id")?, email: row.get("email")? };
            Ok((Caller { actor, admin: row.get("admin")? }, parsed(row, "scopes")?, parsed(row, "token")?))
        },
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

/// The digest of its text as it is now.
pub fn digest(tx: &Tx<'_>, id: Uuid) -> Result<Option<[u8; 32]>, StoreError> {
    tx.one("SELECT sha256 FROM tokens WHERE id = ?1", [text(id)], |row| row.get(0))
}

/// The row of a token that a client shows.
pub fn by_digest(tx: &Tx<'_>, sha256: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
    tx.one("SELECT * FROM tokens WHERE sha256 = ?1", [sha256.as_slice()], token)
}

/// Another text instead of the old one, whose digest this is.
pub fn renew(tx: &Tx<'_>, id: Uuid, sha256: &[u8; 32]) -> Result<(), StoreError> {
    let now = nanos(Timestamp::now());
    tx.execute("UPDATE tokens SET sha256 = ?2, updated_at = ?3 WHERE id = ?1", (text(id), sha256.as_slice(), now))?;
    Ok(())
}

pub fn describe(tx: &Tx<'_>, id: Uuid, description: &str) -> Result<(), StoreError> {
    let now = nanos(Timestamp::now());
    tx.execute("UPDATE tokens SET description = ?2, updated_at = ?3 WHERE id = ?1", (text(id), description, now))?;
    Ok(())
}

/// Whether there was one.
pub fn delete(tx: &Tx<'_>, account: AccountId, id: Uuid) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM tokens WHERE id = ?1 AND account_id = ?2", (text(id), text(account)))? > 0)
}

/// Ends all of an account but the one that is kept.
pub fn delete_all(tx: &Tx<'_>, account: AccountId, keep: Option<Uuid>) -> Result<(), StoreError> {
    let keep = keep.map(text);
    tx.execute("DELETE FROM tokens WHERE account_id = ?1 AND id IS NOT ?2", (text(account), keep))?;
    Ok(())
}

fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    let created_at = time(row, "created_at")?;
    Ok(TokenRow {
        id: parsed(row, "id")?,
        account: parsed(row, "account_id")?,
        description: row.get("description")?,
        scopes: parsed(row, "scopes")?,
        created_at,
        updated_at: time_or_null(row, "updated_at")?.unwrap_or(created_at),
        expires_at: time_or_null(row, "expires_at")?,
        login: row.get("login")?,
    })
}
