//! Placeholder with the contract's signatures, in memory only; replaced when the real module is merged.
#![forbid(unsafe_code)]

use crate::domain::app::AppId;
use crate::domain::log::{LogFilter, LogFrame};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

#[derive(Clone, Debug, Default)]
pub struct HubLimits;

#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lines: Mutex<HashMap<AppId, Vec<LogFrame>>>,
    changed: watch::Sender<u64>,
}

impl Hub {
    pub fn open(_: PathBuf, _: HubLimits) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner { lines: Mutex::default(), changed: watch::Sender::new(0) })))
    }

    pub fn write(&self, app: AppId, frame: LogFrame) {
        self.0.lines.lock().unwrap().entry(app).or_default().push(frame);
        self.0.changed.send_modify(|n| *n += 1);
    }

    pub fn recent(&self, app: AppId, filter: &LogFilter, lines: usize) -> Vec<LogFrame> {
        let all = self.0.lines.lock().unwrap();
        let rows: Vec<_> = all.get(&app).into_iter().flatten().filter(|f| filter.matches(f)).cloned().collect();
        rows[rows.len().saturating_sub(lines)..].to_vec()
    }

    pub fn tail(&self, app: AppId, filter: LogFilter, lines: usize) -> Tail {
        let changed = self.0.changed.subscribe();
        let all = self.recent(app, &filter, usize::MAX).len();
        Tail { hub: self.clone(), app, filter, next: all.saturating_sub(lines), changed }
    }

    pub fn remove(&self, app: AppId) -> io::Result<()> {
        self.0.lines.lock().unwrap().remove(&app);
        Ok(())
    }
}

#[derive(Debug)]
pub struct Tail {
    hub: Hub,
    app: AppId,
    filter: LogFilter,
    next: usize,
    changed: watch::Receiver<u64>,
}

impl Tail {
    pub async fn next(&mut self) -> Option<LogFrame> {
        loop {
            if let Some(frame) = self.hub.recent(self.app, &self.filter, usize::MAX).get(self.next) {
                self.next += 1;
                return Some(frame.clone());
            }
            self.changed.changed().await.ok()?;
        }
    }
}

#[derive(Clone, Debug)]
pub struct Outputs(Arc<Mutex<HashMap<Uuid, watch::Receiver<(Vec<u8>, bool)>>>>);

impl Outputs {
    pub fn open(_: PathBuf) -> io::Result<Self> {
        Ok(Self(Arc::default()))
    }

    pub fn create(&self, id: Uuid) -> io::Result<OutputWriter> {
        let (sender, receiver) = watch::channel((Vec::new(), false));
        self.0.lock().unwrap().insert(id, receiver);
        Ok(OutputWriter(Arc::new(sender)))
    }

    pub fn follow(&self, id: Uuid) -> Option<OutputReader> {
        Some(OutputReader { at: 0, receiver: self.0.lock().unwrap().get(&id)?.clone() })
    }

    pub fn exists(&self, id: Uuid) -> bool {
        self.0.lock().unwrap().contains_key(&id)
    }

    pub fn remove(&self, id: Uuid) -> io::Result<()> {
        self.0.lock().unwrap().remove(&id);
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct OutputWriter(Arc<watch::Sender<(Vec<u8>, bool)>>);

impl OutputWriter {
    pub fn write(&self, bytes: &[u8]) {
        self.0.send_modify(|(all, _)| all.extend_from_slice(bytes));
    }

    pub fn finish(self) {
        self.0.send_modify(|(_, done)| *done = true);
    }
}

#[derive(Debug)]
pub struct OutputReader {
    at: usize,
    receiver: watch::Receiver<(Vec<u8>, bool)>,
}

impl OutputReader {
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            {
                let (all, done) = &*self.receiver.borrow_and_update();
                if all.len() > self.at {
                    let bytes = Bytes::copy_from_slice(&all[self.at..]);
                    self.at = all.len();
                    return Some(bytes);
                }
                if *done {
                    return None;
                }
            }
            self.receiver.changed().await.ok()?;
        }
    }
}
