//! The machine around the kernel: who we are, disk, memory, DNS, git, and the key that must not be lost.
#![forbid(unsafe_code)]

use super::{Check, told};
use crate::domain::limits::{self, BUILD_NEEDS};
use crate::dyno::scratch::{self, Way};
use crate::dyno::{instances, network, share};
use crate::sys::memory::Memory;
use caps::{CapSet, Capability};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1024 * 1024;
/// A slug, its tree and a build at once.
const DISK_NEEDED: u64 = 1024 * MIB;
const DISK_COMFORTABLE: u64 = 5 * 1024 * MIB;
/// A build, or a small app, beside the system. What a size may use is a bound, not what it takes.
const MEMORY_NEEDED: u64 = BUILD_NEEDS;
const MEMORY_COMFORTABLE: u64 = 512 * MIB;
const PATIENCE: Duration = Duration::from_secs(2);

/// What namespaces, mounts, groups and networks take.
const NEEDED_CAPABILITIES: [Capability; 9] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
];

pub(super) fn privileges() -> Check {
    let name = "privileges";
    if !rustix::process::geteuid().is_root() {
        let advice = "run it by sudo; what needs root was not tried";
        return Check::missing(name, "not root: a server cannot run like this", advice);
    }
    let lacks = |capability: &Capability| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false);
    let lacking: Vec<String> = NEEDED_CAPABILITIES.iter().filter(|c| lacks(c)).map(ToString::to_string).collect();
    if lacking.is_empty() {
        return Check::ok(name, "root");
    }
    let advice = "in a container, run it privileged; under systemd, look at CapabilityBoundingSet=";
    Check::missing(name, format!("root without {}", lacking.join(", ")), advice)
}

/// Where what dynos write is kept.
pub(super) fn writable_layers(root: &Path) -> Check {
    let name = "writable layers";
    let (way, missing) = scratch::examine(nearest(root));
    let found = match way {
        Way::Quota => return Check::ok(name, "on the disk, bounded by project quota"),
        Way::Image => return Check::ok(name, "on the disk, bounded by a loop image each"),
        Way::Memory => "in memory: what a dyno writes counts as its memory",
    };
    let why: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let advice = "for layers on the disk: apt install e2fsprogs, modprobe loop ext4, a /dev with loop devices, or a mount with prjquota";
    Check::warning(name, format!("{found} ({})", why.join("; ")), advice)
}

pub(super) fn resolvers() -> Check {
    let name = "resolvers";
    let relayed = network::relay_target();
    let asked = relayed.into_iter().chain(network::direct_resolvers().into_iter().map(|ip| SocketAddr::new(ip, 53)));
    let asked: Vec<SocketAddr> = asked.collect();
    let names = asked.iter().map(|resolver| resolver.ip().to_string()).collect::<Vec<_>>().join(", ");
    if !asked.iter().any(|resolver| answers(*resolver)) {
        let advice = "look at /etc/resolv.conf; without DNS, builds cannot fetch what apps depend on";
        return Check::warning(name, format!("{names}: no answer"), advice);
    }
    match relayed {
        Some(_) => Check::ok(name, format!("{names}, by way of a relay for dynos")),
        None => Check::ok(name, names),
    }
}

/// Asks who serves the root zone, which any resolver knows.
fn answers(resolver: SocketAddr) -> bool {
    const QUESTION: &[u8] = b"\x68\x6b\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
    let any = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let ask = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(resolver)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(QUESTION)?;
        socket.recv(&mut [0; 1500])
    };
    ask().is_ok()
}

pub(super) fn git() -> Check {
    let name = "git";
    let version = Command::new("git").arg("--version").output().ok().filter(|output| output.status.success());
    let Some(version) = version else { return Check::missing(name, "not installed", "apt install git") };
    let version = String::from_utf8_lossy(&version.stdout).trim().trim_start_matches("git version ").to_owned();
    let exec_path = Command::new("git").arg("--exec-path").output();
    let exec_path = exec_path.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if exec_path.is_ok_and(|path| Path::new(&path).join("git-http-backend").exists()) {
        return Check::ok(name, version);
    }
    Check::missing(name, format!("{version}, without git-http-backend"), "apt install git (git-core is not enough)")
}

pub(super) fn disk(root: &Path) -> Check {
    let name = "disk";
    let place = nearest(root);
    let free = match rustix::fs::statvfs(place) {
        Ok(stat) => stat.f_bavail * stat.f_frsize,
        Err(error) => return Check::warning(name, told(&error), format!("{} must be readable", place.display())),
    };
    let found = format!("{} free in {}", amount(free), place.display());
    let advice = "make room, or put the state on another file system with --root";
    match free {
        0..DISK_NEEDED => Check::missing(name, found, advice),
        DISK_NEEDED..DISK_COMFORTABLE => Check::warning(name, found, advice),
        _ => Check::ok(name, found),
    }
}

