//! One reader that watches a log as it grows.
#![forbid(unsafe_code)]

use crate::domain::log::{LogFilter, LogFrame, Source};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Lines that wait for a reader before it counts as too slow.
const QUEUE: usize = 2000;

/// A log from some line on. Dropping it ends the session.
#[derive(Debug)]
pub struct Tail(Arc<Queue>);

#[derive(Debug)]
pub(super) struct Queue {
    filter: LogFilter,
    kind: Kind,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Session,
    Drain,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Arc<LogFrame>>,
    /// Lines lost after `frames`, and the time of the first. While there are any nothing is queued behind them, so
    /// that the reader is told at exactly the place where they are missing.
    dropped: Option<(u64, Timestamp)>,
    closed: bool,
}

impl Tail {
    pub(super) fn new(filter: LogFilter, begin: Vec<Arc<LogFrame>>, kind: Kind) -> (Self, Arc<Queue>) {
        let waiting = Waiting { frames: begin.into(), ..Waiting::default() };
        let queue = Arc::new(Queue { filter, kind, waiting: Mutex::new(waiting), changed: Notify::new() });
        (Self(queue.clone()), queue)
    }

    /// Of a log that is gone.
    pub(super) fn ended() -> Self {
        let (tail, queue) = Self::new(LogFilter::default(), Vec::new(), Kind::Session);
        queue.close();
        tail
    }

    /// The next line; `None` when the log was removed. Cancel safe.
    pub async fn next(&mut self) -> Option<LogFrame> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some(frame) = waiting.frames.pop_front() {
                    return Some(Arc::unwrap_or_clone(frame));
                }
                if let Some((count, since)) = waiting.dropped.take() {
                    return Some(overflow(self.0.kind, count, since));
                }
                if waiting.closed {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Queue {
    /// Hands a line to the reader, or counts it. Never waits.
    pub(super) fn offer(&self, frame: &Arc<LogFrame>) {
        if !self.filter.matches(frame) {
            return;
        }
        let mut waiting = self.lock();
        match waiting.dropped {
            Some((count, since)) => waiting.dropped = Some((count + 1, since)),
            None if waiting.frames.len() >= QUEUE => waiting.dropped = Some((1, frame.at)),
            None => waiting.frames.push_back(frame.clone()),
        }
        drop(waiting);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overflow(kind: Kind, count: u64, since: Timestamp) -> LogFrame {
    let when = seconds(since);
    let line = match kind {
        Kind::Session => {
            format!("Error L11 (Tail buffer overflow) -> This tail session dropped {count} messages since {when}.")
        }
        Kind::Drain => format!("Error L10 (output buffer overflow): {count} messages dropped since {when}."),
    };
    LogFrame::platform(since, Source::Heroku, "logplex", line)
}

/// `2026-11-22T17:02:45+00:00`, as Heroku's logplex writes a time inside a line.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}
