//! The wiring: what a server is made of, in the order in which it is put together and taken apart.
#![forbid(unsafe_code)]

mod config;

use crate::api;
use crate::backup;
use crate::control::disk::Keep;
use crate::control::{self, Control, Place};
use crate::doctor;
use crate::domain::app::AppId;
use crate::domain::egress::Egress;
use crate::domain::egress::Protocol;
use crate::domain::instance::{Instance, InstanceName};
use crate::domain::limits::{self, DynoSize};
use crate::drains::{Drains, Reach};
use crate::dyno::firewall::Policy;
use crate::dyno::{self, Dynos, instances};
use crate::git;
use crate::logs::{Hub, HubLimits, Outputs};
use crate::router::{self, Access, Router};
use crate::slug::SlugStore;
use crate::stack::{Origin, Stacks};
use crate::store::Store;
use crate::supervisor::{self, Parts, Supervisor, builds};
use crate::sys::memory::Memory;
use crate::sys::{cgroup, open_files, tree};
use crate::tls::{self, OwnNames};
use anyhow::{Context, bail};
use config::Config;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sd_notify::NotifyState;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const DEFAULT_API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
const DEFAULT_ROUTER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Megabytes that stay free on ROOT's disk when the configuration does not say.
const RESERVE_MB: u64 = 256;

/// Megabytes that the caches of all apps' builds may have together when the configuration does not say.
const CACHES_MB: u64 = 10 * 1024;

/// What dynos have between SIGTERM and SIGKILL when their instance ends.
const LAST_GRACE: Duration = Duration::from_secs(10);

/// What the command line and the environment say; what they do not say has a default.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub root: PathBuf,
    pub name: Option<InstanceName>,
    /// Where the API and git listen; 127.0.0.1:5000 when not set.
    pub api: Option<SocketAddr>,
    /// Where apps are served; 127.0.0.1:8080 when not set.
    pub router: Option<SocketAddr>,
    /// Where apps are served over TLS; nowhere when not set.
    pub router_tls: Option<SocketAddr>,
    /// Apps are served at `APP.DOMAIN`; `localhost` when not set.
    pub domain: Option<String>,
}

/// Runs a server until it is told to stop (SIGTERM, SIGINT). Dynos and router live on.
///
/// # Errors
/// When the server can't start: what it was doing and what to do about it.
pub fn run(options: ServerOptions) -> anyhow::Result<()> {
    require_root()?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HOKKU_LOG").unwrap_or_else(|_| "hokku=info,warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // What can't be written, on a full disk for example, is lost; to say so there again would panic.
        .log_internal_errors(false)
        .init();
    // Every log tail that is followed takes one.
    if let Err(error) = open_files::allow_many() {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
    let root = options.root.clone();
    backup::require_restored(&root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options)).map_err(|error| advise(error, &root))
}

