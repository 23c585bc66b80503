//! The server's side of the engine: one task per dyno, which talks to its shim and stores what it says.
#![forbid(unsafe_code)]

mod adopt;
mod attach;
mod copies;
mod destroy;
mod egress;
mod lifeline;
mod memory;
mod output;
mod probe;
mod room;
mod task;

pub use copies::Shortage;
pub use destroy::destroy;

use super::firewall::{self, Firewall};
use super::protocol::{self, Hello, INSIDE, Order, VERSION};
use super::scratch::Bounds;
use super::step::{StepError, step};
use super::{BoxedIo, Event, Found, Inside, Launch, What, instances, launcher, network, record, share};
use crate::domain::app::AppId;
use crate::domain::dyno::DynoId;
use crate::domain::egress::Egress;
use crate::domain::instance::Instance;
use crate::domain::limits::{DynoSize, Limits};
use crate::logs::Hub;
use crate::sys::cgroup::Hierarchy;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How this engine is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hokku binary; the launcher is started from it.
    pub executable: PathBuf,
    pub policy: firewall::Policy,
    /// Of the apps that do not have all of the Internet.
    pub egress: BTreeMap<AppId, Egress>,
    /// For how many launches to come walls are made ahead.
    pub prepared: usize,
    /// What most dynos may use, and so for what they are made.
    pub usual: Limits,
    /// How often it is looked how much memory dynos use.
    pub measured_every: Duration,
    /// Bytes of memory that all dynos together leave to the host; by the size of the machine when not set.
    pub memory_reserve: Option<u64>,
    /// Bytes of ROOT's disk that what dynos write is not to take.
    pub disk_reserve: u64,
}

/// As Heroku does it.
const MEASURED_EVERY: Duration = Duration::from_secs(20);

