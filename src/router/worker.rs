//! One thread of the router: its runtime, its table, its connections.
#![forbid(unsafe_code)]

use super::access::{Access, Journal};
use super::pool::Pool;
use super::settings::Settings;
use super::socket::Socket;
use super::table::Routes;
use super::tls;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A new table for a worker; `installed` is answered once it works by it.
#[derive(Debug)]
pub(super) struct Install {
    pub(super) routes: Arc<Routes>,
    pub(super) installed: oneshot::Sender<()>,
}

/// What the control task asks of a worker.
#[derive(Debug)]
pub(super) enum Order {
    Install(Install),
    /// Accept nobody more; after `idle`, connections without a request are closed. `done` is answered once none is left.
    Retire {
        idle: Duration,
        done: oneshot::Sender<()>,
    },
}

/// What a worker is made of; moved to its thread.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<(TcpListener, tls::Current)>,
    pub(super) settings: Settings,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) lines: mpsc::UnboundedSender<Vec<Access>>,
}

/// What all requests of one thread share; never seen by another thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) settings: Settings,
    pub(super) routes: RefCell<Arc<Routes>>,
    /// Told whenever `routes` is a new one.
    pub(super) changed: Notify,
    pub(super) pool: RefCell<Pool>,
    pub(super) journal: Rc<Journal>,
    /// Nobody is accepted any more, and answers say that they are a connection's last.
    pub(super) retired: CancellationToken,
    /// Connections without a request are closed.
    closing: CancellationToken,
    /// A clone for each connection of a client's.
    open: Rc<()>,
    dice: Cell<u64>,
}

/// A connection of a client's, counted until dropped.
#[derive(Debug)]
pub(super) struct Open(#[expect(dead_code, reason = "it counts")] Rc<()>);

/// What is known of a client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: HeaderValue,
    pub(super) port: HeaderValue,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    _open: Open,
}

impl Client {
    pub(super) fn new(open: Open, peer: SocketAddr, local: SocketAddr, tls: bool) -> Self {
        let text = |text: String| HeaderValue::from_str(&text).expect("an address is printable");
        let scheme = if tls { "https" } else { "http" };
        Self {
            peer: text(peer.ip().to_canonical().to_string()),
            port: text(local.port().to_string()),
            scheme,
            _open: open,
        }
    }
}

/// Often enough for an application that waits for its idle connections to go.
const SWEEP: Duration = Duration::from_secs(5);

/// Runs a worker on this thread until the control task is gone.
///
/// # Errors
/// The runtime or a listener could not be set up.
pub(super) fn run(parts: Parts) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker {
            settings: parts.settings,
            routes: RefCell::default(),
            changed: Notify::new(),
            pool: RefCell::default(),
            journal: Rc::new(Journal::new(parts.lines)),
            retired: CancellationToken::new(),
            closing: CancellationToken::new(),
            open: Rc::new(()),
            dice: Cell::new(seed()?),
        });
        let mut orders = parts.orders;
        // Before the first table every host would be unknown.
        match orders.recv().await {
            Some(Order::Install(first)) => worker.install(first),
            Some(Order::Retire { done, .. }) => {
                // The control task may have ended.
                let _ = done.send(());
                return Ok(());
            }
            None => return Ok(()),
        }
        tokio::task::spawn_local(accept(Rc::clone(&worker), listening(parts.listener)?));
        if let Some((listener, current)) = parts.tls {
            tokio::task::spawn_local(tls::accept(Rc::clone(&worker), listening(listener)?, current));
        }
        let journal = Rc::clone(&worker.journal);
        tokio::task::spawn_local(async move { journal.run().await });
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Install(install)) => worker.install(install),
                    Some(Order::Retire { idle, done }) => {
                        worker.retired.cancel();
                        tokio::task::spawn_local(Rc::clone(&worker).retire(idle, done));
                    }
                    None => return Ok(()),
                },
                _ = sweep.tick() => worker.pool.borrow_mut().sweep(worker.settings.upstream_idle),
            }
        }
    })
}

fn listening(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn seed() -> io::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(seed))
}

impl Worker {
    fn install(&self, install: Install) {
        self.routes.replace(install.routes);
        self.pool.borrow_mut().sweep(self.settings.upstream_idle);
        self.changed.notify_waiters();
        // The control task may have stopped waiting; the table is in force all the same.
        let _ = install.installed.send(());
    }

    /// Waits until no client is connected any more.
    async fn retire(self: Rc<Self>, idle: Duration, done: oneshot::Sender<()>) {
        let none_left = async {
            while Rc::strong_count(&self.open) > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::pin!(none_left);
        tokio::select! {
            () = &mut none_left => {}
            () = tokio::time::sleep(idle) => {
                self.closing.cancel();
                none_left.await;
            }
        }
        self.journal.flush();
        // The control task may have ended.
        let _ = done.send(());
    }

    pub(super) fn open(&self) -> Open {
        Open(Rc::clone(&self.open))
    }

    /// A random number, good enough for picking dynos and telling requests apart (splitmix64).
    pub(super) fn random(&self) -> u64 {
        let state = self.dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.dice.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

async fn accept(worker: Rc<Worker>, listener: tokio::net::TcpListener) {
    while let Some((stream, peer)) = next(&worker, &listener).await {
        let Ok(local) = stream.local_addr() else { continue };
        let stream = Socket::new(stream, worker.settings.idle);
        let client = Client::new(worker.open(), peer, local, false);
        tokio::task::spawn_local(serve(Rc::clone(&worker), stream, client));
    }
}

/// The next client; `None` once this router is to take no more. Who waits in the socket's queue is its successor's.
pub(super) async fn next(worker: &Worker, listener: &tokio::net::TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.retired.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                // Out of files, mostly: those who wait in the queue are served once others have gone.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

pub(super) async fn serve<S>(worker: Rc<Worker>, stream: S, client: Client)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = Rc::new(client);
    let settings = &worker.settings;
    let io = TokioIo::new(stream);
    let service = service_fn(|request| {
        let answer = super::forward::answer(Rc::clone(&worker), Rc::clone(&client), request);
        async {
            let mut response = answer.await?;
            if worker.retired.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, super::forward::Cut>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.keep_alive)
        .max_header_size(settings.head)
        .max_buf_size(settings.head.max(128 << 10))
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // What ends a connection with an error is the client's doing, or has its own access line.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = worker.closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The router's clock: milliseconds since its first use.
pub(super) fn millis() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
