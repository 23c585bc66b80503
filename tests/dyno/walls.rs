//! What a dyno can't do. Each attack is made twice: as a dyno is, and with the one defence against it taken out of the
//! configuration, where it has to succeed; so each test shows that it tests something. Where the defence is no word of the
//! configuration, the same is done outside of any dyno. `docs/security.md` has the table of them all.

mod calls;
mod kernel;
mod processes;
mod reach;

use super::stage::Stage;
use hokku::domain::dyno::Purpose;
use hokku::dyno::{Io, Mount, Ready, spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// What the probe said, by name.
pub(crate) type Answers = BTreeMap<String, String>;

impl Stage {
    /// The probe's configuration with these arguments, ready to be weakened.
    pub(crate) fn probe(&self, arguments: &[&str]) -> Value {
        let command: Vec<&str> = ["/app/probe"].iter().chain(arguments).copied().collect();
        self.config(&self.body(&command))
    }

    fn config(&self, body: &hokku::dyno::Body) -> Value {
        let place = spec::Place { instance: &self.instance, slot: 900, resolvers: &[] };
        let spec = spec::spec(&place, &self.labels(Purpose::Run), body, Ready::Started);
        serde_json::to_value(spec).unwrap()
    }

    /// Runs a bundle by hand and returns its output and exit status.
    async fn run_bundle(&self, config: &Value) -> (String, i32) {
        self.run_bundle_by(Path::new(env!("CARGO_BIN_EXE_hokku")), config).await
    }

    async fn run_bundle_by(&self, hokku: &Path, config: &Value) -> (String, i32) {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let mut command = tokio::process::Command::new(hokku);
        command.args(["dyno", "run", "--bundle"]).arg(bundle.path());
        command.arg("--instance").arg(serde_json::to_string(&self.instance).unwrap());
        let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (text, output.status.code().unwrap_or(-1))
    }

    pub(crate) async fn ask(&self, config: &Value) -> Answers {
        let (text, status) = self.run_bundle(config).await;
        assert_eq!(status, 0, "{text}");
        answers(&text)
    }

    /// The attack fails with that error, and succeeds with the weakened configuration.
    async fn defended(&self, attack: &str, error: &str, weaken: impl Fn(&mut Value)) {
        self.defended_as(|_| (), attack, error, weaken).await;
    }

    /// The same by somebody who has got further: both times with the configuration changed by `already`.
    async fn defended_as(&self, already: impl Fn(&mut Value), attack: &str, error: &str, weaken: impl Fn(&mut Value)) {
        let mut config = self.probe(&[attack]);
        already(&mut config);
        let label = attack.replace(':', ";");
        let answer = self.ask(&config).await.remove(&label).unwrap();
        assert!(answer.starts_with("no, ") && answer.contains(error), "{attack}: {answer}");
        weaken(&mut config);
        let answer = self.ask(&config).await.remove(&label).unwrap();
        assert_eq!(answer, "yes", "{attack} without its defence");
    }
}

fn no_seccomp(config: &mut Value) {
    config["linux"]["seccomp"] = Value::Null;
}

/// The mounts where there may be devices, sorted.
const DEVICES: [&str; 2] = ["/dev", "/dev/pts"];

/// Root of the host with every right, but for namespaces of processes, mounts and the rest: what the user namespace and
/// the empty capability sets stand against.
fn as_host_root(config: &mut Value) {
    as_filtered_host_root(config);
    no_seccomp(config);
}

/// The same under the filter of system calls.
fn as_filtered_host_root(config: &mut Value) {
    leave_out(config, "user");
    for key in ["uidMappings", "gidMappings", "sysctl"] {
        config["linux"].as_object_mut().unwrap().remove(key);
    }
    config["process"].as_object_mut().unwrap().remove("capabilities");
    config["process"]["noNewPrivileges"] = json!(false);
    as_root(config);
}

/// User 0 of the dyno.
fn as_root(config: &mut Value) {
    config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
}

/// Where a dyno sees the limits of its memory.
fn group_tree() -> &'static str {
    if is_v1() { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" }
}

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").exists()
}

fn leave_out(config: &mut Value, namespace: &str) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != namespace);
}

fn bind(config: &mut Value, path: &str) {
    let mount = json!({ "destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"] });
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// A directory that everybody may enter.
pub(crate) fn open_place() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/var/tmp").unwrap()
}

