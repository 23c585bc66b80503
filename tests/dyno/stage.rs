//! An instance of its own for one test, with everything removed at the end.

use hokku::domain::app::AppId;
use hokku::domain::dyno::{DynoId, Exit, Purpose};
use hokku::domain::instance::Instance;
use hokku::domain::limits::{DynoSize, Limits};
use hokku::domain::log::{LogFilter, LogFrame};
use hokku::dyno::instances::{self, Claim};
use hokku::dyno::scratch::{self, Way};
use hokku::dyno::{Body, Dynos, Event, Found, Io, Labels, Launch, Mount, Ready, Settings, What, destroy};
use hokku::logs::{Hub, HubLimits};
use hokku::stack;
use jiff::Timestamp;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Stage {
    pub(crate) instance: Instance,
    pub(crate) app: AppId,
    pub(crate) hub: Hub,
    pub(crate) dynos: Option<Dynos>,
    pub(crate) found: Vec<Found>,
    /// None, so that a look at the links shows those of dynos only.
    pub(crate) prepared: usize,
    /// Bytes of memory that dynos leave to the host.
    pub(crate) memory_reserve: Option<u64>,
    events: mpsc::UnboundedReceiver<Event>,
    pub(crate) seen: Vec<Event>,
    tree: PathBuf,
    layers: Vec<PathBuf>,
    binds: Vec<Mount>,
    _claim: Claim,
    _root: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}", process::id()).parse().unwrap();
        let (instance, claim) = instances::claim(name, root.path()).unwrap();
        let tree = make_tree(root.path());
        let stack = stack::host(root.path(), &[]).unwrap();
        let binds = stack.binds.into_iter();
        let binds = binds.map(|bind| Mount { source: bind.source, target: bind.target, read_only: true }).collect();
        let hub = Hub::open(
            root.path().join("logs"),
            HubLimits { ring_lines: 100_000, segment_bytes: 64 << 20, ..HubLimits::default() },
        )
        .unwrap();
        let (_, events) = mpsc::unbounded_channel();
        let mut stage = Self {
            instance,
            app: AppId(Uuid::now_v7()),
            hub,
            dynos: None,
            found: Vec::new(),
            prepared: 0,
            memory_reserve: None,
            events,
            seen: Vec::new(),
            layers: std::iter::once(tree.clone()).chain(stack.layers).collect(),
            tree,
            binds,
            _claim: claim,
            _root: root,
        };
        stage.start_engine().await;
        stage
    }

    /// What a server does when it starts.
    pub(crate) async fn start_engine(&mut self) {
        let (sender, events) = mpsc::unbounded_channel();
        let settings = Settings {
            executable: env!("CARGO_BIN_EXE_hokku").into(),
            prepared: self.prepared,
            memory_reserve: self.memory_reserve,
            ..Settings::default()
        };
        let (dynos, found) = Dynos::start(self.instance.clone(), settings, self.hub.clone(), sender).await.unwrap();
        (self.dynos, self.found, self.events) = (Some(dynos), found, events);
        self.seen.clear();
    }

    pub(crate) async fn stop_engine(&mut self) {
        self.dynos.take().unwrap().shutdown().await;
    }

    pub(crate) fn dynos(&self) -> &Dynos {
        self.dynos.as_ref().unwrap()
    }

    /// The slug's `/app`, as it is on the disk.
    pub(crate) fn app_dir(&self) -> PathBuf {
        self.tree.join("app")
    }

    pub(crate) fn body(&self, command: &[&str]) -> Body {
        let env = [("HOME", "/app"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];
        Body {
            layers: self.layers.clone(),
            binds: self.binds.clone(),
            command: command.iter().map(ToString::to_string).collect(),
            env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            files: Vec::new(),
            limits: Limits { pids: 64, ..DynoSize::Basic.limits() },
            hostname: "dyno-1".to_owned(),
            network: false,
            time_limit: None,
        }
    }

    pub(crate) fn labels(&self, purpose: Purpose) -> Labels {
        Labels {
            app: self.app,
            app_name: "example".to_owned(),
            name: "web.1".parse().unwrap(),
            purpose,
            version: 1,
            epoch: 0,
            streak: 0,
            size: DynoSize::Basic,
            command: "a test".to_owned(),
            launched_at: Timestamp::now(),
            by: None,
        }
    }

    pub(crate) fn launch(&self, body: Body, ready: Ready, io: Io) -> DynoId {
        let id = DynoId(Uuid::now_v7());
        self.dynos().launch(Launch { id, labels: self.labels(Purpose::Formation), body, ready, io });
        id
    }

    /// Runs a shell command to its end.
    pub(crate) async fn shell(&mut self, command: &str) -> Ran {
        self.run(self.body(&["sh", "-c", command])).await
    }

    pub(crate) async fn run(&mut self, body: Body) -> Ran {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let id = self.launch(body, Ready::Started, Io::Lines(sender));
        let exit = self.exit(id).await;
        let mut output = Vec::new();
        while let Ok(line) = lines.try_recv() {
            output.push(String::from_utf8(line).unwrap());
        }
        self.dynos().forget(id);
        Ran { exit, output }
    }

    /// Waits for an event; earlier ones that nobody waited for count too.
    pub(crate) async fn event(&mut self, id: DynoId, wanted: impl Fn(&What) -> bool) -> What {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.iter().position(|event| event.id == id && wanted(&event.what)) {
                return self.seen.remove(at).what;
            }
            let next = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = next.unwrap_or_else(|_| panic!("no such event; others: {:?}", self.seen)).expect("an engine");
            if let (What::Failed { step, message }, false) = (&event.what, wanted(&event.what)) {
                panic!("launch failed: {step} ({message})");
            }
            self.seen.push(event);
        }
    }

    pub(crate) async fn started(&mut self, id: DynoId) {
        self.event(id, |what| *what == What::Started).await;
    }

    pub(crate) async fn exit(&mut self, id: DynoId) -> Exit {
        match self.event(id, |what| matches!(what, What::Exited(_))).await {
            What::Exited(exit) => exit,
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn log(&self) -> Vec<LogFrame> {
        self.hub.recent(self.app, &LogFilter::default(), 1_000_000)
    }

    /// Waits until a line of the log says so.
    pub(crate) async fn logged(&self, text: &str) {
        eventually(text, || self.log().iter().any(|frame| frame.line.contains(text))).await;
    }

    /// The pids on the host of everything in the dyno.
    pub(crate) fn processes(&self, id: DynoId) -> Vec<i32> {
        self.group(id).procs().unwrap()
    }

    pub(crate) fn group(&self, id: DynoId) -> hokku::sys::cgroup::Group {
        let hierarchy = instances::hierarchy(&self.instance).unwrap();
        let config = fs::read_to_string(self.instance.dyno_dir(id).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let name = config["linux"]["cgroupsPath"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        hokku::sys::cgroup::Group::open(&hierarchy, &self.instance.cgroup(), &name)
    }

    /// How writable layers are kept here.
    pub(crate) fn way(&self) -> Way {
        scratch::examine(&self.instance.root).0
    }

    /// What a full writable layer answers.
    pub(crate) fn full(&self) -> &'static str {
        // Of ext4, where the tests are.
        if self.way() == Way::Quota { "Disk quota exceeded" } else { "No space left" }
    }

    /// The writable layers there are on the disk.
    pub(crate) fn scratch(&self) -> Vec<String> {
        let dir = self.instance.root.join("scratch");
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let projects = names.filter(|name| name.starts_with("project-"));
        let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path().join("loop/backing_file"));
        let files = devices.filter_map(|file| fs::read_to_string(file).ok());
        projects.chain(files.filter(|file| Path::new(file).starts_with(&dir))).collect()
    }

    /// What this instance has on the host: cgroups, links, processes of ours.
    pub(crate) fn traces(&self) -> Vec<String> {
        let hierarchy = instances::hierarchy(&self.instance).unwrap();
        let groups = hokku::sys::cgroup::children(&hierarchy, &self.instance.cgroup()).unwrap();
        let links =
            fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        groups.into_iter().chain(links.filter(|link| link.starts_with(&self.instance.link_prefix()))).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(dynos) = &self.dynos {
            dynos.let_go();
        }
        let instance = self.instance.clone();
        let cleared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(destroy(&instance, Duration::ZERO))
        });
        let cleared = cleared.join().unwrap();
        if !std::thread::panicking() {
            cleared.unwrap();
            let tables = process::Command::new("nft").args(["list", "tables"]).output().unwrap();
            let tables = String::from_utf8(tables.stdout).unwrap();
            let table = self.instance.nft_table();
            assert!(!tables.lines().any(|line| line.ends_with(&format!(" {table}"))), "its rules are still there");
        }
    }
}

