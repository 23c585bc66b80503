//! The server may die at any moment: what it started goes on.

use crate::hokku::{Hokku, text, wait_for, with_mounts_of_its_own};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn ids(hokku: &Hokku, app: &str) -> Vec<String> {
    hokku.dynos(app).iter().map(|dyno| dyno["id"].as_str().unwrap().to_owned()).collect()
}

/// The numbers the `count` lines of a log hold, in order.
fn counts(log: &str) -> Vec<u64> {
    log.lines().filter_map(|line| line.split_once(": count ")?.1.trim().parse().ok()).collect()
}

#[test]
fn a_killed_server_loses_no_dyno_no_line_and_no_request() {
    let mut hokku = Hokku::start();
    let repository = hokku.app("sturdy", "echo");
    hokku.ok(&["config:set", "COUNT=1", "-a", "sturdy"]);
    hokku.push(&repository).expect_success();
    let before = ids(&hokku, "sturdy");
    for _ in 0..3 {
        hokku.kill_server();
        for _ in 0..50 {
            assert_eq!(hokku.get("sturdy", "/").status, 200, "the router and the dynos go on");
        }
        hokku.start_server();
        assert_eq!(ids(&hokku, "sturdy"), before, "nothing was restarted");
        assert_eq!(hokku.dynos("sturdy")[0]["state"], "up");
    }
    let lines = || Some(counts(&hokku.log("sturdy"))).filter(|lines| lines.len() > 100);
    let lines = wait_for("a hundred lines, of before, between and after", lines);
    let gap = lines.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(gap, None, "a line is missing or doubled");
}

#[test]
fn what_ended_while_the_server_was_dead_is_known_afterwards() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("mortal");
    let before = ids(&hokku, "mortal");
    hokku.kill_server();
    assert_eq!(hokku.get("mortal", "/exit/42").status, 200);
    wait_for("the dyno to end", || {
        hokku.try_get("mortal", "/").map_or(true, |answer| answer.status != 200).then_some(())
    });
    hokku.start_server();
    hokku.wait_for_log("mortal", "Process exited with status 42");
    wait_for("a new dyno", || {
        let now = ids(&hokku, "mortal");
        (now.len() == 1 && now != before && hokku.get("mortal", "/").status == 200).then_some(())
    });
}

#[test]
fn a_build_whose_server_dies_has_failed_cleanly() {
    let mut hokku = Hokku::start();
    let repository = hokku.app("orphan", "echo");
    repository.write("hang", "").commit("hangs");
    let mut push = hokku.git_push(&repository, "main").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(push.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Hanging")));
    hokku.kill_server();
    assert!(!push.wait().unwrap().success());
    hokku.start_server();
    let failed = || (hokku.json(&["builds", "--json", "-a", "orphan"])[0]["status"] == "failed").then_some(());
    wait_for("the build to have failed", failed);
    assert!(hokku.ok(&["builds:output", "-a", "orphan"]).contains("The server was stopped during this build"));
    let stages = || std::fs::read_dir(hokku.root().join("builds")).map_or(0, Iterator::count);
    wait_for("the stage to be removed", || (stages() == 0).then_some(()));
    std::fs::remove_file(repository.path().join("hang")).unwrap();
    repository.commit("mended");
    hokku.push(&repository).expect_success();
}

#[test]
fn a_shim_that_is_killed_takes_its_dyno_along_and_both_come_back() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("shimmed");
    let before = ids(&hokku, "shimmed");
    let record = std::fs::read_dir(hokku.run_dir().join("dynos")).unwrap().next().unwrap().unwrap().path();
    let shim = shim_of(&record);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("a new dyno", || {
        let now = ids(&hokku, "shimmed");
        (now.len() == 1 && now != before && hokku.get("shimmed", "/").status == 200).then_some(())
    });
}

/// The process that listens on the dyno's shim socket.
fn shim_of(record: &std::path::Path) -> i32 {
    let socket = record.join("shim.sock");
    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let credentials = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).unwrap();
    credentials.pid()
}

#[test]
fn two_instances_live_side_by_side() {
    let (one, two) = (Hokku::start(), Hokku::start());
    let _a = one.serving("same-name");
    let _b = two.serving("same-name");
    two.ok(&["config:set", "WHO=two", "-a", "same-name"]);
    wait_for("two's release", || (two.get("same-name", "/env/WHO").body == "two").then_some(()));
    assert_eq!(one.get("same-name", "/env/WHO").body, "");
    drop(two);
    assert_eq!(one.get("same-name", "/").status, 200);
}

