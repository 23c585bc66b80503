//! The server's side: finds, starts, replaces and instructs the router's process.
#![forbid(unsafe_code)]

mod listeners;
mod retired;
mod succession;

pub(super) use listeners::bind;

use super::access::Access;
use super::protocol::{FromRouter, FromServer, MAX_LINE, PROTOCOL, RETIRES};
use super::settings::Settings;
use super::tls::Certificates;
use crate::domain::dyno::DynoId;
use crate::domain::instance::Instance;
use crate::domain::route::RouteTable;
use crate::sys::inherit;
use listeners::{Sockets, address};
use retired::{Retired, Word};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Why there is no router.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot make {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot start the router")]
    Start(#[source] io::Error),
    #[error("the router does not answer")]
    Greeting(#[source] io::Error),
    #[error("cannot end the router that runs")]
    Stop(#[source] io::Error),
}

/// How to start a router; the default is right for a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `hokku` binary.
    pub executable: PathBuf,
    pub settings: Settings,
    /// Threads, each with a listening socket; one a core by default.
    pub workers: Option<NonZero<usize>>,
    /// Where TLS is listened for, if it is.
    pub tls: Option<SocketAddr>,
    /// How long a router that is replaced by one of another version may go on with the connections it has.
    pub retire: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (executable, retire) = ("/proc/self/exe".into(), Duration::from_secs(3600));
        Self { executable, settings: Settings::default(), workers: None, tls: None, retire }
    }
}

/// The running router; dropping all clones leaves it running.
#[derive(Clone, Debug)]
pub struct Router {
    commands: mpsc::UnboundedSender<Command>,
    installed: watch::Receiver<u64>,
    pid: watch::Receiver<i32>,
    tls: Option<SocketAddr>,
}

#[derive(Debug)]
enum Command {
    Publish(Box<RouteTable>),
    Certify(Box<Certificates>),
    Watch(DynoId, oneshot::Sender<()>),
    Flush(oneshot::Sender<()>),
}

/// How long a router may take to say hello, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Router {
    /// Adopts the instance's running router, or binds `listen` and starts one; replaces it whenever it dies, and one that
    /// runs another program once there is a table for its successor. Access lines come through `access`. Also returns
    /// the address it listens on.
    ///
    /// # Errors
    /// The address is taken, or no router could be started.
    pub async fn start(
        instance: &Instance,
        listen: SocketAddr,
        access: mpsc::UnboundedSender<Access>,
    ) -> Result<(Self, SocketAddr), RouterError> {
        Self::start_with(instance, listen, Options::default(), access).await
    }

    /// The same with other than the usual timers, limits, threads or binary. A router that is adopted keeps its own.
    ///
    /// # Errors
    /// As [`Router::start`].
    pub async fn start_with(
        instance: &Instance,
        listen: SocketAddr,
        options: Options,
        access: mpsc::UnboundedSender<Access>,
    ) -> Result<(Self, SocketAddr), RouterError> {
        let paths = Paths::of(instance)?;
        let found = Process::find(&paths).await?;
        let mut retired = Retired::find(&paths, found.as_ref().map_or(0, |found| found.process.pid)).await?;
        let (process, sockets) = match found {
            Some(found) => adopt(&paths, &options, listen, found, &mut retired).await?,
            None => start(&paths, &options, listen, &mut retired).await?,
        };
        // One that can't be looked at is not replaced at every start.
        let outdated = !succession::runs(process.pid, &options.executable).unwrap_or(true);
        let retire = |before: Found| Retired::begin(&paths, before, options.retire, access.clone());
        let retired = retired.into_iter().map(retire).collect();
        let address = address(&sockets.plain).map_err(|source| RouterError::Listen { address: listen, source })?;
        let tls = sockets.tls.first().and_then(|listener| listener.local_addr().ok());

        let (commands, received) = mpsc::unbounded_channel();
        let (installed, installed_seen) = watch::channel(0);
        let (pid, pid_seen) = watch::channel(process.pid);
        let (table, unwritten, certificates, watched) = (None, None, None, HashMap::new());
        let driver = Driver {
            paths,
            options,
            sockets,
            commands: received,
            access,
            installed,
            pid,
            table,
            unwritten,
            certificates,
            watched,
            outdated,
            retired,
        };
        tokio::spawn(driver.run(process));
        Ok((Self { commands, installed: installed_seen, pid: pid_seen, tls }, address))
    }

    /// Has the router work by `table`, now and after a restart of either side.
    pub fn publish(&self, table: RouteTable) {
        // The driver ends before its handles only when the router was stopped for good.
        let _ = self.commands.send(Command::Publish(Box::new(table)));
    }

    /// Has the router show these certificates from the next handshake on, now and after a restart of either side. It takes
    /// no connections of TLS before the first of them.
    pub fn certify(&self, certificates: Certificates) {
        // As above.
        let _ = self.commands.send(Command::Certify(Box::new(certificates)));
    }

    /// Has the last table written where a router finds it that is started without a server.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.commands.send(Command::Flush(done)).is_ok() {
            let _ = timeout(PATIENCE, written).await;
        }
    }

    /// Where it listens for TLS, if it does.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Resolves once all requests are routed by the table of that version (given to this handle) or a later one; never,
    /// if the router was stopped for good.
    pub async fn acknowledged(&self, version: u64) {
        if self.installed.clone().wait_for(|installed| *installed >= version).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the dyno has no request and no WebSocket any more, waiting for that for up to `within`. Only sensible
    /// once a table without it has been acknowledged.
    pub async fn drained(&self, dyno: DynoId, within: Duration) -> bool {
        let (done, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Watch(dyno, done)).is_ok();
        asked && timeout(within, answer).await.is_ok_and(|answer| answer.is_ok())
    }

    /// The router's process id; another one once it had to be replaced.
    pub fn pid(&self) -> i32 {
        *self.pid.borrow()
    }

    /// Ends the instance's router, if one runs, for good: also a server's [`Router`] does not start it again.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(instance: &Instance) -> Result<(), RouterError> {
        let paths = Paths { run: instance.run.clone(), uid: instance.helper_uid() };
        let mut files = vec![paths.socket(), paths.next()];
        files.extend(paths.all_retired().into_iter().map(|(_, path)| path));
        let mut streams = Vec::new();
        for socket in &files {
            streams.extend(UnixStream::connect(socket).await);
        }
        // Before they end: whoever sees one end looks whether the socket is still there.
        for file in files.into_iter().chain([paths.routes(), paths.log()]) {
            match std::fs::remove_file(&file) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RouterError::Socket { path: file, source });
                }
                _ => {}
            }
        }
        for stream in streams {
            Process::at(stream, &paths).map_err(RouterError::Stop)?.end().await.map_err(RouterError::Stop)?;
        }
        Ok(())
    }
}

