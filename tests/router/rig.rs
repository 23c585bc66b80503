//! A router to test with, dynos by script, and a client that says exactly what a test wants to say.
#![forbid(unsafe_code)]

use hokku::domain::app::AppId;
use hokku::domain::dyno::DynoId;
use hokku::domain::instance::Instance;
use hokku::domain::route::{AppRoute, Backend, RouteTable, Target};
use hokku::router::{Access, Options, Router, Settings};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Nothing in these tests takes so long unless it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("this happens soon")
}

/// Waits until `check` is true.
pub(crate) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !check() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) struct Rig {
    pub(crate) instance: Instance,
    pub(crate) router: Option<Router>,
    pub(crate) address: SocketAddr,
    pub(crate) lines: mpsc::UnboundedReceiver<Access>,
    pub(crate) app: AppId,
    version: u64,
    pub(crate) options: Options,
    _directory: TempDir,
}

/// Timers short enough to wait for and long enough for a busy machine.
pub(crate) fn brisk() -> Settings {
    Settings {
        connect: Duration::from_millis(400),
        first_byte: Duration::from_millis(400),
        idle: Duration::from_millis(400),
        boot: Duration::from_millis(400),
        hold: Duration::from_millis(400),
        ..Settings::default()
    }
}

fn this() -> PathBuf {
    env!("CARGO_BIN_EXE_hokku").into()
}

impl Rig {
    /// A router with the usual timers.
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::start(settings, None, this()).await
    }

    /// By another `hokku` binary.
    pub(crate) async fn run_by(executable: PathBuf) -> Self {
        Self::start(Settings::default(), None, executable).await
    }

    /// With TLS at another port.
    pub(crate) async fn with_tls(settings: Settings) -> Self {
        Self::start(settings, Some(([127, 0, 0, 1], 0).into()), this()).await
    }

    async fn start(settings: Settings, tls: Option<SocketAddr>, executable: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut instance = Instance::new("routed".parse().unwrap(), directory.path().join("root"), 31);
        instance.run = directory.path().join("run");
        let options = Options { executable, settings, tls, ..Options::default() };
        let (access, lines) = mpsc::unbounded_channel();
        let listen = ([127, 0, 0, 1], 0).into();
        let (router, address) = Router::start_with(&instance, listen, options.clone(), access).await.unwrap();
        let app = AppId(Uuid::from_u128(1));
        Self { instance, router: Some(router), address, lines, app, version: 0, options, _directory: directory }
    }

    /// With one app, `a.test`, and one dyno at `address`.
    pub(crate) async fn serving(address: SocketAddr) -> Self {
        let mut rig = Self::new().await;
        rig.route(dynos(&[address])).await;
        rig
    }

    pub(crate) fn router(&self) -> &Router {
        self.router.as_ref().unwrap()
    }

    pub(crate) fn table(&mut self, target: Target, maintenance: bool) -> RouteTable {
        self.version += 1;
        let route = AppRoute { name: "a".into(), maintenance, target };
        RouteTable {
            version: self.version,
            hosts: BTreeMap::from([("a.test".into(), self.app)]),
            apps: BTreeMap::from([(self.app, route)]),
        }
    }

    /// Has `a.test` answered by `target`, from now on.
    pub(crate) async fn route(&mut self, target: Target) {
        let table = self.table(target, false);
        self.publish(table).await;
    }

    pub(crate) async fn publish(&self, table: RouteTable) {
        let version = table.version;
        self.router().publish(table);
        soon(self.router().acknowledged(version)).await;
    }

    /// The server goes away and another comes.
    pub(crate) fn server_goes(&mut self) {
        self.router = None;
    }

    pub(crate) async fn server_comes(&mut self) {
        let (access, lines) = mpsc::unbounded_channel();
        let start = Router::start_with(&self.instance, self.address, self.options.clone(), access);
        let (router, address) = soon(start).await.unwrap();
        assert_eq!(address, self.address);
        (self.router, self.lines, self.version) = (Some(router), lines, 0);
    }

    /// The next access line.
    pub(crate) async fn line(&mut self) -> String {
        soon(self.lines.recv()).await.unwrap().line
    }

    pub(crate) async fn ask(&self, request: &str) -> Reply {
        Client::to(self.address).await.ask(request).await
    }

    pub(crate) async fn end(mut self) {
        drop(self.router.take());
        Router::stop(&self.instance).await.unwrap();
    }
}

