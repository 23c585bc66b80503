//! A launch as an OCI runtime configuration. Pure: the same launch gives the same text.
//!
//! The shim and init do what this says and nothing else. What OCI has no field for is in annotations `dev.hokku.*`, and
//! options that only we read are said here: on the root's overlay, `lowerdir+=PATH` names one layer (topmost first) and
//! `size=BYTES` bounds the writable layer. The environment is not in it; it travels by socket.
#![forbid(unsafe_code)]

use super::{Body, Labels, Ready, policy};
use crate::domain::dyno::DynoId;
use crate::domain::instance::Instance;
use crate::domain::limits::Limits;
use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The dyno's user and group, inside.
pub const USER: u32 = 1000;

/// Ids mapped into a dyno's user namespace.
pub const IDS: u32 = 65536;

const PREFIX: &str = "dev.hokku.";

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
pub fn spec(place: &Place<'_>, id: DynoId, labels: &Labels, body: &Body, ready: Ready) -> Spec {
    let base = place.instance.dyno_uid_base(place.slot);
    let mapping = json!([{ "containerID": 0, "hostID": base, "size": IDS }]);
    let namespaces = ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    let spec = json!({
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
        },
        "mounts": mounts(body),
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": namespaces,
            "cgroupsPath": format!("/{}/{id}", place.instance.cgroup()),
            "resources": resources(&body.limits),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": policy::seccomp(),
        },
        "annotations": annotations(place, labels, body, ready),
    });
    serde_json::from_value(spec).expect("what is built above has the shape of an OCI configuration")
}

/// Host secrets and switches that a process id namespace doesn't hide.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The host's device nodes that a dyno gets.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

fn mounts(body: &Body) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: Vec<String>| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut root = words("nosuid nodev userxattr volatile");
    root.push(format!("size={}", body.limits.disk));
    root.extend(body.layers.iter().map(|layer| format!("lowerdir+={}", layer.display())));
    let shm = body.limits.memory_quota / 4;

    let mut mounts = vec![
        mount("/", "overlay", root),
        mount("/proc", "proc", words("nosuid nodev noexec hidepid=invisible")),
        mount("/tmp", "tmpfs", [words("nosuid nodev mode=1777"), vec![format!("size={}", body.limits.disk)]].concat()),
        mount("/dev", "tmpfs", words("nosuid noexec mode=755 size=65536")),
        mount("/dev/pts", "devpts", words("nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5")),
        mount("/dev/shm", "tmpfs", [words("nosuid nodev noexec mode=1777"), vec![format!("size={shm}")]].concat()),
        mount("/sys", "tmpfs", words("nosuid nodev noexec ro mode=755 size=65536")),
        mount("/sys/fs/cgroup", "cgroup", words("nosuid nodev noexec ro")),
    ];
    mounts.extend(DEVICES.iter().map(|name| bind(&format!("/dev/{name}"), &format!("/dev/{name}"), "nosuid noexec")));
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
        "memory": { "limit": limits.memory_max, "swap": limits.memory_max },
        "cpu": { "shares": limits.cpu_shares * 1024 / 100, "quota": quota, "period": quota.map(|_| PERIOD) },
        "pids": { "limit": limits.pids },
    })
}

fn annotations(place: &Place<'_>, labels: &Labels, body: &Body, ready: Ready) -> Map<String, Value> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut annotations = Map::new();
    let mut note = |key: &str, value: String| annotations.insert(key.to_owned(), Value::String(value));
    note(&format!("{PREFIX}app"), labels.app.to_string());
    note(&format!("{PREFIX}name"), labels.name.to_string());
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

/// An annotation that is a number.
pub(super) fn number<T: std::str::FromStr>(spec: &Spec, key: &str) -> Option<T> {
    note(spec, key)?.parse().ok()
}

/// The text to be kept as `config.json`: keys sorted, so that it can be compared.
pub fn to_json(spec: &Spec) -> String {
    let mut value = serde_json::to_value(spec).expect("a configuration has only text keys");
    value.sort_all_objects();
    serde_json::to_string_pretty(&value).expect("a JSON value can be printed")
}

/// Reads `config.json` of a bundle.
///
/// # Errors
/// When it can't be read or is no configuration.
pub fn read(bundle: &Path) -> std::io::Result<Spec> {
    Ok(serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?)
}