#[test]
fn a_detached_run_that_was_accepted_happens_though_the_server_is_killed() {
    let mut hokku = Hokku::start();
    let _repository = hokku.serving("accepted");
    for round in 0..5 {
        hokku.ok(&["run:detached", "-a", "accepted", "--", &format!("echo round {round}")]);
        hokku.kill_server();
        hokku.start_server();
        hokku.wait_for_log("accepted", &format!("]: round {round}"));
    }
}

#[test]
fn a_first_start_that_finds_its_port_taken_leaves_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    for (option, other) in [("--api", "--router"), ("--router", "--api")] {
        let name = format!("taken-{}", std::process::id());
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hokku"))
            .args(["server", "--name", &name, option, &taken, other, "127.0.0.1:0", "--root"])
            .arg(&root)
            .output()
            .unwrap();
        let message = crate::hokku::text(&output.stderr);
        assert!(!output.status.success() && message.contains(&taken) && message.contains(option), "{message}");
        assert!(!root.exists(), "the root was made");
        assert!(!std::path::Path::new("/run/hokku").join(&name).exists());
    }
}

#[test]
fn a_first_start_with_a_wrong_configuration_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("hokku.toml"), "[buidl]\n").unwrap();
    let name = format!("wrong-{}", std::process::id());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hokku"))
        .args(["server", "--name", &name, "--api", "127.0.0.1:0", "--router", "127.0.0.1:0", "--root"])
        .arg(root.path())
        .output()
        .unwrap();
    let message = crate::hokku::text(&output.stderr);
    assert!(!output.status.success() && message.contains("hokku.toml") && message.contains("buidl"), "{message}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "the file itself");
    assert!(!std::path::Path::new("/run/hokku").join(&name).exists());
}

#[test]
fn a_second_server_on_the_same_root_is_refused() {
    let hokku = Hokku::start();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hokku"))
        .args(["server", "--name", "other-name", "--api", "127.0.0.1:0", "--router", "127.0.0.1:0", "--root"])
        .arg(hokku.root())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = crate::hokku::text(&output.stderr);
    assert!(message.contains("already") || message.contains("in use"), "{message}");
}

/// Tries to start a server on the box, which has to fail, and says what it said.
fn no_server(hokku: &Hokku) -> String {
    let (api, router) = (hokku.api.to_string(), hokku.router.to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_hokku"));
    command.args(["server", "--api", &api, "--router", &router, "--root"]).arg(hokku.root());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "it started");
    text(&output.stderr).replace(hokku.root().to_str().unwrap(), "ROOT")
}

/// With another file in its place, until the test of it has ended.
fn with_file(path: &Path, contents: Option<&[u8]>, test: impl FnOnce()) {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    if let Some(contents) = contents {
        std::fs::write(path, contents).unwrap();
    }
    test();
    std::fs::rename(&aside, path).unwrap();
}

fn with_schema(database: &Path, test: impl FnOnce()) {
    let set = |version: u32| {
        let connection = rusqlite::Connection::open(database).unwrap();
        let before: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        before
    };
    let before = set(999);
    test();
    set(before);
}