/// The probe outside of any dyno, where a process of that user and group may run it.
fn outside(user: u32, arguments: &[&str]) -> Answers {
    let place = open_place();
    let probe = place.path().join("probe");
    super::stage::copy_program(super::stage::probe(), &probe);
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755)).unwrap();
    let output = std::process::Command::new(&probe).args(arguments).uid(user).gid(user).output().unwrap();
    answers(&String::from_utf8(output.stdout).unwrap())
}

pub(crate) fn answers(text: &str) -> Answers {
    let pairs = text.lines().map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

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
async fn nothing_of_the_hosts_tree_is_left_above_the_root() {
    let stage = Stage::new().await;
    let answers = stage.ask(&stage.probe(&["mounts", "root", "see=/../run/hokku", "list=/../../var/tmp"])).await;
    assert!(answers["see=/../run/hokku"].contains("No such file"), "{answers:?}");
    let on_the_host = outside(0, &["see=/../run/hokku", "list=/../../var/tmp"]);
    assert_eq!(
        (on_the_host["see=/../run/hokku"].as_str(), on_the_host["list=/../../var/tmp"].as_str()),
        ("yes", "yes")
    );
    assert!(answers["list=/../../var/tmp"].starts_with("no"), "{answers:?}");
    let writable = answers["writable"].split(' ').filter(|path| !is_masked(path) && !DEVICES.contains(path));
    assert_eq!(writable.collect::<Vec<_>>(), ["/", "/dev/shm", "/proc"]);
}

#[tokio::test]
async fn it_has_no_descriptors_but_its_own() {
    let stage = Stage::new().await;
    // The fourth is the one that reads the directory.
    assert_eq!(stage.ask(&stage.probe(&["fds"])).await["fds"], "0 1 2 3");
}

#[tokio::test]
async fn descriptors_leaked_to_the_shim_are_closed() {
    let stage = Stage::new().await;
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("config.json"), stage.probe(&["fds", "list=/proc/self/fd/9"]).to_string()).unwrap();
    // The shell leaves the host's root open as 9 to whatever it starts.
    let leaking = |program: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("exec 9</; exec {program}")]).stdin(std::process::Stdio::null());
        answers(&String::from_utf8(shell.output().unwrap().stdout).unwrap())
    };
    let (hokku, dir) = (env!("CARGO_BIN_EXE_hokku"), bundle.path().display());
    let inside = leaking(&format!("{hokku} dyno run --bundle {dir}"));
    assert_eq!(inside["fds"], "0 1 2 3");
    assert!(inside["list=/proc/self/fd/9"].contains("No such file"), "{inside:?}");
    let without_shim = leaking(&format!("{} fds list=/proc/self/fd/9", super::stage::probe().display()));
    assert!(without_shim["fds"].split(' ').any(|fd| fd == "9"), "{without_shim:?}");
    assert_eq!(without_shim["list=/proc/self/fd/9"], "yes");
}

#[tokio::test]
async fn a_directory_of_the_host_that_leaked_is_no_place_to_start_in() {
    let stage = Stage::new().await;
    let bundle = tempfile::tempdir().unwrap();
    let mut config = stage.probe(&["cwd", "see=../run/hokku"]);
    // As in CVE-2024-21626: where hokku was started, and a descriptor that the configuration names.
    let leaking = |config: &Value, program: &str| {
        fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("exec 9</var; cd /var; {program}")]).stdin(std::process::Stdio::null());
        let output = shell.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let hokku = format!("exec {} dyno run --bundle {}", env!("CARGO_BIN_EXE_hokku"), bundle.path().display());
    let inside = answers(&leaking(&config, &hokku));
    assert_eq!(inside["cwd"], "/app");
    assert!(inside["see=../run/hokku"].contains("No such file"), "{inside:?}");
    config["process"]["cwd"] = json!("/proc/self/fd/9");
    let said = leaking(&config, &hokku);
    assert!(said.contains("go to the working directory (/proc/self/fd/9): outside of the root"), "{said}");
    let probe = super::stage::probe();
    let without_shim =
        answers(&leaking(&config, &format!("cd /proc/self/fd/9; {} cwd see=../run/hokku", probe.display())));
    assert_eq!((without_shim["cwd"].as_str(), without_shim["see=../run/hokku"].as_str()), ("/var", "yes"));
}

