//! A launch as an OCI runtime configuration. Pure: the same launch gives the same text.
//!
//! The shim and init do what this says and nothing else. What OCI has no field for is in annotations `dev.hokku.*`, and
//! options that only we read are said here: on the root's overlay, `lowerdir+=PATH` names one layer (topmost first) and
//! `size=BYTES` bounds the writable layer. The size's memory is the reservation, which is a number for us and no limit.
//! The environment is not in it; it travels by socket.
#![forbid(unsafe_code)]

use super::{Body, Labels, Ready, StepError, policy};
use crate::domain::app::AppId;
use crate::domain::dyno::{DynoName, Purpose};
use crate::domain::instance::Instance;
use crate::domain::limits::{DynoSize, Limits};
use crate::domain::procfile::ProcessType;
use crate::sys::userns::Nesting;
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Mount, Spec};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The dyno's user and group, inside.
pub const USER: u32 = 1000;

/// Ids mapped into a dyno's user namespace.
pub const IDS: u32 = 65536;

/// The app's and the dyno's name.
pub const APP: &str = "dev.hokku.app";
pub const NAME: &str = "dev.hokku.name";

/// Which of the instance's [`Instance::SLOTS`] the dyno has: its address, link and ids derive from it.
pub const SLOT: &str = "dev.hokku.slot";
/// The port that has to accept before the dyno is up, and within how many milliseconds.
pub const PORT: &str = "dev.hokku.port";
pub const BOOT_TIMEOUT: &str = "dev.hokku.boot-timeout-ms";
/// Milliseconds after which the dyno is killed.
pub const TIME_LIMIT: &str = "dev.hokku.time-limit-ms";
/// `dev.hokku.file.etc/hosts`: text that init writes there.
pub const FILE: &str = "dev.hokku.file.";
/// `none`: only a loopback interface; else a routed link in the dyno's slot.
pub const NETWORK: &str = "dev.hokku.network";

/// The one kernel parameter that a configuration can have, and 0 the one value.
const NESTING: &str = "user.max_user_namespaces";

/// Heroku's limit of open files; lowered to the host's own hard limit where that is lower.
const OPEN_FILES: u64 = 10_000;

/// Where a launch happens.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub instance: &'a Instance,
    pub slot: u16,
    /// Name servers as the dyno will reach them.
    pub resolvers: &'a [IpAddr],
}

/// The configuration of one launch.
pub fn spec(place: &Place<'_>, labels: &Labels, body: &Body, ready: Ready) -> Spec {
    let text = text(place, labels, body, ready);
    serde_json::from_str(&text).expect("what is built below has the shape of an OCI configuration")
}

/// The same as the text of a `config.json`.
pub(super) fn text(place: &Place<'_>, labels: &Labels, body: &Body, ready: Ready) -> String {
    let base = place.instance.dyno_uid_base(place.slot);
    let mapping = json!([{ "containerID": 0, "hostID": base, "size": IDS }]);
    let namespaces = ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": false },
        "hostname": body.hostname,
        "process": {
            "terminal": false,
            "user": { "uid": USER, "gid": USER },
            "args": body.command,
            "cwd": "/app",
            "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
            "noNewPrivileges": true,
            "oomScoreAdj": if labels.purpose == Purpose::Build { BUILDS_GO_FIRST } else { 0 },
        },
        "mounts": mounts(body),
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": namespaces,
            "cgroupsPath": format!("/{}/{}", place.instance.cgroup(), place.instance.group(place.slot)),
            "resources": resources(&body.limits),
            // Behind the filter of system calls a second wall: most holes in kernels begin with one more user namespace.
            "sysctl": { NESTING: "0" },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": null,
        },
        "annotations": annotations(place, labels, body, ready),
    });
    // Two thirds of the text, and always the same.
    config.to_string().replacen(NO_SECCOMP, &format!("{SECCOMP}{}", policy::text()), 1)
}

/// Half of all memory: where apps and builds have used up what there is, a build is ended before any app.
const BUILDS_GO_FIRST: i64 = 500;

const SECCOMP: &str = "\"seccomp\":";
const NO_SECCOMP: &str = "\"seccomp\":null";

/// A configuration as it was read. Its system call filter is apart: ours is known without looking at the hundreds of
/// names in it.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) spec: Spec,
    pub(super) filter: Filter,
}

#[derive(Debug)]
pub(super) enum Filter {
    None,
    Ours,
    Other(LinuxSeccomp),
}

