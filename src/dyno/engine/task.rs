//! One dyno's task: from its launch, or from being found again, to its end.
#![forbid(unsafe_code)]

use super::memory::Memory;
use super::output::{Output, Sink};
use super::probe::{Probe, accepts};
use super::{Shared, attach, record, remove};
use crate::domain::dyno::{DynoId, Exit};
use crate::dyno::protocol::{self, ATTACH, CONTROL, Hello, News, Order, Request, Stdio, VERSION};
use crate::dyno::step::{StepError, step};
use crate::dyno::{Io, Launch, Ready, What, instances, network, scratch, shape, spec};
use crate::sys::cgroup::Group;
use jiff::Timestamp;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
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
    pub(super) memory: Memory,
    pub(super) probe: Option<Probe>,
    /// The bridge between an attached client and the shim.
    pub(super) attached: Option<JoinHandle<()>>,
}

/// Launches a dyno and stays with it.
pub(super) async fn launch(shared: Arc<Shared>, launch: Launch, orders: mpsc::UnboundedReceiver<Order>) {
    let id = launch.id;
    let (slot, to_prepare) = shared.take_slot();
    let Some((slot, waiting)) = slot else {
        let taken = format!("all {} are taken", crate::domain::instance::Instance::SLOTS);
        shared.lock_orders().remove(&id);
        shared.tell(id, failed(StepError::new("find a free slot", "slots", taken)));
        return;
    };
    let begun = begin(&shared, launch, slot, waiting, orders).await;
    // Not before: the launcher does one thing after the other.
    shared.prepare(to_prepare);
    match begun {
        Ok((watched, ready)) => {
            shared.tell(id, What::Started);
            watch(shared, watched, ready).await;
        }
        Err(error) => {
            let dir = shared.instance.dyno_dir(id);
            // Its directory is its only trace: the shim has taken down what it had made.
            let _ = tokio::task::spawn_blocking(move || remove(&dir)).await;
            shared.vacate(slot).await;
            shared.lock_orders().remove(&id);
            shared.tell(id, failed(error));
        }
    }
}

fn failed(error: StepError) -> What {
    let message = format!("{}: {}", error.object, error.why());
    What::Failed { step: error.step, message }
}