fn with_read_only(root: &Path, test: impl FnOnce()) {
    let none = None::<&str>;
    mount(Some(root), root, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, root, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    test();
    umount2(root, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_server_that_can_not_start_says_why_and_apps_go_on() {
    with_mounts_of_its_own(|| {
        let mut hokku = Hokku::start();
        let _repository = hokku.serving("steady");
        let before = ids(&hokku, "steady");
        hokku.kill_server();
        let (database, key) = (hokku.root().join("db.sqlite"), hokku.root().join("key"));
        // What the dead server had in the journal goes into the database.
        drop(rusqlite::Connection::open(&database).unwrap().query_row("SELECT count(*) FROM apps", (), |_| Ok(())));
        assert!(!hokku.root().join("db.sqlite-wal").exists());
        let refused = |hokku: &Hokku, why: &str| {
            let said = no_server(hokku);
            assert!(said.contains(why), "{why}: {said}");
            assert_eq!(hokku.get("steady", "/").status, 200, "{why}");
        };
        let letter = "a letter to my aunt\n".repeat(1000);
        with_file(&database, Some(letter.as_bytes()), || {
            refused(
                &hokku,
                "the database ROOT/db.sqlite is damaged (file is not a database): stop the server, move the file away",
            );
        });
        with_file(&key, None, || {
            refused(&hokku, "the key ROOT/key is missing, without it the config vars in ROOT/db.sqlite");
        });
        with_file(&key, Some(&[7; 32]), || {
            refused(&hokku, "the key does not belong to the database ROOT/db.sqlite: put back");
        });
        with_schema(&database, || refused(&hokku, "was written by a newer hokku (schema 999, this one knows up to "));
        with_read_only(hokku.root(), || {
            refused(
                &hokku,
                "ROOT can't be written to: its disk is read-only; see in dmesg why, then have it mounted for writing",
            );
        });
        hokku.start_server();
        refused(&hokku, "a server is already running on ROOT");
        assert_eq!(ids(&hokku, "steady"), before, "nothing was restarted");
    });
}

#[test]
fn an_instance_that_is_nowhere_is_not_ended() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("typo");
    let output = Command::new(env!("CARGO_BIN_EXE_hokku")).args(["down", "--root"]).arg(&root).output().unwrap();
    let message = crate::hokku::text(&output.stderr);
    let why = format!("there is no directory {}", root.display());
    assert!(!output.status.success() && message.contains(&why), "{message}");
}

#[test]
fn an_instance_whose_root_is_not_seen_is_ended_by_its_name_and_no_root_is_made() {
    let place = tempfile::tempdir().unwrap();
    let (root, name) = (place.path().join("disk"), format!("unseen-{}", std::process::id()));
    let (instance, claim) = hokku::dyno::instances::claim(name.parse().unwrap(), &root).unwrap();
    drop(claim);
    std::fs::remove_dir_all(&root).unwrap();
    let typo = place.path().join("typo");
    let down = ["down", "--name", &name, "--root"];
    let output = Command::new(env!("CARGO_BIN_EXE_hokku")).args(down).arg(&typo).output().unwrap();
    assert!(output.status.success(), "{}", crate::hokku::text(&output.stderr));
    assert!(!instance.run.exists() && !root.exists() && !typo.exists());
}

/// Makes directories one in the other in each `PLACE=DEPTH` of its arguments.
const DIG: &str = r#"for (@ARGV) { my ($place, $depth) = split /=/; chdir $place or die "$place: $!"; for my $at (1..$depth) { mkdir "d" and chdir "d" or die "$place at $at: $!" } }"#;

fn dig(place: &Path, depth: u32) {
    std::fs::create_dir_all(place).unwrap();
    let dug = Command::new("perl").args(["-e", DIG, &format!("{}={depth}", place.display())]).status().unwrap();
    assert!(dug.success());
}

#[test]
fn trees_too_deep_for_a_stack_end_no_server() {
    let mut hokku = Hokku::start();
    let repository = hokku.app("abyss", "echo");
    let compile = std::fs::read_to_string(repository.path().join("bin/compile")).unwrap();
    let digs = format!("{compile}\nperl -e '{DIG}' \"$TMPDIR=20000\" \"$2=2000\"\n");
    repository.write("bin/compile", &digs).commit("deep");
    let output = hokku.push(&repository).expect_success();
    let refused = "The cache has directories nested deeper than 200: that of the build before stays.";
    assert!(output.contains(refused), "{output}");
    // The server is the one that was started: it removes the stage after the push.
    let stages = |hokku: &Hokku| std::fs::read_dir(hokku.root().join("builds")).map_or(0, Iterator::count);
    wait_for("the stage to be removed", || (stages(&hokku) == 0).then_some(()));
    repository.write("bin/compile", &format!("{compile}\nperl -e '{DIG}' \"$1=2000\"\n")).commit("in the slug");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("lies deeper than 190 directories"), "{output}");
    assert_eq!(stages(&hokku), 0);
    repository.write("bin/compile", &compile).commit("harmless");
    assert!(hokku.push(&repository).expect_success().contains("Build number 1 with this cache"));

    // What a server before this one kept, or left when it fell.
    let app = hokku.json(&["info", "-a", "abyss", "--json"])["app"]["id"].as_str().unwrap().to_owned();
    let cache = hokku.root().join("cache").join(&app);
    dig(&cache, 20_000);
    hokku.ok(&["builds:cache:purge", "-a", "abyss"]);
    assert!(!cache.exists());
    dig(&cache, 20_000);
    hokku.ok(&["apps:destroy", "-a", "abyss", "--confirm", "abyss"]);
    wait_for("the cache to be removed", || (!cache.exists()).then_some(()));
    hokku.kill_server();
    dig(&cache, 20_000);
    dig(&hokku.root().join("builds/left/work/tmp"), 20_000);
    hokku.start_server();
    wait_for("what was left to be removed", || (stages(&hokku) == 0 && !cache.exists()).then_some(()));
    let _repository = hokku.serving("after");
}
