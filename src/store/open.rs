//! Opening the database: the key, the file, its health, its schema.
#![forbid(unsafe_code)]

use super::copy::{self, Key};
use super::seal::{KEY_BYTES, Seal};
use super::{FILE, KEY_FILE, StoreError, Tx, accounts};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Numbered schema changes; `user_version` counts how many a database has had. One that was released never changes.
const MIGRATIONS: [&str; 14] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
    include_str!("migrations/0007.sql"),
    include_str!("migrations/0008.sql"),
    include_str!("migrations/0009.sql"),
    include_str!("migrations/0010.sql"),
    include_str!("migrations/0011.sql"),
    include_str!("migrations/0012.sql"),
    include_str!("migrations/0013.sql"),
    include_str!("migrations/0014.sql"),
];

const KEY_CHECK: &[u8] = b"hokku key check";

/// Reads ROOT's key, or makes one for a ROOT that has no database yet.
pub(super) fn key(root: &Path) -> Result<Seal, StoreError> {
    let (path, database) = (root.join(KEY_FILE), root.join(FILE));
    let io = |source| StoreError::Io { path: path.clone(), source };
    if let Some(key) = Key::read(&path)? {
        return Ok(key.sealer());
    }
    if database.exists() {
        return Err(StoreError::KeyMissing { key: path, database });
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(StoreError::Random)?;
    write_key(root, &path, &key).map_err(io)?;
    Ok(Seal::new(&key))
}

/// On disk, whole, before anything is sealed with it.
fn write_key(root: &Path, path: &Path, key: &[u8]) -> io::Result<()> {
    let half_made = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half_made)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&half_made, path)?;
    File::open(root)?.sync_all()
}

/// The connection that writes: makes the file when there is none, checks it, brings its schema up to date.
pub(super) fn writer(path: &Path, seal: &Seal) -> Result<Connection, StoreError> {
    private_file(path).map_err(|source| StoreError::Io { path: path.into(), source })?;
    let open = || -> Result<Connection, rusqlite::Error> {
        let connection = connect(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A release that was answered with "created" survives a power cut.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
        Ok(connection)
    };
    let mut connection = open().map_err(|error| StoreError::of(error, path.into()))?;
    check_health(&connection, path)?;
    // A database that was just made has nothing to go back to.
    if (1..known()).contains(&version(&connection, path)?) {
        copy::keep(&connection, path)?;
    }
    migrate(&mut connection, path, &MIGRATIONS)?;
    settle_in(&mut connection, path, seal)?;
    Ok(connection)
}

pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || -> Result<Connection, rusqlite::Error> {
        let connection = connect(path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| StoreError::of(error, path.into()))
}

pub(super) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // Else it plans a statement anew for each value that is bound, which takes longer than to carry it out.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// SQLite gives its journal and shared memory the mode of the database, so this one call settles all three.
pub(super) fn private_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

pub(super) fn check_health(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(|error| StoreError::of(error, path.into()))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged { path: path.into(), detail: verdict }) }
}

/// How many migrations this hokku knows.
pub(super) fn known() -> u32 {
    count(&MIGRATIONS)
}

fn count(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).expect("there are few migrations")
}

/// How many migrations the database has had.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    version_up_to(known(), connection, path)
}

fn version_up_to(known: u32, connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| StoreError::of(error, path.into()))?;
    if found > known {
        let kept = Some(copy::kept(path)).filter(|kept| kept.exists());
        return Err(StoreError::Newer { path: path.into(), found, known, kept });
    }
    Ok(found)
}

/// Applies what the database has not had yet, all or nothing.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let known = count(migrations);
    let found = version_up_to(known, connection, path)?;
    let run = |connection: &mut Connection| -> Result<(), rusqlite::Error> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in migrations.iter().skip(found as usize) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()
    };
    if found < known { run(connection).map_err(|error| StoreError::of(error, path.into())) } else { Ok(()) }
}

/// What every database has: an administrator, and the proof of its key.
fn settle_in(connection: &mut Connection, path: &Path, seal: &Seal) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tx = Tx { connection: &transaction, seal };
    let sealed: Option<Vec<u8>> = tx.one("SELECT sealed FROM key_check", (), |row| row.get(0))?;
    match sealed {
        None => {
            tx.execute("INSERT INTO key_check (sealed) VALUES (?1)", [seal.seal(KEY_CHECK, KEY_CHECK)?])?;
        }
        Some(sealed) => check_key(&sealed, seal, path)?,
    }
    accounts::ensure_admin(&tx)?;
    transaction.commit().map_err(|error| StoreError::of(error, path.into()))
}

/// Whether the database's proof of its key is one of this key.
pub(super) fn check_key(sealed: &[u8], seal: &Seal, path: &Path) -> Result<(), StoreError> {
    if seal.open(sealed, KEY_CHECK).as_deref() == Some(KEY_CHECK) {
        return Ok(());
    }
    Err(StoreError::KeyWrong { path: path.into() })
}
