//! One dyno's task: from its launch, or from being found again, to its end.
#![forbid(unsafe_code)]

use super::output::{Output, Sink};
use super::{Shared, attach, record, remove};
use crate::domain::dyno::{DynoId, Exit};
use crate::dyno::protocol::{self, CONTROL, Hello, News, Order, Request, Stdio, VERSION};
use crate::dyno::step::{StepError, step};
use crate::dyno::{Io, Launch, Ready, What, network, spec};
use crate::sys::cgroup::{Group, Hierarchy};
use jiff::Timestamp;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A dyno that has a shim.
pub(super) struct Watched {
    pub(super) id: DynoId,
    pub(super) dir: PathBuf,
    pub(super) slot: u16,
    pub(super) control: UnixStream,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) output: Output,
    pub(super) probe: Option<Probe>,
    /// The bridge between an attached client and the shim.
    pub(super) attached: Option<JoinHandle<()>>,
}

/// A port that has to accept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) addr: SocketAddr,
    pub(super) until: Instant,
}

/// Launches a dyno and stays with it.
pub(super) async fn launch(shared: Arc<Shared>, launch: Launch, orders: mpsc::UnboundedReceiver<Order>) {
    let id = launch.id;
    let Some(slot) = shared.take_slot() else {
        let message = format!("all {} are taken", crate::domain::instance::Instance::SLOTS);
        shared.lock_orders().remove(&id);
        shared.tell(id, What::Failed { step: "find a free slot".to_owned(), message });
        return;
    };
    match begin(&shared, launch, slot, orders).await {
        Ok((watched, ready)) => {
            shared.tell(id, What::Started);
            watch(shared, watched, ready).await;
        }
        Err(error) => {
            let dir = shared.instance.dyno_dir(id);
            // Its directory is its only trace: the shim has taken down what it had made.
            let _ = tokio::task::spawn_blocking(move || remove(&dir)).await;
            shared.lock_slots().release(slot);
            shared.lock_orders().remove(&id);
            let message = format!("{}: {}", error.object, error.cause);
            shared.tell(id, What::Failed { step: error.step, message });
        }
    }
}

/// Asks the launcher for the dyno. Returns what to watch, and whether it has to be told ready at once.
async fn begin(
    shared: &Arc<Shared>,
    launch: Launch,
    slot: u16,
    orders: mpsc::UnboundedReceiver<Order>,
) -> Result<(Watched, Option<What>), StepError> {
    let Launch { id, labels, body, ready, io } = launch;
    let dir = shared.instance.dyno_dir(id);
    let resolvers = network::resolvers(&shared.instance);
    let place = spec::Place { instance: &shared.instance, slot, resolvers: &resolvers };
    let config = spec::to_json(&spec::spec(&place, id, &labels, &body, ready));
    let (its_dir, its_labels) = (dir.clone(), labels.clone());
    let made = tokio::task::spawn_blocking(move || record::create(&its_dir, &its_labels, &config)).await;
    step("make the dyno's directory", dir.display(), made.unwrap_or_else(|error| Err(io::Error::other(error))))?;

    let stdio = match &io {
        Io::Log => Stdio::Log { lossless: false },
        Io::Lines(_) => Stdio::Log { lossless: true },
        Io::Attach { tty, .. } => Stdio::Attach { tty: *tty },
    };
    let request = Request { bundle: dir.clone(), env: body.env, files: body.files, stdio };
    let mut control = shared.launcher().await?;
    let mut bytes = Hello::Launch { slot }.encode().to_vec();
    bytes.extend(protocol::encode(&request));
    step("ask the launcher", "launcher.sock", control.write_all(&bytes).await)?;
    let mut buffer = Vec::new();
    match step("wait for the shim", "launcher.sock", protocol::read(&mut control, &mut buffer).await)? {
        Some(News::Failed(error)) => return Err(error),
        Some(_) => {}
        None => return Err(StepError::new("wait for the shim", "launcher.sock", "it ended without a word")),
    }

    let (sink, attached) = match io {
        Io::Log => (Sink::Log, None),
        Io::Lines(lines) => (Sink::Lines(lines), None),
        Io::Attach { stream, .. } => (Sink::Nowhere, Some(attach::start(shared, dir.clone(), stream))),
    };
    let output = Output::open(shared.hub.clone(), id, &labels, &dir, sink)?;
    let probe = match ready {
        Ready::Started => None,
        Ready::Port { port, within } => {
            Some(Probe { addr: (shared.instance.address(slot), port).into(), until: Instant::now() + within })
        }
    };
    let ready = probe.is_none().then_some(What::Ready { addr: None });
    Ok((Watched { id, dir, slot, control, orders, output, probe, attached }, ready))
}

/// A control connection to the shim of a dyno.
pub(super) async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let mut control = UnixStream::connect(dir.join(record::SOCKET)).await?;
    control.write_all(&[VERSION, CONTROL]).await?;
    Ok(control)
}

