//! System calls that a dyno may not make: each that exists on this machine, one by one, and what they are wanted for.

use super::{as_filtered_host_root, as_host_root, as_root, no_seccomp};
use crate::stage::{Stage, not_shown};
use hokku::dyno::policy;
use hokku::sys::syscalls;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const REFUSED: &str = "Operation not permitted";

/// `CLONE_NEWTIME`, `NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACES: [i64; 8] =
    [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Names that an entry of the policy allows; `None` of its arguments matter.
fn allowed(policy: &Value) -> BTreeSet<&str> {
    let entries = policy["syscalls"].as_array().unwrap().iter();
    let entries = entries.filter(|entry| entry["action"] == "SCMP_ACT_ALLOW" && !has_arguments(entry));
    entries.flat_map(|entry| entry["names"].as_array().unwrap()).map(|name| name.as_str().unwrap()).collect()
}

fn has_arguments(entry: &Value) -> bool {
    entry["args"].as_array().is_some_and(|args| !args.is_empty())
}

/// Calls for the probe, each with nonsense for arguments, for which the kernel refuses it once it gets there.
fn refused_calls() -> Vec<String> {
    let policy = policy::seccomp();
    let allowed = allowed(&policy);
    let refused = syscalls::names().filter(|name| !allowed.contains(name));
    // The kernel's own probes of programs end with the last, filter or not; who calls it by itself is killed. The first
    // four depend on their arguments.
    let refused = refused.filter(|name| !["clone", "clone3", "personality", "socket", "uretprobe"].contains(name));
    let mut calls: Vec<String> = refused
        .filter_map(|name| {
            let number = syscalls::number(name)?;
            // By anything else it answers that it does not exist.
            Some(if name == "modify_ldt" { format!("call={number},0,0,0") } else { format!("call={number}") })
        })
        .collect();
    let socket = syscalls::number("socket").unwrap();
    let netlink = [libc::NETLINK_AUDIT, libc::NETLINK_KOBJECT_UEVENT, libc::NETLINK_NETFILTER, libc::NETLINK_GENERIC];
    calls.extend(netlink.map(|protocol| format!("call={socket},{},3,{protocol}", libc::AF_NETLINK)));
    for (family, kind) in [(libc::AF_PACKET, 3), (libc::AF_ALG, 5), (libc::AF_VSOCK, 1), (libc::AF_XDP, 3)] {
        calls.push(format!("call={socket},{family},{kind},0"));
    }
    calls.push(format!("call={}", syscalls::number("clone3").unwrap()));
    calls
}

#[tokio::test]
async fn calls_that_are_not_allowed_are_refused_to_whoever_makes_them() {
    let stage = Stage::new().await;
    let calls = refused_calls();
    let mut config = stage.probe(&calls.iter().map(String::as_str).collect::<Vec<_>>());
    // With every right but those that the filter takes, so that no other wall is in the way.
    as_filtered_host_root(&mut config);
    for (call, answer) in stage.ask(&config).await {
        assert!(answer.contains(REFUSED) || answer.contains("not implemented"), "{call}: {answer}");
    }
    no_seccomp(&mut config);
    let (mut reached, mut unknown) = (0, Vec::new());
    for (call, answer) in stage.ask(&config).await {
        match answer.as_str() {
            "yes" => reached += 1,
            // Of times gone by, or left out of this kernel.
            answer if answer.contains("not implemented") => unknown.push(name_of(&call)),
            answer => panic!("{call} without the filter: {answer}"),
        }
    }
    not_shown(&format!("calls that this kernel does not have: {}", unknown.join(" ")));
    assert!(reached > 50, "{reached} of {}", calls.len());
}

fn name_of(call: &str) -> &'static str {
    let number = call.strip_prefix("call=").and_then(|call| call.split(',').next()?.parse().ok());
    syscalls::names().find(|name| syscalls::number(name) == number).unwrap()
}

#[tokio::test]
async fn what_nobody_needs_rights_for_elsewhere_is_refused_too() {
    let stage = Stage::new().await;
    for attack in ["ptrace", "keyctl", "io_uring", "userfaultfd", "no-randomization"] {
        stage.defended(attack, REFUSED, no_seccomp).await;
    }
    // Debian's kernel keeps it to root by itself (kernel.perf_event_paranoid).
    stage.defended_as(as_filtered_host_root, "perf", REFUSED, no_seccomp).await;
    stage.defended_as(as_filtered_host_root, "bpf", REFUSED, no_seccomp).await;
    stage.defended_as(as_filtered_host_root, "mount", REFUSED, no_seccomp).await;
    assert_eq!(stage.ask(&stage.probe(&["routes"])).await["routes"], "yes", "what programs need is allowed");
}

#[tokio::test]
async fn no_namespace_can_be_made() {
    let stage = Stage::new().await;
    for flag in NAMESPACES {
        stage.defended_as(as_filtered_host_root, &format!("unshare={flag}"), REFUSED, no_seccomp).await;
        // The time namespace's flag is none of clone's: there it is a bit of the signal's number.
        if flag != NAMESPACES[0] {
            stage.defended_as(as_filtered_host_root, &format!("clone={flag}"), REFUSED, no_seccomp).await;
        }
    }
}