/// How a dyno that ran to its end did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) output: Vec<String>,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        self.output.join("\n")
    }
}

/// Tries until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says what a test does not show on this machine, also when it passes: the harness keeps only what macros print.
pub(crate) fn not_shown(what: &str) {
    io::stderr().write_all(format!("not shown here: {what}\n").as_bytes()).unwrap();
}

fn make_tree(root: &Path) -> PathBuf {
    let tree = root.join("trees/1");
    let app = tree.join("app");
    fs::create_dir_all(&app).unwrap();
    copy_program(probe(), &app.join("probe"));
    fs::set_permissions(app.join("probe"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(app.join("lib")).unwrap();
    fs::write(app.join("lib/file"), "of the slug").unwrap();
    for path in [&app, &app.join("probe"), &app.join("lib"), &app.join("lib/file")] {
        chown(path, Some(1000), Some(1000)).unwrap();
    }
    tree
}

/// A copy that can be executed at once. Written by this process, it would be busy for as long as a child that another test
/// starts meanwhile has the descriptor.
pub(crate) fn copy_program(from: impl AsRef<Path>, to: &Path) {
    assert!(process::Command::new("cp").args([from.as_ref(), to]).status().unwrap().success());
}

/// The probe; made here, because cargo makes examples only when all targets are tested. Where there is no cargo,
/// `HOKKU_PROBE` says where it is.
pub(crate) fn probe() -> PathBuf {
    static BUILT: Once = Once::new();
    if let Some(made) = std::env::var_os("HOKKU_PROBE") {
        return made.into();
    }
    BUILT.call_once(|| {
        let built = process::Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "probe"]).status();
        assert!(built.unwrap().success());
    });
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/probe")
}
