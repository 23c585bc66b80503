//! Every line an app's dynos and the platform about it have written: kept, and handed to those who watch.
//!
//! ```text
//!  write ──▶ segment files (one write(2): survives a killed server) ──▶ ring of the newest lines ──▶ tails
//! ```
//!
//! Invariants: the order is that of arrival, the same for disk, ring and every tail. A writer never waits for a reader.
//! What is lost is counted, and the stream itself says how much: L11 in a tail and L10 in a drain that was too slow, L10
//! where the disk did not take lines. Each app has its own lock, held for a few lines of code and one `write(2)`.
//!
//! [`Outputs`] keeps what one build or release phase printed, as it printed it.
#![forbid(unsafe_code)]

mod journal;
mod output;
mod segment;
mod tail;

pub use output::{OutputReader, OutputWriter, Outputs};
pub use tail::Tail;

use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::log::{LogFilter, LogFrame};
use journal::Journal;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of an app's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Lines that [`Hub::recent`] can give (Heroku: 1500).
    pub ring_lines: usize,
    /// Bytes after which a new segment file is begun.
    pub segment_bytes: u64,
    /// Segment files; when there are more the oldest goes.
    pub segments: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self { ring_lines: 1500, segment_bytes: 1 << 20, segments: 8 }
    }
}

/// The logs of all apps. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limits: HubLimits,
    /// `None`: the app is gone, and a late line of a dying dyno must not bring its log back.
    apps: Mutex<HashMap<AppId, Option<Arc<Mutex<Journal>>>>>,
}

impl Hub {
    /// Logs kept below `dir`, one directory per app, each opened when it is first asked for.
    ///
    /// # Errors
    /// `dir` cannot be made.
    pub fn open(dir: PathBuf, limits: HubLimits) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self(Arc::new(Inner { dir, limits, apps: Mutex::new(HashMap::new()) })))
    }

    /// Adds one line. Where the disk does not take it, watchers still get it and the log says so later.
    pub fn write(&self, app: AppId, frame: LogFrame) {
        self.with(app, |journal| journal.write(frame));
    }

    /// Adds lines that belong together, all or none.
    ///
    /// # Errors
    /// They are not on the disk, and nobody has seen them; the writer still owns them.
    pub fn write_all(&self, app: AppId, frames: Vec<LogFrame>) -> io::Result<()> {
        self.with(app, |journal| journal.write_all(frames)).unwrap_or(Ok(()))
    }

    /// The newest lines that match, at most `lines`, oldest first.
    pub fn recent(&self, app: AppId, filter: &LogFilter, lines: usize) -> Vec<LogFrame> {
        let found = self.with(app, |journal| journal.recent(filter, lines)).unwrap_or_default();
        found.iter().map(|frame| LogFrame::clone(frame)).collect()
    }

    /// As [`Hub::recent`], and then every matching line as it comes, without gap or double.
    pub fn tail(&self, app: AppId, filter: LogFilter, lines: usize) -> Tail {
        self.with(app, |journal| journal.tail(filter, lines)).unwrap_or_else(Tail::ended)
    }

    /// What a drain reads: every line from now on. Where it was too slow it is told in Heroku's words for drains.
    pub fn drain(&self, app: AppId) -> Tail {
        self.with(app, Journal::drain).unwrap_or_else(Tail::ended)
    }

    /// The highest number among the stored lines of that launch: where its shim has to go on from.
    pub fn last_of(&self, app: AppId, dyno: DynoId) -> Option<u64> {
        self.with(app, |journal| journal.last_of(dyno)).flatten()
    }

    /// Ends all tails and deletes the log. Lines that come later go nowhere.
    ///
    /// # Errors
    /// Files that cannot be deleted; to be tried again.
    pub fn remove(&self, app: AppId) -> io::Result<()> {
        let open = self.apps().insert(app, None).flatten();
        if let Some(journal) = open {
            journal.lock().unwrap_or_else(PoisonError::into_inner).close();
        }
        match std::fs::remove_dir_all(self.dir(app)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// `None` if the app was removed.
    fn with<T>(&self, app: AppId, work: impl FnOnce(&mut Journal) -> T) -> Option<T> {
        let journal = {
            let mut apps = self.apps();
            let new = || Some(Arc::new(Mutex::new(Journal::new(self.dir(app), self.0.limits))));
            apps.entry(app).or_insert_with(new).clone()?
        };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut journal))
    }

    fn apps(&self) -> std::sync::MutexGuard<'_, HashMap<AppId, Option<Arc<Mutex<Journal>>>>> {
        // A panic elsewhere must not silence the log for ever; every update is complete on its own.
        self.0.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self, app: AppId) -> PathBuf {
        self.0.dir.join(app.to_string())
    }
}

#[cfg(test)]
mod tests;