#[tokio::test]
async fn a_user_namespace_of_its_own_is_out_of_reach_behind_two_walls() {
    let stage = Stage::new().await;
    let unlimited = |config: &mut Value| {
        config["linux"].as_object_mut().unwrap().remove("sysctl");
    };
    for attack in ["unshare=268435456", "clone=268435456"] {
        stage.defended_as(unlimited, attack, REFUSED, no_seccomp).await;
        stage.defended_as(no_seccomp, attack, "No space left", unlimited).await;
    }
}

#[tokio::test]
async fn user_namespaces_made_ahead_have_none_in_them_either() {
    let mut stage = Stage::new().await;
    stage.stop_engine().await;
    stage.prepared = 1;
    stage.start_engine().await;
    let limit = "cat /proc/sys/user/max_user_namespaces";
    for _ in 0..2 {
        assert_eq!(stage.shell(limit).await.output, ["0"]);
    }
}

#[tokio::test]
async fn the_32_bit_machine_in_this_one_is_closed() {
    if !cfg!(target_arch = "x86_64") || outside_answers_no() {
        not_shown("this machine or its kernel is no 32-bit one as well");
        return;
    }
    let stage = Stage::new().await;
    let mut config = stage.probe(&["int80"]);
    let (said, status) = stage.run_bundle(&config).await;
    assert_eq!((said.as_str(), status), ("", 128 + libc::SIGSYS));
    no_seccomp(&mut config);
    assert_eq!(stage.ask(&config).await["int80"], "yes");
}

fn outside_answers_no() -> bool {
    super::outside(1000, &["int80"]).get("int80").is_none_or(|answer| answer != "yes")
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
async fn rights_that_only_root_of_the_host_has_are_missing_without_the_filter_too() {
    let stage = Stage::new().await;
    let unfiltered = |config: &mut Value| {
        no_seccomp(config);
        as_root(config);
    };
    for attack in ["syslog", "hostname", "packets", "mount", "bpf"] {
        stage.defended_as(unfiltered, attack, "not permitted", as_host_root).await;
    }
}

/// Debian's `golang-github-containers-common` has the list that podman and Docker share the history of; `scripts/test`
/// unpacks it below `target`.
const PROFILES: [&str; 2] = ["/usr/share/containers/seccomp.json", "target/containers-common/seccomp.json"];

/// What we allow and that list does not, to a container without capabilities.
const MORE: [(&str, &[&str]); 3] = [
    (
        "newer than the list, and variants of what it allows",
        &[
            "cachestat",
            "fchmodat2",
            "file_getattr",
            "file_setattr",
            "futex_requeue",
            "futex_wait",
            "futex_waitv",
            "futex_wake",
            "getxattrat",
            "listxattrat",
            "map_shadow_stack",
            "mseal",
            "removexattrat",
            "setxattrat",
        ],
    ),
    ("Docker's own list allows it; one of the asynchronous input and output that both allow", &["io_pgetevents"]),
    (
        "needs the rights over another process that ptrace needs, which no dyno has over another; memory allocators use \
         it on their own",
        &["process_madvise"],
    ),
];

#[test]
fn the_policy_is_stricter_than_that_of_container_engines() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(profile) = PROFILES.map(|path| checkout.join(path)).into_iter().find(|path| path.exists()) else {
        not_shown(&format!("container engines' list of calls: none of {PROFILES:?} is there; scripts/test brings it"));
        return;
    };
    let theirs: Value = serde_json::from_str(&std::fs::read_to_string(profile).unwrap()).unwrap();
    let theirs = without_capabilities(theirs);
    let (policy, theirs) = (policy::seccomp(), allowed(&theirs));
    let more: BTreeSet<&str> = allowed(&policy).difference(&theirs).copied().collect();
    let justified: BTreeSet<&str> = MORE.iter().flat_map(|(_, names)| *names).copied().collect();
    assert_eq!(more.difference(&justified).collect::<Vec<_>>(), Vec::<&&str>::new(), "allowed by us only");
    for name in ["bpf", "keyctl", "mount", "pidfd_getfd", "ptrace", "setns", "unshare", "userfaultfd"] {
        assert!(!allowed(&policy).contains(name), "{name}");
    }
    // Where arguments decide, ours allow no more: clone without namespaces, and three families of sockets.
    let by_arguments = policy["syscalls"].as_array().unwrap().iter().filter(|entry| has_arguments(entry));
    let by_arguments: BTreeSet<&str> = by_arguments.map(|entry| entry["names"][0].as_str().unwrap()).collect();
    assert_eq!(by_arguments.into_iter().collect::<Vec<_>>(), ["clone", "personality", "socket"]);
}

/// The entries that hold on this machine for a container that has been given nothing.
fn without_capabilities(mut profile: Value) -> Value {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let names = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap_or_default() };
    profile["syscalls"].as_array_mut().unwrap().retain(|entry| {
        let (for_machines, not_for) = (names(&entry["includes"]["arches"]), names(&entry["excludes"]["arches"]));
        let for_this = for_machines.is_empty() || for_machines.iter().any(|name| name == machine);
        names(&entry["includes"]["caps"]).is_empty() && for_this && !not_for.iter().any(|name| name == machine)
    });
    profile
}
