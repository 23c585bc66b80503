//! One app on a bench: built as a build dyno would, and run as a dyno. bubblewrap stands for our own engine, with which it has
//! nothing to do.

use crate::loopback::free_port;
use hokku::build::compile::{Compile, Phase, body};
use hokku::build::{Buildpack, Choice, Manifest, Outcome, Settings, Stage, outcome};
use hokku::domain::app::AppId;
use hokku::domain::build::BuildId;
use hokku::domain::config_vars::ConfigVars;
use hokku::domain::stack::StackName;
use hokku::dyno::Body;
use hokku::stack::{Bind, Stack};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use uuid::Uuid;

pub(crate) const USER: u32 = 1000;

pub(crate) const APP: AppId = AppId(Uuid::nil());

/// A ROOT for one app and what it is built with.
pub(crate) struct Bench {
    pub(crate) root: Rc<tempfile::TempDir>,
    pub(crate) fixture: PathBuf,
    pub(crate) packs: Vec<Buildpack>,
    pub(crate) config: ConfigVars,
    pub(crate) extra: Vec<(String, Vec<u8>)>,
    /// Without a network.
    pub(crate) cut_off: bool,
}

pub(crate) struct Built {
    pub(crate) _root: Rc<tempfile::TempDir>,
    pub(crate) stage: Stage,
    pub(crate) choice: Choice,
    pub(crate) success: bool,
    pub(crate) output: String,
}

impl Bench {
    pub(crate) fn new(fixture: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            root: Rc::new(root),
            fixture: fixtures().join(fixture),
            packs: vec![],
            config: ConfigVars::default(),
            extra: vec![],
            cut_off: false,
        }
    }

    pub(crate) fn packs(mut self, packs: &[&str]) -> Self {
        self.packs = packs.iter().map(|text| Buildpack::parse(text).unwrap()).collect();
        self
    }

    pub(crate) fn config(mut self, key: &str, value: &str) -> Self {
        self.config = self.config.merge(&[(key.to_owned(), Some(value.to_owned()))].into()).unwrap().0;
        self
    }

    /// One more file of the app, or another text in one.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        self.bytes(name, text.into())
    }

    pub(crate) fn bytes(mut self, name: impl Into<String>, contents: Vec<u8>) -> Self {
        self.extra.push((name.into(), contents));
        self
    }

    /// Builds; the cache is kept when it succeeded.
    pub(crate) fn build(&self) -> Built {
        let build = BuildId(Uuid::new_v4());
        let stage = Stage::create(self.root.path(), build).unwrap();
        self.lay_source(&stage.source());
        let choice = match self.packs.clone() {
            packs if packs.is_empty() => {
                let manifest = Manifest::read(&stage).unwrap();
                Choice::unset(&self.config, manifest.as_ref(), &stage).unwrap()
            }
            packs => Choice::listed(packs),
        };
        stage.take_cache(self.root.path(), APP).unwrap();
        stage.lay_packs(&choice.packs).unwrap();
        let compile = Compile {
            build,
            choice: &choice,
            config: &self.config,
            version: Some("1a2b3c4d"),
            stack: &stack(),
            settings: &Settings::new(self.root.path().to_owned(), "localhost".into(), 80),
            stage: &stage,
            dyno: "build.1",
            phase: Phase::Whole,
        };
        let body = body(&compile, |name| std::env::var(name).ok());
        let (success, output) = run(self.root.path(), &body, self.cut_off);
        if success {
            stage.keep_cache(self.root.path(), APP).unwrap();
        }
        Built { _root: Rc::clone(&self.root), stage, choice, success, output }
    }

    pub(crate) fn lay_source(&self, dest: &Path) {
        let copied = Command::new("cp").args(["-r", "-T"]).args([self.fixture.as_path(), dest]).status().unwrap();
        assert!(copied.success());
        for (name, contents) in &self.extra {
            let path = dest.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        for entry in walkdir::WalkDir::new(dest) {
            lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
        }
    }
}

