//! A real hokku for a test: its own server process, root directory, name and ports; removed without a trace on drop.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = Hokku::THIS;

pub(crate) struct Hokku {
    root: TempDir,
    name: String,
    /// What the server is started from.
    binary: PathBuf,
    server: Option<Child>,
    extra: Vec<String>,
    env: Vec<(String, String)>,
    pub(crate) api: SocketAddr,
    pub(crate) router: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Hokku {
    pub(crate) const THIS: &str = env!("CARGO_BIN_EXE_hokku");

    /// From now on, servers are of another build.
    pub(crate) fn run_by(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// A server whose hokku.toml holds `config`.
    pub(crate) fn with_config(config: &str) -> Self {
        Self::with(config, &[])
    }

    /// A server with further environment variables.
    pub(crate) fn with(config: &str, env: &[(&str, &str)]) -> Self {
        Self::on(tempfile::tempdir().unwrap(), config, env)
    }

    /// A server whose state is in a directory of the test's choice.
    pub(crate) fn on(root: TempDir, config: &str, env: &[(&str, &str)]) -> Self {
        std::fs::write(root.path().join("hokku.toml"), config).unwrap();
        Self::of(root, env)
    }

    /// A server on what is in that directory already.
    pub(crate) fn of(root: TempDir, env: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let binary = BINARY.into();
        let mut hokku =
            Self { root, name, binary, server: None, extra: Vec::new(), env, api: nowhere, router: nowhere };
        hokku.start_server();
        hokku
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the running machine's state.
    pub(crate) fn run_dir(&self) -> PathBuf {
        Path::new("/run/hokku").join(&self.name)
    }

    /// Starts a server that is killed before it may be ready.
    pub(crate) fn start_and_kill_server(&mut self, after: Duration) {
        let mut child = self.launch();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
        self.server = Some(child);
    }

    pub(crate) fn start_server(&mut self) {
        let mut child = self.launch();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.server = Some(child);
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("Ready"));
        assert!(ready.is_some(), "the server did not start:\n{}", self.server_log());
        std::thread::spawn(move || lines.for_each(drop));
        let text = std::fs::read_to_string(self.root().join("instance.json")).unwrap();
        let instance: serde_json::Value = serde_json::from_str(&text).unwrap();
        self.api = instance["api"].as_str().unwrap().parse().unwrap();
        self.router = instance["router"].as_str().unwrap().parse().unwrap();
    }

    fn launch(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.root().join("server.log")).unwrap();
        let (api, router) = (self.api.to_string(), self.router.to_string());
        Command::new(&self.binary)
            .args([
                "server",
                "--name",
                &self.name,
                "--api",
                &api,
                "--router",
                &router,
                "--domain",
                "localhost",
                "--root",
            ])
            .arg(self.root())
            .args(&self.extra)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub(crate) fn server_log(&self) -> String {
        std::fs::read_to_string(self.root().join("server.log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill_server(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    // ---- the command line ----

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).env("HOKKU_ROOT", self.root()).env_remove("HOKKU_HOST").env_remove("HOKKU_API_KEY");
        // Not in this checkout: `create` would write a remote there.
        command.env("NO_COLOR", "1").current_dir(self.root()).stdin(Stdio::null());
        command
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A command that has to succeed; its stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "hokku {args:?}: {}\n{stdout}\n{stderr}\n{}",
            output.status,
            self.server_log()
        );
        stdout
    }

    /// A command that has to fail; its stderr.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(!output.status.success(), "hokku {args:?} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    // ---- code ----

    /// An app with a repository that holds a fixture, ready to be pushed.
    pub(crate) fn app(&self, name: &str, fixture: &str) -> Repository {
        let repository = Repository::of(fixture);
        let output = self.command(&["create", name]).current_dir(repository.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        repository
    }

    /// An app that serves the `echo` fixture.
    pub(crate) fn serving(&self, name: &str) -> Repository {
        let repository = self.app(name, "echo");
        self.push(&repository).expect_success();
        repository
    }

    pub(crate) fn push(&self, repository: &Repository) -> Push {
        self.push_ref(repository, "main")
    }

    pub(crate) fn push_ref(&self, repository: &Repository, reference: &str) -> Push {
        let output = self.git_push(repository, reference).output().unwrap();
        Push { success: output.status.success(), output: text(&output.stdout) + &text(&output.stderr) }
    }

    pub(crate) fn git_push(&self, repository: &Repository, reference: &str) -> Command {
        let mut git = repository.git(&["push", "hokku", reference]);
        git.env("HOKKU_ROOT", self.root());
        let path = format!("{}:{}", Path::new(BINARY).parent().unwrap().display(), std::env::var("PATH").unwrap());
        git.env("PATH", path).process_group(0);
        git
    }

    // ---- traffic ----

    pub(crate) fn get(&self, app: &str, path: &str) -> Response {
        self.try_get(app, path).unwrap()
    }

    pub(crate) fn try_get(&self, app: &str, path: &str) -> std::io::Result<Response> {
        request(self.router, &format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n"))
    }

    /// The app's log so far.
    pub(crate) fn log(&self, app: &str) -> String {
        self.ok(&["logs", "-n", "1500", "-a", app])
    }

    /// Waits until the app's log has a line with `wanted`.
    pub(crate) fn wait_for_log(&self, app: &str, wanted: &str) -> String {
        wait_for(&format!("{wanted:?} in the log of {app}"), || Some(self.log(app)).filter(|log| log.contains(wanted)))
    }

    pub(crate) fn dynos(&self, app: &str) -> Vec<serde_json::Value> {
        self.json(&["ps", "--json", "-a", app]).as_array().unwrap().clone()
    }

    pub(crate) fn wait_until_up(&self, app: &str, count: usize) {
        wait_for(&format!("{count} dynos of {app}"), || {
            let dynos = self.dynos(app);
            (dynos.len() == count && dynos.iter().all(|dyno| dyno["state"] == "up")).then_some(())
        });
    }
}

impl Drop for Hokku {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- server.log\n{}", self.server_log());
        }
        let down =
            Command::new(BINARY).args(["down", "--name", &self.name, "--root"]).arg(self.root()).output().unwrap();
        // `TempDir` calls itself for each level of what a test has left there.
        let _ = Command::new("rm").arg("-rf").arg(self.root()).status();
        if !std::thread::panicking() {
            assert!(down.status.success(), "hokku down: {}", text(&down.stderr));
            assert_eq!(left_behind(&self.name), Vec::<String>::new(), "hokku down left something behind");
        }
    }
}

/// What of an instance is still on the machine.
fn left_behind(name: &str) -> Vec<String> {
    let run = Path::new("/run/hokku").join(name);
    let mut left: Vec<String> = run.exists().then(|| run.display().to_string()).into_iter().collect();
    let groups =
        Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-name", &format!("hokku-{name}")]).output();
    left.extend(text(&groups.unwrap().stdout).lines().map(str::to_owned));
    let tables = text(&Command::new("nft").args(["list", "tables"]).output().unwrap().stdout);
    let table = format!("hokku_{}", name.replace('-', "_"));
    left.extend(tables.lines().filter(|line| line.ends_with(&format!(" {table}"))).map(str::to_owned));
    left
}

/// Runs `test` in a thread whose mounts nobody sees but what it starts; they are gone with it.
pub(crate) fn with_mounts_of_its_own(test: impl FnOnce() + Send + 'static) {
    let play = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        test();
    };
    std::thread::spawn(play).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Ctrl-C in the terminal of a command: every process of its group gets SIGINT.
pub(crate) fn interrupt(child: &Child) {
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT).unwrap();
}

pub(crate) struct Push {
    pub(crate) success: bool,
    pub(crate) output: String,
}

impl Push {
    pub(crate) fn expect_success(self) -> String {
        assert!(self.success, "the push failed:\n{}", self.output);
        self.output
    }