impl Config {
    /// Reads `config.json` of a bundle.
    ///
    /// # Errors
    /// When it can't be read or is no configuration.
    pub(super) fn read(bundle: &Path) -> std::io::Result<Self> {
        Self::parse(&std::fs::read_to_string(bundle.join("config.json"))?)
    }

    /// # Errors
    /// When it is no configuration.
    pub(super) fn parse(text: &str) -> std::io::Result<Self> {
        if let Some((before, after)) = text.split_once(policy::text())
            && before.ends_with(SECCOMP)
        {
            let spec = serde_json::from_str(&[before, "null", after].concat())?;
            return Ok(Self { spec, filter: Filter::Ours });
        }
        let mut spec: Spec = serde_json::from_str(text)?;
        let seccomp = spec.linux_mut().as_mut().and_then(|linux| linux.seccomp_mut().take());
        Ok(Self { spec, filter: seccomp.map_or(Filter::None, Filter::Other) })
    }
}

/// A configuration like most, to practise with.
pub(super) fn sample(instance: &Instance) -> String {
    let size = DynoSize::default();
    let labels = Labels {
        app: AppId(uuid::Uuid::nil()),
        app_name: "sample".to_owned(),
        name: DynoName::new(ProcessType::web(), 1),
        purpose: Purpose::Formation,
        version: 1,
        epoch: 0,
        streak: 0,
        size,
        command: String::new(),
        launched_at: jiff::Timestamp::UNIX_EPOCH,
        by: None,
    };
    let body = Body {
        layers: vec!["/sample".into(); 2],
        binds: vec![super::Mount { source: "/usr".into(), target: "/usr".into(), read_only: true }],
        command: super::shell::shell_command("sample"),
        env: Vec::new(),
        files: Vec::new(),
        limits: size.limits(),
        hostname: "sample".to_owned(),
        network: true,
        time_limit: None,
    };
    let place = Place { instance, slot: 0, resolvers: &[IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)] };
    text(&place, &labels, &body, Ready::Started)
}

/// What is the same in every dyno that the server asks for, and can therefore be made before it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standard {
    pub(super) mounts: Vec<Mount>,
    pub(super) masked: Vec<String>,
    pub(super) read_only: Vec<String>,
}

impl Standard {
    /// Where its mounts are.
    pub(super) const PLACES: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup"];
    /// Those of them that the others are below.
    pub(super) const TOPS: [&str; 3] = ["/proc", "/dev", "/sys"];

    pub(super) fn of(spec: &Spec) -> Self {
        let is_one = |mount: &&Mount| Self::PLACES.iter().any(|place| mount.destination() == Path::new(place));
        let linux = spec.linux().as_ref();
        let paths = |paths: Option<&Vec<String>>| paths.cloned().unwrap_or_default();
        Self {
            mounts: spec.mounts().iter().flatten().filter(is_one).cloned().collect(),
            masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
            read_only: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        }
    }

    /// Whether that mount is one of its own.
    pub(super) fn has(&self, mount: &Mount) -> bool {
        self.mounts.iter().any(|one| one.destination() == mount.destination())
    }
}

/// Host secrets and switches that a process id namespace doesn't hide.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mounts(body: &Body) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: Vec<String>| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut root = words("nosuid nodev volatile redirect_dir=on");
    root.push(format!("size={}", body.limits.disk));
    root.extend(body.layers.iter().map(|layer| format!("lowerdir+={}", layer.display())));
    let shm = body.limits.memory_quota / 4;

    let mut mounts = vec![
        mount("/", "overlay", root),
        mount("/proc", "proc", words("nosuid nodev noexec hidepid=invisible")),
        mount("/dev", "tmpfs", words("nosuid noexec mode=755 size=65536")),
        mount("/dev/pts", "devpts", words("nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5")),
        mount("/dev/shm", "tmpfs", [words("nosuid nodev noexec mode=1777"), vec![format!("size={shm}")]].concat()),
        mount("/sys", "tmpfs", words("nosuid nodev noexec ro mode=755 size=65536")),
        mount("/sys/fs/cgroup", "cgroup", words("nosuid nodev noexec ro")),
    ];
    mounts.extend(body.binds.iter().map(|super::Mount { source, target, read_only }| {
        let options = if *read_only { "nosuid nodev idmap ro" } else { "nosuid nodev idmap" };
        bind(&source.to_string_lossy(), &target.to_string_lossy(), options)
    }));
    mounts
}