#[tokio::test]
async fn programs_marked_to_run_as_root_do_not() {
    let stage = Stage::new().await;
    let suid = stage.app_dir().join("suid");
    super::stage::copy_program(stage.app_dir().join("probe"), &suid);
    chown(&suid, Some(0), Some(0)).unwrap();
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
    let privileges = |config: &mut Value| {
        // A filter can't be loaded by a user who could gain privileges.
        no_seccomp(config);
        config["process"]["noNewPrivileges"] = json!(false);
    };
    let marks = |config: &mut Value| drop_option(mount(config, "/"), "nosuid");
    // Either of the two walls holds alone.
    stage.defended_as(privileges, "suid=/app/suid", "euid: 1000", marks).await;
    stage.defended_as(marks, "suid=/app/suid", "euid: 1000", privileges).await;
}

#[tokio::test]
async fn a_root_whose_places_are_links_is_refused() {
    let stage = Stage::new().await;
    let target =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o777)).tempdir_in("/var/tmp").unwrap();
    let tree = stage.app_dir().parent().unwrap().to_owned();
    for place in ["proc", "dev", "sys"] {
        std::os::unix::fs::symlink(target.path(), tree.join(place)).unwrap();
        let (text, status) = stage.run_bundle(&stage.probe(&["fds"])).await;
        assert!(status == 1 && text.contains(place), "{place}: {text}");
        fs::remove_file(tree.join(place)).unwrap();
    }
    // What is written by name is in a layer above all that a slug brings.
    std::os::unix::fs::symlink(target.path(), tree.join("etc")).unwrap();
    assert_eq!(stage.ask(&stage.probe(&["fds", "see=/etc/hosts"])).await["see=/etc/hosts"], "yes");
    fs::remove_file(tree.join("etc")).unwrap();
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "nothing was made where the links lead");
    assert_eq!(stage.ask(&stage.probe(&["fds"])).await["fds"], "0 1 2 3", "without links it starts");
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
    // Opened, not written, and by the user whose file it is.
    let writable = |config: &mut Value| drop_option(mount(config, "/usr"), "ro");
    stage.defended_as(as_root, "write=/usr/lib/os-release", "Read-only file system", writable).await;
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
    let path = outside.path().to_str().unwrap();
    stage.defended(&format!("read={path}/file"), "No such file", |config| bind(config, path)).await;
    // By the host's own root in there, so that no permission helps: it is not there.
    for (secret, path) in [
        ("read=/etc/shadow", "/etc/shadow"),
        ("list=/root", "/root"),
        ("see=/run/hokku", "/run/hokku"),
        ("list=/var/lib/dpkg", "/var/lib/dpkg"),
    ] {
        stage.defended_as(as_host_root, secret, "", |config| bind(config, path)).await;
    }
    assert!(stage.ask(&stage.probe(&["list=/home"])).await["list=/home"].starts_with("no"));
}

#[tokio::test]
async fn files_of_other_apps_are_out_of_reach() {
    let stage = Stage::new().await;
    // As slugs are kept: below a directory that is root's alone, which has no mapped ids when it is seen.
    let trees = open_place();
    let app = trees.path().join("of-another/app");
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("secret"), "of another").unwrap();
    chown(app.join("secret"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(trees.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = trees.path().to_str().unwrap();
    let attack = format!("read={}", app.join("secret").display());
    stage.defended_as(as_host_root, &attack, "No such file", |config| bind(config, path)).await;
    stage.defended_as(|config| bind(config, path), &attack, "Permission denied", as_host_root).await;
    // What another dyno writes is in a layer of its own, also with the same slug.
    let [writes, looks] = ["write=/app/lib/written", "see=/app/lib/written"];
    let answers = stage.ask(&stage.probe(&[writes, looks])).await;
    assert_eq!((answers[writes].as_str(), answers[looks].as_str()), ("yes", "yes"));
    assert!(stage.ask(&stage.probe(&[looks])).await[looks].contains("No such file"));
    assert_eq!(fs::read_dir(stage.app_dir().join("lib")).unwrap().count(), 1, "nor is it in the slug");
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
    assert!(stage.ask(&config).await["fill=20"].contains(stage.full()));
    for word in mount(&mut config, "/")["options"].as_array_mut().unwrap() {
        if word.as_str().unwrap().starts_with("size=") {
            *word = json!(format!("size={}", 64 << 20));
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
async fn limits_that_are_missing_keep_the_dyno_from_starting() {
    let stage = Stage::new().await;
    for (name, expected) in [("memory", "memory is not limited"), ("pids", "processes are not limited")] {
        let mut config = stage.probe(&["fds"]);
        config["linux"]["resources"].as_object_mut().unwrap().remove(name);
        let (text, status) = stage.run_bundle(&config).await;
        assert!(status == 1 && text.contains(expected), "{text}");
    }
}
