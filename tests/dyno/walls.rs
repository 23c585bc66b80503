//! What a dyno can't do. Each attack is made twice: as a dyno is, and with the one defence against it taken out of the
//! configuration, where it has to succeed; so each test shows that it tests something.

use super::stage::Stage;
use hokku::domain::dyno::{DynoId, Purpose};
use hokku::dyno::{Io, Mount, Ready, spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;
use uuid::Uuid;

/// What the probe said, by name.
type Answers = BTreeMap<String, String>;

impl Stage {
    /// The probe's configuration with these arguments, ready to be weakened.
    fn probe(&self, arguments: &[&str]) -> Value {
        let command: Vec<&str> = ["/app/probe"].iter().chain(arguments).copied().collect();
        self.config(&self.body(&command))
    }

    fn config(&self, body: &hokku::dyno::Body) -> Value {
        let place = spec::Place { instance: &self.instance, slot: 900, resolvers: &[] };
        let spec = spec::spec(&place, DynoId(Uuid::now_v7()), &self.labels(Purpose::Run), body, Ready::Started);
        serde_json::to_value(spec).unwrap()
    }

    /// Runs a bundle by hand and returns its output and exit status.
    async fn run_bundle(&self, config: &Value) -> (String, i32) {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hokku"));
        command.args(["dyno", "run", "--bundle"]).arg(bundle.path());
        command.arg("--instance").arg(serde_json::to_string(&self.instance).unwrap());
        let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (text, output.status.code().unwrap_or(-1))
    }

    async fn ask(&self, config: &Value) -> Answers {
        let (text, status) = self.run_bundle(config).await;
        assert_eq!(status, 0, "{text}");
        let pairs = text.lines().map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The attack fails with that error, and succeeds with the weakened configuration.
    async fn defended(&self, attack: &str, error: &str, weaken: impl Fn(&mut Value)) {
        let mut config = self.probe(&[attack]);
        let answer = self.ask(&config).await.remove(attack).unwrap();
        assert!(answer.starts_with("no, ") && answer.contains(error), "{attack}: {answer}");
        weaken(&mut config);
        let answer = self.ask(&config).await.remove(attack).unwrap();
        assert_eq!(answer, "yes", "{attack} without its defence");
    }
}

fn no_seccomp(config: &mut Value) {
    config["linux"]["seccomp"] = Value::Null;
}

/// The places where there may be devices, sorted.
const DEVICES: [&str; 8] =
    ["/dev", "/dev/full", "/dev/null", "/dev/pts", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// Files of `/proc` behind the null device.
fn is_masked(path: &str) -> bool {
    path.starts_with("/proc/")
}

fn mount<'a>(config: &'a mut Value, destination: &str) -> &'a mut Value {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.iter_mut().find(|mount| mount["destination"] == destination).unwrap()
}

fn drop_option(mount: &mut Value, option: &str) {
    mount["options"].as_array_mut().unwrap().retain(|word| word != option);
}

#[tokio::test]
async fn it_is_nobody_on_the_host_and_has_no_rights() {
    let mut stage = Stage::new().await;
    let mut config = stage.probe(&["status"]);
    let answers = stage.ask(&config).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(answers[set], "0000000000000000", "{set}");
    }
    assert_eq!((answers["NoNewPrivs"].as_str(), answers["Seccomp"].as_str()), ("1", "2"));
    assert_eq!((answers["Uid"].as_str(), answers["Groups"].as_str()), ("1000 1000 1000 1000", ""));
    config["process"].as_object_mut().unwrap().remove("capabilities");
    config["process"]["noNewPrivileges"] = json!(false);
    no_seccomp(&mut config);
    let answers = stage.ask(&config).await;
    assert_ne!(answers["CapBnd"], "0000000000000000", "they are dropped because the configuration says so");
    assert_eq!((answers["NoNewPrivs"].as_str(), answers["Seccomp"].as_str()), ("0", "0"));

    let id = stage.launch(stage.body(&["sleep", "1000"]), Ready::Started, Io::Log);
    stage.started(id).await;
    let pid = stage.processes(id)[1];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    let base = stage.instance.dyno_uid_base(0);
    let uid: u32 = uid.parse().unwrap();
    assert!(uid > base && (uid - base) % 65536 == 1000, "{uid} {base}");
}

#[tokio::test]
async fn system_calls_that_lead_out_are_refused() {
    let stage = Stage::new().await;
    let refused = "Operation not permitted";
    for attack in ["unshare-user", "clone-user", "mount", "setns", "ptrace", "keyctl", "io_uring", "userfaultfd"] {
        stage.defended(attack, refused, no_seccomp).await;
    }
    for attack in ["no-randomization", "uevents"] {
        stage.defended(attack, refused, no_seccomp).await;
    }
    stage.defended("clone3", "Function not implemented", no_seccomp).await;
    assert_eq!(stage.ask(&stage.probe(&["routes"])).await["routes"], "yes", "what programs need is allowed");
}