/// Goes on with the router that was found, or starts another on its sockets. Those that are to end by themselves are added
/// to `retired`.
async fn adopt(
    paths: &Paths,
    options: &Options,
    listen: SocketAddr,
    found: Found,
    retired: &mut Vec<Found>,
) -> Result<(Process, Sockets), RouterError> {
    let Found { process, sockets, protocol } = found;
    let Some(sockets) = sockets.filter(|sockets| sockets.fits(listen)) else {
        process.end().await.map_err(RouterError::Stop)?;
        let sockets = Sockets::bind(paths, listen, options).await?;
        return Ok((Process::spawn(paths, options, &sockets, false).await?, sockets));
    };
    let same_tls = sockets.fits_tls(options.tls);
    // Before the router ends: it goes on when there is no listening there.
    let mut sockets = sockets.with_tls(options.tls).await?;
    if !same_tls || protocol < RETIRES {
        process.end().await.map_err(RouterError::Stop)?;
        return Ok((Process::spawn(paths, options, &sockets, false).await?, sockets));
    }
    if protocol == PROTOCOL {
        return Ok((process, sockets));
    }
    let successor = succession::at_once(paths, options, &mut sockets, process.pid).await?;
    retired.push(Found { process, sockets: None, protocol });
    Ok((successor, sockets))
}

/// Starts a router where there is none but perhaps some that were replaced: who waits in the queues of their sockets is
/// served by the new one.
async fn start(
    paths: &Paths,
    options: &Options,
    listen: SocketAddr,
    retired: &mut [Found],
) -> Result<(Process, Sockets), RouterError> {
    let fitting = |sockets: &mut Sockets| sockets.fits(listen) && sockets.fits_tls(options.tls);
    let theirs = retired.iter_mut().find_map(|found| found.sockets.take_if(fitting));
    let sockets = match theirs {
        Some(theirs) => theirs.under_a_new_name(paths)?,
        None => Sockets::bind(paths, listen, options).await?,
    };
    Ok((Process::spawn(paths, options, &sockets, false).await?, sockets))
}

/// Where things are, and whose the process is.
#[derive(Clone, Debug)]
struct Paths {
    run: PathBuf,
    uid: u32,
}

