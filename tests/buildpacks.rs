//! Our buildpacks and the driver for real: npm and pip install from their registries, others' packs get the classic
//! API. The build dyno's body is run by bubblewrap, which has nothing to do with our own engine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hokku::build::compile::{Choice, Compile, body};
use hokku::build::{Buildpack, Outcome, Settings, Stage, outcome};
use hokku::domain::app::AppId;
use hokku::domain::build::BuildId;
use hokku::domain::config_vars::ConfigVars;
use hokku::dyno::Body;
use hokku::stack::{Bind, Stack};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use uuid::Uuid;

const USER: u32 = 1000;
const APP: AppId = AppId(Uuid::nil());

/// A ROOT for one app and what it is built with.
struct Bench {
    root: Rc<tempfile::TempDir>,
    fixture: PathBuf,
    packs: Vec<Buildpack>,
    config: ConfigVars,
    extra: Vec<(&'static str, &'static str)>,
}

struct Built {
    _root: Rc<tempfile::TempDir>,
    stage: Stage,
    choice: Choice,
    success: bool,
    output: String,
}

impl Bench {
    fn new(fixture: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            root: Rc::new(root),
            fixture: fixtures().join(fixture),
            packs: vec![],
            config: ConfigVars::default(),
            extra: vec![],
        }
    }

    fn packs(mut self, packs: &[&str]) -> Self {
        self.packs = packs.iter().map(|text| Buildpack::parse(text).unwrap()).collect();
        self
    }

    fn config(mut self, key: &str, value: &str) -> Self {
        self.config = self.config.merge(&[(key.to_owned(), Some(value.to_owned()))].into()).unwrap().0;
        self
    }

    /// One more file of the app, or another text in one.
    fn file(mut self, name: &'static str, text: &'static str) -> Self {
        self.extra.push((name, text));
        self
    }

    /// Builds; the cache is kept when it succeeded.
    fn build(&self) -> Built {
        let build = BuildId(Uuid::new_v4());
        let stage = Stage::create(self.root.path(), build).unwrap();
        self.lay_source(&stage.source());
        let choice = Choice::new(self.packs.clone(), stage.is_inline());
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
        };
        let body = body(&compile, |name| std::env::var(name).ok());
        let (success, output) = run(self.root.path(), &body);
        if success {
            stage.keep_cache(self.root.path(), APP).unwrap();
        }
        Built { _root: Rc::clone(&self.root), stage, choice, success, output }
    }

    fn lay_source(&self, dest: &Path) {
        let copied = Command::new("cp").args(["-r", "-T"]).args([self.fixture.as_path(), dest]).status().unwrap();
        assert!(copied.success());
        for (name, text) in &self.extra {
            let path = dest.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for entry in walkdir::WalkDir::new(dest) {
            lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
        }
    }
}

impl Built {
    fn succeeded(self) -> Self {
        assert!(self.success, "{}", self.output);
        self
    }

    fn failed(self) -> String {
        assert!(!self.success, "{}", self.output);
        self.output
    }

    fn said(self, text: &str) -> Self {
        assert!(self.output.contains(text), "no {text:?} in\n{}", self.output);
        self
    }

    fn outcome(&self) -> Outcome {
        outcome::read(&self.stage, &self.choice).unwrap()
    }

    fn types(&self) -> Vec<String> {
        self.outcome().types.iter().map(|(kind, command)| format!("{kind}: {command}")).collect()
    }