/// Stays with a dyno until it has ended.
pub(super) async fn watch(shared: Arc<Shared>, mut watched: Watched, ready: Option<What>) {
    if let Some(ready) = ready {
        shared.tell(watched.id, ready);
    }
    follow(&shared, &mut watched).await;
    let exit = settle(&shared, &watched).await;
    watched.output.finish().await;
    if let Some(mut attached) = watched.attached.take() {
        // The client is to have everything before the end is told, but can't hold it up.
        if tokio::time::timeout(Duration::from_secs(5), &mut attached).await.is_err() {
            attached.abort();
        }
    }
    shared.lock_slots().release(watched.slot);
    shared.lock_orders().remove(&watched.id);
    shared.tell(watched.id, What::Exited(exit));
}

/// Until the shim hangs up.
async fn follow(shared: &Shared, watched: &mut Watched) {
    let Watched { id, dir, control, orders, output, probe, .. } = watched;
    let (mut reader, mut writer) = control.split();
    let mut buffer = Vec::new();
    let mut probing = pin!(async {
        match *probe {
            Some(probe) => (probe.addr, accepts(probe).await),
            None => pending().await,
        }
    });
    let mut probed = false;
    loop {
        // First the ring: news of lines may have come before this server did.
        let retry = match output.store() {
            Ok(room) => {
                if room && writer.write_all(&protocol::encode(&Order::Room)).await.is_err() {
                    return;
                }
                false
            }
            Err(error) => {
                tracing::error!(dyno = %id, %error, "cannot store log lines; they are kept");
                true
            }
        };
        tokio::select! {
            news = protocol::read(&mut reader, &mut buffer) => match news {
                Ok(Some(News::Killed)) => shared.tell(*id, What::Killed),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            Some(order) = orders.recv() => {
                if writer.write_all(&protocol::encode(&order)).await.is_err() {
                    return;
                }
            }
            (addr, accepted) = &mut probing, if !probed => {
                probed = true;
                if accepted {
                    // Without the mark the next server only probes again.
                    let _ = record::mark_ready(dir);
                    shared.tell(*id, What::Ready { addr: Some(addr) });
                } else {
                    shared.tell(*id, What::BootTimeout);
                    if writer.write_all(&protocol::encode(&Order::Kill)).await.is_err() {
                        return;
                    }
                }
            }
            () = tokio::time::sleep(Duration::from_secs(1)), if retry => {}
        }
    }
}

/// Tries the port until it accepts: every few milliseconds at first, then ever less often.
async fn accepts(probe: Probe) -> bool {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(2));
    loop {
        let tried = tokio::time::timeout_at(probe.until, TcpStream::connect(probe.addr)).await;
        if matches!(tried, Ok(Ok(_))) {
            return true;
        }
        if begun.elapsed() > Duration::from_secs(2) {
            pause = (pause * 2).min(Duration::from_millis(250));
        }
        if Instant::now() + pause > probe.until {
            return false;
        }
        tokio::time::sleep(pause).await;
    }
}

/// How it ended. After a shim that was killed, this takes down what it could not.
async fn settle(shared: &Shared, watched: &Watched) -> Exit {
    let (instance, dir, slot, id) = (shared.instance.clone(), watched.dir.clone(), watched.slot, watched.id);
    let ended = watched.output.ended();
    let settled = tokio::task::spawn_blocking(move || {
        if let Ok(Some(exit)) = record::exit(&dir) {
            return exit;
        }
        clean_up(&instance, id, Some(slot), &dir, ended)
    });
    settled.await.unwrap_or_else(|_| record::unknown_exit(Timestamp::now(), false))
}

/// Ends what may still run of a dyno without a shim, removes what it had on the host, and writes its record.
pub(super) fn clean_up(
    instance: &crate::domain::instance::Instance,
    id: DynoId,
    slot: Option<u16>,
    dir: &Path,
    ended: Option<crate::sys::process::Ended>,
) -> Exit {
    use crate::sys::process::Ended;
    let mut oom = false;
    if let Ok(hierarchy) = Hierarchy::detect() {
        let group = Group::open(&hierarchy, &instance.cgroup(), &id.to_string());
        oom = group.oom_killed().unwrap_or(false);
        if let Err(error) = group.kill().and_then(|()| group.remove()) {
            tracing::warn!(dyno = %id, %error, "cannot remove a dyno's cgroup");
        }
    }
    if let Some(slot) = slot
        && let Err(error) = network::release(instance, slot)
    {
        tracing::warn!(dyno = %id, %error, "cannot remove a dyno's link");
    }
    let _ = std::fs::remove_file(dir.join(record::SOCKET));
    let at = Timestamp::now();
    let exit = match ended {
        Some(Ended::Exited(code)) => Exit { code, signal: None, oom, at },
        Some(Ended::Signalled(signal)) => Exit { code: 128 + signal, signal: Some(signal), oom, at },
        None => record::unknown_exit(at, oom),
    };
    if let Err(error) = record::leave_exit(dir, exit) {
        tracing::warn!(dyno = %id, %error, "cannot write a dyno's exit record");
    }
    exit
}
