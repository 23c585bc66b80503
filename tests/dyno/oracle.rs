//! The same configuration run by another OCI runtime, crun: from inside, everything has to look the same, or be one of the
//! differences that are listed here with their reasons.
//!
//! What crun does not know is translated: the root's overlay is mounted for it, and what our annotations make is put into
//! the root. Limits are left out: the version 2 tree that it needs has no controllers on every machine.

use super::stage::{Stage, not_shown};
use super::walls::{Answers, answers, open_place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Something that is meant to look different.
struct Difference {
    /// What its name begins with.
    name: &'static str,
    why: &'static str,
    /// Ours and theirs, whether this is that difference.
    holds: fn(&str, &str) -> bool,
}

const NOTHING: &str = "nothing";

const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "process",
        why: "hokku's own pid 1 reaps what the program leaves behind; with crun the program is pid 1",
        holds: |ours, theirs| (ours, theirs) == ("2", "1"),
    },
    Difference {
        name: "environment",
        why: "the environment is not in the configuration: it may be secret. crun adds HOME of its own accord",
        holds: |ours, theirs| ours.is_empty() && theirs == "HOME=/app",
    },
    Difference {
        name: "loopback",
        why: "hokku switches it on, which the runtime specification leaves to others",
        holds: |ours, theirs| (ours, theirs) == ("up", "down"),
    },
    Difference {
        name: "parameter user/max_user_namespaces",
        why: "the limit is in the configuration; crun sets only parameters of other kinds",
        holds: |ours, _| ours == "0",
    },
    Difference {
        name: "list /dev",
        why: "crun makes /dev/core, a link to the kernel's memory, which is hidden anyway",
        holds: |ours, theirs| theirs == ours.replacen("fd", "core fd", 1),
    },
    Difference { name: "file /dev/core", why: "as above", holds: |ours, _| ours == NOTHING },
    Difference {
        name: "owner /dev/",
        why: "hokku makes the nodes for the dyno; crun binds the host's, which belong to nobody inside",
        holds: |_, _| true,
    },
    Difference {
        name: "mount /dev/",
        why: "as above: each bound node is a mount",
        holds: |ours, theirs| ours == NOTHING && theirs.contains("devtmpfs"),
    },
    Difference {
        name: "mount /proc/",
        why: "what covers a path, or makes it read-only, forbids set-uid programs, devices and execution besides",
        holds: |ours, theirs| {
            ["nosuid", "nodev", "noexec"].iter().all(|word| !theirs.contains(word) || ours.contains(word))
        },
    },
    Difference {
        name: "path /proc/",
        why: "a directory that hides another may not be written by its mode already, so that read-only is not asked for",
        holds: |ours, theirs| ours.starts_with("empty directory") && theirs == format!("{ours} read-only"),
    },
    Difference {
        name: "mount /sys/fs/cgroup",
        why: "hokku shows the groups of whichever version has the controllers; crun sees version 2 only here",
        holds: |ours, theirs| {
            [ours, theirs].iter().all(|seen| *seen == NOTHING || (seen.contains("ro ") && seen.contains("nosuid")))
        },
    },
];

#[tokio::test]
async fn crun_shows_the_same_from_inside() {
    if Command::new("crun").arg("--version").output().is_err() {
        not_shown("what crun makes of our configuration: it is not installed");
        return;
    }
    let stage = Stage::new().await;
    let config = stage.probe(&[]);
    let paths = ["maskedPaths", "readonlyPaths"].map(|key| config["linux"][key].as_array().unwrap().clone()).concat();
    let paths: Vec<&str> = paths.iter().map(|path| path.as_str().unwrap()).collect();
    let config = stage.probe(&[&format!("view={}", paths.join(","))]);
    let ours = stage.ask(&config).await;
    let theirs = by_crun(&config);
    let (mut same, mut unlisted, mut used) = (0, Vec::new(), BTreeSet::new());
    let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for key in all {
        let (mine, other) = (seen(&ours, key), seen(&theirs, key));
        let is_listed = |one: &&Difference| key.starts_with(one.name) && (one.holds)(&mine, &other);
        if mine == other {
            same += 1;
        } else if let Some(listed) = DIFFERENCES.iter().find(is_listed) {
            used.insert(listed.why);
        } else {
            unlisted.push(format!("{key}\n    hokku: {mine}\n    crun:  {other}"));
        }
    }
    assert!(unlisted.is_empty(), "seen differently:\n{}", unlisted.join("\n"));
    assert!(same > 60, "{same} things are the same");
    for difference in DIFFERENCES.iter().filter(|difference| !used.contains(difference.why)) {
        not_shown(&format!("seen differently with crun elsewhere: {}", difference.name));
    }
    not_shown(
        "limits under crun: they are left out, because not every machine has controllers where it looks for them",
    );
}

/// Numbers of namespaces say nothing but whether they are the host's.
fn seen(view: &Answers, key: &str) -> String {
    let value = view.get(key).map_or(NOTHING, String::as_str);
    let Some(kind) = key.strip_prefix("namespace ") else { return value.to_owned() };
    let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    if host == Path::new(value) { "the host's" } else { "its own" }.to_owned()
}

fn by_crun(config: &Value) -> Answers {
    let place = open_place();
    let path = |name: &str| place.path().join(name);
    for dir in ["rootfs", "writable", "texts", "state"] {
        fs::create_dir(path(dir)).unwrap();
    }
    let texts = config["annotations"].as_object().unwrap().iter();
    for (file, text) in texts.filter_map(|(key, text)| Some((key.strip_prefix("dev.hokku.file.")?, text))) {
        let file = path("texts").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text.as_str().unwrap()).unwrap();
    }
    let (translated, layers) = translate(config);
    fs::write(path("config.json"), translated.to_string()).unwrap();
    let name = format!("hokku-oracle-{}", std::process::id());
    let base = config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap();
    // In a mount namespace of its own; there it sees version 2 of control groups only, because it gives up where there
    // are both.
    let script = format!(
        "set -e
        if [ -d /sys/fs/cgroup/unified ]; then mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; fi
        cd {place}
        mount -t tmpfs none writable
        mkdir writable/upper writable/work
        chown {base}:{base} writable/upper
        mount -t overlay overlay -o nosuid,nodev,volatile,redirect_dir=on,lowerdir=texts:{layers},upperdir=writable/upper,workdir=writable/work rootfs
        exec crun --root state --cgroup-manager cgroupfs run --bundle . {name}",
        place = place.path().display()
    );
    let mut command = Command::new("unshare");
    // Not the null device: crun gives the program's streams away, and they would be the host's.
    command.args(["--mount", "--", "sh", "-c", &script]).stdin(Stdio::piped());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    answers(&said)
}

/// The configuration for crun, and the layers of its root.
fn translate(config: &Value) -> (Value, String) {
    let mut config = config.clone();
    // The oldest that knows all of it; crun of Debian 12 knows no newer one.
    config["ociVersion"] = json!("1.0.2");
    let mounts = config["mounts"].as_array_mut().unwrap();
    let root = mounts.remove(0);
    let layers =
        root["options"].as_array().unwrap().iter().filter_map(|word| word.as_str()?.strip_prefix("lowerdir+="));
    let layers = layers.collect::<Vec<_>>().join(":");
    config["linux"].as_object_mut().unwrap().remove("resources");
    config["linux"].as_object_mut().unwrap().remove("sysctl");
    config["linux"]["cgroupsPath"] = json!(format!("/hokku-oracle-{}", std::process::id()));
    config.as_object_mut().unwrap().remove("annotations");
    (config, layers)
}