impl Drop for Rig {
    /// A test that failed leaves no process behind either.
    fn drop(&mut self) {
        let socket = self.instance.run.join("router.sock");
        if let Ok(stream) = std::os::unix::net::UnixStream::connect(&socket)
            && let Ok(router) = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)
        {
            std::fs::remove_file(&socket).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(router.pid()), nix::sys::signal::SIGKILL).unwrap();
        }
    }
}

/// `web.1`, `web.2`, … at these addresses; a dyno's id comes from its port.
pub(crate) fn dynos(addresses: &[SocketAddr]) -> Target {
    let backend = |(at, &addr): (usize, &SocketAddr)| Backend {
        id: id(addr),
        name: format!("web.{}", at + 1).parse().unwrap(),
        addr,
    };
    Target::Dynos { dynos: addresses.iter().enumerate().map(backend).collect() }
}

pub(crate) fn id(address: SocketAddr) -> DynoId {
    DynoId(Uuid::from_u128(u128::from(address.port())))
}

/// One connection, at either end.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: String,
    /// The body came to its proper end.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Client {
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// The same, when the other side may be gone already.
    pub(crate) async fn try_say(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(text.as_ref()).await
    }

    async fn more(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.buffer)).await.is_ok_and(|size| size > 0)
    }

    /// Everything up to and with `end`; `None` once the other side has closed before.
    pub(crate) async fn through(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|bytes| bytes == end.as_bytes()) {
                let bytes: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        self.through("\r\n\r\n").await
    }

    pub(crate) async fn bytes(&mut self, size: usize) -> Option<String> {
        while self.buffer.len() < size {
            if !self.more().await {
                return None;
            }
        }
        let bytes: Vec<u8> = self.buffer.drain(..size).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What comes until the other side closes.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Whether the other side has closed without saying anything more.
    pub(crate) async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// The message's body by its framing; the part that came, and whether that was all.
    pub(crate) async fn body(&mut self, head: &str) -> (String, bool) {
        if header(head, "transfer-encoding").is_some() {
            return self.chunks().await;
        }
        match header(head, "content-length") {
            Some(length) => {
                let size = length.parse().unwrap();
                match self.bytes(size).await {
                    Some(body) => (body, true),
                    None => (String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned(), false),
                }
            }
            None if head.starts_with("HTTP/") => (self.rest().await, true),
            None => (String::new(), true),
        }
    }

    async fn chunks(&mut self) -> (String, bool) {
        let mut body = String::new();
        loop {
            let Some(size) = self.through("\r\n").await else { return (body, false) };
            let size = usize::from_str_radix(size.trim().split(';').next().unwrap(), 16).unwrap();
            let Some(chunk) = self.bytes(size + 2).await else { return (body, false) };
            if size == 0 {
                return (body, true);
            }
            body.push_str(&chunk[..size]);
        }
    }

    /// A response; of status 0 when the connection was closed without one.
    pub(crate) async fn reply(&mut self) -> Reply {
        let Some(head) = self.head().await else {
            return Reply { head: self.rest().await, body: String::new(), whole: false };
        };
        let (body, whole) = self.body(&head).await;
        Reply { head, body, whole }
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Reply {
        self.say(request).await;
        self.reply().await
    }
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// A dyno's end that treats each connection by `script`; it lives as long as the test.
pub(crate) async fn dyno<F, S>(script: S) -> SocketAddr
where
    S: Fn(Client) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(Client::of(stream)));
        }
    });
    address
}

/// A well-behaved application that answers `name`, one line with what it was asked, and the body.
pub(crate) async fn app(name: &'static str) -> SocketAddr {
    dyno(move |mut connection| async move {
        while let Some(head) = connection.head().await {
            let (body, _) = connection.body(&head).await;
            let answer = format!("{name}\n{head}{body}");
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            if connection.try_say(reply).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// An application that answers every request with these bytes and then closes.
pub(crate) async fn raw(answer: &'static str) -> SocketAddr {
    dyno(move |mut connection| async move {
        if connection.head().await.is_some() {
            connection.say(answer).await;
        }
    })
    .await
}