fn bind(source: &str, destination: &str, options: &str) -> Value {
    let options: Vec<&str> = ["rbind"].into_iter().chain(options.split(' ')).collect();
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn resources(limits: &Limits) -> Value {
    const PERIOD: u64 = 100_000;
    let quota = limits.cpu_quota_percent.map(|percent| u64::from(percent) * PERIOD / 100);
    json!({
        // OCI's swap is memory and swap together.
        "memory": { "limit": limits.memory_max, "swap": limits.memory_max, "reservation": limits.memory_quota },
        "cpu": { "shares": limits.cpu_shares * 1024 / 100, "quota": quota, "period": quota.map(|_| PERIOD) },
        "pids": { "limit": limits.pids },
    })
}

fn annotations(place: &Place<'_>, labels: &Labels, body: &Body, ready: Ready) -> Map<String, Value> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut annotations = Map::new();
    let mut note = |key: &str, value: String| annotations.insert(key.to_owned(), Value::String(value));
    note(APP, labels.app_name.clone());
    note(NAME, labels.name.to_string());
    note(SLOT, place.slot.to_string());
    note(NETWORK, if body.network { "routed" } else { "none" }.to_owned());
    if let Ready::Port { port, within } = ready {
        note(PORT, port.to_string());
        note(BOOT_TIMEOUT, millis(within));
    }
    if let Some(limit) = body.time_limit {
        note(TIME_LIMIT, millis(limit));
    }
    note(&format!("{FILE}etc/hostname"), format!("{}\n", body.hostname));
    note(&format!("{FILE}etc/hosts"), hosts(place, body));
    note(
        &format!("{FILE}etc/resolv.conf"),
        place.resolvers.iter().fold(String::new(), |mut text, server| {
            let _ = writeln!(text, "nameserver {server}");
            text
        }),
    );
    annotations
}

fn hosts(place: &Place<'_>, body: &Body) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    if body.network {
        let _ = writeln!(text, "{} {}", place.instance.address(place.slot), body.hostname);
        let _ = writeln!(text, "{} host.internal", place.instance.gateway());
    } else {
        let _ = writeln!(text, "127.0.0.1 {}", body.hostname);
    }
    text
}

/// A text annotation of a configuration.
pub(super) fn note<'a>(spec: &'a Spec, key: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The lower layers of the root, topmost first.
pub(super) fn layers(spec: &Spec) -> Vec<PathBuf> {
    let root = spec.mounts().iter().flatten().find(|mount| mount.destination() == "/");
    let options = root.and_then(|root| root.options().as_ref()).into_iter().flatten();
    options.filter_map(|option| option.strip_prefix("lowerdir+=").map(PathBuf::from)).collect()
}

/// What the writable layer may have, in bytes.
pub(super) fn root_size(spec: &Spec) -> Result<u64, StepError> {
    let wrong = |cause| StepError::new("mount the root", "/", cause);
    let root = spec.mounts().iter().flatten().find(|mount| mount.destination() == "/");
    let mut options = root.and_then(|root| root.options().as_ref()).into_iter().flatten();
    let size =
        options.find_map(|option| option.strip_prefix("size=")).ok_or_else(|| wrong("its size is not bounded"))?;
    size.parse().map_err(|_| wrong("its size has to be a number of bytes"))
}

/// The memory in bytes that the dyno's size has, if that is written in the configuration.
pub(super) fn memory_quota(spec: &Spec) -> Option<u64> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    resources.memory().as_ref()?.reservation()?.try_into().ok()
}

/// An annotation that is a number.
pub(super) fn number<T: std::str::FromStr>(spec: &Spec, key: &str) -> Option<T> {
    note(spec, key)?.parse().ok()
}

pub(super) fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| namespaces.iter().any(|namespace| namespace.typ() == kind))
}

/// Whether the dyno's user namespace may have others in it.
pub(super) fn nesting(spec: &Spec) -> Result<Nesting, StepError> {
    let parameters = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut nesting = Nesting::Allowed;
    for (name, value) in parameters.into_iter().flatten() {
        if (name.as_str(), value.as_str()) != (NESTING, "0") {
            return Err(StepError::new("set a kernel parameter", name, format!("{value} is not supported")));
        }
        nesting = Nesting::Forbidden;
    }
    Ok(nesting)
}

/// A configuration to be compared and read by people: keys sorted, in lines.
pub fn to_json(spec: &Spec) -> String {
    let mut value = serde_json::to_value(spec).expect("a configuration has only text keys");
    value.sort_all_objects();
    serde_json::to_string_pretty(&value).expect("a JSON value can be printed")
}