impl Default for Settings {
    fn default() -> Self {
        let executable = PathBuf::from("/proc/self/exe");
        Self {
            executable,
            policy: firewall::Policy::default(),
            egress: BTreeMap::new(),
            prepared: 2,
            usual: DynoSize::default().limits(),
            measured_every: MEASURED_EVERY,
            memory_reserve: None,
            disk_reserve: 0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot set up the network of dynos")]
    Network(#[from] network::NetworkError),
    #[error("cannot restrict what dynos reach")]
    Firewall(#[from] firewall::FirewallError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("cannot clear the instance's entry")]
    Register(#[from] super::instances::RegisterError),
    #[error("a task of the engine died")]
    Task(#[from] tokio::task::JoinError),
}

/// The engine. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Dynos {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instance: Instance,
    settings: Settings,
    /// None where the host has none; then no dyno starts.
    hierarchy: Option<Hierarchy>,
    firewall: Arc<Firewall>,
    /// Puts back the rules that others remove, until this engine lets go.
    watch: Mutex<Option<firewall::Watch>>,
    hub: Hub,
    events: mpsc::UnboundedSender<Event>,
    slots: Mutex<Slots<UnixStream>>,
    /// The live dynos; what is sent before a shim is there waits for it.
    orders: Mutex<HashMap<DynoId, mpsc::UnboundedSender<Order>>>,
    /// Told when nothing is ready for the next launch.
    hurry: Notify,
    /// Held by whoever starts a launcher, so that there is one.
    starting: tokio::sync::Mutex<()>,
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Dynos {
    /// Takes over what the last server left and goes on from there: the launcher, live dynos with their logs, the
    /// records of ended ones. Those that nobody watched over any more are ended and cleared away.
    ///
    /// Events of the dynos found come after this returns; for live ones `Ready` comes again.
    ///
    /// # Errors
    /// When the network can't be set up, the launcher not be started, or RUN not be read.
    pub async fn start(
        instance: Instance,
        settings: Settings,
        hub: Hub,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Self, Vec<Found>), EngineError> {
        let dynos = instance.run.join("dynos");
        step("make a directory", dynos.display(), DirBuilder::new().recursive(true).mode(0o700).create(&dynos))?;
        let (policy, apps) = (settings.policy.clone(), settings.egress.clone());
        let firewall = Firewall::new(instance.clone(), policy, apps, egress::survivors(&instance)?);
        let place = instance.clone();
        let firewall =
            tokio::task::spawn_blocking(move || network::setup(&place, &firewall).map(|()| firewall)).await??;
        let firewall = Arc::new(firewall);
        let hierarchy = instances::hierarchy(&instance).ok();
        let shared = Arc::new(Shared {
            instance,
            settings,
            hierarchy,
            watch: Mutex::new(Some(firewall::Watch::start(firewall.clone())?)),
            firewall,
            hub,
            events,
            slots: Mutex::default(),
            orders: Mutex::default(),
            hurry: Notify::new(),
            starting: tokio::sync::Mutex::default(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let launcher = lifeline::begin(&shared).await?;
        if let Err(error) = share::bound(&shared.instance, shared.settings.memory_reserve) {
            // Each dyno has its own bounds still.
            tracing::warn!(error = &error as &dyn std::error::Error, "can't bound what dynos use together");
        }
        let found = adopt::adopt(&shared).await?;
        egress::forget_the_dead(&shared).await?;
        shared.spawn(lifeline::attend(shared.clone(), launcher));
        shared.spawn(room::keep_free(shared.clone()));
        Ok((Self { shared }, found))
    }

    /// Starts a dyno; what becomes of it is told by events.
    pub fn launch(&self, launch: Launch) {
        let orders = self.shared.expect_orders(launch.id);
        self.shared.spawn(task::launch(self.shared.clone(), launch, orders));
    }

    /// Lets a program into a dyno that runs, for a client that speaks frames of [`crate::wire::attach`], until that has gone,
    /// the program has ended or `until` is cancelled, as it is in the end.
    pub fn inside(&self, id: DynoId, order: &Inside, client: BoxedIo, until: CancellationToken) {
        let mut hello = vec![VERSION, INSIDE];
        hello.extend(protocol::encode(order));
        let dir = self.shared.instance.dyno_dir(id);
        let mut bridge = attach::start(&self.shared, dir, hello, attach::NOT_LET_IN, client);
        self.shared.spawn(async move {
            tokio::select! {
                // Whatever it is waiting for.
                () = until.cancelled() => bridge.abort(),
                // The client was told all that there is to tell.
                _ = &mut bridge => until.cancel(),
            }
        });
    }

    /// SIGTERM to every process of the dyno; SIGKILL to those that are left after `grace`.
    pub fn stop(&self, id: DynoId, grace: Duration) {
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.shared.order(id, Order::Stop { grace });
    }

    /// SIGKILL to every process of the dyno.
    pub fn kill(&self, id: DynoId) {
        self.shared.order(id, Order::Kill);
    }

    /// The record of an ended dyno is no longer needed. Nothing happens while it lives.
    pub fn forget(&self, id: DynoId) {
        if self.shared.lock_orders().contains_key(&id) {
            return;
        }
        let dir = self.shared.instance.dyno_dir(id);
        self.shared.tasks.spawn_blocking(move || remove(&dir));
    }

    /// Lets go of everything; dynos, shims and launcher go on, and the next [`Dynos::start`] finds them.
    pub async fn shutdown(self) {
        self.let_go();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Begins [`shutdown`](Self::shutdown), for who can't wait for its end: nothing is done to the host any more.
    pub fn let_go(&self) {
        self.shared.ending.cancel();
        let watch = self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(watch);
    }
}

/// What can't be removed now is found again by the next scan.
fn remove(dir: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove the record of a dyno");
    }
}

impl Shared {
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            // A task is let go of where it waits, never between storing a line and taking it off the ring.
            ending.run_until_cancelled(task).await;
        });
    }

    fn tell(&self, id: DynoId, what: What) {
        // A supervisor that is gone needs no events.
        let _ = self.events.send(Event { id, what });
    }

    fn lock_orders(&self) -> std::sync::MutexGuard<'_, HashMap<DynoId, mpsc::UnboundedSender<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_slots(&self) -> std::sync::MutexGuard<'_, Slots<UnixStream>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_orders(&self, id: DynoId) -> mpsc::UnboundedReceiver<Order> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock_orders().insert(id, sender);
        receiver
    }

    fn order(&self, id: DynoId, order: Order) {
        if let Some(orders) = self.lock_orders().get(&id) {
            // A task that has ended needs no orders.
            let _ = orders.send(order);
        }
    }

    /// A connection to the launcher, which is started if there is none.
    async fn launcher(&self) -> Result<UnixStream, StepError> {
        let path = launcher::socket(&self.instance);
        let _one = self.starting.lock().await;
        if let Ok(connection) = UnixStream::connect(&path).await {
            return Ok(connection);
        }
        self.start_launcher()?;
        step("reach the launcher", path.display(), UnixStream::connect(&path).await)
    }

    fn start_launcher(&self) -> Result<(), StepError> {
        let path = launcher::socket(&self.instance);
        let _ = std::fs::remove_file(&path);
        let listener = step("listen for the launcher", path.display(), UnixListener::bind(&path))?;
        step("protect a socket", path.display(), std::fs::set_permissions(&path, Permissions::from_mode(0o600)))?;
        let log = self.instance.run.join("launcher.log");
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let instance = serde_json::to_string(&self.instance).map_err(io::Error::from);
        let mut command = tokio::process::Command::new(&self.settings.executable);
        command.arg("launcher").arg(step("name the instance", "launcher", instance)?);
        command.env_clear().stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        command.stderr(step("open the launcher's log", "launcher.log", log)?);
        // It outlives this server; until then the runtime reaps it.
        step("start the launcher", self.settings.executable.display(), command.spawn())?;
        Ok(())
    }

    /// A slot for a launch, with the connection to the shim that waits in it, and those to [`prepare`](Self::prepare) for
    /// later ones once it has begun.
    fn take_slot(&self) -> (Option<(u16, Option<UnixStream>)>, Vec<u16>) {
        self.lock_slots().take(self.settings.prepared)
    }

    fn prepare(self: &Arc<Self>, slots: Vec<u16>) {
        // When all are taken, the next launch may come as soon as this one.
        let in_a_hurry = self.lock_slots().ahead.is_empty();
        if in_a_hurry {
            self.hurry.notify_waiters();
        }
        if !slots.is_empty() {
            self.spawn(prepare(self.clone(), slots, in_a_hurry));
        }
    }
}

/// Has the launcher fork shims that make all ready. Only then a launch may take one: the launcher does one thing after the
/// other, but the shim of a launch that overtook would make the same network at the same time.
async fn prepare(shared: Arc<Shared>, slots: Vec<u16>, in_a_hurry: bool) {
    if !in_a_hurry {
        // Until the time is over, or there is no time.
        let _ = tokio::time::timeout(AFTER_A_START, shared.hurry.notified()).await;
    }
    let usual = shared.settings.usual;
    let bounds = Bounds { bytes: shared.fitted(usual.disk), memory: usual.memory_quota };
    for slot in slots {
        let ask = async {
            let mut shim = shared.launcher().await.ok()?;
            shim.write_all(&Hello::Prepare { slot, bounds }.encode()).await.ok()?;
            Some(shim)
        };
        let asked = ask.await;
        shared.lock_slots().prepared(slot, asked);
    }
}

/// How long making ready for later launches waits, so that it does not take the processor from a program that starts.
const AFTER_A_START: Duration = Duration::from_millis(10);

/// Which slots are in use. They are given out in turn, so that an address is not soon another dyno's.
#[derive(Debug)]
struct Slots<W> {
    used: Vec<bool>,
    next: u16,
    /// Set aside for launches to come, with what waits there.
    ahead: VecDeque<(u16, W)>,
    /// How many more are being prepared.
    coming: usize,
}

impl<W> Default for Slots<W> {
    fn default() -> Self {
        Self { used: vec![false; usize::from(Instance::SLOTS)], next: 0, ahead: VecDeque::new(), coming: 0 }
    }
}

impl<W> Slots<W> {
    /// A free slot, and those to be prepared so that there are `ahead` again.
    fn take(&mut self, ahead: usize) -> (Option<(u16, Option<W>)>, Vec<u16>) {
        let waiting = self.ahead.pop_front().map(|(slot, waiting)| (slot, Some(waiting)));
        let slot = waiting.or_else(|| Some((self.free_one()?, None)));
        (slot, self.reserve(ahead))
    }

    /// Those to be prepared so that there are `ahead`.
    fn reserve(&mut self, ahead: usize) -> Vec<u16> {
        let missing = ahead.saturating_sub(self.ahead.len() + self.coming);
        let slots: Vec<u16> = (0..missing).map_while(|_| self.free_one()).collect();
        self.coming += slots.len();
        slots
    }

    /// Gives up those that wait. How many there were.
    fn forget_ahead(&mut self) -> usize {
        let given_up: Vec<u16> = self.ahead.drain(..).map(|(slot, _)| slot).collect();
        for slot in &given_up {
            self.release(*slot);
        }
        given_up.len()
    }

    /// Takes this one if nobody has it.
    fn claim(&mut self, slot: u16) -> bool {
        self.used.get_mut(usize::from(slot)).is_some_and(|used| !std::mem::replace(used, true))
    }

    /// `None`: that could not be done.
    fn prepared(&mut self, slot: u16, waiting: Option<W>) {
        self.coming = self.coming.saturating_sub(1);
        match waiting {
            Some(waiting) => self.ahead.push_back((slot, waiting)),
            None => self.release(slot),
        }
    }

    fn free_one(&mut self) -> Option<u16> {
        for _ in 0..Instance::SLOTS {
            let slot = self.next;
            self.next = (self.next + 1) % Instance::SLOTS;
            if !std::mem::replace(&mut self.used[usize::from(slot)], true) {
                return Some(slot);
            }
        }
        None
    }

    /// It was taken by an earlier server. The next one given out is a later one.
    fn occupy(&mut self, slot: u16) {
        if let Some(used) = self.used.get_mut(usize::from(slot)) {
            *used = true;
            self.next = (slot + 1) % Instance::SLOTS;
        }
    }

    fn release(&mut self, slot: u16) {
        if let Some(used) = self.used.get_mut(usize::from(slot)) {
            *used = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_round_and_are_never_given_twice() {
        let mut slots = Slots::default();
        slots.occupy(1);
        let (first, to_prepare) = slots.take(2);
        assert_eq!((first, to_prepare), (Some((2, None)), vec![3, 4]));
        assert_eq!(slots.take(2), (Some((5, None)), vec![]), "not one that is not prepared yet");
        slots.prepared(3, Some("three"));
        slots.prepared(4, Some("four"));
        assert_eq!(slots.take(2), (Some((3, Some("three"))), vec![6]));
        slots.prepared(6, None);
        let mut all: Vec<u16> = std::iter::from_fn(|| slots.take(0).0).map(|(slot, _)| slot).collect();
        assert_eq!(all.len(), usize::from(Instance::SLOTS) - 4);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), usize::from(Instance::SLOTS) - 4);
        slots.release(7);
        assert_eq!(slots.take(0).0, Some((7, None)));
    }
}
