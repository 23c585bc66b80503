//! What the kernel shows and lets be switched: `/proc`, `/sys/fs/cgroup`, devices, its log.

use super::{as_filtered_host_root, as_host_root, bind, drop_option, group_tree, is_v1, leave_out, mount, no_seccomp};
use crate::stage::{Stage, not_shown};
use serde_json::{Value, json};
use std::path::Path;

/// What is hidden and not empty with this kernel.
fn hidden(config: &Value) -> Vec<String> {
    let paths = config["linux"]["maskedPaths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned());
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    paths.filter(|path| Path::new(path).exists() && !is_empty(Path::new(path))).collect()
}

#[tokio::test]
async fn what_the_kernel_tells_of_the_host_is_hidden() {
    let stage = Stage::new().await;
    let unmask = |config: &mut Value| config["linux"]["maskedPaths"] = json!([]);
    stage.defended("read=/proc/interrupts", "empty", unmask).await;
    let hidden = hidden(&stage.probe(&[]));
    assert!(hidden.len() > 3, "{hidden:?}");
    for path in hidden {
        // By root of the host, from whom file modes hide nothing.
        if Path::new(&path).is_dir() {
            stage.defended_as(as_host_root, &format!("list={path}"), "empty", unmask).await;
        } else {
            // Not read: the kernel's log would be taken from who it is for.
            stage.defended_as(as_host_root, &format!("real={path}"), "a device is in its place", unmask).await;
        }
    }
    let mut config = stage.probe(&["list=/app/lib"]);
    config["linux"]["maskedPaths"] = json!(["/app/lib"]);
    assert!(stage.ask(&config).await["list=/app/lib"].contains("empty"), "directories are hidden too");
    unmask(&mut config);
    assert_eq!(stage.ask(&config).await["list=/app/lib"], "yes");
}

#[tokio::test]
async fn nothing_is_hidden_behind_a_file_of_the_slugs() {
    let stage = Stage::new().await;
    let target = super::open_place();
    // As in CVE-2025-31133: what should cover a path is taken from a root that belongs to others.
    let dev = stage.app_dir().parent().unwrap().join("dev");
    std::fs::create_dir(&dev).unwrap();
    std::os::unix::fs::symlink(target.path().join("of-the-host"), dev.join("null")).unwrap();
    let mut config = stage.probe(&["read=/proc/interrupts"]);
    assert_eq!(stage.ask(&config).await["read=/proc/interrupts"], "no, empty", "/dev is not theirs");
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let (text, status) = stage.run_bundle(&config).await;
    assert!(status == 1 && text.contains("open the null device"), "{text}");
    std::fs::remove_file(dev.join("null")).unwrap();
    std::fs::write(dev.join("null"), "shown instead").unwrap();
    let (text, status) = stage.run_bundle(&config).await;
    assert!(status == 1 && text.contains("/dev/null is not the null device"), "{text}");
    config["linux"]["maskedPaths"] = json!([]);
    assert_eq!(stage.ask(&config).await["read=/proc/interrupts"], "yes", "it starts where nothing is to be hidden");
}

#[tokio::test]
async fn switches_of_the_kernel_and_of_its_own_limits_can_not_be_written() {
    let stage = Stage::new().await;
    let read_only = |config: &mut Value| config["linux"]["readonlyPaths"] = json!([]);
    for file in ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger"] {
        if !Path::new(file).exists() {
            not_shown(&format!("writing to {file}, which this kernel does not have"));
            continue;
        }
        let attack = format!("write={file}");
        // Opened, not written. Each wall alone holds: the paths are read-only, and it is not root of the host.
        stage.defended_as(as_host_root, &attack, "Read-only file system", read_only).await;
        stage.defended_as(read_only, &attack, "Permission denied", as_host_root).await;
    }
    // Its limit, and a group below its own, with limits of its own.
    let limit = if is_v1() { "memory.limit_in_bytes" } else { "memory.max" };
    for attack in [format!("write={}/{limit}", group_tree()), format!("make-dir={}/below", group_tree())] {
        let writable = |config: &mut Value| drop_option(mount(config, "/sys/fs/cgroup"), "ro");
        stage.defended_as(as_host_root, &attack, "Read-only file system", writable).await;
        stage.defended_as(writable, &attack, "Permission denied", as_host_root).await;
    }
}

#[tokio::test]
async fn the_hosts_group_tree_and_its_release_agent_are_out_of_sight() {
    let stage = Stage::new().await;
    // Only the top of a version 1 tree has an agent; version 2 has none.
    if is_v1() {
        let attack = format!("see={}/release_agent", group_tree());
        stage.defended(&attack, "No such file", |config| bind(config, group_tree())).await;
    }
    let place = stage.instance.delegated.as_ref().map_or(String::new(), |place| place.display().to_string());
    let other = format!("see={}{place}/{}", group_tree(), stage.instance.cgroup());
    stage.defended(&other, "No such file", |config| bind(config, group_tree())).await;
}

#[tokio::test]
async fn the_agent_that_the_kernel_runs_when_a_group_gets_empty_can_not_be_named() {
    if !is_v1() {
        not_shown("version 2 of control groups has no release agent");
        return;
    }
    let stage = Stage::new().await;
    // As in CVE-2022-0492: a hierarchy is mounted anew, writable. Each wall alone holds.
    let attack = "release-agent=memory";
    let whole_tree = |config: &mut Value| leave_out(config, "cgroup");
    stage.defended_as(as_host_root, attack, "No such file", whole_tree).await;
    let with_whole_tree = |config: &mut Value| {
        as_filtered_host_root(config);
        whole_tree(config);
    };
    stage.defended_as(with_whole_tree, attack, "not permitted", no_seccomp).await;
    let without_rights = |config: &mut Value| {
        whole_tree(config);
        no_seccomp(config);
    };
    stage.defended_as(without_rights, attack, "not permitted", as_host_root).await;
}

#[tokio::test]
async fn devices_can_not_be_made_nor_opened_where_they_could_be_made() {
    let stage = Stage::new().await;
    let devices = |config: &mut Value| drop_option(mount(config, "/dev/shm"), "nodev");
    stage.defended_as(devices, "device=/dev/shm", "not permitted", as_host_root).await;
    stage.defended_as(as_host_root, "device=/dev/shm", "Permission denied", devices).await;
}
