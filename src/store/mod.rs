//! What lasts: SQLite, one file per noun.
//!
//! ```text
//!  write(closure) ──▶ writer thread ──▶ one IMMEDIATE transaction, synced to disk, then the answer
//!  read(closure)  ──▶ one of the reader threads ──▶ one snapshot
//! ```
//!
//! Invariants: there is one writer, so a closure never sees its own decision overtaken; a closure that returns an error
//! leaves nothing behind; a write whose caller went away is still done; what a request was let in by holds in each of its
//! writes ([`guard`]). Config vars never reach the disk in the clear
//! ([`seal`]). Times are kept to the nanosecond, so a row that is read equals the row that was written.
#![forbid(unsafe_code)]
#![expect(clippy::missing_errors_doc, reason = "what a noun's function can fail with is `StoreError`, and says it")]

pub mod accounts;
pub mod addons;
pub mod apps;
pub mod audit;
pub mod buildpacks;
pub mod builds;
pub mod collaborators;
mod column;
pub mod copy;
pub mod domains;
pub mod drains;
pub mod egress;
pub mod epochs;
mod error;
pub mod features;
pub mod formations;
pub mod guard;
pub mod keys;
pub mod oauth_clients;
mod open;
pub mod pipelines;
pub mod releases;
mod seal;
pub mod slugs;
pub mod sni_endpoints;
pub mod tokens;
pub mod transfers;
mod worker;

pub use error::StoreError;

use crate::domain::app::AppId;
use rusqlite::{Connection, Params, Row, TransactionBehavior};
use seal::Seal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use worker::Workers;

/// The database's file name below ROOT.
pub const FILE: &str = "db.sqlite";
/// The key's file name below ROOT.
pub const KEY_FILE: &str = "key";

/// Reader threads; a read takes microseconds, two keep a long list from delaying everyone.
const READERS: usize = 2;

/// The open database. Clones share it; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Arc<Workers>,
    readers: Arc<Workers>,
    seal: Arc<Seal>,
    path: PathBuf,
}

impl Store {
    /// Opens ROOT's database, or makes it with its key when ROOT has neither.
    ///
    /// # Errors
    /// When the file is damaged, was written by a newer hokku, or its key is missing or another's; when the disk is full
    /// or does not let us read and write.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let path = root.join(FILE);
        let seal = Arc::new(open::key(root)?);
        let writer = open::writer(&path, &seal)?;
        let readers = (0..READERS).map(|_| open::reader(&path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            writer: Arc::new(Workers::start("store-write", vec![writer])?),
            readers: Arc::new(Workers::start("store-read", readers)?),
            seal,
            path,
        })
    }

    /// Runs `f` in one transaction and commits it; when `f` fails nothing is changed. Returns once the change is on
    /// disk. It is done even when the caller stops waiting.
    ///
    /// # Errors
    /// What `f` or a check of the [`guard`] returns, or why the transaction could not be begun or committed.
    pub async fn write<T, E>(&self, f: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let checks = guard::checks();
        let checked = move |tx: &Tx<'_>| {
            checks.iter().try_for_each(|check| check.holds(tx))?;
            f(tx)
        };
        self.on(&self.writer, TransactionBehavior::Immediate, checked).await
    }

    /// Runs `f` on one snapshot of the database; it can't change anything.
    ///
    /// # Errors
    /// What `f` returns, or why the snapshot could not be had.
    pub async fn read<T, E>(&self, f: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.on(&self.readers, TransactionBehavior::Deferred, f).await
    }

    async fn on<T, E>(
        &self,
        workers: &Workers,
        behavior: TransactionBehavior,
        f: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let seal = Arc::clone(&self.seal);
        workers
            .run(move |connection| transact(connection, &seal, behavior, f))
            .await
            .unwrap_or_else(|| Err(StoreError::Closed.into()))
    }

    /// A text of 32 hex digits that only this instance can know, the same for the same purpose and id: the secret part
    /// of a URL that needs no other credential.
    pub fn secret(&self, purpose: &str, id: uuid::Uuid) -> String {
        self.seal.secret(purpose, id)
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn transact<T, E: From<StoreError>>(
    connection: &mut Connection,
    seal: &Seal,
    behavior: TransactionBehavior,
    f: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = connection.transaction_with_behavior(behavior).map_err(StoreError::from)?;
    let value = f(&Tx { connection: &transaction, seal })?;
    transaction.commit().map_err(StoreError::from)?;
    Ok(value)
}

/// One transaction; what the functions of the nouns take.
#[derive(Debug)]
pub struct Tx<'a> {
    connection: &'a Connection,
    seal: &'a Seal,
}

impl Tx<'_> {
    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        Ok(rows.next()?.map(map).transpose()?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, map)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The number of rows changed.
    fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    fn touch(&self, app: AppId, now: jiff::Timestamp) -> Result<(), StoreError> {
        self.execute("UPDATE apps SET updated_at = ?2 WHERE id = ?1", (column::text(app), column::nanos(now)))?;
        Ok(())
    }
}

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod tests;