impl Built {
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.success, "{}", self.output);
        self
    }

    pub(crate) fn failed(self) -> String {
        assert!(!self.success, "{}", self.output);
        self.output
    }

    pub(crate) fn said(self, text: &str) -> Self {
        assert!(self.output.contains(text), "no {text:?} in\n{}", self.output);
        self
    }

    pub(crate) fn outcome(&self) -> Outcome {
        outcome::read(&self.stage, &self.choice).unwrap()
    }

    pub(crate) fn types(&self) -> Vec<String> {
        self.outcome().types.iter().map(|(kind, command)| format!("{kind}: {command}")).collect()
    }

    pub(crate) fn made(&self, name: &str) -> PathBuf {
        self.stage.source().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.made(name)).unwrap()
    }

    /// What `command` prints in a dyno of this slug, started as dynos are.
    pub(crate) fn in_a_dyno(&self, command: &str) -> String {
        const START: &str = r#"for f in ~/.profile.d/*.sh; do . "$f"; done; exec bash -c "$1""#;
        let source = self.stage.source();
        let mut bwrap = sandbox();
        bwrap.args(["--bind".as_ref(), source.as_os_str(), "/app".as_ref()]);
        bwrap.args(["--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/app", "--setenv", "HOME", "/app"]);
        bwrap.args(["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]);
        let output = bwrap.args(AS_USER).args(["bash", "-c", START, "-", command]).output().unwrap();
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&said));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

pub(crate) const AS_USER: [&str; 4] = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"];

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn stack() -> Stack {
    let binds = vec![Bind { source: "/usr".into(), target: "/usr".into() }];
    Stack::new(StackName::Host, "host-debian-12".into(), vec!["/".into()], binds)
}

/// bubblewrap with the host's system and nothing else.
pub(crate) fn sandbox() -> Command {
    let mut bwrap = Command::new("bwrap");
    bwrap.env_clear().args(["--die-with-parent", "--unshare-pid", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc"]);
    bwrap.args(["/etc", "--proc", "/proc", "--dev", "/dev"]);
    for link in ["bin", "sbin", "lib", "lib64"] {
        bwrap.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    if Path::new("/run/systemd/resolve").exists() {
        bwrap.args(["--ro-bind", "/run/systemd/resolve", "/run/systemd/resolve"]);
    }
    bwrap
}

/// Runs what a build dyno would run; status and all output.
pub(crate) fn run(root: &Path, body: &Body, cut_off: bool) -> (bool, String) {
    let [memory, tmp, app] = ["shm", "tmp", "app"].map(|name| root.join(format!("{name}-{}", body.hostname)));
    for file in &body.files {
        let path = memory.join(file.path.strip_prefix("/dev/shm").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &file.contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
    }
    let places = [(&memory, "/dev/shm"), (&tmp, "/tmp"), (&app, "/app")];
    for (dir, _) in places {
        fs::create_dir_all(dir).unwrap();
        for entry in walkdir::WalkDir::new(dir) {
            lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
        }
    }
    let mut bwrap = sandbox();
    if cut_off {
        bwrap.arg("--unshare-net");
    }
    for (dir, target) in places {
        bwrap.args(["--bind".as_ref(), dir.as_os_str(), target.as_ref()]);
    }
    for bind in body.binds.iter().filter(|bind| !bind.read_only) {
        bwrap.args(["--bind".as_ref(), bind.source.as_os_str(), bind.target.as_os_str()]);
    }
    for (name, value) in &body.env {
        bwrap.args(["--setenv", name, value]);
    }
    let output = bwrap.args(["--chdir", "/app"]).args(AS_USER).args(&body.command).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts the web process and asks it for `path`; the answer, after it has been stopped in order.
pub(crate) fn served(built: &Built, path: &str) -> String {
    let port = free_port();
    let types = built.outcome().types;
    let command = types.iter().find(|(kind, _)| kind.is_web()).unwrap().1;
    let script = format!(
        "({command}) >/tmp/web.log 2>&1 & web=$!; trap 'kill $web' EXIT
         for i in {{1..400}}; do curl -s -o /dev/null http://127.0.0.1:$PORT/ && break; sleep 0.05; done
         curl -s -i -m 20 http://127.0.0.1:$PORT{path} | tr -d '\\r'; cat /tmp/web.log"
    );
    built.in_a_dyno(&format!("export PORT={port} DYNO=web.1; {script}"))
}

pub(crate) fn answers(built: &Built, text: &str) {
    let answer = served(built, "/");
    assert!(answer.contains(text), "{answer}");
}
