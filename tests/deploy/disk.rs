//! A disk that is full: said in one sentence, and nothing but the new build is hurt.

use crate::hokku::{Hokku, Repository, wait_for};
use crate::small_disk::{fill, fill_up, free_mb, make_room, on_a_disk_of, run};
use std::fs;
use std::path::Path;
use std::process::Command;

fn with_compile(repository: &Repository, line: &str) {
    let script = "#!/usr/bin/env bash\nset -eu\nmkdir -p \"$1/.profile.d\"\n";
    repository.write("bin/compile", &format!("{script}{line}\n")).commit("compile");
}

/// What there is of a build once it has failed, with the files of slugs and of the sources they were made from.
fn left(hokku: &Hokku) -> Vec<String> {
    let files = |dir: &str| {
        let entries = walkdir::WalkDir::new(hokku.root().join(dir)).into_iter().filter_map(Result::ok);
        entries.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().display().to_string())
    };
    let mut left: Vec<_> = ["builds", "slugs", "sources"].into_iter().flat_map(files).collect();
    left.sort();
    left
}

#[test]
fn a_server_on_a_full_disk_says_what_is_wrong() {
    on_a_disk_of(64 << 20, |hokku| {
        let root = hokku.root().join("other");
        fs::create_dir(&root).unwrap();
        fill_up(hokku);
        let output = Command::new(env!("CARGO_BIN_EXE_hokku"))
            .args(["server", "--name", &format!("full-{}", std::process::id())])
            .args(["--api", "127.0.0.1:0", "--router", "127.0.0.1:0", "--root"])
            .arg(&root)
            .output()
            .unwrap();
        let message = crate::hokku::text(&output.stderr);
        assert!(!output.status.success(), "it started");
        assert!(message.contains("No space left on device") || message.contains("is full"), "{message}");
        make_room(hokku);
        run(Command::new(env!("CARGO_BIN_EXE_hokku")).args(["down", "--root"]).arg(&root));
        let left = format!("/run/hokku/full-{}", std::process::id());
        assert!(!Path::new(&left).exists(), "{left} is still there");
    });
}

#[test]
fn a_build_that_fills_the_disk_is_stopped_in_plain_words_and_the_old_release_serves_on() {
    on_a_disk_of(1200 << 20, |hokku| {
        let repository = hokku.app("full", "echo");
        hokku.push(&repository).expect_success();
        let serves = || assert_eq!(hokku.get("full", "/env/DYNO").body, "web.1");
        let (before, free) = (left(hokku), free_mb(hokku.root()));

        // At once: its own writes fail before anybody looks. Slowly: it is stopped.
        for (time, fills) in
            ["cat /dev/zero >\"$1/zeroes\"", "while head -c 8M /dev/zero; do sleep 0.1; done >\"$1/zeroes\""]
                .into_iter()
                .enumerate()
        {
            with_compile(&repository, fills);
            let output = hokku.push(&repository).expect_rejection();
            let why = "The build was stopped because the disk is nearly full: it left less than 256 MB free below";
            assert_eq!(output.matches(why).count(), 1, "{output}");
            serves();
            assert_eq!(left(hokku), before, "nothing that is half made stays");
            assert!(free_mb(hokku.root()) + 16 > free, "{} MB of {free} are free", free_mb(hokku.root()));
            let builds = hokku.json(&["builds", "--json", "-a", "full"]);
            let failed = builds.as_array().unwrap().iter().filter(|build| build["status"] == "failed");
            assert_eq!(failed.count(), time + 1, "{builds}");
        }

        // There is no room for a build to begin with.
        fill(hokku, 100);
        with_compile(&repository, "true");
        let output = hokku.push(&repository).expect_rejection();
        assert!(output.contains("There is not enough room on the disk to build: "), "{output}");
        serves();
        make_room(hokku);

        // Nor for the source, nor for anything else.
        fill(hokku, 0);
        let output = hokku.push(&repository).expect_rejection();
        assert!(output.contains("remote: The disk of the server is full: nothing was pushed."), "{output}");
        serves();
        assert_eq!(left(hokku), before);
        make_room(hokku);

        hokku.push(&repository).expect_success();
        wait_for("the new release", || (hokku.get("full", "/env/FROM_PROFILE").body.is_empty()).then_some(()));
    });
}