    fn made(&self, name: &str) -> PathBuf {
        self.stage.source().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.made(name)).unwrap()
    }

    /// What `command` prints in a dyno of this slug, started as dynos are.
    fn in_a_dyno(&self, command: &str) -> String {
        const START: &str = r#"for f in ~/.profile.d/*.sh; do . "$f"; done; exec bash -c "$1""#;
        let source = self.stage.source();
        let mut bwrap = sandbox();
        bwrap.args(["--bind".as_ref(), source.as_os_str(), "/app".as_ref()]);
        bwrap.args(["--tmpfs", "/tmp", "--chdir", "/app", "--setenv", "HOME", "/app"]);
        bwrap.args(["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]);
        let output = bwrap.args(AS_USER).args(["bash", "-c", START, "-", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

const AS_USER: [&str; 4] = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn stack() -> Stack {
    let binds = vec![Bind { source: "/usr".into(), target: "/usr".into() }];
    Stack { name: "host".into(), id: "host-debian-12".into(), base: "/".into(), binds }
}

/// bubblewrap with the host's system and nothing else.
fn sandbox() -> Command {
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
fn run(root: &Path, body: &Body) -> (bool, String) {
    let inside = root.join(format!("tmp-{}", body.hostname));
    let app = root.join(format!("app-{}", body.hostname));
    for file in &body.files {
        let path = inside.join(file.path.strip_prefix("/tmp").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &file.contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
    }
    fs::create_dir_all(&app).unwrap();
    for entry in walkdir::WalkDir::new(&inside).into_iter().chain(walkdir::WalkDir::new(&app)) {
        lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
    }
    let mut bwrap = sandbox();
    bwrap.args(["--bind".as_ref(), inside.as_os_str(), "/tmp".as_ref()]);
    bwrap.args(["--bind".as_ref(), app.as_os_str(), "/app".as_ref()]);
    for bind in body.binds.iter().filter(|bind| !bind.read_only) {
        bwrap.args(["--bind".as_ref(), bind.source.as_os_str(), bind.target.as_os_str()]);
    }
    for (name, value) in &body.env {
        bwrap.args(["--setenv", name, value]);
    }
    let output = bwrap.args(["--chdir", "/app"]).args(AS_USER).args(&body.command).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_node_app_is_detected_installed_and_cached() {
    let bench = Bench::new("node-hello");
    let first = bench.build().succeeded().said("-----> Node.js app detected").said("Installing node modules");
    assert_eq!(first.types(), ["web: npm start"]);
    assert_eq!(first.outcome().detected.map(|index| first.choice.packs[index].to_string()).unwrap(), "heroku/nodejs");
    assert!(first.made("node_modules/ms/index.js").is_file());
    assert!(!first.made("node_modules/is-number").exists(), "development packages are pruned");
    let seen = first.in_a_dyno("echo $NODE_ENV $WEB_MEMORY; node -p \"require('ms')('1s')\"");
    assert_eq!(seen, "production 512\n1000");

    let second = bench.build().succeeded().said("using the packages of the last build");
    assert!(second.made("node_modules/ms/index.js").is_file() && !second.made("node_modules/is-number").exists());
}

#[test]
fn the_scripts_of_package_json_run_in_herokus_order() {
    let scripts = r#"{"name":"x","version":"1.0.0","private":true,"main":"serve.js","scripts":{
        "heroku-prebuild":"echo one $FROM_CONFIG >trace","build":"echo never","heroku-postbuild":"echo two >>trace",
        "heroku-cleanup":"echo three >>trace"}}"#;
    let built = Bench::new("node-hello")
        .file("package.json", scripts)
        .file("package-lock.json", r#"{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{}}"#)
        .file("serve.js", "")
        .config("FROM_CONFIG", "config")
        .build()
        .succeeded();
    assert_eq!(built.text("trace"), "one config\ntwo\nthree\n");
    // server.js is there as well and wins over "main".
    assert_eq!(built.types(), ["web: node server.js"]);
}

#[test]
fn development_packages_are_there_while_building_and_gone_afterwards() {
    let package = r#"{"name":"node-hello","version":"1.0.0","private":true,"engines":{"node":">=18"},
        "scripts":{"build":"node -p \"'7 is a number: ' + require('is-number')(7)\""},
        "dependencies":{"ms":"2.1.3"},"devDependencies":{"is-number":"7.0.0"}}"#;
    let bench = Bench::new("node-hello").file("package.json", package);
    for _ in 0..2 {
        let built = bench.build().succeeded().said("       7 is a number: true\n");
        assert!(built.made("node_modules/ms").exists() && !built.made("node_modules/is-number").exists());
    }
}

#[test]
fn mistakes_of_node_apps_end_in_a_paragraph() {
    let node = || Bench::new("node-hello");
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(node().file("yarn.lock", ""));
    assert!(text.contains("Two different lockfiles found: package-lock.json and yarn.lock."), "{text}");
    assert!(text.contains(" !     Push rejected, failed to compile Node.js app."), "{text}");

    let text = failed(node().file("package.json", "{"));
    assert!(text.contains("package.json can't be read"), "{text}");

    let text = failed(node().file("package.json", r#"{"engines":{"node":"<18"}}"#));
    assert!(text.contains("package.json asks for Node.js <18 (engines.node), but this machine has"), "{text}");

    let text = failed(node().file("package.json", r#"{"engines":{"node":"newest"}}"#));
    assert!(text.contains("engines.node in package.json is not a version range: newest"), "{text}");

    let text = failed(node().file("package.json", r#"{"dependencies":{"ms":"2.1.2"}}"#));
    assert!(text.contains("package.json and package-lock.json do not fit together."), "{text}");

    let text = failed(node().file(
        "package.json",
        r#"{"scripts":{"build":"echo broken; exit 7"},"dependencies":{"ms":"2.1.3"},"devDependencies":{"is-number":"7.0.0"}}"#,
    ));
    assert!(text.contains("       broken\n") && text.contains("The script \"build\" of package.json failed"), "{text}");
}

#[test]
fn version_ranges_are_read_as_npm_does() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks/nodejs/lib/package.js");
    let verdict = |version: &str, range: &str| {
        Command::new("node").arg(&script).args(["satisfies", version, range]).status().unwrap().code().unwrap()
    };
    for range in
        ["", "*", "x", ">=18", "20.x", "20", "^18 || ^20.1", "18 - 20", ">= 20.0.0", "~20.20", "<=20", "v20.20.2"]
    {
        assert_eq!(verdict("20.20.2", range), 0, "{range}");
    }
    for range in [">=18 <20", "~20.19", "^0.2.3", ">20", "<20.20.2", "18 || 19", "1.2.3-beta"] {
        assert_eq!(verdict("20.20.2", range), 1, "{range}");
    }
    assert_eq!((verdict("0.2.9", "^0.2.3"), verdict("0.3.0", "^0.2.3"), verdict("0.0.4", "^0.0.3")), (0, 1, 1));
    for range in ["latest", "1.2.3.4", "lts/*"] {
        assert_eq!(verdict("20.20.2", range), 2, "{range}");
    }
}

#[test]
fn a_python_app_is_detected_installed_and_cached() {
    let bench = Bench::new("python-hello");
    let first = bench.build().succeeded().said("-----> Python app detected").said("Installing requirements with pip");
    assert_eq!(first.types(), ["web: python app.py"]);
    let seen = first.in_a_dyno("python -c 'import six, sys; print(six.__version__, sys.prefix)'");
    assert_eq!(seen, "1.17.0 /app/.heroku/python");
    assert_eq!(first.in_a_dyno("pip --version | cut -d ' ' -f 1"), "pip", "scripts find their interpreter");

    let second = bench.build().succeeded().said("using the packages of the last build");
    assert_eq!(second.in_a_dyno("python -c 'import six; print(six.__version__)'"), "1.17.0");
}

#[test]
fn a_django_app_has_a_default_web_process() {
    let manage = "import os\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
    let built = Bench::new("python-hello").file("manage.py", manage).file("Procfile", "worker: x").build().succeeded();
    assert_eq!(built.types(), ["web: python manage.py runserver 0.0.0.0:$PORT", "worker: x"]);
}

#[test]
fn mistakes_of_python_apps_end_in_a_paragraph() {
    let python = || Bench::new("python-hello");
    let failed = |bench: Bench| bench.build().failed();
    let text = failed(python().file("poetry.lock", ""));
    assert!(text.contains("Files of several package managers found: requirements.txt poetry.lock."), "{text}");
    assert!(text.contains(" !     Push rejected, failed to compile Python app."), "{text}");

    let text = failed(python().file("runtime.txt", "python-2.7.18"));
    assert!(text.contains("runtime.txt does not name a Python version: 2.7.18"), "{text}");

    let text = failed(python().file(".python-version", "3.1"));
    assert!(text.contains(".python-version asks for Python 3.1, but this machine has"), "{text}");

    let text = failed(python().file("requirements.txt", "six==0.0.1\n"));
    assert!(text.contains("A package or version that requirements.txt asks for does not exist"), "{text}");
}

#[test]
fn apps_of_no_known_language_are_told_what_there_is() {
    let bench = Bench { fixture: fixtures().join("inline-hello/public"), ..Bench::new("node-hello") };
    let text = bench.build().failed();
    assert!(text.contains("No default language could be detected for this app."), "{text}");
    assert!(text.contains("heroku/nodejs heroku/python"), "{text}");
}

#[test]
fn an_app_may_bring_its_own_buildpack() {
    let built = Bench::new("inline-hello").build().succeeded().said("-----> Inline app detected");
    assert_eq!(built.types(), ["web: python3 -m http.server \"$PORT\" --directory public"]);
    assert_eq!(built.text("public/index.html"), "hello from an inline buildpack\n");
}

/// A copy of the fixture that everyone may read, wherever the checkout is.
fn marker(bench: &Bench) -> String {
    let pack = bench.root.path().join("buildpack-marker");
    let from = fixtures().join("buildpack-marker");
    assert!(Command::new("cp").args(["-r", "-T"]).args([from.as_path(), &pack]).status().unwrap().success());
    for entry in walkdir::WalkDir::new(&pack) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
    }
    pack.display().to_string()
}

fn marked(fixture: &str) -> Bench {
    let bench = Bench::new(fixture).config("SECRET", "two\nlines $HOME \"x\"");
    let pack = marker(&bench);
    bench.packs(&[&pack])
}

#[test]
fn buildpacks_of_others_get_the_classic_api() {
    let built = marked("inline-hello").build().succeeded();
    let marker = built.text("marker");
    let lines: Vec<&str> = marker.lines().collect();
    let dir = format!("/tmp/build_{}", lines[0].strip_prefix("build /tmp/build_").unwrap());
    assert_eq!(lines[1..4], ["cache /build/cache", &format!("cwd {dir}"), "home /app, 0 files"]);
    let must = "CURL_CONNECT_TIMEOUT CURL_TIMEOUT DYNO HOME LANG PATH REQUEST_ID SOURCE_VERSION STACK";
    for name in must.split(' ') {
        assert!(lines[4].split(' ').any(|found| found == name), "{name} is missing in {}", lines[4]);
    }
    for name in ["SECRET", "GIT_DIR", "USER", "CACHE_DIR", "BUILD_DIR"] {
        assert!(!lines[4].split(' ').any(|found| found == name), "{name} is in {}", lines[4]);
    }
    let secret: String = built.text("marker-secret").split_whitespace().collect();
    assert_eq!(secret, "two\\nlines$HOME\"x\"", "the raw value without a newline at its end");
    assert_eq!(built.in_a_dyno("echo $MARKED"), "by default");
}

#[test]
fn a_build_that_fails_leaves_the_cache_of_the_last_good_one() {
    let bench = marked("inline-hello");
    bench.build().succeeded();
    let failing = Bench { extra: vec![(".fail", "")], packs: bench.packs.clone(), ..bench };
    let text = failing.build().failed();
    assert!(text.contains("found the cache of build 1") && text.contains("failed to compile Marker app"), "{text}");
    let again = Bench { extra: vec![], ..failing };
    again.build().succeeded().said("found the cache of build 1");
    again.build().succeeded().said("found the cache of build 2");
}

#[test]
fn several_buildpacks_run_in_order_and_export_to_the_next() {
    let mut bench = marked("python-hello").file("bin/post_compile", "#!/bin/bash\necho \"marked: $MARKED_BUILD\"\n");
    bench.packs.push(Buildpack::parse("heroku/python").unwrap());
    let built =
        bench.build().succeeded().said("-----> Using buildpacks:\n       1. ").said("\n       2. heroku/python\n");
    let built = built.said("-----> Marker app detected").said("       marked: yes");
    assert_eq!(built.outcome().name, "Python");
    assert!(built.made("marker").is_file());
    // Built elsewhere, and yet at the place where dynos have it.
    assert_eq!(built.in_a_dyno("python -c 'import six, sys; print(sys.prefix)'"), "/app/.heroku/python");
}

#[test]
fn a_listed_buildpack_that_does_not_fit_says_why() {
    let bench = marked("inline-hello").file(".no-marker", "");
    let text = bench.build().failed();
    assert!(text.contains("-----> App not compatible with buildpack: "), "{text}");
    assert!(text.contains("       This app does not want a marker\n"), "{text}");

    let text = Bench::new("inline-hello").packs(&["heroku/nodejs"]).build().failed();
    assert!(text.contains("Error: there is no package.json in the root directory of your app."), "{text}");
}

#[test]
fn a_buildpack_that_cannot_be_fetched_says_so() {
    let text = Bench::new("inline-hello").packs(&["https://127.0.0.1:1/x.git#main"]).build().failed();
    assert!(text.contains("Can't fetch the buildpack https://127.0.0.1:1/x.git#main."), "{text}");
    assert!(text.contains("unable to access"), "{text}");
}

#[test]
fn scripts_are_shellcheck_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts: Vec<PathBuf> = ["buildpacks", "tests/fixtures"]
        .iter()
        .flat_map(|dir| walkdir::WalkDir::new(root.join(dir)))
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && fs::read(path).unwrap().starts_with(b"#"))
        .filter(|path| {
            let first = fs::read_to_string(path).unwrap_or_default();
            first.starts_with("#!/usr/bin/env bash") || first.starts_with("# shellcheck shell=bash")
        })
        .collect();
    assert!(scripts.len() > 10, "{scripts:?}");
    let checked = Command::new("shellcheck").arg("-x").args(&scripts).current_dir(root).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
