//! What the kernel lets us do: tried in namespaces, groups and children of their own, which are gone afterwards.
#![forbid(unsafe_code)]

use super::{Check, told};
use crate::domain::instance::{Instance, InstanceName};
use crate::dyno::network;
use crate::sys::cgroup::{self, CgroupError, Group, GroupLimits, Hierarchy};
use crate::sys::trial;
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Id-mapped overlay layers.
const OLDEST_KERNEL: (u32, u32) = (5, 19);
const NEWER_KERNEL: &str = "use Debian 12 or later, or a kernel from its backports";

pub(super) fn version() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_version(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            Check::missing("kernel", release, format!("Linux {major}.{minor} is needed: {NEWER_KERNEL}"))
        }
        _ => Check::ok("kernel", release),
    }
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn seccomp() -> Check {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |wanted: &str| actions.split_whitespace().any(|action| action == wanted);
    if has("errno") && has("kill_process") {
        Check::ok("seccomp", "filters can refuse and kill")
    } else {
        Check::missing("seccomp", "the kernel has no system call filters", "use a kernel with CONFIG_SECCOMP_FILTER")
    }
}

pub(super) fn user_namespaces() -> Check {
    let instance = nobodys_instance();
    match trial::user_namespace(instance.dyno_uid_base(0), 65536) {
        Ok(_) => Check::ok("user namespaces", "with 65536 ids each"),
        Err(error) => Check::missing("user namespaces", told(&error), user_namespace_advice(error.raw_os_error())),
    }
}

fn user_namespace_advice(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::ENOSPC) => "raise sysctl user.max_user_namespaces (0 switches them off)",
        Some(libc::EINVAL) => "use a kernel with CONFIG_USER_NS",
        _ => {
            "they must be allowed to root: look at sysctl user.max_user_namespaces, and in a container at its settings"
        }
    }
}

/// As a dyno's root file system is mounted.
pub(super) fn overlay() -> Check {
    let name = "overlay";
    match trial::overlay() {
        Ok(()) => Check::ok(name, "with directories replaced and renamed"),
        Err(error) => Check::missing(
            name,
            told(&error),
            "use a kernel with CONFIG_OVERLAY_FS and CONFIG_TMPFS_XATTR (modprobe overlay)",
        ),
    }
}

/// Of what dynos' root file systems are made of: the host's `/usr`, and the trees in ROOT.
pub(super) fn id_mapped_mounts(root: &Path) -> Check {
    let name = "id-mapped mounts";
    let namespace = match trial::user_namespace(nobodys_instance().dyno_uid_base(0), 65536) {
        Ok(namespace) => namespace,
        Err(error) => return Check::missing(name, told(&error), user_namespace_advice(error.raw_os_error())),
    };
    let root = super::machine::nearest(root);
    for path in [Path::new("/usr"), root] {
        if let Err(error) = trial::idmap(path, namespace.as_fd()) {
            let found = format!("not on the file system of {}: {error}", path.display());
            return Check::missing(
                name,
                found,
                "have it on ext4, xfs or btrfs; network and overlay file systems cannot",
            );
        }
    }
    Check::ok(name, format!("of /usr and {}", root.display()))
}

pub(super) fn cgroups() -> Vec<Check> {
    cgroups_below(&format!("hokku-doctor-{}", std::process::id()))
}

fn cgroups_below(parent: &str) -> Vec<Check> {
    let limits = GroupLimits {
        memory_max: 16 * 1024 * 1024,
        memory_high: None,
        shares: 100,
        cpu_quota_percent: Some(100),
        pids: 8,
    };
    let hierarchy = match Hierarchy::detect() {
        Ok(hierarchy) => hierarchy.within_delegated(),
        Err(error) => return vec![Check::missing("cgroups", told(&error), cgroup_advice(&error))],
    };
    let made = Group::create(&hierarchy, parent, "trial", &limits);
    let checks = match &made {
        Ok(group) => vec![Check::ok("cgroups", layout(&hierarchy)), kill(&hierarchy, group)],
        Err(error) => vec![Check::missing("cgroups", told(error), cgroup_advice(error))],
    };
    let removed = made.map_or(Ok(()), |group| group.remove());
    match removed.and_then(|()| cgroup::remove_parent(&hierarchy, parent)) {
        Ok(()) => checks,
        Err(error) => vec![Check::warning("cgroups", told(&error), format!("remove the empty group {parent} by hand"))],
    }
}

