//! Other processes: those of the host and of other dynos, their memory, what they run and share.

use super::{answers, as_host_root, as_root, drop_option, leave_out, mount, no_seccomp, open_place, outside};
use crate::stage::{Stage, copy_program, probe};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[tokio::test]
async fn it_sees_its_own_processes_only() {
    let stage = Stage::new().await;
    let secrets = ["follow=/proc/1/exe", "read=/proc/1/environ", "list=/proc/1/map_files", "follow=/proc/1/root"];
    let mut config = stage.probe(&[&["pids", "see=/proc/1"], secrets.as_slice()].concat());
    let answers = stage.ask(&config).await;
    assert_eq!(answers["pids"].split(' ').count(), 1, "{answers:?}");
    assert!(answers["see=/proc/1"].starts_with("no"), "{answers:?}");
    drop_option(mount(&mut config, "/proc"), "hidepid=invisible");
    let answers = stage.ask(&config).await;
    assert_eq!(answers["see=/proc/1"], "yes");
    // Also where it can be seen, pid 1 can't be read: it is a fork of the host's own binary.
    for secret in secrets {
        assert!(answers[secret].contains("Permission denied"), "{answers:?}");
        let visible = |config: &mut Value| drop_option(mount(config, "/proc"), "hidepid=invisible");
        let in_its_place = |config: &mut Value| {
            visible(config);
            as_root(config);
        };
        stage.defended_as(in_its_place, secret, "Permission denied", as_host_root).await;
    }
}

#[tokio::test]
async fn processes_of_the_same_user_elsewhere_are_out_of_reach() {
    let stage = Stage::new().await;
    // As if it were one of its own, so that nothing but the namespace of processes is in the way.
    let user = stage.instance.dyno_uid_base(900) + 1000;
    let mut victim = Command::new("sleep").arg("1000").uid(user).spawn().unwrap();
    let attack = format!("signal={}", victim.id());
    let answer = stage.ask(&stage.probe(&[&attack])).await.remove(&attack).unwrap();
    assert!(answer.contains("No such process"), "{answer}");
    let control = outside(user, &[&attack]).remove(&attack);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(control.as_deref(), Some("yes"));
}

/// A process of that user that holds a secret, ended when dropped.
struct Victim {
    process: Child,
    /// Its id and where in its memory the secret is, for the probe.
    place: String,
}

impl Victim {
    fn new(user: u32) -> Self {
        let place = open_place();
        let program = place.path().join("probe");
        copy_program(probe(), &program);
        let mut process = Command::new(&program)
            .arg("victim")
            .uid(user)
            .gid(user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let place = format!("{},{}", process.id(), said.trim().strip_prefix("secret: ").unwrap());
        Self { process, place }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn the_memory_of_others_is_out_of_reach() {
    let stage = Stage::new().await;
    // As if it were one of its own, so that nothing but the namespace of processes is in the way.
    let user = stage.instance.dyno_uid_base(900) + 1000;
    let victim = Victim::new(user);
    let (process, _) = victim.place.split_once(',').unwrap();
    for (attack, error) in [
        (format!("memory-of={}", victim.place), "No such process"),
        (format!("memory-file-of={}", victim.place), "No such file"),
        (format!("attach-to={process}"), "No such process"),
    ] {
        let mut config = stage.probe(&[&attack]);
        no_seccomp(&mut config);
        let answer = stage.ask(&config).await.remove(&attack).unwrap();
        assert!(answer.contains(error), "{answer}");
        assert_eq!(outside(user, &[&attack])[&attack], "yes", "seen, and of the same user");
        // What another dyno's user is to it, would it see it.
        let answer = outside(user + 65536, &[&attack]).remove(&attack).unwrap();
        assert!(answer.contains("denied") || answer.contains("not permitted"), "{answer}");
    }
}

/// A copy of hokku that could be lost, to run a bundle with.
struct Copy {
    place: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let place = open_place();
        copy_program(env!("CARGO_BIN_EXE_hokku"), &place.path().join("hokku"));
        Self { place }
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("hokku")
    }
}

#[tokio::test]
async fn the_hosts_own_binary_is_nowhere_to_be_found() {
    let stage = Stage::new().await;
    let copy = Copy::new();
    let status = fs::metadata(copy.path()).unwrap();
    let attack = format!("binary={},{}", status.dev(), status.ino());
    let find = async |config: &Value| {
        let (text, _) = stage.run_bundle_by(&copy.path(), config).await;
        answers(&text).remove(&attack).unwrap_or(text)
    };
    let mut config = stage.probe(&[&attack]);
    assert_eq!(find(&config).await, "no, nowhere");
    // By its own root, who sees pid 1: that can't be looked into by anybody without rights on the host.
    drop_option(mount(&mut config, "/proc"), "hidepid=invisible");
    as_root(&mut config);
    no_seccomp(&mut config);
    assert_eq!(find(&config).await, "no, nowhere");
    // To root of the host it is open, and still busy for as long as there is anybody to write it.
    as_host_root(&mut config);
    assert_eq!(find(&config).await, "yes");
}

#[tokio::test]
async fn a_command_that_names_what_runs_it_gets_a_file_it_can_not_change() {
    let stage = Stage::new().await;
    let copy = Copy::new();
    // As in CVE-2019-5736: what starts the dyno is made to start itself, inside.
    let mut config = stage.probe(&[]);
    config["process"]["args"] = json!(["/proc/self/exe", "--version"]);
    let (text, status) = stage.run_bundle_by(&copy.path(), &config).await;
    assert!(status == 0 && text.starts_with("hokku "), "{text}");
    // The file is root's, and the dyno's users are nobody to it.
    let attack = format!("write={}", copy.path().display());
    let base = stage.instance.dyno_uid_base(900);
    for user in [base, base + 1000] {
        let answer = outside(user, &[&attack]).remove(&attack).unwrap();
        assert!(answer.contains("Permission denied"), "{answer}");
    }
    assert_eq!(outside(0, &[&attack])[&attack], "yes");
}

#[tokio::test]
async fn memory_shared_on_the_host_is_out_of_reach() {
    let stage = Stage::new().await;
    let made = std::process::Command::new("ipcmk").args(["-M", "4096", "-p", "0666"]).output().unwrap();
    let id = String::from_utf8(made.stdout).unwrap().split_whitespace().last().unwrap().to_owned();
    stage.defended(&format!("shm={id}"), "Invalid argument", |config| leave_out(config, "ipc")).await;
    assert!(std::process::Command::new("ipcrm").args(["-m", &id]).status().unwrap().success());
}
