//! Accounts.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::actor::{AccountId, Actor};
use jiff::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

/// Who may use this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub email: String,
    pub admin: bool,
    pub name: Option<String>,
    /// Whether there is a password to log in by.
    pub has_password: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    pub fn actor(&self) -> Actor {
        Actor { id: self.id, email: self.email.clone() }
    }
}

/// The administrator's address until there are more accounts.
pub const ADMIN_EMAIL: &str = "admin@localhost";

/// The first administrator; every database has one.
pub fn admin(tx: &Tx<'_>) -> Result<Account, StoreError> {
    let first =
        tx.one("SELECT * FROM accounts WHERE admin AND removed_at IS NULL ORDER BY created_at LIMIT 1", (), account)?;
    Ok(first.expect("opening a database makes its administrator"))
}

pub(super) fn ensure_admin(tx: &Tx<'_>) -> Result<(), StoreError> {
    if tx.one("SELECT 1 FROM accounts WHERE admin", (), |_| Ok(()))?.is_none() {
        tx.execute(
            "INSERT INTO accounts (id, email, admin, created_at, updated_at) VALUES (?1, ?2, 1, ?3, ?3)",
            (text(Uuid::new_v4()), ADMIN_EMAIL, nanos(Timestamp::now())),
        )?;
    }
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: AccountId) -> Result<Option<Account>, StoreError> {
    tx.one("SELECT * FROM accounts WHERE id = ?1 AND removed_at IS NULL", [text(id)], account)
}

/// By address, in any case of letters, or UUID.
pub fn find(tx: &Tx<'_>, which: &str) -> Result<Option<Account>, StoreError> {
    match which.parse() {
        Ok(id) => get(tx, id),
        Err(_) => tx.one("SELECT * FROM accounts WHERE email = ?1 AND removed_at IS NULL", [which], account),
    }
}

/// By address.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Account>, StoreError> {
    tx.all("SELECT * FROM accounts WHERE removed_at IS NULL ORDER BY email", (), account)
}

/// The address must not be taken. One that was removed comes back as the same account.
pub fn insert(tx: &Tx<'_>, email: &str, admin: bool, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO accounts (id, email, admin, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (email) DO UPDATE SET email = ?2, admin = ?3, removed_at = NULL, name = NULL, updated_at = ?4",
        (text(Uuid::new_v4()), email, admin, nanos(now)),
    )?;
    Ok(())
}

pub fn set_admin(tx: &Tx<'_>, id: AccountId, admin: bool, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE accounts SET admin = ?2, updated_at = ?3 WHERE id = ?1", (text(id), admin, nanos(now)))?;
    Ok(())
}

pub fn set_name(tx: &Tx<'_>, id: AccountId, name: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE accounts SET name = ?2, updated_at = ?3 WHERE id = ?1", (text(id), name, nanos(now)))?;
    Ok(())
}

/// `hash` is in PHC form.
pub fn set_password(tx: &Tx<'_>, id: AccountId, hash: &str, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE accounts SET password = ?2, updated_at = ?3 WHERE id = ?1", (text(id), hash, nanos(now)))?;
    Ok(())
}

/// The hash of the password, where there is one.
pub fn password(tx: &Tx<'_>, id: AccountId) -> Result<Option<String>, StoreError> {
    Ok(tx.one("SELECT password FROM accounts WHERE id = ?1", [text(id)], |row| row.get(0))?.flatten())
}

/// Takes all that it could come in by or had access to; its row stays for what it made. Its pipelines become the first
/// administrator's, and there must be one.
pub fn remove(tx: &Tx<'_>, id: AccountId, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE accounts SET removed_at = ?2, updated_at = ?2, password = NULL, admin = 0 WHERE id = ?1",
        (text(id), nanos(now)),
    )?;
    for table in ["tokens", "keys", "oauth_clients", "collaborators"] {
        tx.execute(&format!("DELETE FROM {table} WHERE account_id = ?1"), [text(id)])?;
    }
    tx.execute(
        "UPDATE pipelines SET owner = (SELECT id FROM accounts WHERE admin AND removed_at IS NULL
                                          ORDER BY created_at LIMIT 1) WHERE owner = ?1",
        [text(id)],
    )?;
    tx.execute("DELETE FROM transfers WHERE state = 'pending' AND ?1 IN (owner_id, recipient_id)", [text(id)])?;
    Ok(())
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: parsed(row, "id")?,
        email: row.get("email")?,
        admin: row.get("admin")?,
        name: row.get("name")?,
        has_password: row.get::<_, Option<String>>("password")?.is_some(),
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