impl Paths {
    fn of(instance: &Instance) -> Result<Self, RouterError> {
        let run = instance.run.clone();
        std::fs::create_dir_all(&run).map_err(|source| RouterError::Socket { path: run.clone(), source })?;
        Ok(Self { run, uid: instance.helper_uid() })
    }

    fn socket(&self) -> PathBuf {
        self.run.join("router.sock")
    }

    /// Of a router that is to take the place of the one at [`Self::socket`].
    fn next(&self) -> PathBuf {
        self.run.join("router-next.sock")
    }

    /// Of a router that has a successor.
    fn retired(&self, pid: i32) -> PathBuf {
        self.run.join(format!("retired-{pid}.sock"))
    }

    /// All there are of those, with the process ids in their names.
    fn all_retired(&self) -> Vec<(i32, PathBuf)> {
        let entries = std::fs::read_dir(&self.run).into_iter().flatten().flatten();
        let retired = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let pid = name.strip_prefix("retired-")?.strip_suffix(".sock")?.parse().ok()?;
            Some((pid, entry.path()))
        });
        retired.collect()
    }

    fn routes(&self) -> PathBuf {
        self.run.join("routes.json")
    }

    fn log(&self) -> PathBuf {
        self.run.join("router.log")
    }
}

/// A router's process and the connection to it.
#[derive(Debug)]
struct Process {
    stream: UnixStream,
    /// What was read of the next line.
    buffer: Vec<u8>,
    pid: i32,
    pidfd: OwnedFd,
    /// Ours to reap, if this server started it.
    child: Option<Child>,
}

/// A router that was running already.
#[derive(Debug)]
struct Found {
    process: Process,
    /// `None` where they are used already.
    sockets: Option<Sockets>,
    protocol: u32,
}

impl Process {
    /// Looks for a running router.
    async fn find(paths: &Paths) -> Result<Option<Found>, RouterError> {
        let Ok(stream) = UnixStream::connect(paths.socket()).await else { return Ok(None) };
        let mut process = Self::at(stream, paths).map_err(RouterError::Greeting)?;
        match timeout(PATIENCE, process.greeting()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((sockets, protocol)) => Ok(Some(Found { process, sockets: Some(sockets), protocol })),
            Err(error) => {
                tracing::warn!(%error, pid = process.pid, "the running router does not answer and is replaced");
                process.end().await.map_err(RouterError::Stop)?;
                Ok(None)
            }
        }
    }

