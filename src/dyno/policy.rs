//! Which system calls a dyno may make. The measure is Docker's profile for a container without capabilities; beyond it
//! go: no `ptrace`, no `io_uring`, no `vmsplice`, no address families but Unix, IP and the routing netlink.
//!
//! What is not named here does not exist for a dyno (ENOSYS): libraries try new calls first and fall back to old ones
//! on exactly that answer. What exists and is refused answers EPERM.
#![forbid(unsafe_code)]

use crate::sys::seccomp::{Condition, Policy, Rule, Verdict};
use crate::sys::syscalls;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use serde_json::{Value, json};
use std::sync::LazyLock;

#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    // Files.
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "file_getattr", "file_setattr", "flistxattr", "flock",
    "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents",
    "getdents64", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "ioctl", "lchown", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr",
    "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "open",
    "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir",
    "sendfile", "setxattr", "setxattrat", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync",
    "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes",
    "write", "writev", "fanotify_mark", "name_to_handle_at", "cachestat",
    // Waiting.
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "poll", "ppoll", "pselect6", "select", "signalfd", "signalfd4",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
    // Memory.
    "brk", "get_mempolicy", "madvise", "map_shadow_stack", "memfd_create", "membarrier", "mincore", "mlock", "mlock2",
    "mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "process_madvise", "process_mrelease", "remap_file_pages", "rseq",
    // Processes and threads.
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue",
    "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getegid", "geteuid",
    "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
    "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "pause", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
    "sched_yield", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid",
    "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit",
    "setsid", "setuid", "sysinfo", "tgkill", "time", "times", "tkill", "uname", "vfork", "wait4", "waitid",
    // Signals and time.
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_tgsigqueueinfo", "setitimer", "sigaltstack", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime",
    // Talking.
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
    "pipe", "pipe2", "recvfrom", "recvmmsg", "recvmsg", "semctl", "semget", "semop", "semtimedop", "sendmmsg",
    "sendmsg", "sendto", "setsockopt", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "socketpair",
];

/// Exist, and are not for dynos.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module",
    "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl",
    "lookup_dcookie", "mbind", "migrate_pages", "modify_ldt", "mount", "mount_setattr", "move_mount", "move_pages",
    "nfsservctl", "open_by_handle_at", "open_tree", "open_tree_attr", "perf_event_open", "pidfd_getfd",
    "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot",
    "request_key", "set_mempolicy", "setdomainname", "sethostname", "setns", "settimeofday", "statmount",
    "listmount", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "uselib", "ustat", "vhangup",
    "set_mempolicy_home_node", "vmsplice", "_sysctl", "sysfs", "personality", "clone", "socket",
];

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// `CLONE_NEWTIME | NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`, and `CLONE_PARENT`: whoever lets a
/// program into a dyno would get its children as its own.
const CLONE_REFUSED: u64 = 0x7e02_8080;

/// The policy as the `linux.seccomp` of an OCI configuration.
pub fn seccomp() -> Value {
    let equal = |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let allow = |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let no_namespaces = json!({ "index": 0, "value": CLONE_REFUSED, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" });
    let mut syscalls = vec![
        json!({ "names": ALLOWED, "action": "SCMP_ACT_ALLOW" }),
        // Its flags are in memory, where a filter can't look; libraries fall back to clone.
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
        allow("clone", json!([no_namespaces])),
    ];
    // PER_LINUX, PER_LINUX32, each with UNAME26, and the question which one it is.
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        syscalls.push(allow("personality", json!([equal(0, persona)])));
    }
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        syscalls.push(allow("socket", json!([equal(0, u64::from(family.cast_unsigned()))])));
    }
    // getifaddrs asks the kernel by it.
    syscalls.push(allow("socket", json!([equal(0, u64::from(libc::AF_NETLINK.cast_unsigned())), equal(2, 0)])));
    syscalls.push(json!({ "names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": ENOSYS, "syscalls": syscalls })
}

/// The same as text, made once.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| seccomp().to_string());
    &TEXT
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("no system call is called {0:?}")]
    UnknownCall(String),
    #[error("the action {0} is not supported")]
    Action(LinuxSeccompAction),
    #[error("the operator {0} is not supported")]
    Operator(LinuxSeccompOperator),
}

/// Reads the policy of an OCI configuration. Calls that this machine doesn't have are left out.
///
/// # Errors
/// On a name no machine knows (a misspelt one must not become an open door), or what our filters can't express.
pub fn read(seccomp: &LinuxSeccomp) -> Result<Policy, PolicyError> {
    let mut rules = Vec::new();
    for entry in seccomp.syscalls().iter().flatten() {
        let verdict = verdict(entry.action(), entry.errno_ret())?;
        let conditions: Vec<Condition> =
            entry.args().iter().flatten().map(condition).collect::<Result<_, PolicyError>>()?;
        for name in entry.names() {
            if !syscalls::is_known(name) {
                return Err(PolicyError::UnknownCall(name.clone()));
            }
            let Some(number) = syscalls::number(name) else { continue };
            rules.push(Rule { number, conditions: conditions.clone(), verdict });
        }
    }
    Ok(Policy { rules, otherwise: verdict(seccomp.default_action(), seccomp.default_errno_ret())? })
}