/// Puts what is to be done before what the system says of the disk.
fn advise(error: anyhow::Error, root: &Path) -> anyhow::Error {
    let kind = error.chain().find_map(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
    let what = match kind {
        Some(std::io::ErrorKind::ReadOnlyFilesystem) => {
            "can't be written to: its disk is read-only; see in dmesg why, then have it mounted for writing again"
        }
        Some(std::io::ErrorKind::StorageFull) => "can't be written to: its disk is full; make room and start again",
        _ => return error,
    };
    error.context(format!("{} {what}", root.display()))
}

async fn serve(options: ServerOptions) -> anyhow::Result<()> {
    // What this process must be able to do and hold, before anything is started.
    let config = Config::read(&options.root)?;
    let api = options.api.or(config.server.api).unwrap_or(DEFAULT_API);
    let listen = options.router.or(config.server.router).unwrap_or(DEFAULT_ROUTER);
    let listen_tls = options.router_tls.or(config.server.router_tls);
    // A first start that can't be leaves nothing behind.
    if instances::find(&options.root)?.is_none() {
        // Later ones may find their own router there.
        try_addresses(api, listen, listen_tls).await?;
    }
    let (instance, _claim) = claim(options.name.clone(), &options.root)?;
    let api = bind(api, "--api").await?;
    let domain = options.domain.or_else(|| config.server.domain.clone()).unwrap_or_else(|| "localhost".to_owned());

    // What lasts. Logs, output and caches may hold what an app would not tell everybody.
    for private in ["logs", "output", "cache", "sources"] {
        make_private(&instance.root.join(private))?;
    }
    let store = Store::open(&instance.root)?;
    let hub = Hub::open(instance.root.join("logs"), HubLimits::default()).context("can't open the logs")?;
    let outputs = Outputs::open(instance.root.join("output")).context("can't open the build output")?;
    let slugs = SlugStore::open(&instance.root).context("can't open the slug store")?;
    let origin = Origin { mirrors: config.stack.mirrors.clone() };
    let stacks = Stacks::open(&instance.root, slugs.clone(), &config.stack.host.paths, origin)?;

    // What runs: router first, so that its port is known to the firewall; then the dynos there are.
    let (access, accessed) = mpsc::unbounded_channel();
    let (router, router_addr) = Router::start_with(&instance, listen, router_options(&config, listen_tls), access)
        .await
        .context("can't start the router; if its address is taken, choose another with --router or --router-tls")?;
    let router_tls = router.tls_address();
    tokio::spawn(log_access(hub.clone(), accessed));
    let (events_out, mut events) = mpsc::unbounded_channel();
    let egress = store.read(crate::store::egress::all).await?;
    let engine_settings = engine_settings(&config, router_addr, router_tls, egress);
    let (dynos, found) = Dynos::start(instance.clone(), engine_settings, hub.clone(), events_out).await?;
    // With dynos there it is known that they can be launched, and their events are for the supervisor.
    if found.is_empty() {
        try_a_launch(&instance, &dynos, &mut events, &stacks).await;
    }

    let parts = Parts {
        store: store.clone(),
        hub: hub.clone(),
        outputs: outputs.clone(),
        slugs: slugs.clone(),
        stacks: stacks.clone(),
        engine: Arc::new(dynos.clone()),
        router: Some(router.clone()),
        settings: supervisor_settings(&config, &domain),
    };
    let tls = tls::acceptor(&instance.root, &names(&domain, api.local_addr()?)).context("can't speak TLS")?;
    let own_names = OwnNames::open(&instance.root, &domain).context("can't speak TLS")?;
    let supervisor = Supervisor::start(parts, found, events, build_settings(&config, &instance, &domain, router_addr));

    // What is listened to.
    let closing = CancellationToken::new();
    let place = Place {
        instance: instance.clone(),
        domain: domain.clone(),
        router_port: router_addr.port(),
        stack: config.stack.default,
        source_limit: Place::SOURCE_LIMIT,
        keep: keep(&config),
    };
    let drains = Drains::new(hub.clone(), drain_reach(&config));
    let parts = control::Parts {
        store: store.clone(),
        supervisor,
        hub,
        outputs,
        slugs,
        stacks,
        drains,
        place,
        closing: closing.clone(),
    };
    let control = Control::new(parts).context("can't make the folder for sources ready")?;
    control::apps::sweep(&control).await.context("can't remove what a crash left of destroyed apps")?;
    control::drains::start_all(&control).await?;
    if router_tls.is_some() {
        tokio::spawn(control::certs::keep_serving(control.clone(), router.clone(), own_names));
    }
    tokio::spawn(control::stacks::keep_collecting(control.clone()));
    tokio::spawn(control::disk::keep_collecting(control.clone()));
    let api_addr = api.local_addr()?;
    // Whoever finds the socket, or reads that the server is ready, may ask it to stop at once.
    let stop = Stop::listen()?;
    let socket = unix_listener(&instance)?;
    let git = git::routes(&control).context("can't listen for git's hooks")?;
    let serving = [
        tokio::spawn(api::serve_unix(socket, control.clone(), git.clone())),
        tokio::spawn(api::serve_tcp(api, tls, control.clone(), git)),
    ];
    Record::new(&instance, api_addr, (router_addr, router_tls), &domain).write()?;
    announce(&control, api_addr, (router_addr, router_tls)).await?;
    tell_systemd(&[NotifyState::Ready]);
    if let Some(within) = sd_notify::watchdog_enabled() {
        tokio::spawn(feed(within / 3, store));
    }

    stop.asked().await;
    tracing::info!("stopping; dynos and router go on");
    tell_systemd(&[NotifyState::Stopping]);
    closing.cancel();
    for server in serving {
        let _ = tokio::time::timeout(LAST_ANSWERS, server).await;
    }
    tokio::join!(dynos.shutdown(), router.flush());
    Ok(())
}

/// A connection of the API that does not end by itself is cut off then.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Keeps the control group that was delegated to this process for the instance in `root`, whose dynos, launcher and router
/// are to be in it, and does nothing else until it is told to end.
///
/// # Errors
/// When a server runs there already, or the control groups can't be used.
pub fn hold(root: &Path) -> anyhow::Result<()> {
    require_root()?;
    let (instance, claim) = claim(None, root)?;
    let hierarchy = instances::hierarchy(&instance)?;
    cgroup::prepare(&hierarchy, &instance.cgroup())?;
    if instance.delegated.is_none() {
        bail!("no control group of version 2 was delegated to this process; a unit needs Delegate=yes for that");
    }
    drop(claim);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stop = Stop::listen()?;
        tell_systemd(&[NotifyState::Ready]);
        stop.asked().await;
        Ok(())
    })
}