fn layout(hierarchy: &Hierarchy) -> String {
    let limits = "limits on memory, cpu and pids are kept";
    let kind = match (hierarchy.is_pure_v2(), hierarchy.v2().is_some()) {
        (true, _) => "version 2",
        (false, true) => "hybrid, controllers on version 1",
        (false, false) => "version 1",
    };
    match hierarchy.delegated() {
        Some(group) => format!("{kind}, within {}; {limits}", group.display()),
        None => format!("{kind}; {limits}"),
    }
}

fn kill(hierarchy: &Hierarchy, group: &Group) -> Check {
    let name = "cgroup.kill";
    let there = group.kill_file().is_some_and(|file| file.exists());
    match hierarchy.v2() {
        _ if there => Check::ok(name, "dynos are killed whole by the kernel"),
        Some(_) => Check::warning(name, "missing: processes are killed one by one", "use Linux 5.14 or later"),
        None => {
            let found = "no version 2 hierarchy is mounted: processes are killed one by one";
            Check::warning(name, found, "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2")
        }
    }
}

fn cgroup_advice(error: &CgroupError) -> String {
    match error {
        CgroupError::Missing(cgroup::Controller::Memory) => {
            "boot with cgroup_enable=memory (Raspberry Pi: in cmdline.txt)".to_owned()
        }
        CgroupError::Missing(controller) => format!("use a kernel with the {controller} controller"),
        CgroupError::Make { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            "/sys/fs/cgroup is read-only: in a container, let it manage its own groups".to_owned()
        }
        CgroupError::Write { path, .. } if path.ends_with("cgroup.subtree_control") => {
            "controllers cannot be handed down: under systemd, run the service with Delegate=yes".to_owned()
        }
        _ => "control groups must be writable for root".to_owned(),
    }
}

/// A namespace with a routed link, in a namespace that stands for the host.
pub(super) fn network_namespaces() -> Check {
    let name = "network namespaces";
    let prepared = away_from_home(|| network::prepare(&nobodys_instance(), 0).map(drop).map_err(|error| told(&error)));
    match prepared {
        Ok(()) => Check::ok(name, "with veth links"),
        Err(error) => Check::missing(name, error, "use a kernel with CONFIG_NET_NS and CONFIG_VETH (modprobe veth)"),
    }
}

/// Runs `work` in a thread with a network namespace of its own, which is gone with the thread.
pub(super) fn away_from_home(work: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    let play = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| told(&error))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(play).join()).unwrap_or_else(|_| Err("the trial broke off".to_owned()))
}

/// Stands in where names of an instance are needed in a namespace that nobody else sees.
pub(super) fn nobodys_instance() -> Instance {
    Instance::new(InstanceName::default(), "/".into(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(parse_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_version("5.4-rc1"), Some((5, 4)));
        assert_eq!(parse_version("weird"), None);
        assert!(parse_version("5.9.1").unwrap() < OLDEST_KERNEL && parse_version("6.0.0").unwrap() > OLDEST_KERNEL);
    }

    #[test]
    fn a_root_that_cannot_be_id_mapped_is_named() {
        let check = id_mapped_mounts(Path::new("/proc/sys"));
        assert_eq!(check.status, super::super::Status::Missing);
        assert!(check.found.starts_with("not on the file system of /proc/sys: "), "{}", check.found);
    }

    #[test]
    fn a_trial_of_cgroups_leaves_none() {
        let parent = format!("hokku-doctor-test-{}", std::process::id());
        let checks = cgroups_below(&parent);
        assert_eq!(checks[0].status, super::super::Status::Ok, "{checks:?}");
        let hierarchy = Hierarchy::detect().unwrap().within_delegated();
        assert!(cgroup::children(&hierarchy, &parent).unwrap().is_empty());
    }
}