/// `path`, or the nearest directory above it that exists.
pub(super) fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

pub(super) fn memory() -> Check {
    judge_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn judge_memory(meminfo: &str) -> Check {
    let name = "memory";
    let Some(Memory { total, available }) = Memory::parse(meminfo) else {
        return Check::warning(name, "cannot be told", "/proc/meminfo must be readable");
    };
    let found = format!("{} of {} available", amount(available), amount(total));
    let advice = "builds need 192 MiB, and a dyno of the smallest size may use 512: add memory, or stop something";
    match available {
        0..MEMORY_NEEDED => Check::missing(name, found, advice),
        MEMORY_NEEDED..MEMORY_COMFORTABLE => Check::warning(name, found, advice),
        _ => Check::ok(name, found),
    }
}

/// What apps and builds may use together: as it is where an instance runs in `root`, otherwise as it is to be.
pub(super) fn share(root: &Path) -> Check {
    let name = "memory for apps";
    let instance = instances::find(root).ok().flatten();
    if let Some(share) = instance.as_ref().and_then(share::of) {
        let found = format!("{} of {} left", amount(share.left()), amount(share.most));
        return match share.left() {
            0..BUILD_NEEDS => {
                Check::warning(name, found, "new builds are refused: scale something down, or add memory")
            }
            _ => Check::ok(name, found),
        };
    }
    let Ok(machine) = Memory::of_this_machine() else {
        return Check::warning(name, "cannot be told", "/proc/meminfo must be readable");
    };
    let most = limits::memory_for_apps(machine.total, None);
    match instance {
        Some(_) => Check::warning(name, "not bounded", "look at what the server said when it started; restart it"),
        None => Check::ok(name, format!("{} once a server runs, the rest is the host's", amount(most))),
    }
}

fn amount(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    if bytes < 1024 * MIB { format!("{} MiB", bytes / MIB) } else { format!("{} GiB", tenths(1024 * MIB)) }
}

/// State of the running machine is kept there.
pub(super) fn run() -> Check {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    let name = "/run";
    match rustix::fs::statfs("/run") {
        Ok(stat) if stat.f_type == TMPFS_MAGIC => Check::ok(name, "tmpfs"),
        Ok(_) => Check::ok(name, "not a tmpfs; what a former boot left there is told by its boot id"),
        Err(error) => Check::missing(name, told(&error), "create /run"),
    }
}

/// The key that config vars are sealed with: without it a backup of the database is worth little. Nothing before the
/// first start of a server.
pub(super) fn key(root: &Path) -> Option<Check> {
    let name = "key";
    let path = root.join("key");
    let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    if mode & 0o077 != 0 {
        return Some(Check::warning(name, format!("{shown} has mode {mode:03o}"), format!("chmod 600 {shown}")));
    }
    let advice = format!("keep a copy of {shown} in a safe place: config vars in a backup cannot be read without it");
    Some(Check::ok(name, shown.to_string()).with_advice(advice))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn little_memory_is_told() {
        let with = |available: u64| {
            judge_memory(&format!("MemTotal:        4194304 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n"))
        };
        assert_eq!(with(2 * 1024 * 1024), Check::ok("memory", "2.0 GiB of 4.0 GiB available"));
        assert_eq!(with(400 * 1024).status, Status::Warning);
        assert_eq!(with(100 * 1024).found, "100 MiB of 4.0 GiB available");
        assert_eq!(with(100 * 1024).status, Status::Missing);
        assert_eq!(judge_memory("").status, Status::Warning);
    }

    #[test]
    fn the_keys_backup_is_reminded_of_and_its_mode_is_watched() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(key(root.path()), None);
        let path = root.path().join("key");
        fs::write(&path, "k").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let open = key(root.path()).unwrap();
        assert_eq!((open.status, open.advice), (Status::Warning, Some(format!("chmod 600 {}", path.display()))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let closed = key(root.path()).unwrap();
        assert_eq!(closed.status, Status::Ok);
        assert!(closed.advice.unwrap().starts_with("keep a copy of /"));
    }

    #[test]
    fn a_root_that_is_still_to_be_made_is_judged_by_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&dir.path().join("a/b")), dir.path());
    }

    #[test]
    fn a_resolver_that_does_not_answer_is_not_counted() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        drop(silent);
        assert!(!answers(address));
    }
}
