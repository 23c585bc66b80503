//! What one build or release phase printed: a file that can be followed while it grows.
#![forbid(unsafe_code)]

use bytes::Bytes;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;
use uuid::Uuid;

/// Bytes kept of one output (Heroku's limit for a build).
const LIMIT: u64 = 300_000_000;

/// All outputs. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Outputs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Those being written. What is not here is finished, also after a restart of the server.
    live: Mutex<HashMap<Uuid, watch::Receiver<Progress>>>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    written: u64,
    finished: bool,
}

/// The writing end; the output is finished when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct OutputWriter(Arc<Writer>);

#[derive(Debug)]
struct Writer {
    id: Uuid,
    outputs: Outputs,
    limit: u64,
    state: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    progress: watch::Sender<Progress>,
    /// Bytes the disk did not take since the last that it did.
    lost: u64,
    full: bool,
}

/// The reading end, from the first byte on.
#[derive(Debug)]
pub struct OutputReader {
    path: PathBuf,
    file: Option<tokio::fs::File>,
    read: u64,
    live: Option<watch::Receiver<Progress>>,
}

impl Outputs {
    /// # Errors
    /// `dir` cannot be made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self(Arc::new(Inner { dir, live: Mutex::new(HashMap::new()) })))
    }

    /// Begins an output; one of the same id is replaced.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(&self, id: Uuid) -> io::Result<OutputWriter> {
        self.create_with_limit(id, LIMIT)
    }

    pub(super) fn create_with_limit(&self, id: Uuid, limit: u64) -> io::Result<OutputWriter> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = File::options().append(true).create_new(true).open(path)?;
        let (progress, watched) = watch::channel(Progress { written: 0, finished: false });
        self.live().insert(id, watched);
        let state = Mutex::new(Writing { file, progress, lost: 0, full: false });
        Ok(OutputWriter(Arc::new(Writer { id, outputs: self.clone(), limit, state })))
    }

    /// Adds a last word to an output whose writer is gone.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn append(&self, id: Uuid, text: &str) -> io::Result<()> {
        io::Write::write_all(&mut File::options().append(true).open(self.path(id))?, text.as_bytes())
    }

    /// `None` if there is no such output.
    pub fn follow(&self, id: Uuid) -> Option<OutputReader> {
        let live = self.live().get(&id).cloned();
        let path = self.path(id);
        (live.is_some() || path.is_file()).then(|| OutputReader { path, file: None, read: 0, live })
    }

    pub fn exists(&self, id: Uuid) -> bool {
        self.path(id).is_file()
    }

    /// Deletes an output, finished or not. Those who follow it still get what they have open.
    ///
    /// # Errors
    /// The file cannot be deleted.
    pub fn remove(&self, id: Uuid) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.0.dir.join(format!("{id}.log"))
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Receiver<Progress>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutputWriter {
    /// Adds bytes. What the disk does not take is counted and said in the output as soon as it takes something again;
    /// beyond the limit one line says that the rest is not kept.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.full || bytes.is_empty() {
            return;
        }
        let written = state.progress.borrow().written;
        let room = usize::try_from(self.0.limit.saturating_sub(written)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            state.append(bytes);
        } else {
            state.full = true;
            state.append(&bytes[..room]);
            let megabytes = self.0.limit / 1_000_000;
            state.append(format!("\n !     Output is over {megabytes} MB. The rest is not kept.\n").as_bytes());
        }
    }

    /// Says that this end writes no more. Only names what dropping does.
    pub fn finish(self) {
        drop(self);
    }
}

impl Writing {
    fn append(&mut self, bytes: &[u8]) {
        let note = match self.lost {
            0 => Vec::new(),
            lost => format!("\n !     {lost} bytes of output are missing here.\n").into_bytes(),
        };
        let text = [&note, bytes].concat();
        let before = self.progress.borrow().written;
        if self.file.write_all(&text).is_ok() {
            self.lost = 0;
            self.progress.send_modify(|progress| progress.written = before + text.len() as u64);
        } else {
            self.lost += bytes.len() as u64;
            // Part of it may be there; should even this fail, readers still stop at what was announced.
            let _ = self.file.set_len(before);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut live = self.outputs.live();
        // A newer output of the same id has an entry of its own.
        if live.get(&self.id).is_some_and(|entry| entry.same_channel(&state.progress.subscribe())) {
            live.remove(&self.id);
        }
        state.progress.send_modify(|progress| progress.finished = true);
    }
}

impl OutputReader {
    /// The next bytes as soon as there are some; `None` once the output is finished and read, or can be read no further.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.file.is_none() {
            self.file = tokio::fs::File::open(&self.path).await.ok();
        }
        let file = self.file.as_mut()?;
        loop {
            let progress = self.live.as_mut().map(|live| *live.borrow_and_update());
            // Never beyond what was announced: the rest may be taken back.
            let room = progress.map_or(u64::MAX, |progress| progress.written - self.read).min(64 << 10);
            if room > 0 {
                let mut chunk = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
                file.seek(io::SeekFrom::Start(self.read)).await.ok()?;
                let count = file.take(room).read_to_end(&mut chunk).await.ok()?;
                self.read += count as u64;
                return (count > 0).then(|| chunk.into());
            }
            if progress.is_none_or(|progress| progress.finished) {
                return None;
            }
            // The writer ends by announcing it, so an error can only mean that it has.
            self.live.as_mut()?.changed().await.ok();
        }
    }
}
