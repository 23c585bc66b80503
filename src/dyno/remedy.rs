//! What to do about a step of the launch path that failed. Pure: nothing is looked at but what the step has said.
#![forbid(unsafe_code)]

/// Stands between what happened and what to do about it, wherever both are in one line.
pub const ADVICE: &str = " -> ";

const LAUNCHER: &str =
    "launcher.log in the instance's /run/hokku says why it ended; it is started again by the next launch";
const RUN: &str = "/run is full: it is kept in memory, look at df -h /run and df -i /run";
const GROUPS: &str = "/sys/fs/cgroup must be writable for root: in a container, let it manage its own groups; under systemd, run the service with Delegate=yes";
const PROCESSES: &str = "the host has no more processes to give: look at sysctl kernel.pid_max and kernel.threads-max, and under systemd at TasksMax=";
const VETH: &str = "use a kernel with CONFIG_NET_NS and CONFIG_VETH (modprobe veth)";
const USERS: &str = "user namespaces must be allowed to root: in a container, look at its settings; the server must not run in a chroot";
const OVERLAY: &str = "Linux 5.19 or later with CONFIG_OVERLAY_FS and CONFIG_TMPFS_XATTR is needed, and ROOT must not be on an overlay itself; dmesg says what overlayfs did not like";
const ID_MAPPED: &str =
    "have it on ext4, xfs or btrfs, with Linux 5.19 or later: network and overlay file systems cannot be id-mapped";

/// Advice, as a clause without an end. `errno` is the kernel's word, if it was the kernel who refused.
pub(super) fn remedy(step: &str, object: &str, errno: Option<i32>) -> Option<&'static str> {
    match errno {
        Some(errno) => of_step(step, object, errno).or_else(|| of_errno(errno)),
        None => of_step_alone(step),
    }
}

fn of_step_alone(step: &str) -> Option<&'static str> {
    Some(match step {
        "find a free slot" => "scale something down, or start another instance (--name) for some of the apps",
        "find the control groups" => "hokku doctor says which ones are missing and how to get them",
        "wait for the shim" => LAUNCHER,
        _ => return None,
    })
}

/// In the order in which a launch comes to them.
fn of_step(step: &str, object: &str, errno: i32) -> Option<&'static str> {
    let of = match step {
        "start the launcher" | "reach the launcher" | "talk to the launcher" | "ask the launcher" => of_launcher,
        "make the dyno's directory" | "make the log ring" | "place the log ring" | "listen" => of_run,
        "restrict the network" | "make the network" => of_network,
        "make the user namespace" | "clone pid 1" | "fork the program" => return of_process(step, errno),
        "find the control groups" | "make the cgroup" | "limit the dyno" | "enter the cgroup" => of_group,
        "copy a mount" | "restrict a mount" | "mount the root" | "make a mount" | "make the writable layer" => {
            return of_mount(step, errno);
        }
        "place a mount" | "place a layer" | "place the root" | "place the writable layer" | "hide a path" => of_place,
        "make a directory" | "make a file" | "write a file" => of_file,
        "limit a resource" => return of_resource(object, errno),
        "filter system calls" => of_filter,
        "go to the working directory" | "start the program" => return of_program(step, errno),
        _ => return None,
    };
    of(errno)
}

fn of_launcher(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOENT | libc::EACCES => Some("hokku's own program must be there and executable: install it again"),
        libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE => Some(LAUNCHER),
        _ => None,
    }
}

fn of_run(errno: i32) -> Option<&'static str> {
    matches!(errno, libc::ENOSPC | libc::EDQUOT).then_some(RUN)
}

fn of_network(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOENT => Some("apt install nftables"),
        libc::EACCES => Some("the program nft must be executable for root: apt install --reinstall nftables"),
        libc::ENOSPC => Some("raise sysctl user.max_net_namespaces"),
        libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP => Some(VETH),
        _ => None,
    }
}

fn of_process(step: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("make the user namespace", libc::ENOSPC) => "raise sysctl user.max_user_namespaces (0 switches them off)",
        ("make the user namespace", libc::EINVAL) => "use a kernel with CONFIG_USER_NS",
        ("make the user namespace", libc::EPERM) => USERS,
        ("clone pid 1", libc::ENOSPC) => {
            "raise sysctls user.max_mnt_namespaces, user.max_pid_namespaces, user.max_ipc_namespaces and user.max_uts_namespaces"
        }
        ("fork the program", libc::EAGAIN) => "the dyno's size allows no more processes: choose a larger one",
        (_, libc::EAGAIN) => PROCESSES,
        _ => return None,
    })
}