/// Asks the shim that waits for the dyno, or the launcher. Returns what to watch, and whether it has to be told ready at
/// once.
async fn begin(
    shared: &Arc<Shared>,
    launch: Launch,
    slot: u16,
    waiting: Option<UnixStream>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> Result<(Watched, Option<What>), StepError> {
    let Launch { id, labels, mut body, ready, io } = launch;
    let wanted = body.limits.disk;
    body.limits.disk = shared.fitted(wanted);
    if body.limits.disk < wanted {
        shared.tell(id, What::LessDisk { bytes: body.limits.disk, wanted });
    }
    let dir = shared.instance.dyno_dir(id);
    let resolvers = network::resolvers(&shared.instance);
    let place = spec::Place { instance: &shared.instance, slot, resolvers: &resolvers };
    let config = spec::text(&place, &labels, &body, ready);
    // RUN is in memory: this takes less than handing it to another thread.
    step("make the dyno's directory", dir.display(), record::create(&dir, &labels, &config))?;

    shared.admit(slot, &labels).await?;

    let stdio = match &io {
        Io::Log => Stdio::Log { lossless: false },
        Io::Lines(_) => Stdio::Log { lossless: true },
        Io::Attach { tty, .. } => Stdio::Attach { tty: *tty },
    };
    let request = Request { bundle: dir.clone(), env: body.env, files: body.files, stdio };
    let (control, in_memory) = ask(shared, slot, waiting, &protocol::encode(&request)).await?;

    if let Some(error) = in_memory {
        tracing::warn!(dyno = %id, %error, "what a dyno writes is kept in memory");
        shared.tell(id, What::InMemory { why: error.to_string() });
    }

    let (sink, attached) = match io {
        Io::Log => (Sink::Log, None),
        Io::Lines(lines) => (Sink::Lines(lines), None),
        Io::Attach { stream, .. } => {
            let bridge = attach::start(shared, dir.clone(), vec![VERSION, ATTACH], attach::KILLED, stream);
            (Sink::Nowhere, Some(bridge))
        }
    };
    let output = Output::open(shared.hub.clone(), id, &labels, &dir, sink)?;
    let probe = match ready {
        Ready::Started => None,
        Ready::Port { port, within } => {
            Some(Probe { addr: (shared.instance.address(slot), port).into(), until: Instant::now() + within })
        }
    };
    let ready = probe.is_none().then_some(What::Ready { addr: None });
    let memory = Memory::new(shared, slot, body.limits.memory_quota);
    Ok((Watched { id, dir, slot, control, orders, output, memory, probe, attached }, ready))
}

/// The control connection to a shim, and why its dyno's files are in memory if they should not.
type Answered = (UnixStream, Option<StepError>);

/// Who ends without a word was just dying, and what it may have begun died with the connection: then the next is asked.
async fn ask(
    shared: &Arc<Shared>,
    slot: u16,
    waiting: Option<UnixStream>,
    request: &[u8],
) -> Result<Answered, StepError> {
    if let Some(shim) = waiting
        && let Some(answered) = ask_for(shim, request).await?
    {
        return Ok(answered);
    }
    let whole = [&Hello::Launch { slot }.encode(), request].concat();
    for _ in 0..2 {
        if let Some(answered) = ask_for(shared.launcher().await?, &whole).await? {
            return Ok(answered);
        }
    }
    Err(StepError::new("wait for the shim", "launcher.sock", "it ended without a word"))
}

/// A launch takes milliseconds; who takes that long is stopped, or the machine is in no state to run a dyno.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// `None` when it ended without a word.
async fn ask_for(mut control: UnixStream, ask: &[u8]) -> Result<Option<Answered>, StepError> {
    let mut buffer = Vec::new();
    let mut in_memory = None;
    let answer = async {
        control.write_all(ask).await?;
        loop {
            match protocol::read(&mut control, &mut buffer).await? {
                Some(News::InMemory(error)) => in_memory = Some(error),
                other => return Ok::<_, io::Error>(other),
            }
        }
    };
    let Ok(answer) = tokio::time::timeout(ANSWERED_WITHIN, answer).await else {
        // Should it come to itself after all, it finds no configuration any more.
        return Err(StepError::new("wait for the shim", "launcher.sock", "it did not answer within a minute"));
    };
    match answer {
        Ok(Some(News::Failed(error))) => Err(error),
        Ok(Some(_)) => Ok(Some((control, in_memory))),
        Ok(None) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(None),
        Err(error) => step("ask the launcher", "launcher.sock", Err(error)),
    }
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
    shared.vacate(watched.slot).await;
    shared.lock_orders().remove(&watched.id);
    shared.tell(watched.id, What::Exited(exit));
}

/// Until the shim hangs up.
async fn follow(shared: &Shared, watched: &mut Watched) {
    let Watched { id, dir, control, orders, output, memory, probe, .. } = watched;
    let (mut reader, mut writer) = control.split();
    let mut buffer = Vec::new();
    let mut probing = pin!(async {
        match *probe {
            Some(probe) => (probe.addr, accepts(probe).await),
            None => pending().await,
        }
    });
    let mut probed = false;
    let mut overdue = None;
    loop {
        // First the ring: news of lines may have come before this server did.
        let again = match output.store() {
            Ok(stored) => {
                if stored.room && writer.write_all(&protocol::encode(&Order::Room)).await.is_err() {
                    return;
                }
                stored.more.then_some(Duration::ZERO)
            }
            Err(error) => {
                tracing::error!(dyno = %id, %error, "cannot store log lines; they are kept");
                Some(Duration::from_secs(1))
            }
        };
        tokio::select! {
            news = protocol::read(&mut reader, &mut buffer) => match news {
                Ok(Some(News::Killed)) => shared.tell(*id, What::Killed),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            Some(order) = orders.recv() => {
                overdue = [overdue, patience(&order).map(|patience| Instant::now() + patience)].into_iter().flatten().min();
                if writer.write_all(&protocol::encode(&order)).await.is_err() {
                    return;
                }
            }
            () = until(overdue) => {
                tracing::warn!(dyno = %id, "its shim does not do what it is told, and is killed");
                kill_shim(dir);
                return;
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
            (bytes, quota) = memory.over_quota() => shared.tell(*id, What::OverQuota { bytes, quota }),
            () = pause(again) => {}
        }
    }
}

/// How long a shim may take to end its dyno, if it was told to.
fn patience(order: &Order) -> Option<Duration> {
    match order {
        Order::Stop { grace } => Some(Duration::from_millis(*grace) + OBEYED_WITHIN),
        Order::Kill => Some(OBEYED_WITHIN),
        Order::Room => None,
    }
}

/// For ever when there is none; others have their turn in any case.
async fn pause(length: Option<Duration>) {
    match length {
        Some(Duration::ZERO) => tokio::task::yield_now().await,
        Some(length) => tokio::time::sleep(length).await,
        None => pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

/// Output that nobody takes any more is waited for as long as ten seconds.
const OBEYED_WITHIN: Duration = Duration::from_secs(20);

/// One that was stopped, for example. Its dyno goes with it.
fn kill_shim(dir: &Path) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let listens = || std::os::unix::net::UnixStream::connect(dir.join(record::SOCKET));
    let killed = || {
        let credentials = rustix::net::sockopt::socket_peercred(listens()?)?;
        let pid = Pid::from_raw(credentials.pid.as_raw_nonzero().get()).ok_or(io::ErrorKind::NotFound)?;
        let shim = pidfd_open(pid, PidfdFlags::empty())?;
        // It listens still, so it is the one that the number names.
        listens()?;
        pidfd_send_signal(shim, Signal::KILL)?;
        Ok::<_, io::Error>(())
    };
    if let Err(error) = killed() {
        tracing::warn!("cannot kill a shim: {error}");
    }
}

/// How it ended. After a shim that was killed, this takes down what it could not.
async fn settle(shared: &Shared, watched: &Watched) -> Exit {
    let (instance, dir, id) = (shared.instance.clone(), watched.dir.clone(), watched.id);
    let ended = watched.output.ended();
    let settled = tokio::task::spawn_blocking(move || {
        if let Ok(Some(exit)) = record::exit(&dir) {
            return exit;
        }
        clean_up(&instance, id, &dir, ended)
    });
    settled.await.unwrap_or_else(|_| record::unknown_exit(Timestamp::now(), false))
}

/// Ends what may still run of a dyno without a shim, removes what it had on the host, and writes its record.
/// Its link goes with its network namespace.
pub(super) fn clean_up(
    instance: &crate::domain::instance::Instance,
    id: DynoId,
    dir: &Path,
    ended: Option<crate::sys::process::Ended>,
) -> Exit {
    use crate::sys::process::Ended;
    let (mut oom, mut box_full) = (false, false);
    let group = spec::Config::read(dir).ok().and_then(|config| shape::group(&config.spec).ok());
    if let (Some((parent, name)), Ok(hierarchy)) = (group, instances::hierarchy(instance)) {
        let group = Group::open(&hierarchy, &parent, &name);
        oom = group.oom_killed().unwrap_or(false);
        box_full = oom && !group.was_at_its_limit().unwrap_or(true);
        if let Err(error) = group.kill().and_then(|()| group.remove()) {
            tracing::warn!(dyno = %id, %error, "cannot remove a dyno's cgroup");
        }
    }
    scratch::sweep(instance);
    let _ = std::fs::remove_file(dir.join(record::SOCKET));
    let at = Timestamp::now();
    let exit = match ended {
        Some(Ended::Exited(code)) => Exit { code, signal: None, oom, box_full, at },
        Some(Ended::Signalled(signal)) => Exit { code: 128 + signal, signal: Some(signal), oom, box_full, at },
        None => Exit { box_full, ..record::unknown_exit(at, oom) },
    };
    if let Err(error) = record::leave_exit(dir, exit) {
        tracing::warn!(dyno = %id, %error, "cannot write a dyno's exit record");
    }
    exit
}
