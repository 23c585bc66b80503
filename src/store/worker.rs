//! Threads that own the connections; SQLite blocks, so it stays off the async threads.
#![forbid(unsafe_code)]

use super::StoreError;
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads with one connection each that take jobs from one queue.
#[derive(Debug)]
pub(super) struct Workers {
    /// `None` only while this is dropped.
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(name: &str, connections: Vec<Connection>) -> Result<Self, StoreError> {
        let (queue, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = connections
            .into_iter()
            .map(|connection| {
                let jobs = Arc::clone(&jobs);
                thread::Builder::new().name(name.to_owned()).stack_size(1 << 20).spawn(move || work(connection, &jobs))
            })
            .collect::<Result<_, _>>()
            .map_err(|source| StoreError::Io { path: name.into(), source })?;
        Ok(Self { queue: Some(queue), threads })
    }

    /// `None` when the threads are gone.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        // A caller that no longer waits does not undo what was decided.
        let job: Job = Box::new(move |connection| drop(answer.send(job(connection))));
        self.queue.as_ref()?.send(job).ok()?;
        answered.await.ok()
    }
}

fn work(mut connection: Connection, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job(&mut connection);
    }
}

impl Drop for Workers {
    /// Waits until queued work is done and the files are closed, so that one can open them again at once.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != thread::current().id() {
                // A worker that panicked has told so already; there is nothing left to close.
                let _ = thread.join();
            }
        }
    }
}
