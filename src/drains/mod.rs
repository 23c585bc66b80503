//! Drains at work: each sends its app's log on, by a task of its own.
//!
//! ```text
//!  log hub ─▶ queue of the drain ─▶ batch ─▶ connection ─▶ receiver
//!                  └─ full: counted, and told by an L10 line at the place where lines are missing
//! ```
//!
//! A batch is sent again until it is taken, so that a receiver that was away loses nothing that the queue could hold; one
//! that takes a batch and dies before it says so gets it twice. Nobody else waits for a drain.
#![forbid(unsafe_code)]

mod deliver;
mod reach;

pub use reach::Reach;

use crate::domain::app::AppId;
use crate::domain::drain::{Drain, syslog};
use crate::domain::log::{LogFrame, Source};
use crate::logs::{Hub, Tail};
use deliver::{DeliverError, Receiver};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// Lines in one batch, at most.
const BATCH: usize = 100;

/// How long a batch waits to become full.
const GATHER: Duration = Duration::from_millis(200);

/// The longest wait between two tries.
const CAP: Duration = Duration::from_secs(60);

/// All drains of the instance. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Drains(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hub: Hub,
    reach: Reach,
    running: Mutex<HashMap<Uuid, (AppId, AbortHandle)>>,
}

impl Drains {
    /// Where the server connects to for others.
    pub fn reach(&self) -> &Reach {
        &self.0.reach
    }

    pub fn new(hub: Hub, reach: Reach) -> Self {
        Self(Arc::new(Inner { hub, reach, running: Mutex::default() }))
    }

    /// From now on the drain gets what its app's log gets, until it is stopped or the app is gone.
    pub fn start(&self, drain: Drain) {
        let tail = self.0.hub.drain(drain.app);
        let (id, app, hub, reach) = (drain.id, drain.app, self.0.hub.clone(), self.0.reach.clone());
        let task = tokio::spawn(run(drain, tail, hub, reach)).abort_handle();
        self.running().insert(id, (app, task));
    }

    pub fn stop(&self, id: Uuid) {
        if let Some((_, task)) = self.running().remove(&id) {
            task.abort();
        }
    }

    /// All drains of an app.
    pub fn stop_all(&self, app: AppId) {
        self.running().retain(|_, (of, task)| {
            if *of == app {
                task.abort();
            }
            *of != app
        });
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, (AppId, AbortHandle)>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(drain: Drain, mut tail: Tail, hub: Hub, reach: Reach) {
    let mut receiver = Receiver::new(&drain, reach);
    let mut failures = 0;
    while let Some(batch) = gather(&mut tail).await {
        let host = receiver.host().to_owned();
        let lines: Vec<String> = batch.iter().map(|frame| syslog(frame, &host)).collect();
        let id = Uuid::new_v4();
        while let Err(error) = receiver.send(&lines, id).await {
            failures += 1;
            if failures == 1 {
                hub.write(drain.app, trouble(&drain, &error));
            }
            tokio::time::sleep(wait(failures)).await;
        }
        failures = 0;
    }
}

/// The next lines; `None` when the log is gone.
async fn gather(tail: &mut Tail) -> Option<Vec<LogFrame>> {
    let mut batch = vec![tail.next().await?];
    let end = tokio::time::Instant::now() + GATHER;
    while batch.len() < BATCH {
        let next = match tail.next().now_or_never() {
            Some(next) => next,
            None => match tokio::time::timeout_at(end, tail.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        // At the end of the log the rest is sent all the same.
        let Some(frame) = next else { break };
        batch.push(frame);
    }
    Some(batch)
}

/// After so many failures in a row: a quarter of a second, doubling.
fn wait(failures: u32) -> Duration {
    Duration::from_millis(250 << (failures - 1).min(10)).min(CAP)
}

/// What the app's log says, once for each time that a drain begins to fail.
fn trouble(drain: &Drain, error: &DeliverError) -> LogFrame {
    let code = match error {
        DeliverError::Certificate(_) => "L14 (Certificate validation error)",
        _ => "L13 (Local delivery error)",
    };
    let line = format!("Error {code} -> drain {} to {}: {error}; it is tried again", drain.token, drain.url.host);
    LogFrame::platform(Timestamp::now(), Source::Heroku, "logplex", line)
}

#[cfg(test)]
mod tests;