fn verdict(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Verdict, PolicyError> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(Verdict::Allow),
        LinuxSeccompAction::ScmpActErrno => {
            Ok(Verdict::Errno(errno.and_then(|errno| u16::try_from(errno).ok()).unwrap_or(EPERM)))
        }
        LinuxSeccompAction::ScmpActKillProcess => Ok(Verdict::KillProcess),
        other => Err(PolicyError::Action(other)),
    }
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, PolicyError> {
    let argument = u8::try_from(arg.index()).unwrap_or(u8::MAX).min(5);
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => Ok(Condition { argument, mask: u64::MAX, value: arg.value() }),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Ok(Condition { argument, mask: arg.value(), value: arg.value_two().unwrap_or(0) })
        }
        other => Err(PolicyError::Operator(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seccomp::tests::{HERE, ours, run};
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    use std::collections::BTreeMap;

    fn policy() -> Policy {
        read(&serde_json::from_value(seccomp()).unwrap()).unwrap()
    }

    /// What seccompiler makes of the rules that allow something.
    fn theirs(policy: &Policy) -> Vec<(u16, u8, u8, u32)> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in policy.rules.iter().filter(|rule| rule.verdict == Verdict::Allow) {
            let same = rules.entry(rule.number.into()).or_default();
            let condition = |c: &Condition| {
                let op = SeccompCmpOp::MaskedEq(c.mask);
                SeccompCondition::new(c.argument, SeccompCmpArgLen::Qword, op, c.value).unwrap()
            };
            if !rule.conditions.is_empty() {
                same.push(SeccompRule::new(rule.conditions.iter().map(condition).collect()).unwrap());
            }
        }
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, arch).unwrap();
        let program: seccompiler::BpfProgram = filter.try_into().unwrap();
        program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    #[test]
    fn our_tree_allows_exactly_what_seccompiler_allows() {
        let policy = policy();
        let (ours, theirs) = (ours(&policy), theirs(&policy));
        let values = [0, 1, 2, 3, 8, 10, 16, 17, 38, 40, 0x11, 0x0120_0011, 0x1000_0000, 0x2_0000, 0x2_0008];
        let values: Vec<u64> = values.into_iter().chain([0xffff_ffff, 1 << 32, (1 << 32) + 1, u64::MAX]).collect();
        let mut allowed = 0;
        for number in 0..1000 {
            for first in &values {
                for third in [0, 12, 1 << 40] {
                    let arguments = [*first, 0, third, 0, 0, 0];
                    let both =
                        [&ours, &theirs].map(|code| run(code, HERE, number, arguments) == libc::SECCOMP_RET_ALLOW);
                    assert_eq!(both[0], both[1], "call {number} with {arguments:?}");
                    allowed += usize::from(both[0]);
                }
            }
        }
        assert!(allowed > 10_000, "{allowed}");
        assert!(ours.len() < theirs.len(), "{} instructions, theirs {}", ours.len(), theirs.len());
    }

    #[test]
    fn refused_calls_answer_eperm_and_unknown_ones_enosys() {
        let code = ours(&policy());
        let answer = |name: &str, first: u64| {
            run(&code, HERE, syscalls::number(name).unwrap(), [first, 0, 0, 0, 0, 0]) & !libc::SECCOMP_RET_ERRNO
        };
        for name in ["mount", "unshare", "setns", "ptrace", "keyctl", "bpf", "io_uring_setup", "open_by_handle_at"] {
            assert_eq!(answer(name, 0), u32::from(EPERM), "{name}");
        }
        assert_eq!(answer("clone", 0x1000_0011), u32::from(EPERM));
        assert_eq!(answer("clone3", 0), u32::from(ENOSYS));
        assert_eq!(run(&code, HERE, 999, [0; 6]), libc::SECCOMP_RET_ERRNO | u32::from(ENOSYS));
    }

    #[test]
    fn no_call_is_named_twice_or_misspelt() {
        let mut names: Vec<&str> = ALLOWED.iter().chain(REFUSED).copied().collect();
        for name in &names {
            assert!(syscalls::is_known(name), "{name}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_misspelt_call_is_refused() {
        let policy = serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["raed"], "action": "SCMP_ACT_ERRNO" }] }));
        assert!(read(&policy.unwrap()).unwrap_err().to_string().contains("raed"));
    }
}