/// Without effect where systemd has not started this.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("can't tell systemd: {error}");
    }
}

/// Tells systemd's watchdog that the server works, as long as it does: its threads run and its store answers.
async fn feed(every: Duration, store: Store) {
    loop {
        match store.read(crate::store::apps::list).await {
            Ok(_) => tell_systemd(&[NotifyState::Watchdog]),
            Err(error) => tracing::error!("the store does not answer: {error}"),
        }
        tokio::time::sleep(every).await;
    }
}

/// On an instance's first start after a boot: what keeps dynos from running is to be in the log before anybody deploys. The
/// server starts all the same, since an operator may want it for looking around.
async fn try_a_launch(
    instance: &Instance,
    dynos: &Dynos,
    events: &mut mpsc::UnboundedReceiver<dyno::Event>,
    stacks: &Stacks,
) {
    // RUN does not outlive a boot.
    let mark = instance.run.join("launched");
    if mark.exists() {
        return;
    }
    match doctor::trial_launch(dynos, events, &instance.root, stacks.host()).await {
        Ok(took) => {
            tracing::debug!("the trial launch took {} ms", took.as_millis());
            if let Err(error) = std::fs::write(&mark, "") {
                tracing::warn!("can't write {}: {error}", mark.display());
            }
        }
        Err(error) => tracing::error!("dynos can't be launched here: {error}; for more, run hokku doctor"),
    }
}

/// Stops the instance and removes every trace of it but its root; with `purge` that too.
///
/// # Errors
/// When there is no such instance, its server runs, or something can't be removed.
pub fn down(root: &Path, name: Option<&InstanceName>, purge: bool) -> anyhow::Result<()> {
    require_root()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        if let Some(instance) = registered(root, name)? {
            let seen = instance.root.exists();
            let claim = stop_server(&instance).await?;
            Router::stop(&instance).await?;
            dyno::destroy(&instance, LAST_GRACE).await?;
            if !seen {
                drop(claim);
                forget_root(&instance.root);
            }
        }
        for file in ["instance.json", "lock"] {
            remove_file(&root.join(file))?;
        }
        if purge && root.exists() {
            tree::remove(root).with_context(|| format!("can't remove {}", root.display()))?;
        }
        Ok(())
    })
}

/// Takes the directory away again that a claim of its ROOT has made, where that is not to be seen from here.
fn forget_root(root: &Path) {
    let _ = std::fs::remove_file(root.join("lock"));
    // Whatever else is in it by now is not ours to judge.
    let _ = std::fs::remove_dir(root);
}

fn registered(root: &Path, name: Option<&InstanceName>) -> anyhow::Result<Option<Instance>> {
    if !root.exists() {
        let left = |instance: &Instance| Some(&instance.name) == name && !instance.root.exists();
        let Some(instance) = instances::list()?.into_iter().find(left) else {
            bail!("there is no directory {}; say by --root which instance is to end", root.display());
        };
        return Ok(Some(instance));
    }
    let found = instances::find(root)?;
    if let (Some(instance), Some(name)) = (&found, name)
        && instance.name != *name
    {
        bail!("the instance in {} is called {}, not {name}", root.display(), instance.name);
    }
    Ok(found)
}

