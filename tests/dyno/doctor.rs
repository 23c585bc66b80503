//! The examination of a box, which launches a dyno for real, and a server that does so when it first starts.

use super::stage::eventually;
use hokku::doctor::{Check, Status, examine};
use hokku::dyno::instances;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const HOKKU: &str = env!("CARGO_BIN_EXE_hokku");

#[test]
fn this_machine_can_run_dynos_and_every_complaint_comes_with_advice() {
    let root = tempfile::tempdir().unwrap();
    let checks = examine(root.path(), Path::new(HOKKU));
    let missing: Vec<&Check> = checks.iter().filter(|check| check.status == Status::Missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for check in &checks {
        assert!(!check.found.is_empty(), "{check:?}");
        assert!(check.status == Status::Ok || check.advice.is_some(), "{check:?}");
    }
    let mut names: Vec<&str> = checks.iter().map(|check| check.name).collect();
    names.dedup();
    let expected = [
        "privileges",
        "kernel",
        "seccomp",
        "user namespaces",
        "overlay",
        "id-mapped mounts",
        "cgroups",
        "cgroup.kill",
        "network namespaces",
        "nft",
        "other firewalls",
        "writable layers",
        "trial launch",
        "resolvers",
        "git",
        "disk",
        "memory",
        "memory for apps",
        "/run",
    ];
    assert_eq!(names, expected);
    assert_nothing_left(&format!("doctor-{}", std::process::id()), root.path());
}

fn assert_nothing_left(name: &str, root: &Path) {
    assert_eq!(fs::read_dir(root).unwrap().count(), 0, "something is left in {}", root.display());
    assert!(!instances::list().unwrap().iter().any(|instance| instance.name.as_str() == name));
    assert!(!Path::new("/run/hokku").join(name).exists());
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&tables.stdout).contains(&name.replace('-', "_")));
    let groups = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(3).into_iter().filter_map(Result::ok);
    let left: Vec<_> = groups.filter(|entry| entry.file_name().to_string_lossy() == format!("hokku-{name}")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// hokku with a file system of that kind on ROOT, mounted in a namespace that only the command itself is in.
fn on(kind: &str, options: &str, root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = r#"mount -t "$1" -o "$2" none "$3" && shift 3 && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh", kind, options]).arg(root).arg(HOKKU).args(args);
    command.arg("--root").arg(root).env_remove("HOKKU_ROOT");
    command
}

fn trial(output: &Output) -> serde_json::Value {
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    checks.into_iter().find(|check| check["name"] == "trial launch").unwrap()
}

#[test]
fn a_root_that_dynos_cannot_be_launched_from_is_found_by_a_trial() {
    // The first can't be id-mapped, the second not be written to.
    for (kind, options, found, advice) in [
        ("ramfs", "mode=755", "restrict a mount", "ext4, xfs or btrfs"),
        ("tmpfs", "ro", "Read-only file system", "--root"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut doctor = on(kind, options, root.path(), &["doctor", "--json"]);
        let doctor = doctor.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let name = format!("doctor-{}", doctor.id());
        let output = doctor.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let trial = trial(&output);
        assert_eq!(trial["status"], "missing");
        assert!(trial["found"].as_str().unwrap().contains(found), "{trial}");
        assert!(trial["advice"].as_str().unwrap().contains(advice), "{trial}");
        assert_nothing_left(&name, root.path());
    }
}

#[test]
fn what_a_killed_trial_has_left_is_removed_by_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let doctor = || {
        let mut doctor = Command::new(HOKKU);
        doctor.args(["doctor", "--root"]).arg(root.path()).stdout(Stdio::null()).stderr(Stdio::null());
        doctor
    };
    let is_there = |name: &str| instances::list().unwrap().iter().any(|instance| instance.name.as_str() == name);
    // Others' trials may be under way, which take away what this one leaves.
    let killed = |_| {
        let mut doctor = doctor().spawn().unwrap();
        let name = format!("doctor-{}", doctor.id());
        while !is_there(&name) && doctor.try_wait().unwrap().is_none() {}
        doctor.kill().unwrap();
        doctor.wait().unwrap();
        is_there(&name).then_some(name)
    };
    let name = (0..10).find_map(killed).expect("a trial that is killed leaves its instance");
    doctor().status().unwrap();
    assert_nothing_left(&name, root.path());
}

/// A server that is ended, with all that it has on the machine, when this is dropped.
struct Server<'a> {
    child: Child,
    root: &'a Path,
    log: PathBuf,
}

impl<'a> Server<'a> {
    fn start(command: Command, root: &'a Path, log: PathBuf) -> Self {
        let child = run(command, &log);
        Self { child, root, log }
    }

    fn restart(&mut self, command: Command) {
        self.stop();
        self.child = run(command, &self.log);
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap();
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop();
        let down = Command::new(HOKKU).args(["down", "--root"]).arg(self.root).output().unwrap();
        assert!(down.status.success() || std::thread::panicking(), "{}", String::from_utf8_lossy(&down.stderr));
    }
}

/// Returns when the server is ready.
fn run(mut command: Command, log: &Path) -> Child {
    let stderr = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.starts_with("Ready"));
    assert!(ready, "{}", fs::read_to_string(log).unwrap());
    child
}

fn server(name: &str) -> [&str; 7] {
    ["server", "--name", name, "--api", "127.0.0.1:0", "--router", "127.0.0.1:0"]
}

#[test]
fn a_server_that_cannot_launch_dynos_says_so_when_it_starts() {
    let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = format!("trial-{}", std::process::id());
    let command = on("ramfs", "mode=755", root.path(), &server(&name));
    let server = Server::start(command, root.path(), logs.path().join("log"));
    let said = server.said();
    let line = said.lines().find(|line| line.contains("dynos can't be launched here")).unwrap_or(&said);
    assert!(
        line.contains("ERROR") && line.contains("restrict a mount") && line.contains("ext4, xfs or btrfs"),
        "{line}"
    );
    assert!(!Path::new("/run/hokku").join(&name).join("launched").exists(), "the next start has to try again");
}

#[tokio::test]
async fn a_servers_first_start_launches_a_dyno_and_its_second_does_not() {
    let (root, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = format!("first-{}", std::process::id());
    let command = || {
        let mut command = Command::new(HOKKU);
        command.args(server(&name)).arg("--root").arg(root.path()).env("HOKKU_LOG", "hokku=debug");
        command
    };
    let mut server = Server::start(command(), root.path(), logs.path().join("log"));
    let tried = |server: &Server<'_>| server.said().matches("the trial launch took").count();
    assert_eq!(tried(&server), 1, "{}", server.said());
    let run = Path::new("/run/hokku").join(&name);
    assert!(run.join("launched").exists());
    eventually("its record is removed", || fs::read_dir(run.join("dynos")).unwrap().count() == 0).await;
    let names = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("trial-")).count(), 0);
    server.restart(command());
    assert_eq!(tried(&server), 1, "{}", server.said());
}