fn of_group(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EROFS | libc::EACCES | libc::EPERM | libc::EBUSY => Some(GROUPS),
        libc::ENOENT | libc::EOPNOTSUPP => {
            Some("hokku doctor says which control groups are missing and how to get them")
        }
        libc::ENOSPC | libc::EAGAIN => Some(
            "the kernel has no more control groups to give: remove some, or look at cgroup.max.descendants of those above",
        ),
        _ => None,
    }
}

fn of_mount(step: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("copy a mount", libc::ENOENT) => {
            "it is gone: put it back, or restart the server, which makes again what it keeps in ROOT; directories of the host are named in hokku.toml, [stack.host] paths"
        }
        ("restrict a mount", libc::EINVAL | libc::EPERM) => ID_MAPPED,
        ("mount the root", libc::EINVAL | libc::EOPNOTSUPP | libc::ELOOP) => OVERLAY,
        ("mount the root", libc::ENODEV) => "use a kernel with CONFIG_OVERLAY_FS (modprobe overlay)",
        (_, libc::ENODEV) => {
            "the kernel lacks this file system: use Debian's own, or one with CONFIG_TMPFS, CONFIG_PROC_FS and CONFIG_UNIX98_PTYS"
        }
        _ => return None,
    })
}

fn of_place(errno: i32) -> Option<&'static str> {
    (errno == libc::ENOSPC).then_some("raise sysctl fs.mount-max")
}

fn of_file(errno: i32) -> Option<&'static str> {
    matches!(errno, libc::ENOSPC | libc::EDQUOT)
        .then_some("the dyno's own disk is too small for it: choose a larger size")
}

fn of_resource(object: &str, errno: i32) -> Option<&'static str> {
    (object.contains("NOFILE") && matches!(errno, libc::EPERM | libc::EINVAL)).then_some("raise sysctl fs.nr_open")
}

fn of_filter(errno: i32) -> Option<&'static str> {
    matches!(errno, libc::EINVAL | libc::ENOSYS).then_some("use a kernel with CONFIG_SECCOMP_FILTER")
}

fn of_program(step: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("go to the working directory", libc::ENOENT | libc::ENOTDIR) => "the code has no such directory",
        ("go to the working directory", libc::EACCES) => "the dyno's user must be allowed to enter it: chmod +x",
        ("start the program", libc::ENOENT) => {
            "there is no such command in the dyno: look at its spelling, at PATH, and at the #! line of a script"
        }
        ("start the program", libc::EACCES) => {
            "the dyno's user may not run it: make it executable (chmod +x) and deploy again"
        }
        ("start the program", libc::ENOEXEC) => {
            "it is no program for this machine: it was built for another kind of processor, or it is a script without a #! line"
        }
        ("start the program", libc::E2BIG) => {
            "arguments and config vars are too long: at most 128 KiB each, and 2 MiB together"
        }
        _ => return None,
    })
}