/// Ends a server that still runs on the instance and takes its place, so that nothing is started meanwhile.
async fn stop_server(instance: &Instance) -> anyhow::Result<instances::Claim> {
    terminate_server(instance)?;
    for _ in 0..400 {
        match instances::claim(instance.name.clone(), &instance.root) {
            Ok((_, claim)) => return Ok(claim),
            Err(instances::ClaimError::RootInUse { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the server of the instance {} does not stop", instance.name)
}

/// SIGTERM to whoever listens on the API's socket; nobody does when there is no server or it is ending already.
fn terminate_server(instance: &Instance) -> anyhow::Result<()> {
    let Ok(socket) = std::os::unix::net::UnixStream::connect(instance.api_socket()) else { return Ok(()) };
    let listener = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?.pid();
    let Some(pid) = Pid::from_raw(listener) else { return Ok(()) };
    // A pidfd cannot come to mean another process.
    let server = pidfd_open(pid, PidfdFlags::empty()).context("can't stop the server")?;
    pidfd_send_signal(&server, Signal::TERM).context("can't stop the server")
}

fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this needs root: namespaces, mounts and cgroups are made for every app. Try it with sudo.")
}

fn claim(name: Option<InstanceName>, root: &Path) -> anyhow::Result<(Instance, instances::Claim)> {
    let registered = instances::find(root)?.map(|instance| instance.name);
    Ok(instances::claim(name.or(registered).unwrap_or_default(), root)?)
}

/// All at once, since two of them may be the same.
async fn try_addresses(api: SocketAddr, router: SocketAddr, router_tls: Option<SocketAddr>) -> anyhow::Result<()> {
    let _both = (bind(api, "--api").await?, bind(router, "--router").await?);
    if let Some(address) = router_tls {
        bind(address, "--router-tls").await?;
    }
    Ok(())
}

async fn bind(addr: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("can't listen on {addr}; choose another address with {flag}"))
}

/// What clients may call the API's address, as far as it is known here.
fn names(domain: &str, api: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let own = Some(api.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let domain = Some(domain.to_owned()).filter(|domain| domain.is_ascii());
    for name in own.into_iter().chain(domain) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)));
    made.with_context(|| format!("can't make {}", dir.display()))
}

