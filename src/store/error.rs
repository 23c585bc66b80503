//! What can go wrong with the database, each in one sentence that its owner can act on.
#![forbid(unsafe_code)]

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the database {} is damaged ({detail}): stop the server, move the file away and put a backup in its place",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error("the disk that holds the database {} is full: nothing was changed; make room and try again", path.display())]
    Full { path: PathBuf },
    #[error(
        "the database {} was written by a newer hokku (schema {found}, this one knows up to {known}): use that version{}",
        path.display(),
        way_back(kept.as_deref())
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
        /// The copy of before the upgrade, where there is one.
        kept: Option<PathBuf>,
    },
    #[error(
        "the key {} is missing, without it the config vars in {} can't be read: put it back from a backup",
        key.display(),
        database.display()
    )]
    KeyMissing { key: PathBuf, database: PathBuf },
    #[error("the key {} is damaged, it should have 32 bytes and has {length}: put it back from a backup", path.display())]
    KeyLength { path: PathBuf, length: usize },
    #[error("the key does not belong to the database {}: put back the one it was made with", path.display())]
    KeyWrong { path: PathBuf },
    #[error("can't use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the config vars of release {0} can't be unsealed with this key")]
    Sealed(crate::domain::release::ReleaseId),
    #[error("the config vars of add-on {0} can't be unsealed with this key")]
    SealedAddon(uuid::Uuid),
    #[error("the secret of OAuth client {0} can't be unsealed with this key")]
    SealedClient(uuid::Uuid),
    #[error("the URL of log drain {0} can't be unsealed with this key")]
    SealedDrain(uuid::Uuid),
    #[error("the private key of SNI endpoint {0} can't be unsealed with this key")]
    SealedEndpoint(uuid::Uuid),
    #[error("no random numbers from the kernel")]
    Random(#[source] getrandom::Error),
    #[error("the database refused")]
    Sqlite(#[source] rusqlite::Error),
    #[error("the database is closed")]
    Closed,
    /// A check of the guard does not hold any more.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// The same with the full path of the file, where it is known.
    pub(super) fn of(error: rusqlite::Error, path: PathBuf) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, detail: error.to_string() }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            // Of its journal and shared memory SQLite says only that they could not be made or written.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(&path) => Self::Full { path },
            _ => Self::Sqlite(error),
        }
    }
}

fn way_back(kept: Option<&Path>) -> String {
    kept.map(|kept| format!(", or put {} in its place, which is of before the upgrade", kept.display()))
        .unwrap_or_default()
}

/// Whether there is no room for a page of a file at `path`.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < 64 << 10)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::of(error, super::FILE.into())
    }
}
