//! Backups are made while the box works, and a box that is made of one serves every app.

use crate::hokku::{Hokku, Repository, text, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// A command about the box in `root`, whether a server runs there or not.
fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hokku"));
    command.args(args).arg("--root").arg(root).stdin(Stdio::null());
    command
}

fn ran(command: &mut Command) -> (bool, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.success(), text(&stderr))
}

fn backup(root: &Path, file: &Path, options: &[&str]) -> String {
    let (done, said) = ran(command(root, &["backup"]).arg(file).args(options));
    assert!(done, "{said}");
    said
}

fn restore(file: &Path, root: &Path, options: &[&str]) -> (bool, String) {
    ran(command(root, &["restore"]).arg(file).args(options))
}

/// A box that is made of a backup, with a name and addresses of its own.
fn restored(file: &Path, options: &[&str]) -> Hokku {
    let root = tempfile::tempdir().unwrap();
    let (done, said) = restore(file, root.path(), options);
    assert!(done, "{said}");
    Hokku::of(root, &[])
}

fn versions(hokku: &Hokku, app: &str) -> Vec<(u64, String)> {
    let releases = hokku.json(&["releases", "-n", "1000", "--json", "-a", app]);
    let version =
        |row: &serde_json::Value| (row["version"].as_u64().unwrap(), row["description"].as_str().unwrap().to_owned());
    releases.as_array().unwrap().iter().map(version).collect()
}

/// What the box says the branch `main` is, in the app's repository.
fn main_of(hokku: &Hokku, repository: &Repository, app: &str) -> String {
    let added = hokku.command(&["git:remote", "-a", app]).current_dir(repository.path()).output().unwrap();
    assert!(added.status.success(), "{}", text(&added.stderr));
    let mut git = repository.git(&["ls-remote", "hokku", "refs/heads/main"]);
    let path = Path::new(env!("CARGO_BIN_EXE_hokku")).parent().unwrap().display();
    git.env("HOKKU_ROOT", hokku.root()).env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
    let output = git.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).split('\t').next().unwrap().to_owned()
}

/// Pushes and sets config vars while backups are made; the last of them.
fn backup_under_load(hokku: &Hokku, pushed: &Repository, file: &Path) {
    let (done, backups) = (AtomicBool::new(false), std::cell::Cell::new(0));
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for number in 0..4 {
                pushed.write("version", &format!("pushed {number}")).commit("next");
                hokku.push(pushed).expect_success();
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            for number in 0.. {
                hokku.ok(&["config:set", &format!("NUMBER={number}"), "-a", "shop"]);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        while !pushing.is_finished() || backups.get() == 0 {
            backup(hokku.root(), file, &["--force"]);
            let (whole, said) = restore(file, Path::new("/nowhere"), &["--check"]);
            assert!(whole, "{said}");
            backups.set(backups.get() + 1);
            let next = restored_repository_is_not_ahead(file);
            assert!(next, "git would take a commit for pushed that has no release");
        }
    });
}