fn unix_listener(instance: &Instance) -> anyhow::Result<UnixListener> {
    let path = instance.api_socket();
    remove_file(&path)?;
    let listener = UnixListener::bind(&path).with_context(|| format!("can't listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn log_access(hub: Hub, mut lines: mpsc::UnboundedReceiver<Access>) {
    use crate::domain::log::{LogFrame, Source};
    while let Some(Access { app, at, line }) = lines.recv().await {
        hub.write(app, LogFrame::platform(at, Source::Heroku, "router", line));
    }
}

fn engine_settings(
    config: &Config,
    router: SocketAddr,
    router_tls: Option<SocketAddr>,
    egress: BTreeMap<AppId, Egress>,
) -> dyno::Settings {
    let open_to_dynos = std::iter::once(router).chain(router_tls).map(|address| address.port()).collect();
    let policy = Policy { allow_host: config.network.allow_host.clone(), open_to_dynos };
    let defaults = dyno::Settings::default();
    let measured_every = config.dyno.memory_check_seconds.map_or(defaults.measured_every, Duration::from_secs);
    dyno::Settings {
        policy,
        egress,
        measured_every,
        usual: config.sizes().of(DynoSize::default()),
        memory_reserve: memory_reserve(config),
        disk_reserve: disk_reserve(config),
        ..defaults
    }
}

fn memory_reserve(config: &Config) -> Option<u64> {
    config.memory.reserve_mb.map(|megabytes| megabytes.saturating_mul(1 << 20))
}

/// Megabytes that a build may use: as many as apps and builds together at most, so that what it is told is true.
fn build_memory(config: &Config, usual: u64) -> u64 {
    let wanted = config.build.memory_mb.unwrap_or(usual);
    let total = Memory::of_this_machine().map_or(u64::MAX, |memory| memory.total);
    wanted.min(limits::memory_for_apps(total, memory_reserve(config)) >> 20)
}

fn disk_reserve(config: &Config) -> u64 {
    config.disk.reserve_mb.unwrap_or(RESERVE_MB).saturating_mul(1 << 20)
}

fn router_options(config: &Config, tls: Option<SocketAddr>) -> router::Options {
    let defaults = router::Options::default();
    let minutes = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
    router::Options { tls, retire: config.server.router_drain_minutes.map_or(defaults.retire, minutes), ..defaults }
}

fn keep(config: &Config) -> Keep {
    Keep {
        reserve: disk_reserve(config),
        slugs: config.disk.keep_slugs.unwrap_or(10).max(1),
        caches: config.disk.caches_mb.unwrap_or(CACHES_MB).saturating_mul(1 << 20),
    }
}

/// Drains reach of this machine what dynos do.
fn drain_reach(config: &Config) -> Reach {
    let tcp = config.network.allow_host.iter().filter(|open| open.protocol == Protocol::Tcp);
    Reach { open: tcp.map(|open| open.port).collect() }
}

fn supervisor_settings(config: &Config, domain: &str) -> supervisor::Settings {
    let defaults = supervisor::Settings::default();
    let seconds = |value: Option<u64>, default| value.map_or(default, Duration::from_secs);
    supervisor::Settings {
        boot_timeout: seconds(config.dyno.boot_timeout_seconds, defaults.boot_timeout),
        grace: seconds(config.dyno.stop_timeout_seconds, defaults.grace),
        domain: domain.to_owned(),
        sizes: config.sizes(),
        ..defaults
    }
}

fn build_settings(config: &Config, instance: &Instance, domain: &str, router: SocketAddr) -> builds::Settings {
    let defaults = builds::Settings::new(instance.root.clone(), domain.to_owned(), router.port());
    builds::Settings {
        env: config.build.env.clone().into_iter().collect(),
        time_limit: config.build.time_limit_minutes.map_or(defaults.time_limit, |m| Duration::from_secs(60 * m)),
        at_once: config.build.at_once.unwrap_or(defaults.at_once),
        memory_mb: build_memory(config, defaults.memory_mb),
        slug_mb: config.build.slug_mb.unwrap_or(defaults.slug_mb),
        cache_mb: config.build.cache_mb.unwrap_or(defaults.cache_mb),
        reserve_mb: config.disk.reserve_mb.unwrap_or(RESERVE_MB),
        ..defaults
    }
}

/// `ROOT/instance.json`: where clients on this box find the server.
#[derive(Serialize)]
struct Record {
    name: InstanceName,
    run: PathBuf,
    api: SocketAddr,
    router: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    router_tls: Option<SocketAddr>,
    domain: String,
    pid: i32,
    root: PathBuf,
}

impl Record {
    fn new(instance: &Instance, api: SocketAddr, router: (SocketAddr, Option<SocketAddr>), domain: &str) -> Self {
        let pid = std::process::id().cast_signed();
        let (name, run, root) = (instance.name.clone(), instance.run.clone(), instance.root.clone());
        let (router, router_tls) = router;
        Self { name, run, api, router, router_tls, domain: domain.to_owned(), pid, root }
    }

    /// Whole or not at all: a client may look at any time.
    fn write(&self) -> anyhow::Result<()> {
        let path = self.root.join("instance.json");
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new).with_context(|| format!("can't write {}", new.display()))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path).with_context(|| format!("can't write {}", path.display()))
    }
}

/// The one line on stdout: everything is up.
async fn announce(
    control: &Control,
    api: SocketAddr,
    (router, tls): (SocketAddr, Option<SocketAddr>),
) -> anyhow::Result<()> {
    let Place { instance, domain, .. } = &*control.place;
    let at = |scheme: &str, port: u16, usual: u16| {
        let port = if port == usual { String::new() } else { format!(":{port}") };
        format!("{scheme}://<app>.{domain}{port}")
    };
    let mut apps = at("http", router.port(), 80);
    if let Some(tls) = tls {
        apps = format!("{apps} and {}", at("https", tls.port(), 443));
    }
    let root = instance.root.display();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "Ready. Root {root}, API on http://{api}, apps on {apps}")?;
    stdout.flush()?;
    introduce(control).await
}

/// To whoever starts the first server of an instance by hand: how its administrator logs in. A service's output is kept by
/// the system, where no password belongs.
async fn introduce(control: &Control) -> anyhow::Result<()> {
    if !std::io::stderr().is_terminal() {
        return Ok(());
    }
    if let Some((account, password)) = control::accounts::first_password(control).await? {
        let again = format!("hokku users:password {}", account.email);
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "Administrator {}, password {password} (shown this once; {again} makes another)",
            account.email
        )?;
    }
    Ok(())
}

/// SIGTERM and SIGINT, from the time on when this was made.
struct Stop {
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