/// What the number alone says, whatever the step.
fn of_errno(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "the server needs root with all its capabilities: hokku doctor says what it lacks",
        libc::ENOSYS => {
            "the kernel does not have this system call, or a container's filter hides it: Linux 5.19 or later is needed"
        }
        libc::EMFILE => "too many files are open: raise the limit (ulimit -n; under systemd, LimitNOFILE=)",
        libc::ENFILE => "the host has too many files open: raise sysctl fs.file-max",
        libc::ENOMEM => "the host has no memory left: stop something, or add some",
        libc::ENOSPC | libc::EDQUOT => "there is no room left: look at df -h and df -i",
        libc::EROFS => "it is on a file system that is mounted read-only: choose another place, or mount it writable",
        libc::ENODEV => "the kernel lacks something: hokku doctor says what",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Step, object, errno, and what the advice is about.
    const CASES: [(&str, &str, Option<i32>, &str); 29] = [
        ("make the user namespace", "id mappings", Some(libc::ENOSPC), "user.max_user_namespaces"),
        ("make the user namespace", "id mappings", Some(libc::EPERM), "allowed to root"),
        ("make the user namespace", "id mappings", Some(libc::EAGAIN), "kernel.pid_max"),
        ("make the network", "hk0-1", Some(libc::ENOSPC), "user.max_net_namespaces"),
        ("make the network", "hk0-1", Some(libc::EOPNOTSUPP), "modprobe veth"),
        ("restrict the network", "nft", Some(libc::ENOENT), "apt install nftables"),
        ("clone pid 1", "clone3", Some(libc::EAGAIN), "TasksMax="),
        ("clone pid 1", "clone3", Some(libc::ENOSPC), "user.max_pid_namespaces"),
        ("clone pid 1", "clone3", Some(libc::ENOSYS), "Linux 5.19"),
        ("fork the program", "clone", Some(libc::EAGAIN), "larger one"),
        ("make the cgroup", "dyno-3", Some(libc::EROFS), "Delegate=yes"),
        ("make the cgroup", "dyno-3", Some(libc::ENOSPC), "no more control groups"),
        ("find the control groups", "mounts", None, "hokku doctor"),
        ("wait for the shim", "launcher.sock", None, "launcher.log"),
        ("make the log ring", "/run/hokku/a/slot-1.ring", Some(libc::ENOSPC), "/run is full"),
        ("copy a mount", "/r/trees/1", Some(libc::ENOENT), "it is gone"),
        ("copy a mount", "/r/trees/1", Some(libc::ENOSYS), "Linux 5.19"),
        ("restrict a mount", "/r/trees/1", Some(libc::EINVAL), "ext4, xfs or btrfs"),
        ("mount the root", "overlay", Some(libc::EINVAL), "CONFIG_OVERLAY_FS"),
        ("mount the root", "overlay", Some(libc::ENODEV), "modprobe overlay"),
        ("place a mount", "/proc", Some(libc::ENOSPC), "fs.mount-max"),
        ("limit a resource", "RLIMIT_NOFILE", Some(libc::EPERM), "fs.nr_open"),
        ("filter system calls", "seccomp", Some(libc::EINVAL), "CONFIG_SECCOMP_FILTER"),
        ("start the program", "bahs", Some(libc::ENOENT), "spelling"),
        ("start the program", "/app/run", Some(libc::EACCES), "chmod +x"),
        ("start the program", "/app/run", Some(libc::ENOEXEC), "another kind of processor"),
        ("start the program", "bash", Some(libc::E2BIG), "128 KiB"),
        ("make a pipe", "standard stream", Some(libc::EMFILE), "LimitNOFILE="),
        ("set the host name", "web.1", Some(libc::EPERM), "root with all its capabilities"),
    ];

    #[test]
    fn advice_is_about_the_step_and_the_kernels_word() {
        for (step, object, errno, about) in CASES {
            let advice = remedy(step, object, errno).unwrap_or_default();
            assert!(advice.contains(about), "{step} ({object}), {errno:?}: {advice:?}");
            assert!(!advice.contains(ADVICE) && !advice.ends_with('.'), "{advice:?} has to fit into a line");
        }
        assert_eq!(remedy("start the program", "bash", Some(libc::EIO)), None);
        assert_eq!(remedy("set the host name", "web.1", None), None);
        assert_eq!(remedy("limit a resource", "RLIMIT_CORE", Some(libc::EINVAL)), None);
    }

    #[test]
    fn no_step_is_known_here_that_no_launch_takes() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dyno");
        let mut launch = String::new();
        for entry in walkdir::WalkDir::new(&here) {
            let path = entry.unwrap().into_path();
            if path.is_file() && !path.ends_with("remedy.rs") {
                launch.push_str(&fs::read_to_string(path).unwrap());
            }
        }
        let ours = fs::read_to_string(here.join("remedy.rs")).unwrap();
        let known = ours.split("fn of_errno").next().unwrap().split("fn of_step_alone").nth(1).unwrap();
        let steps = known.lines().filter(|line| line.contains("=>")).flat_map(|line| {
            let pattern = line.split("=>").next().unwrap_or_default();
            pattern.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        });
        let steps: Vec<String> = steps.filter(|step| step != "NOFILE").collect();
        assert!(steps.len() > 30, "{steps:?}");
        for step in steps {
            assert!(launch.contains(&format!("\"{step}\"")), "no launch has a step {step:?}");
        }
    }
}