#[test]
fn room_is_made_of_what_nobody_goes_back_to() {
    let free = free_mb(&std::env::temp_dir());
    // There is room for builds, and less than twice the reserve.
    let hokku = Hokku::with_config(&format!("[disk]\nreserve_mb = {}\nkeep_slugs = 2\n", free * 7 / 10));
    let repository = hokku.serving("room"); // v3
    for version in ["four", "five", "six"] {
        repository.write("version", version).commit(version);
        hokku.push(&repository).expect_success();
        if version == "four" {
            // Goes on with the old code.
            hokku.ok(&["run:detached", "-a", "room", "--", "while cat version; do echo; sleep 1; done; echo lost"]);
        }
    }
    wait_for("the newest", || hokku.get("room", "/").body.starts_with("version six").then_some(()));
    wait_for("only its dynos", || (hokku.json(&["ps", "--json", "-a", "room"]).as_array()?.len() == 2).then_some(()));
    let entries = |dir: &str| fs::read_dir(hokku.root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    // Nobody has used them lately.
    wait_for("dynos that are gone", || {
        let ago = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
        entries("trees").for_each(|tree| fs::File::open(tree).unwrap().set_modified(ago).unwrap());
        hokku.ok(&["disk:collect"]);
        (entries("trees").count() == 2).then_some(())
    });
    // v5 and v6, and v4, which a dyno runs on still.
    assert_eq!(entries("slugs").count(), 3);
    let lines = || hokku.ok(&["logs", "-n", "1500", "-a", "room"]).matches(": four").count();
    let before = lines();
    wait_for("the old dyno's next lines", || (lines() > before + 1).then_some(()));
    assert!(!hokku.ok(&["logs", "-n", "1500", "-a", "room"]).contains(": lost"));
    assert!(hokku.get("room", "/").body.starts_with("version six"));

    let refusal = hokku.fails(&["rollback", "v3", "-a", "room"]);
    assert!(refusal.contains("make room"), "{refusal}");
    hokku.ok(&["rollback", "v5", "-a", "room"]);
    wait_for("the one before", || hokku.get("room", "/").body.starts_with("version five").then_some(()));

    let usage = hokku.json(&["disk", "--json"]);
    let on_disk: u64 = entries("slugs").map(|slug| fs::metadata(slug).unwrap().len()).sum();
    assert_eq!(usage["apps"][0]["slugs"], on_disk);
    assert!(usage["parts"]["trees"].as_u64().unwrap() > 0 && usage["free"].as_u64().unwrap() > 0, "{usage}");
    let table = hokku.ok(&["disk"]);
    assert!(table.contains("are free") && table.contains("room"), "{table}");
}

#[test]
fn what_dynos_write_does_not_fill_a_small_disk() {
    on_a_disk_of(1200 << 20, |hokku| {
        let repository = hokku.serving("small");
        let log = |wanted: &str| hokku.wait_for_log("small", wanted);
        // A dyno may write a gigabyte, but not here.
        log("It may write 512 MB instead of 1024 MB, because the disk of the box has no room for more");
        if !hokku.server_log().contains("kept in memory") {
            let writes = "df -BM --output=size /tmp | tail -n 1; dd if=/dev/urandom of=/tmp/file bs=1M count=150 oflag=direct; echo $((100 + 50)) MB written; sleep 1000";
            hokku.ok(&["run:detached", "-a", "small", "--", writes]);
            log(": 150 MB written");
            // Others fill the disk; half of the reserve goes.
            fill(hokku, 100);
            let line = log("the disk of the box is nearly full, and of all dynos this one has written most, 1");
            assert!(line.contains("heroku[run."), "{line}");
            wait_for("its room", || (free_mb(hokku.root()) > 200).then_some(()));
        }
        assert_eq!(hokku.get("small", "/env/DYNO").body, "web.1");
        make_room(hokku);
        drop(repository);
    });
}

#[test]
fn caches_go_before_slugs_and_the_longest_unused_first() {
    on_a_disk_of(1600 << 20, |hokku| {
        let repository = hokku.app("cached", "echo");
        let compile = "head -c 40M /dev/urandom >\"$2/file\"";
        with_compile(&repository, compile);
        hokku.push(&repository).expect_success();
        let caches = || fs::read_dir(hokku.root().join("cache")).unwrap().count();
        let slugs = fs::read_dir(hokku.root().join("slugs")).unwrap().count();
        hokku.ok(&["disk:collect"]);
        assert_eq!(caches(), 1, "there is room");
        let shown = hokku.ok(&["disk"]);
        assert!(shown.contains("; the longest unused go, also when there is little room"), "{shown}");
        // Below twice the reserve.
        fill(hokku, 400);
        let said = hokku.cli(&["disk:collect"]);
        assert!(crate::hokku::text(&said.stderr).contains("1 cache"), "{said:?}");
        assert_eq!((caches(), fs::read_dir(hokku.root().join("slugs")).unwrap().count()), (0, slugs));
        make_room(hokku);
        hokku.push(repository.write("again", "x").commit("again")).expect_success();
        assert_eq!(caches(), 1, "the next build has one again");
    });
}
