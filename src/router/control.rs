//! The router's side of `router.sock`: tables in; acknowledgements, drained dynos and access lines out.
#![forbid(unsafe_code)]

use super::access::Access;
use super::protocol::{FromRouter, FromServer, PROTOCOL};
use super::table::Registry;
use super::tls;
use super::worker::{Install, Order};
use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::route::RouteTable;
use crate::sys::inherit;
use jiff::Timestamp;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_rustls::rustls::ServerConfig;

/// How often the counts of dynos that somebody waits for are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long the last words of a server that is gone, or is being replaced, are waited for.
const FAREWELL: Duration = Duration::from_millis(200);
/// Bytes of one write.
const BATCH: usize = 64 << 10;

/// What the control task keeps: the one owner of the registry, the tables and the unsent lines.
#[derive(Debug)]
pub(super) struct Control {
    registry: RefCell<Registry>,
    /// The server's last.
    table: RefCell<RouteTable>,
    workers: Vec<mpsc::UnboundedSender<Order>>,
    /// How workers take connections of TLS.
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    outbox: RefCell<Outbox>,
    /// There is something to send.
    filled: Notify,
    /// Copies of all listening sockets, to be handed to servers.
    sockets: Vec<OwnedFd>,
    /// To end within, and how long idle connections are kept.
    retirement: watch::Sender<Option<(Duration, Duration)>>,
}

impl Control {
    pub(super) fn new(workers: Workers, sockets: Vec<OwnedFd>, unsent: usize) -> Rc<Self> {
        let Workers { orders: workers, tls } = workers;
        let outbox = RefCell::new(Outbox::new(unsent, workers.len()));
        Rc::new(Self {
            registry: RefCell::default(),
            table: RefCell::default(),
            workers,
            tls,
            outbox,
            filled: Notify::new(),
            sockets,
            retirement: watch::Sender::new(None),
        })
    }

