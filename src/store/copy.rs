//! Copies of the database: for a backup, while the server goes on; and before an upgrade, so that there is a way back.
#![forbid(unsafe_code)]

use super::seal::{KEY_BYTES, Seal};
use super::{StoreError, open};
use crate::domain::app::AppId;
use crate::domain::slug::Digest;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What the database's copy is called that an upgrade leaves beside it. There is one, of before the last upgrade.
pub const BEFORE_UPGRADE: &str = "db.sqlite.before-upgrade";

/// What this hokku's databases have for `user_version`.
pub fn schema() -> u32 {
    open::known()
}

/// ROOT's key.
pub struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// `None` when there is no such file.
    ///
    /// # Errors
    /// When it is not as long as keys are, or can't be read.
    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        match fs::read(path) {
            Ok(bytes) => {
                let length = bytes.len();
                let key = bytes.try_into().map_err(|_| StoreError::KeyLength { path: path.into(), length })?;
                Ok(Some(Self(key)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path: path.into(), source }),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `context` is not kept but must be the same to open.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.sealer().seal(plain, context)
    }

    /// `None` when it was sealed with another key or for another context, or has been changed.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        self.sealer().open(sealed, context)
    }

    pub(super) fn sealer(&self) -> Seal {
        Seal::new(&self.0)
    }
}

/// What a copy says of the box that it is of; whichever schema it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub schema: u32,
    pub apps: BTreeMap<AppId, String>,
    /// Of all slugs; the archives of old ones may be gone.
    pub slugs: BTreeSet<Digest>,
    /// By the app's name, the slug of the release that serves.
    pub serving: BTreeMap<String, Digest>,
}

/// Writes what the database has at one instant to `to`, for root only, without what was deleted from it. Others may write
/// meanwhile.
///
/// # Errors
/// When either file can't be used, or the database is damaged.
pub fn copy(database: &Path, to: &Path) -> Result<(), StoreError> {
    if !database.exists() {
        return Err(StoreError::Io { path: database.into(), source: io::ErrorKind::NotFound.into() });
    }
    let connection = open::connect(database).map_err(|error| StoreError::of(error, database.into()))?;
    copy_of(&connection, database, to)
}

fn copy_of(connection: &Connection, database: &Path, to: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: to.into(), source };
    open::private_file(to).map_err(io)?;
    let target = to.to_str().ok_or_else(|| io(io::ErrorKind::InvalidFilename.into()))?;
    connection.execute("VACUUM INTO ?1", [target]).map_err(|error| StoreError::of(error, database.into()))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(io)
}

/// Keeps the database as it is, in place of what was kept before.
pub(super) fn keep(connection: &Connection, database: &Path) -> Result<(), StoreError> {
    let kept = kept(database);
    let new = kept.with_extension("new");
    let io = |source| StoreError::Io { path: kept.clone(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    if let Err(error) = copy_of(connection, database, &new) {
        // Half a copy takes room and is of no use.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, &kept).map_err(io)
}

/// Where [`keep`] puts it.
pub(super) fn kept(database: &Path) -> PathBuf {
    database.with_file_name(BEFORE_UPGRADE)
}

/// Looks whether a copy is sound and belongs to the key, and says what is in it.
///
/// # Errors
/// When it is not, or a newer hokku wrote it.
pub fn examine(database: &Path, key: &Key) -> Result<Contents, StoreError> {
    let at = |error| StoreError::of(error, database.into());
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(at)?;
    open::check_health(&connection, database)?;
    let schema = open::version(&connection, database)?;
    let sealed: Vec<u8> = connection.query_row("SELECT sealed FROM key_check", (), |row| row.get(0)).map_err(at)?;
    open::check_key(&sealed, &key.sealer(), database)?;
    read(&connection, schema).map_err(at)
}

/// By what every schema has had since the first.
fn read(connection: &Connection, schema: u32) -> Result<Contents, rusqlite::Error> {
    let pairs = |sql: &str| -> Result<Vec<(String, String)>, rusqlite::Error> {
        connection.prepare(sql)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let apps = pairs("SELECT id, name FROM apps")?;
    let slugs = pairs("SELECT DISTINCT digest, '' FROM slugs")?;
    let serving = pairs(
        "SELECT apps.name, slugs.digest FROM releases
         JOIN apps ON apps.id = releases.app_id JOIN slugs ON slugs.id = releases.slug_id
         WHERE releases.version =
               (SELECT max(version) FROM releases AS r WHERE r.app_id = apps.id AND r.status = 'succeeded')",
    )?;
    Ok(Contents {
        schema,
        apps: apps.into_iter().filter_map(|(id, name)| Some((id.parse().ok()?, name))).collect(),
        slugs: slugs.into_iter().filter_map(|(digest, _)| digest.parse().ok()).collect(),
        serving: serving.into_iter().filter_map(|(app, digest)| Some((app, digest.parse().ok()?))).collect(),
    })
}