    pub(crate) fn expect_rejection(self) -> String {
        assert!(!self.success, "the push succeeded:\n{}", self.output);
        self.output
    }
}

/// A git work tree with one commit.
pub(crate) struct Repository {
    dir: TempDir,
}

impl Repository {
    pub(crate) fn of(fixture: &str) -> Self {
        let repository = Self::empty();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        assert!(Command::new("cp").arg("-R").arg(from.join(".")).arg(repository.path()).status().unwrap().success());
        repository.commit("first");
        repository
    }

    pub(crate) fn empty() -> Self {
        let repository = Self { dir: tempfile::tempdir().unwrap() };
        repository.run(&["init", "-q", "-b", "main"]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn git(&self, args: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.current_dir(self.path()).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(args);
        git.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
        git
    }

    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = self.git(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn write(&self, file: &str, contents: &str) -> &Self {
        std::fs::write(self.path().join(file), contents).unwrap();
        self
    }

    pub(crate) fn commit(&self, message: &str) -> &Self {
        self.run(&["add", "-A"]);
        self.run(&["commit", "-q", "--allow-empty", "-m", message]);
        self
    }
}

/// Sends one request and reads the whole answer.
pub(crate) fn request(to: SocketAddr, text: &str) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {:?}", String::from_utf8_lossy(&answer))))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Some(Response { status, body })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size, 16).ok().filter(|size| *size > 0) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

/// Polls until there is something, for at most a minute.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