#[tokio::test]
async fn what_the_kernel_tells_of_the_host_is_hidden() {
    let stage = Stage::new().await;
    let unmask = |config: &mut Value| config["linux"]["maskedPaths"] = json!([]);
    stage.defended("read=/proc/interrupts", "empty", unmask).await;
    let mut config = stage.probe(&["list=/app/lib"]);
    config["linux"]["maskedPaths"] = json!(["/app/lib"]);
    assert!(stage.ask(&config).await["list=/app/lib"].contains("empty"), "directories are hidden too");
    unmask(&mut config);
    assert_eq!(stage.ask(&config).await["list=/app/lib"], "yes");
}

#[tokio::test]
async fn nothing_of_the_hosts_tree_is_left_above_the_root() {
    let stage = Stage::new().await;
    let answers = stage.ask(&stage.probe(&["mounts", "root", "see=/../run/hokku", "list=/../../var/tmp"])).await;
    assert!(answers["see=/../run/hokku"].contains("No such file"), "{answers:?}");
    let writable = answers["writable"].split(' ').filter(|path| !is_masked(path) && !DEVICES.contains(path));
    assert_eq!(writable.collect::<Vec<_>>(), ["/", "/dev/shm", "/proc", "/tmp"]);
}

#[tokio::test]
async fn it_sees_its_own_processes_only() {
    let stage = Stage::new().await;
    let mut config = stage.probe(&["pids", "see=/proc/1", "follow=/proc/1/exe", "read=/proc/1/environ"]);
    let answers = stage.ask(&config).await;
    assert_eq!(answers["pids"].split(' ').count(), 1, "{answers:?}");
    assert!(answers["see=/proc/1"].starts_with("no"), "{answers:?}");
    drop_option(mount(&mut config, "/proc"), "hidepid=invisible");
    let answers = stage.ask(&config).await;
    assert_eq!(answers["see=/proc/1"], "yes");
    // Also where it can be seen, pid 1 can't be read: it is a fork of the host's own binary.
    for secret in ["follow=/proc/1/exe", "read=/proc/1/environ"] {
        assert!(answers[secret].contains("Permission denied"), "{answers:?}");
    }
    let own = format!("signal={}", std::process::id());
    assert!(stage.ask(&stage.probe(&[&own])).await[&own].contains("No such process"));
}

#[tokio::test]
async fn it_has_no_descriptors_but_its_own() {
    let stage = Stage::new().await;
    // The fourth is the one that reads the directory.
    assert_eq!(stage.ask(&stage.probe(&["fds"])).await["fds"], "0 1 2 3");
}

#[tokio::test]
async fn its_devices_and_mounts_are_the_ones_it_needs() {
    let stage = Stage::new().await;
    let answers = stage.ask(&stage.probe(&["dev", "mounts", "limits", "links"])).await;
    assert_eq!(answers["dev"], "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert_eq!(answers["suid"], "");
    let with_devices = answers["dev-mounts"].split(' ').filter(|path| !is_masked(path));
    assert_eq!(with_devices.collect::<Vec<_>>(), DEVICES);
    assert_eq!(answers["core"], "0 0");
    assert_eq!(answers["links"], "lo");
    for path in ["/usr", "/sys", "/proc/sys", "/sys/fs/cgroup/memory"] {
        assert!(!answers["writable"].split(' ').any(|writable| writable == path), "{path}: {}", answers["writable"]);
    }
    let mut body = stage.body(&["/app/probe", "read=/data/zero"]);
    body.binds.push(Mount { source: "/dev/zero".into(), target: "/data/zero".into(), read_only: true });
    let mut config = stage.config(&body);
    // The file system of devices knows no id mapping.
    drop_option(mount(&mut config, "/data/zero"), "idmap");
    assert!(stage.ask(&config).await["read=/data/zero"].contains("Permission denied"));
    drop_option(mount(&mut config, "/data/zero"), "nodev");
    assert_eq!(stage.ask(&config).await["read=/data/zero"], "yes");
}

#[tokio::test]
async fn host_files_are_out_of_reach() {
    let stage = Stage::new().await;
    let outside = tempfile::Builder::new().prefix("hokku-outside").tempdir_in("/var/tmp").unwrap();
    fs::write(outside.path().join("file"), "of the host").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bind = |config: &mut Value| {
        let target = outside.path().to_str().unwrap();
        let mount =
            json!({ "destination": target, "type": "bind", "source": target, "options": ["rbind", "ro", "idmap"] });
        config["mounts"].as_array_mut().unwrap().push(mount);
    };
    stage.defended(&format!("read={}/file", outside.path().display()), "No such file", bind).await;
    for secret in ["read=/etc/shadow", "list=/root", "list=/home", "see=/run/hokku"] {
        let answer = &stage.ask(&stage.probe(&[secret])).await[secret];
        assert!(answer.starts_with("no"), "{secret}: {answer}");
    }
}

#[tokio::test]
async fn what_is_bound_read_only_can_not_be_written() {
    let stage = Stage::new().await;
    let outside = tempfile::tempdir().unwrap();
    chown(outside.path(), Some(1000), Some(1000)).unwrap();
    let mut body = stage.body(&["/app/probe", "write=/data/file"]);
    body.binds.push(Mount { source: outside.path().into(), target: "/data".into(), read_only: true });
    let mut config = stage.config(&body);
    assert!(stage.ask(&config).await["write=/data/file"].contains("Read-only"));
    drop_option(mount(&mut config, "/data"), "ro");
    assert_eq!(stage.ask(&config).await["write=/data/file"], "yes");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(outside.path().join("file")).unwrap());
    assert_eq!(owner, 1000, "what it writes is its own on the disk too");
}

