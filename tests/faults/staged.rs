//! Faults that are staged one by one.

use crate::hokku::{Hokku, Repository, wait_for};
use crate::ledger::Ledger;
use crate::small_disk::{fill, fill_up, make_room, on_a_disk_of};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An app that counts, and tells which dyno answers.
fn counter(hokku: &Hokku, app: &str) -> Repository {
    let repository = hokku.app(app, "counter");
    hokku.ok(&["labs:enable", "runtime-dyno-metadata", "-a", app]);
    repository
}

fn ledger(hokku: &Hokku, app: &str) -> Ledger {
    let id = hokku.json(&["info", "-a", app, "--json"])["app"]["id"].as_str().unwrap().to_owned();
    Ledger::new(hokku.root().join("logs").join(id))
}

/// The id of a dyno and how far it has counted.
fn counted(hokku: &Hokku, app: &str) -> (String, u64) {
    let body = hokku.get(app, "/").body;
    let words: Vec<&str> = body.split_whitespace().collect();
    (words[1].to_owned(), words[2].parse().unwrap())
}

fn bytes_below(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// In kilobytes.
fn memory_of_server(hokku: &Hokku) -> u64 {
    let name = hokku.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is_server = |pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        line.contains(" server ") && line.contains(&format!(" {name} "))
    };
    let server = pids.into_iter().find(is_server).unwrap();
    let status = fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_dyno_that_floods_its_log_hurts_only_its_own() {
    let hokku = Hokku::start();
    let repository = counter(&hokku, "flood");
    hokku.ok(&["config:set", "FLOOD=1", "-a", "flood"]);
    hokku.push(&repository).expect_success();
    let other = counter(&hokku, "other");
    hokku.push(&other).expect_success();
    let (before, mut log) = (memory_of_server(&hokku), ledger(&hokku, "other"));
    hokku.ok(&["ps:scale", "worker=1", "-a", "flood"]);
    hokku.wait_for_log("flood", "xxxx");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(hokku.dynos("other").len(), 1, "the server answers");
        assert_eq!(hokku.get("flood", "/").status, 200);
    }
    // Eight files of a megabyte and what a batch has over, of each app.
    let logs = bytes_below(&hokku.root().join("logs"));
    assert!(logs < 24 << 20, "{} MB of logs", logs >> 20);
    assert!(logs > 7 << 20, "the flood was no flood: {} kB", logs >> 10);
    let now = memory_of_server(&hokku);
    assert!(now < before + 150_000, "the server had {before} kB, and has {now}");
    // Each line of the other's is there.
    let (id, count) = counted(&hokku, "other");
    wait_for("the other's lines", || {
        assert_eq!(log.read(), Vec::<String>::new());
        (log.counted(&id) >= count).then_some(())
    });
    hokku.ok(&["ps:scale", "worker=0", "-a", "flood"]);
    wait_for("its end", || (hokku.dynos("flood").len() == 1).then_some(()));
}

#[test]
fn on_a_full_disk_no_line_is_lost_and_what_is_refused_happens_when_there_is_room() {
    on_a_disk_of(900 << 20, |hokku| {
        let repository = counter(hokku, "tight");
        let ballast: Vec<u8> = (0..6_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
        fs::write(repository.path().join("ballast"), ballast).unwrap();
        repository.commit("ballast");
        hokku.push(&repository).expect_success();
        let mut log = ledger(hokku, "tight");
        let releases = hokku.json(&["releases", "--json", "-a", "tight"]).as_array().unwrap().len();
        fill_up(hokku);
        // The commit.
        let refusal = hokku.fails(&["config:set", &format!("BIG={}", "x".repeat(30_000)), "-a", "tight"]);
        assert!(refusal.contains("full") || refusal.contains("No space left"), "{refusal}");
        // Its lines wait, and it goes on.
        let (_, first) = counted(hokku, "tight");
        wait_for("more lines", || (counted(hokku, "tight").1 > first + 100).then_some(()));
        make_room(hokku);
        let (id, count) = counted(hokku, "tight");
        wait_for("all its lines", || {
            assert_eq!(log.read(), Vec::<String>::new());
            (log.counted(&id) >= count).then_some(())
        });
        assert_eq!(hokku.json(&["releases", "--json", "-a", "tight"]).as_array().unwrap().len(), releases);

        // The unpacking of a slug for a new dyno.
        hokku.ok(&["ps:scale", "web=0", "-a", "tight"]);
        wait_for("no dyno", || hokku.dynos("tight").is_empty().then_some(()));
        let trees = hokku.root().join("trees");
        for tree in fs::read_dir(&trees).unwrap() {
            fs::remove_dir_all(tree.unwrap().path()).unwrap();
        }
        fill(hokku, 3);
        hokku.ok(&["ps:scale", "web=1", "-a", "tight"]);
        let log = hokku.wait_for_log("tight", "Could not be started: ");
        assert!(log.contains("No space left on device") || log.contains("full"), "{log}");
        make_room(hokku);
        hokku.wait_until_up("tight", 1);
        let half_made = fs::read_dir(&trees).unwrap().filter(|tree| tree.as_ref().unwrap().file_name().len() != 64);
        assert_eq!(half_made.count(), 0);
        hokku.ok(&["config:set", "AFTER=1", "-a", "tight"]);
        hokku.wait_until_up("tight", 1);
    });
}

/// The instance's own group of the hierarchy that counts processes.
fn group_of_processes(hokku: &Hokku) -> PathBuf {
    let name = format!("hokku-{}", hokku.run_dir().file_name().unwrap().to_str().unwrap());
    let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let group =
        places.map(|place| Path::new(place).join(&name)).into_iter().find(|group| group.join("pids.max").exists());
    group.expect("processes are counted")
}

#[test]
fn without_processes_to_be_had_launches_and_builds_fail_in_words_and_come_back() {
    let hokku = Hokku::start();
    let repository = counter(&hokku, "crowded");
    hokku.push(&repository).expect_success();
    let group = group_of_processes(&hokku);
    let now = fs::read_to_string(group.join("pids.current")).unwrap();
    fs::write(group.join("pids.max"), now.trim()).unwrap();
    hokku.ok(&["ps:scale", "web=2", "worker=2", "-a", "crowded"]);
    let log = wait_for("a launch that fails", || {
        Some(hokku.log("crowded")).filter(|log| log.contains("Could not be started: "))
    });
    assert!(log.contains("Resource temporarily unavailable"), "{log}");
    assert_eq!(hokku.get("crowded", "/").status, 200, "what runs goes on");
    repository.write("version", "next").commit("next");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("could not be started"), "{output}");
    assert_eq!(hokku.get("crowded", "/").status, 200);
    fs::write(group.join("pids.max"), "max").unwrap();
    hokku.push(&repository).expect_success();
    hokku.wait_until_up("crowded", 4);
    let output = Command::new("find").arg(hokku.root().join("builds")).args(["-mindepth", "1"]).output().unwrap();
    assert!(output.stdout.is_empty(), "{}", crate::hokku::text(&output.stdout));
}