    /// The process that listens at the other end of `stream`.
    fn at(stream: UnixStream, paths: &Paths) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let pid = peer.pid().unwrap_or(0);
        // The kernel says who listens; that it is really a router of ours keeps a stranger from being ended.
        let listener_is_ours = [0, paths.uid].contains(&peer.uid());
        let process = Pid::from_raw(pid).filter(|_| listener_is_ours);
        let process = process.ok_or_else(|| io::Error::other("a stranger listens on the router's socket"))?;
        Ok(Self { stream, buffer: Vec::new(), pid, pidfd: pidfd_open(process, PidfdFlags::empty())?, child: None })
    }

    /// A `successor` does not serve before it has been sent a table.
    async fn spawn(paths: &Paths, options: &Options, sockets: &Sockets, successor: bool) -> Result<Self, RouterError> {
        let mut process = Self::exec(paths, options, sockets, successor).map_err(RouterError::Start)?;
        let greeting = timeout(PATIENCE, process.greeting()).await;
        match greeting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_) => Ok(process),
            Err(error) => {
                process.end().await.map_err(RouterError::Stop)?;
                Err(RouterError::Greeting(error))
            }
        }
    }

    fn exec(paths: &Paths, options: &Options, sockets: &Sockets, successor: bool) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let control = sockets.control.as_raw_fd();
        let list = |listeners: &[TcpListener]| {
            listeners.iter().map(|listener| listener.as_raw_fd().to_string()).collect::<Vec<_>>().join(",")
        };
        let mut fds: Vec<_> = sockets.plain.iter().chain(&sockets.tls).map(AsRawFd::as_raw_fd).collect();
        fds.extend([control, theirs.as_raw_fd()]);
        let mut command = std::process::Command::new(&options.executable);
        command.arg0("hokku").arg("router").arg("--run").arg(&paths.run).args(["--fd", &list(&sockets.plain)]);
        if !sockets.tls.is_empty() {
            command.args(["--tls-fd", &list(&sockets.tls)]);
        }
        command.args(["--control", &control.to_string(), "--server", &theirs.as_raw_fd().to_string()]);
        if successor {
            command.arg("--successor");
        }
        command.args(["--uid", &paths.uid.to_string()]);
        command.args(["--settings", &serde_json::to_string(&options.settings).map_err(io::Error::other)?]);
        // It outlives this process: it must not hold its terminal, its pipes or its directory.
        // One that is being replaced may still write there.
        let log = std::fs::File::options().append(true).create(true).open(paths.log())?;
        log.set_len(0)?;
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        inherit::pass(&mut command, fds);
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let process = Pid::from_raw(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
        let pidfd = pidfd_open(process, PidfdFlags::empty())?;
        Ok(Self { stream: UnixStream::from_std(ours)?, buffer: Vec::new(), pid, pidfd, child: Some(child) })
    }

    async fn greeting(&mut self) -> io::Result<(Sockets, u32)> {
        let stream = &self.stream;
        let fds = stream.async_io(Interest::READABLE, || inherit::receive_fds(stream)).await?;
        loop {
            if let Some(line) = self.line() {
                return match FromRouter::parse(&line) {
                    Some(FromRouter::Hello { protocol, plain }) => Ok((Sockets::of(fds, plain)?, protocol)),
                    _ => Err(io::Error::other("it does not say hello")),
                };
            }
            self.fill().await?;
        }
    }

    /// The next whole line that has been read.
    fn line(&mut self) -> Option<String> {
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        let line = self.buffer.drain(..=end).collect::<Vec<u8>>();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// All whole lines that have been read.
    fn lines(&mut self) -> Vec<u8> {
        let end = self.buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.buffer.drain(..end).collect()
    }

    /// Reads on. Cancel-safe.
    async fn fill(&mut self) -> io::Result<()> {
        if self.buffer.len() > MAX_LINE {
            return Err(io::Error::other("its line is too long"));
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Ends the process and waits until it has.
    async fn end(mut self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(child) = &mut self.child {
            child.wait().await?;
            return Ok(());
        }
        let begun = Instant::now();
        while !ended(&self.pidfd)? {
            if begun.elapsed() > PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// The process has ended (its pidfd has become readable).
fn ended(pidfd: &OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut polled, Some(&Timespec::default()))? > 0)
}

/// The task behind the handles.
#[derive(Debug)]
struct Driver {
    paths: Paths,
    options: Options,
    sockets: Sockets,
    commands: mpsc::UnboundedReceiver<Command>,
    access: mpsc::UnboundedSender<Access>,
    installed: watch::Sender<u64>,
    pid: watch::Sender<i32>,
    /// The newest table.
    table: Option<Box<RouteTable>>,
    /// When it is to be written where a router that is started without a server finds it.
    unwritten: Option<tokio::time::Instant>,
    certificates: Option<Box<Certificates>>,
    watched: HashMap<DynoId, Vec<oneshot::Sender<()>>>,
    /// The router is of another version than this server and is to be replaced.
    outdated: bool,
    /// Those that were replaced and have not ended yet.
    retired: Vec<Retired>,
}

/// Why the driver talks to a process no more.
#[derive(Debug)]
enum Parting {
    /// No handle is left.
    Deserted,
    /// All is known that a successor needs.
    Outdated,
}

impl Driver {
    async fn run(mut self, mut process: Process) {
        loop {
            let begun = Instant::now();
            let error = match self.serve(&mut process).await {
                Ok(Parting::Deserted) => return,
                Ok(Parting::Outdated) => {
                    process = self.succeed(process).await;
                    continue;
                }
                Err(error) => error,
            };
            if let Err(error) = process.end().await {
                tracing::error!(%error, "the router's process does not end");
            }
            if !self.paths.socket().exists() {
                return;
            }
            tracing::error!(%error, "the router is gone and is started again");
            self.write_routes();
            // One that dies at once is not started in a tight loop.
            if begun.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            process = loop {
                match Process::spawn(&self.paths, &self.options, &self.sockets, false).await {
                    Ok(process) => break process,
                    Err(error) => tracing::error!(%error, "the router cannot be started; trying again"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            self.outdated = false;
            self.pid.send_replace(process.pid);
        }
    }

    /// Puts a router of this version in the place of `before`.
    async fn succeed(&mut self, before: Process) -> Process {
        self.outdated = false;
        match self.successor(&before).await {
            Ok(process) => {
                tracing::info!(before = before.pid, pid = process.pid, "a router of this version has taken over");
                let before = Found { process: before, sockets: None, protocol: PROTOCOL };
                let access = self.access.clone();
                self.retired.push(Retired::begin(&self.paths, before, self.options.retire, access));
                self.pid.send_replace(process.pid);
                // What is waited for may be at the one before.
                for (dyno, waiting) in std::mem::take(&mut self.watched) {
                    for done in waiting {
                        self.watch(dyno, done);
                    }
                }
                process
            }
            Err(error) => {
                tracing::error!(%error, "the router can't be replaced by one of this version; it goes on");
                before
            }
        }
    }

    /// `done` is told once no router has a request for the dyno. The main one has to be asked yet.
    fn watch(&mut self, dyno: DynoId, done: oneshot::Sender<()>) {
        let mut others = Vec::new();
        self.retired.retain(|retired| {
            let (drained, told) = oneshot::channel();
            others.push(told);
            retired.say(Word::Watch(dyno, drained))
        });
        let waiting = self.watched.entry(dyno).or_default();
        waiting.retain(|done| !done.is_closed());
        if others.is_empty() {
            waiting.push(done);
            return;
        }
        let (drained, told) = oneshot::channel();
        waiting.push(drained);
        tokio::spawn(async move {
            if told.await.is_err() {
                return;
            }
            for other in others {
                // One that has ended has no request.
                let _ = other.await;
            }
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        });
    }

    /// A successor that does not show certificates would leave clients of TLS waiting.
    fn is_ready_for_a_successor(&self) -> bool {
        self.outdated && self.table.is_some() && (self.sockets.tls.is_empty() || self.certificates.is_some())
    }

    /// Talks to one process as long as there is something to say.
    async fn serve(&mut self, process: &mut Process) -> io::Result<Parting> {
        if let Some(table) = self.table.clone() {
            send(process, &FromServer::Table(table)).await?;
        }
        if let Some(certificates) = self.certificates.clone() {
            send(process, &FromServer::Certificates(certificates)).await?;
        }
        for &dyno in self.watched.keys() {
            send(process, &FromServer::Watch(dyno)).await?;
        }
        loop {
            let mut seen = None;
            for line in String::from_utf8_lossy(&process.lines()).lines() {
                seen = self.hear(line).or(seen);
            }
            if let Some(number) = seen {
                send(process, &FromServer::Seen { number }).await?;
            }
            if self.is_ready_for_a_successor() {
                return Ok(Parting::Outdated);
            }
            let write = self.unwritten;
            tokio::select! {
                filled = process.fill() => filled?,
                command = self.commands.recv() => {
                    let Some(command) = command else {
                        self.write_routes();
                        return Ok(Parting::Deserted);
                    };
                    self.obey(command, process).await?;
                }
                () = tokio::time::sleep_until(write.unwrap_or_else(tokio::time::Instant::now)), if write.is_some() => {
                    self.write_routes();
                }
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
            Some(FromRouter::Installed { version }) => {
                self.installed.send_replace(version);
            }
            Some(FromRouter::Drained { dyno }) => {
                for done in self.watched.remove(&dyno).unwrap_or_default() {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
            }
            Some(FromRouter::Hello { .. }) => {}
            None => tracing::warn!("the router said something unknown"),
        }
        None
    }

    /// What is not written yet.
    fn write_routes(&mut self) {
        if self.unwritten.take().is_some()
            && let Some(table) = &self.table
            && let Err(error) = write_routes(&self.paths.routes(), table)
        {
            tracing::error!(%error, "cannot write the routes");
        }
    }

    async fn obey(&mut self, command: Command, process: &mut Process) -> io::Result<()> {
        match command {
            Command::Publish(table) => {
                // Every process has had the last one.
                let last = self.table.take();
                let message = match &last {
                    Some(last) => FromServer::Change(Box::new(last.change_to(&table))),
                    None => FromServer::Table(table.clone()),
                };
                self.table = Some(table);
                self.unwritten.get_or_insert(tokio::time::Instant::now() + WRITE_AFTER);
                if last.is_none() {
                    self.write_routes();
                }
                self.retired.retain(|retired| retired.say(Word::Routes(message.encode())));
                send(process, &message).await
            }
            Command::Certify(certificates) => {
                self.certificates = Some(certificates.clone());
                send(process, &FromServer::Certificates(certificates)).await
            }
            Command::Watch(dyno, done) => {
                self.watch(dyno, done);
                send(process, &FromServer::Watch(dyno)).await
            }
            Command::Flush(done) => {
                self.write_routes();
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
                Ok(())
            }
        }
    }
}

/// Dynos come and go many at a time, and each writing is of all apps.
const WRITE_AFTER: Duration = Duration::from_millis(200);

async fn send(process: &mut Process, message: &FromServer) -> io::Result<()> {
    process.stream.write_all(message.encode().as_bytes()).await
}

/// Replaces the file in one step: no reader ever sees half a table.
fn write_routes(path: &Path, table: &RouteTable) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file = std::fs::File::create(&temporary)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
