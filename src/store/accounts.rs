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
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    pub fn actor(&self) -> Actor {
        Actor { id: self.id, email: self.email.clone() }
    }
}

/// The administrator's address until there are more accounts.
const ADMIN_EMAIL: &str = "admin@localhost";

/// The first administrator; every database has one.
pub fn admin(tx: &Tx<'_>) -> Result<Account, StoreError> {
    let first = tx.one("SELECT * FROM accounts WHERE admin ORDER BY created_at LIMIT 1", (), account)?;
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
    tx.one("SELECT * FROM accounts WHERE id = ?1", [text(id)], account)
}

/// In any case of letters.
pub fn by_email(tx: &Tx<'_>, email: &str) -> Result<Option<Account>, StoreError> {
    tx.one("SELECT * FROM accounts WHERE email = ?1", [email], account)
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: parsed(row, "id")?,
        email: row.get("email")?,
        admin: row.get("admin")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
