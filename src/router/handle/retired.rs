//! Routers that have a successor: they finish what they have and end by themselves.
#![forbid(unsafe_code)]

use super::{Found, PATIENCE, Paths, Process, RouterError, ended};
use crate::domain::dyno::DynoId;
use crate::router::access::Access;
use crate::router::protocol::{FromRouter, FromServer, PROTOCOL};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Longer than the router keeps idle connections of clients: each ends with an answer, or by its own time.
const IDLE: Duration = Duration::from_secs(60);

/// The same for a router that does not understand the tables to come: the one it has may be wrong soon.
const IDLE_OF_OTHERS: Duration = Duration::from_secs(1);

/// What the driver has to say to one of them.
#[derive(Debug)]
pub(super) enum Word {
    /// A table or a change, as it is sent to all.
    Routes(String),
    Watch(DynoId, oneshot::Sender<()>),
}

/// The handle of the driver. Dropping it leaves the router to the next server.
#[derive(Debug)]
pub(super) struct Retired {
    words: mpsc::UnboundedSender<Word>,
}

impl Retired {
    /// Has a router end once it has finished what it has. Its control socket has to have its own name by now, so that
    /// the next server finds it.
    pub(super) fn begin(paths: &Paths, before: Found, within: Duration, access: mpsc::UnboundedSender<Access>) -> Self {
        let (words, said) = mpsc::unbounded_channel();
        let Found { process, protocol, .. } = before;
        let path = paths.retired(process.pid);
        let tables = protocol == PROTOCOL;
        let task = Task { process, path, tables, access, watched: HashMap::new() };
        tokio::spawn(task.run(said, within));
        Self { words }
    }

    /// `false` when it has ended.
    pub(super) fn say(&self, word: Word) -> bool {
        self.words.send(word).is_ok()
    }

    /// Those that earlier servers have left, and one that was to be a successor but was not told so in time: it may serve
    /// already. `main` is the process that is none of them.
    pub(super) async fn find(paths: &Paths, main: i32) -> Result<Vec<Found>, RouterError> {
        if let Ok(stream) = UnixStream::connect(paths.next()).await {
            let half_born = Process::at(stream, paths).map_err(RouterError::Greeting)?;
            let path = paths.retired(half_born.pid);
            std::fs::rename(paths.next(), &path).map_err(|source| RouterError::Socket { path, source })?;
        }
        let mut found = Vec::new();
        for (pid, path) in paths.all_retired() {
            if pid == main {
                // It has not been told yet.
                remove(&path);
                continue;
            }
            let Ok(stream) = UnixStream::connect(&path).await else {
                remove(&path);
                continue;
            };
            let mut process = Process::at(stream, paths).map_err(RouterError::Greeting)?;
            if let Ok(Ok((sockets, protocol))) = timeout(PATIENCE, process.greeting()).await {
                found.push(Found { process, sockets: Some(sockets), protocol });
            } else {
                tracing::warn!(pid = process.pid, "a router that was replaced does not answer and is ended");
                process.end().await.map_err(RouterError::Stop)?;
                remove(&path);
            }
        }
        Ok(found)
    }
}

fn remove(path: &std::path::Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove {}", path.display());
    }
}

struct Task {
    process: Process,
    path: PathBuf,
    /// It understands what tables are sent.
    tables: bool,
    access: mpsc::UnboundedSender<Access>,
    watched: HashMap<DynoId, Vec<oneshot::Sender<()>>>,
}

impl Task {
    async fn run(mut self, mut said: mpsc::UnboundedReceiver<Word>, within: Duration) {
        let pid = self.process.pid;
        let idle = if self.tables { IDLE } else { IDLE_OF_OTHERS };
        let retire = FromServer::Retire { within: within.as_secs(), idle: idle.as_secs() };
        tracing::info!(pid, "the router from before takes no more connections and ends with those it has");
        let error = match self.send(&retire.encode()).await {
            Ok(()) => match self.serve(&mut said).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Whoever waits for its requests waits no more.
        self.watched.clear();
        drop(said);
        let begun = Instant::now();
        while !ended(&self.process.pidfd).unwrap_or(true) {
            if begun.elapsed() > PATIENCE {
                tracing::error!(pid, %error, "the router from before goes on without a server until its time is over");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tracing::info!(pid, "the router from before has ended");
        remove(&self.path);
    }

    /// `Ok` once the driver is gone; otherwise the connection to the router is.
    async fn serve(&mut self, said: &mut mpsc::UnboundedReceiver<Word>) -> io::Result<()> {
        loop {
            let mut seen = None;
            for line in String::from_utf8_lossy(&self.process.lines()).lines() {
                seen = self.hear(line).or(seen);
            }
            if let Some(number) = seen {
                self.send(&FromServer::Seen { number }.encode()).await?;
            }
            tokio::select! {
                biased;
                word = said.recv() => match word {
                    Some(Word::Routes(message)) if self.tables => self.send(&message).await?,
                    Some(Word::Routes(_)) => {}
                    Some(Word::Watch(dyno, done)) => {
                        self.watched.entry(dyno).or_default().push(done);
                        self.send(&FromServer::Watch(dyno).encode()).await?;
                    }
                    None => return Ok(()),
                },
                filled = self.process.fill() => filled?,
            }
        }
    }

    /// Returns the number of an access line that has been passed on.
    fn hear(&mut self, line: &str) -> Option<u64> {
        match FromRouter::parse(line) {
            Some(FromRouter::Access { number, access }) => {
                // Nobody listens: then nobody wants them.
                let _ = self.access.send(access);
                return Some(number);
            }
            Some(FromRouter::Drained { dyno }) => {
                for done in self.watched.remove(&dyno).unwrap_or_default() {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
            }
            _ => {}
        }
        None
    }

    async fn send(&mut self, message: &str) -> io::Result<()> {
        self.process.stream.write_all(message.as_bytes()).await
    }
}