#[tokio::test]
async fn without_mapped_ids_it_could_not_even_use_its_own_files() {
    let stage = Stage::new().await;
    let outside = tempfile::tempdir().unwrap();
    chown(outside.path(), Some(1000), Some(1000)).unwrap();
    let mut body = stage.body(&["/app/probe", "write=/data/file"]);
    body.binds.push(Mount { source: outside.path().into(), target: "/data".into(), read_only: false });
    let mut config = stage.config(&body);
    drop_option(mount(&mut config, "/data"), "idmap");
    assert!(
        stage.ask(&config).await["write=/data/file"].contains("Permission denied"),
        "it is another user on the host"
    );
}

#[tokio::test]
async fn processes_memory_and_disk_are_bounded() {
    let stage = Stage::new().await;
    stage
        .defended("fork=100", "temporarily unavailable", |config| {
            config["linux"]["resources"]["pids"]["limit"] = json!(200);
        })
        .await;
    let mut body = stage.body(&["/app/probe", "fill=20"]);
    body.limits.disk = 8 << 20;
    let mut config = stage.config(&body);
    assert!(stage.ask(&config).await["fill=20"].contains("No space left"));
    for word in mount(&mut config, "/")["options"].as_array_mut().unwrap() {
        if word.as_str().unwrap().starts_with("size=") {
            *word = json!("size=64m");
        }
    }
    assert_eq!(stage.ask(&config).await["fill=20"], "yes");
    let mut body = stage.body(&["/app/probe", "memory=100"]);
    body.limits.memory_max = 40 << 20;
    let mut config = stage.config(&body);
    assert_eq!(stage.run_bundle(&config).await.1, 137);
    for key in ["limit", "swap"] {
        config["linux"]["resources"]["memory"][key] = json!(300 << 20);
    }
    assert_eq!(stage.ask(&config).await["memory=100"], "yes");
}

#[tokio::test]
async fn devices_can_not_be_made() {
    let stage = Stage::new().await;
    assert!(stage.ask(&stage.probe(&["device"])).await["device"].contains("not permitted"));
}

#[tokio::test]
async fn another_dynos_port_is_out_of_reach() {
    let mut stage = Stage::new().await;
    let mut body = stage.body(&["python3", "-u", "-m", "http.server", "5000"]);
    body.network = true;
    let id = stage.launch(body, Ready::Port { port: 5000, within: Duration::from_secs(50) }, Io::Log);
    let ready = stage.event(id, |what| matches!(what, hokku::dyno::What::Ready { .. })).await;
    let hokku::dyno::What::Ready { addr: Some(addr) } = ready else { unreachable!() };
    let connect = format!("connect={addr}");
    let mut body = stage.body(&["/app/probe", &connect]);
    body.network = true;
    let answer = stage.run(body).await.text();
    assert!(answer.contains("no, "), "{answer}");
    assert!(std::net::TcpStream::connect(addr).is_ok(), "the host can");
}

#[tokio::test]
async fn a_policy_that_names_no_call_keeps_the_dyno_from_starting() {
    let stage = Stage::new().await;
    let mut config = stage.probe(&["fds"]);
    config["linux"]["seccomp"]["syscalls"][0]["names"][0] = json!("raed");
    let (text, status) = stage.run_bundle(&config).await;
    assert!(status == 1 && text.contains("raed"), "{text}");
}

#[tokio::test]
async fn limits_that_are_missing_keep_the_dyno_from_starting() {
    let stage = Stage::new().await;
    for (name, expected) in [("memory", "memory is not limited"), ("pids", "processes are not limited")] {
        let mut config = stage.probe(&["fds"]);
        config["linux"]["resources"].as_object_mut().unwrap().remove(name);
        let (text, status) = stage.run_bundle(&config).await;
        assert!(status == 1 && text.contains(expected), "{text}");
    }
}