    /// Has all workers work by `table`; returns once they do.
    pub(super) async fn install(&self, table: &RouteTable) {
        let ended = self.registry.borrow_mut().holds(table);
        let routes = Arc::new(self.registry.borrow_mut().routes(table));
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (installed, answer) = oneshot::channel();
            // A worker that is gone takes the process with it.
            let _ = worker.send(Order::Install(Install { routes: Arc::clone(&routes), installed }));
            answers.push(answer);
        }
        for answer in answers {
            let _ = answer.await;
        }
        for hold in ended {
            self.outbox.borrow_mut().push(Access { app: hold.app, at: Timestamp::now(), line: hold.line() });
            self.filled.notify_one();
        }
    }

    /// Resolves once a successor has taken over and all is done that this router was asked: no client is connected any
    /// more, and a server has all access lines. Some may be cut off when that takes too long.
    pub(super) async fn retired(&self) {
        let mut asked = self.retirement.subscribe();
        let Ok(Some((within, idle))) = asked.wait_for(Option::is_some).await.map(|asked| *asked) else {
            return std::future::pending().await;
        };
        let finished = async {
            let mut left = Vec::new();
            for worker in &self.workers {
                let (done, told) = oneshot::channel();
                // A worker that is gone has none left.
                let _ = worker.send(Order::Retire { idle, done });
                left.push(told);
            }
            for told in left {
                let _ = told.await;
            }
            // The last lines are on their way from the workers.
            tokio::time::sleep(LOOK).await;
            while !self.outbox.borrow().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("ends with connections still open: their time is over");
        }
    }

    /// Keeps lines until a server has them.
    pub(super) async fn collect(&self, mut lines: mpsc::UnboundedReceiver<Vec<Access>>) {
        while let Some(batch) = lines.recv().await {
            let mut outbox = self.outbox.borrow_mut();
            for line in batch {
                outbox.push(line);
            }
            drop(outbox);
            self.filled.notify_one();
        }
    }

    /// Serves one server after the other; a new one takes the place of the one before.
    pub(super) async fn listen(self: Rc<Self>, listener: UnixListener, first: Option<UnixStream>) {
        let serve = |stream| tokio::task::spawn_local(Rc::clone(&self).serve(stream));
        let mut current = first.map(serve);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(mut before) = current.take()
                        && tokio::time::timeout(FAREWELL, &mut before).await.is_err()
                    {
                        before.abort();
                    }
                    current = Some(serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a server");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(self: Rc<Self>, stream: UnixStream) {
        if let Err(error) = self.greet(&stream).await {
            tracing::warn!(%error, "a server went away at once");
            return;
        }
        self.outbox.borrow_mut().begin();
        self.filled.notify_one();
        let (reader, writer) = stream.into_split();
        let watched = Watched::default();
        let mut reading = pin!(self.read(reader, &watched));
        tokio::select! {
            _ = &mut reading => {}
            () = self.watch(&watched) => {}
            // The server is gone; what it said before is still to be heard, or its successor gets lines twice.
            _ = self.write(writer) => {
                let _ = tokio::time::timeout(FAREWELL, reading).await;
            }
        }
    }

    async fn greet(&self, stream: &UnixStream) -> io::Result<()> {
        let fds: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        stream.async_io(Interest::WRITABLE, || inherit::send_fds(stream, &fds)).await
    }

    async fn read(&self, reader: OwnedReadHalf, watched: &Watched) -> io::Result<()> {
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            match FromServer::parse(&line) {
                Some(FromServer::Table(table)) => self.work_by(*table).await,
                Some(FromServer::Change(change)) => {
                    let mut table = self.table.take();
                    table.apply(*change);
                    self.work_by(table).await;
                }
                Some(FromServer::Certificates(certificates)) => match tls::config(&certificates) {
                    Ok(config) => drop(self.tls.send_replace(Some(config))),
                    Err(error) => tracing::error!("{error}; those from before stay"),
                },
                Some(FromServer::Watch(dyno)) => {
                    watched.dynos.borrow_mut().push(dyno);
                    watched.added.notify_one();
                }
                Some(FromServer::Seen { number }) => {
                    self.outbox.borrow_mut().seen(number);
                    self.filled.notify_one();
                }
                Some(FromServer::Retire { within, idle }) => {
                    let asked = (Duration::from_secs(within), Duration::from_secs(idle));
                    self.retirement.send_if_modified(|retirement| {
                        let first = retirement.is_none();
                        retirement.get_or_insert(asked);
                        first
                    });
                }
                // What follows may be a secret.
                None => tracing::warn!(begin = line.get(..1), "the server said something unknown"),
            }
        }
        Ok(())
    }

    async fn work_by(&self, table: RouteTable) {
        self.install(&table).await;
        self.reply(&FromRouter::Installed { version: table.version });
        self.table.replace(table);
    }

    fn reply(&self, message: &FromRouter) {
        self.outbox.borrow_mut().replies.push(message.encode());
        self.filled.notify_one();
    }

    async fn write(&self, mut writer: OwnedWriteHalf) -> io::Result<()> {
        loop {
            let batch = self.outbox.borrow_mut().batch();
            if batch.is_empty() {
                self.filled.notified().await;
            } else {
                writer.write_all(batch.as_bytes()).await?;
            }
        }
    }

    /// Says of each watched dyno, once, that it has nothing to do any more.
    async fn watch(&self, watched: &Watched) {
        loop {
            if watched.dynos.borrow().is_empty() {
                watched.added.notified().await;
            }
            let idle = |dyno: &mut DynoId| self.registry.borrow().open(*dyno) == 0;
            let drained: Vec<DynoId> = watched.dynos.borrow_mut().extract_if(.., idle).collect();
            for dyno in drained {
                self.reply(&FromRouter::Drained { dyno });
            }
            // Looking now and then is cheaper than a message for each request's end.
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The ends of the workers that are the control task's.
#[derive(Debug)]
pub(super) struct Workers {
    /// One for each socket of plain HTTP.
    pub(super) orders: Vec<mpsc::UnboundedSender<Order>>,
    pub(super) tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

/// Dynos that the server waits for.
#[derive(Debug, Default)]
struct Watched {
    dynos: RefCell<Vec<DynoId>>,
    added: Notify,
}

/// A line, and how many it stands for: one, or those that were dropped.
#[derive(Debug)]
struct Entry {
    access: Access,
    count: u64,
}

/// Access lines until a server has kept them, within bounds; drops are counted and said.
#[derive(Debug)]
struct Outbox {
    limit: usize,
    /// Sockets of plain HTTP, for the greeting.
    plain: usize,
    lines: VecDeque<Entry>,
    bytes: usize,
    /// The number of the first of `lines`.
    first: u64,
    /// How many of `lines` this server has been sent.
    sent: usize,
    replies: Vec<String>,
    dropped: BTreeMap<AppId, (u64, Timestamp)>,
}

impl Outbox {
    fn new(limit: usize, plain: usize) -> Self {
        let (lines, dropped) = (VecDeque::new(), BTreeMap::new());
        Self { limit, plain, lines, bytes: 0, first: 0, sent: 0, replies: Vec::new(), dropped }
    }

    fn push(&mut self, access: Access) {
        self.keep(Entry { access, count: 1 });
        while self.bytes > self.limit
            && let Some(lost) = self.pop()
        {
            self.dropped.entry(lost.access.app).or_insert((0, lost.access.at)).0 += lost.count;
        }
    }

    fn keep(&mut self, entry: Entry) {
        self.bytes += weight(&entry);
        self.lines.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.lines.pop_front()?;
        self.bytes -= weight(&entry);
        self.first += 1;
        self.sent = self.sent.saturating_sub(1);
        Some(entry)
    }

    /// A new server: it gets everything that no server has kept.
    fn begin(&mut self) {
        self.sent = 0;
        self.replies = vec![FromRouter::Hello { protocol: PROTOCOL, plain: Some(self.plain) }.encode()];
        self.confess();
    }

    fn seen(&mut self, number: u64) {
        while self.first <= number && self.sent > 0 {
            self.pop();
        }
        self.confess();
    }

    /// A server has kept everything.
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped.is_empty()
    }

    /// A line for each app that lost some; it drops no other.
    fn confess(&mut self) {
        for (app, (count, since)) in std::mem::take(&mut self.dropped) {
            let line = format!("at=warning desc=\"Access lines dropped\" count={count} since={since:.3}");
            self.keep(Entry { access: Access { app, at: Timestamp::now(), line }, count });
        }
    }

    /// What to write next; empty if there is nothing.
    fn batch(&mut self) -> String {
        let mut batch = self.replies.drain(..).collect::<String>();
        while batch.len() < BATCH
            && let Some(entry) = self.lines.get(self.sent)
        {
            let number = self.first + self.sent as u64;
            batch.push_str(&FromRouter::Access { number, access: entry.access.clone() }.encode());
            self.sent += 1;
        }
        batch
    }
}

fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.access.line.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn access(line: &str) -> Access {
        Access { app: AppId(Uuid::from_u128(1)), at: Timestamp::UNIX_EPOCH, line: line.into() }
    }

    fn sent(outbox: &mut Outbox) -> Vec<String> {
        let batch = outbox.batch();
        let lines = batch.lines().filter_map(|line| match FromRouter::parse(line)? {
            FromRouter::Access { number, access } => Some(format!("{number} {}", access.line)),
            _ => None,
        });
        lines.collect()
    }

    #[test]
    fn a_new_server_gets_what_no_server_has_kept() {
        let mut outbox = Outbox::new(10_000, 1);
        for line in ["a", "b", "c"] {
            outbox.push(access(line));
        }
        outbox.begin();
        assert_eq!(sent(&mut outbox), ["0 a", "1 b", "2 c"]);
        outbox.seen(1);
        outbox.push(access("d"));
        assert_eq!(sent(&mut outbox), ["3 d"]);
        outbox.begin();
        assert_eq!(sent(&mut outbox), ["2 c", "3 d"]);
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_said() {
        let mut outbox = Outbox::new(3 * weight(&Entry { access: access("0"), count: 1 }), 1);
        for n in 0..9 {
            outbox.push(access(&n.to_string()));
        }
        let (mut kept, mut said) = (0, 0);
        for _ in 0..4 {
            outbox.begin();
            for line in sent(&mut outbox) {
                match line.split_once("dropped\" count=") {
                    Some((_, rest)) => said += rest.split(' ').next().unwrap().parse::<u64>().unwrap(),
                    None => kept += 1,
                }
            }
            outbox.seen(u64::MAX);
        }
        assert_eq!((kept, said), (3, 6));
    }
}