/// Whether the commit of `main` of the app that is pushed to has a release in the same backup.
fn restored_repository_is_not_ahead(file: &Path) -> bool {
    let root = tempfile::tempdir().unwrap();
    let (done, said) = restore(file, root.path(), &[]);
    assert!(done, "{said}");
    let database = rusqlite::Connection::open(root.path().join("db.sqlite")).unwrap();
    let app: String = database.query_row("SELECT id FROM apps WHERE name = 'busy'", (), |row| row.get(0)).unwrap();
    let mut commits = database.prepare("SELECT commit_id FROM slugs WHERE app_id = ?1").unwrap();
    let commits: BTreeSet<String> = commits.query_map([&app], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let repository = root.path().join(format!("repos/{app}.git"));
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let git = git.arg("--git-dir").arg(&repository).args(args).env("GIT_CONFIG_COUNT", "1");
        let git = git.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        let output = git.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    git(&["fsck", "--full"]);
    commits.contains(&git(&["rev-parse", "refs/heads/main"]))
}

#[test]
fn a_box_is_made_anew_of_a_backup_that_was_made_while_it_worked() {
    let hokku = Hokku::with_config("[disk]\nkeep_slugs = 7\n");
    let shop = hokku.app("shop", "echo");
    shop.write("version", "one").commit("one");
    hokku.push(&shop).expect_success();
    hokku.ok(&["config:set", "SECRET=of the shop", "-a", "shop"]);
    shop.write("version", "two").commit("two");
    hokku.push(&shop).expect_success();
    let blog = Repository::of("echo");
    hokku.ok(&["create", "blog"]);
    blog.write("version", "of the blog").commit("blog");
    hokku.ok(&["deploy", blog.path().to_str().unwrap(), "-a", "blog"]);
    hokku.ok(&["users:create", "someone@example.com"]);
    let busy = hokku.serving("busy");

    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("box.backup");
    backup_under_load(&hokku, &busy, &file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (done, said) = ran(command(hokku.root(), &["backup"]).arg(&file));
    assert!(!done && said.contains("is there already; choose another name, or replace it with --force"), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing else is left there");
    let before = versions(&hokku, "shop");
    let authority = fs::read(hokku.root().join("ca.pem")).unwrap();
    drop(hokku);

    let hokku = restored(&file, &[]);
    wait_for("every app", || {
        let answers = |app: &str, body: &str| hokku.get(app, "/").body.starts_with(body);
        let busy = hokku.get("busy", "/").status == 200;
        (answers("shop", "version two") && answers("blog", "version of the blog") && busy).then_some(())
    });
    assert_eq!(hokku.get("shop", "/env/SECRET").body, "of the shop");
    let after = versions(&hokku, "shop");
    assert_eq!(before[before.len() - after.len()..], after[..], "the releases up to the backup");
    assert!(hokku.ok(&["users"]).contains("someone@example.com"));
    assert_eq!(fs::read_to_string(hokku.root().join("hokku.toml")).unwrap(), "[disk]\nkeep_slugs = 7\n");
    assert_eq!(fs::read(hokku.root().join("ca.pem")).unwrap(), authority, "clients trust it");

    hokku.ok(&["rollback", "v3", "-a", "shop"]);
    wait_for("the code of before", || hokku.get("shop", "/").body.starts_with("version one").then_some(()));
    hokku.ok(&["rebuild", "-a", "blog"]);
    wait_for("the same code", || hokku.get("blog", "/").body.starts_with("version of the blog").then_some(()));
    assert_eq!(main_of(&hokku, &shop, "shop"), shop.run(&["rev-parse", "main"]).trim());
    shop.write("version", "three").commit("three");
    let pushed = hokku.push(&shop).expect_success();
    assert!(!pushed.contains("[new branch]"), "it goes on from what was pushed before: {pushed}");
    wait_for("the new code", || hokku.get("shop", "/").body.starts_with("version three").then_some(()));
}

#[test]
fn what_is_collected_while_a_backup_is_written_is_in_it() {
    let hokku = Hokku::start();
    let repository = hokku.app("doomed", "echo");
    // More than pipes and buffers take.
    let noise = Command::new("head").args(["-c", "12M", "/dev/urandom"]).output().unwrap().stdout;
    fs::write(repository.path().join("noise"), noise).unwrap();
    repository.commit("noise");
    hokku.push(&repository).expect_success();

    let mut writing =
        command(hokku.root(), &["backup", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(writing.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.starts_with("Backing up 1 app")));
    hokku.ok(&["apps:destroy", "-a", "doomed", "--confirm", "doomed"]);
    let left = |dir: &str| fs::read_dir(hokku.root().join(dir)).unwrap().count();
    wait_for("its files to go", || (["slugs", "repos", "sources"].iter().all(|dir| left(dir) == 0)).then_some(()));
    let mut bytes = Vec::new();
    writing.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(writing.wait().unwrap().success());
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup");
    fs::write(&file, bytes).unwrap();
    drop(hokku);

    let hokku = restored(&file, &[]);
    wait_for("the app", || (hokku.get("doomed", "/").status == 200).then_some(()));
    assert_eq!(main_of(&hokku, &repository, "doomed"), repository.run(&["rev-parse", "main"]).trim());
}

/// A backup of a box with one app, which is down, and the box.
fn of_a_small_box(options: &[&str]) -> (TempDir, PathBuf, Vec<u8>) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup");
    let hokku = Hokku::start();
    hokku.ok(&["create", "small"]);
    hokku.ok(&["config:set", "A=small", "-a", "small"]);
    let said = backup(hokku.root(), &file, options);
    assert!(said.contains("Backing up 1 app"), "{said}");
    let key = fs::read(hokku.root().join("key")).unwrap();
    let written = fs::read(&file).unwrap();
    let plain = zstd::decode_all(&written[..]).unwrap();
    let has_key = plain.windows(key.len()).any(|bytes| bytes == key);
    assert_eq!(has_key, !options.contains(&"--without-key"));
    (place, file, key)
}

#[test]
fn what_is_no_whole_backup_is_refused_in_one_sentence_and_makes_nothing() {
    let (place, file, _) = of_a_small_box(&[]);
    let good = fs::read(&file).unwrap();
    let tar = zstd::decode_all(&good[..]).unwrap();
    let packed = |tar: &[u8]| zstd::encode_all(tar, 3).unwrap();
    let with = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = tar.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        let mut changed = tar.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        packed(&changed)
    };
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let end = tar.windows(13).rposition(|bytes| bytes == b"manifest.json").unwrap();
    let root = place.path().join("root");
    for (bytes, why) in [
        (b"a letter to my aunt".to_vec(), "that is no backup of hokku"),
        (packed(b"a letter to my aunt"), "that is no backup of hokku"),
        (Vec::new(), "that is no backup of hokku"),
        (good[..good.len() / 2].to_vec(), "the backup is incomplete: its end is missing"),
        (good[..good.len() - 1].to_vec(), "the backup is incomplete: its end is missing"),
        (packed(&tar[..end]), "the backup is incomplete: its end is missing"),
        (flipped, "the backup is "),
        (with("SQLite format 3", "SQLite format 4"), "the backup is damaged: db.sqlite is not what was backed up"),
        (
            with("\"format\": 1", "\"format\": 2"),
            "the backup was made by a newer hokku (0.1.0) than this one (0.1.0): restore it with that version",
        ),
        (with("\"schema\": 1", "\"schema\": 9"), "the backup was made by a newer hokku (0.1.0)"),
    ] {
        fs::write(&file, bytes).unwrap();
        for options in [&["--check"][..], &[]] {
            let (done, said) = restore(&file, &root, options);
            assert!(!done && said.contains(why), "{why}: {said}");
            assert!(!root.exists(), "{why}");
        }
    }
    // An empty directory stays one.
    fs::create_dir(&root).unwrap();
    let (done, said) = restore(&file, &root, &[]);
    assert!(!done && fs::read_dir(&root).unwrap().count() == 0, "{said}");
    fs::write(&file, good).unwrap();
    let (done, said) = restore(&file, &root, &[]);
    assert!(done, "{said}");
}

#[test]
fn a_backup_without_the_key_is_restored_with_the_right_one_only() {
    let (place, file, key) = of_a_small_box(&["--without-key"]);
    let (root, kept) = (place.path().join("root"), place.path().join("key"));
    let refused = |options: &[&str], why: &str| {
        let (done, said) = restore(&file, &root, options);
        assert!(!done && said.contains(why) && !root.exists(), "{said}");
    };
    let given = ["--key", kept.to_str().unwrap()];
    refused(&[], "the key is not in that backup: give it with --key FILE");
    refused(&given, "there is no key ");
    fs::write(&kept, [7; 32]).unwrap();
    refused(&given, "that is not the key of this backup: give the one of the box that it was made of");
    fs::write(&kept, b"short").unwrap();
    refused(&given, "is damaged, it should have 32 bytes and has 5");
    fs::write(&kept, key).unwrap();
    let (done, said) = restore(&file, &root, &[&given[..], &["--check"]].concat());
    assert!(done && said.contains("The backup is whole, and its key is the right one") && !root.exists(), "{said}");
    let hokku = restored(&file, &given);
    assert_eq!(hokku.ok(&["config:get", "A", "-a", "small"]), "small\n");
    assert!(fs::read_to_string(hokku.root().join("ca.key")).unwrap().contains("PRIVATE KEY"));
    let mode = |name: &str| fs::metadata(hokku.root().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["key", "ca.key", "db.sqlite", "ca.pem"].map(mode), [0o600, 0o600, 0o600, 0o644]);
}

#[test]
fn a_box_is_made_only_where_there_is_none() {
    let hokku = Hokku::start();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup");
    backup(hokku.root(), &file, &[]);
    let (done, said) = restore(&file, hokku.root(), &[]);
    assert!(!done && said.contains("restore to another --root, or end it first with hokku down --purge"), "{said}");

    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("precious"), "kept").unwrap();
    let (done, said) = restore(&file, &root, &[]);
    assert!(!done && said.contains("is not empty (there is precious): restore to a new --root"), "{said}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    fs::remove_file(root.join("precious")).unwrap();

    // One that was broken off: no server begins a new box there, the next restore makes it whole.
    fs::create_dir_all(root.join("restore.tmp/repos")).unwrap();
    fs::write(root.join("key"), [9; 32]).unwrap();
    let name = format!("half-{}", std::process::id());
    let ports = ["--api", "127.0.0.1:0", "--router", "127.0.0.1:0"];
    let (done, said) = ran(command(&root, &["server", "--name", &name]).args(ports));
    assert!(
        !done && said.contains("is under way or was broken off: wait for it, or run hokku restore again"),
        "{said}"
    );
    let (done, said) = restore(&file, &root, &[]);
    assert!(done, "{said}");
    assert_eq!(fs::read(root.join("key")).unwrap(), fs::read(hokku.root().join("key")).unwrap());
    assert!(!root.join("restore.tmp").exists());

    let nothing = place.path().join("nothing");
    let (done, said) = ran(command(&nothing, &["backup"]).arg(place.path().join("none")));
    assert!(!done && said.contains("there is nothing to back up in") && !nothing.exists(), "{said}");
    // Nor is one made by somebody who may not.
    let mut other = command(hokku.root(), &["backup"]);
    std::os::unix::process::CommandExt::uid(&mut other, 65534);
    let (done, said) = ran(other.arg("/tmp/never"));
    assert!(!done && said.contains("this needs root"), "{said}");
}
