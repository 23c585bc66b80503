//! From source to a serving app.

use crate::hokku::{Hokku, Repository, interrupt, text, wait_for};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn a_node_app_is_pushed_built_and_served() {
    let hokku = Hokku::start();
    let repository = hokku.app("node-app", "sample-node");
    let output = hokku.push(&repository).expect_success();
    for line in [
        "-----> Node.js app detected",
        "-----> Discovering process types",
        "Procfile declares types",
        "Released v3",
        "deployed to",
    ] {
        assert!(output.contains(line), "{line:?} is missing in\n{output}");
    }
    let answer = hokku.get("node-app", "/");
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("hello from web.1, Node.js v"), "{}", answer.body);

    // Unchanged dependencies come from the cache, and the new code answers as soon as the push has ended.
    repository.write("server.js", &changed(&repository, "hello", "moi")).commit("moi");
    hokku.push(&repository).expect_success();
    assert!(hokku.get("node-app", "/").body.starts_with("moi from web.1"));
}

fn changed(repository: &Repository, from: &str, to: &str) -> String {
    std::fs::read_to_string(repository.path().join("server.js")).unwrap().replace(from, to)
}

#[test]
fn a_python_app_is_pushed_built_and_served() {
    let hokku = Hokku::start();
    let repository = hokku.app("python-app", "sample-python");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("-----> Python app detected"), "{output}");
    assert!(hokku.get("python-app", "/").body.starts_with("hello from web.1, Python 3."));
}

#[test]
fn an_inline_buildpack_has_the_whole_classic_api() {
    let hokku = Hokku::start();
    let repository = hokku.app("inline", "echo");
    hokku.ok(&["config:set", "GREETING=good day", "-a", "inline"]);
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("Build number 1 with this cache"), "{output}");
    assert_eq!(hokku.get("inline", "/file/app/greeting-at-build").body, "good day");
    assert_eq!(hokku.get("inline", "/env/FROM_PROFILE").body, "profile");
    assert_eq!(hokku.get("inline", "/env/GREETING").body, "good day");

    // A failed build leaves the cache as the last good one left it, the ref unmoved and the old release serving.
    repository.write("fail", "").commit("fails");
    let output = hokku.push(&repository).expect_rejection();
    assert!(
        output.contains("Build number 2 with this cache") && output.contains("The file 'fail' is there"),
        "{output}"
    );
    assert_eq!(
        repository.run(&["ls-remote", "hokku", "main"]).split_whitespace().next(),
        Some(repository.run(&["rev-parse", "HEAD~1"]).trim())
    );
    assert_eq!(hokku.get("inline", "/").status, 200);
    std::fs::remove_file(repository.path().join("fail")).unwrap();
    repository.commit("mended");
    assert!(hokku.push(&repository).expect_success().contains("Build number 2 with this cache"));

    // The process types of the Procfile and of the buildpack are merged.
    let types = hokku.ok(&["ps:scale", "-a", "inline"]);
    for kind in ["web=1", "worker=0", "clock=0"] {
        assert!(types.contains(kind), "{types}");
    }
    hokku.ok(&["builds:cache:purge", "-a", "inline"]);
    assert!(hokku.ok(&["rebuild", "-a", "inline"]).contains("Build number 1 with this cache"));
}

#[test]
fn a_directory_and_a_tarball_deploy_without_git() {
    let hokku = Hokku::start();
    hokku.ok(&["create", "tarred"]);
    let repository = Repository::of("echo");
    let directory = repository.path().to_str().unwrap();
    hokku.ok(&["deploy", directory, "-a", "tarred"]);
    assert_eq!(hokku.get("tarred", "/").status, 200);
    assert!(
        std::process::Command::new("tar")
            .args(["czf", "source.tgz", "server.js", "Procfile", "bin"])
            .current_dir(directory)
            .status()
            .unwrap()
            .success()
    );
    let tarball = std::fs::File::open(repository.path().join("source.tgz")).unwrap();
    let output = hokku.command(&["deploy", "-", "-a", "tarred"]).stdin(tarball).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(hokku.json(&["releases", "--json", "-a", "tarred"])[0]["version"], 4);

    // An app with one directory keeps it.
    for file in ["source.tgz", "Procfile"] {
        std::fs::remove_file(repository.path().join(file)).unwrap();
    }
    std::fs::rename(repository.path().join("server.js"), repository.path().join("bin/server.js")).unwrap();
    repository.write("bin/release", "#!/bin/sh\necho 'default_process_types: {web: node bin/server.js}'\n");
    std::fs::remove_dir_all(repository.path().join(".git")).unwrap();
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
    hokku.ok(&["deploy", directory, "-a", "tarred"]);
    assert_eq!(hokku.get("tarred", "/").status, 200);
    assert_eq!(hokku.json(&["releases", "--json", "-a", "tarred"])[0]["version"], 5);
}

#[test]
fn only_main_and_master_build_and_wrong_pushes_are_told_so() {
    let hokku = Hokku::start();
    let repository = hokku.app("refs", "echo");
    let output = hokku.push_ref(&repository, "HEAD:refs/heads/feature").expect_rejection();
    assert!(output.contains("main") && output.contains("feature"), "{output}");
    repository.write("Procfile", "<<<<<<< HEAD\nweb: a\n=======\n").commit("conflict");
    assert!(hokku.push(&repository).expect_rejection().contains("merge conflict"));
    repository.write("Procfile", "# what runs\nweb node server.js\n").commit("no colon");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("line 2 is not of the form `TYPE: COMMAND`: \"web node server.js\""), "{output}");
    repository.run(&["rm", "-rq", "bin", "Procfile", "server.js"]);
    repository.commit("nothing left");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.to_lowercase().contains("buildpack"), "{output}");
    assert!(hokku.push(&Repository::empty()).output.contains("hokku"), "an empty repository has no remote and no main");
    assert_eq!(hokku.get("refs", "/").status, 502, "blank app");
}

#[test]
fn what_was_pushed_can_be_cloned() {
    let hokku = Hokku::start();
    let repository = hokku.serving("cloned");
    let size = hokku.json(&["apps:info", "--json", "-a", "cloned"])["app"]["repo_size"].clone();
    assert!(size.as_u64().is_some_and(|size| size > 1000), "{size}");
    let url = repository.run(&["remote", "get-url", "hokku"]);
    let helpers = repository.run(&["config", "--get-regexp", "^credential"]);
    let helpers: Vec<String> =
        helpers.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| format!("{key}={value}")).collect();
    let clone = tempfile::tempdir().unwrap();
    let mut words: Vec<&str> = helpers.iter().flat_map(|helper| ["-c", helper.as_str()]).collect();
    words.extend(["clone", "-q", url.trim()]);
    let mut git = repository.git(&words);
    let path = format!(
        "{}:{}",
        std::path::Path::new(env!("CARGO_BIN_EXE_hokku")).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = git.arg(clone.path()).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(clone.path().join("server.js").exists());
}

#[test]
fn a_hanging_build_is_cancelled_and_leaves_nothing() {
    let hokku = Hokku::start();
    let repository = hokku.app("hangs", "echo");
    repository.write("hang", "").commit("hangs");
    let mut push = hokku.git_push(&repository, "main").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(push.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Hanging")), "{}", hokku.server_log());
    // Ctrl-C in the pusher's terminal ends git; the build ends with it.
    interrupt(&push);
    push.wait().unwrap();
    let failed = || {
        let builds = hokku.json(&["builds", "--json", "-a", "hangs"]);
        (builds[0]["status"] == "failed").then_some(())
    };
    wait_for("the build to be cancelled", failed);

    // The same by command, from elsewhere.
    let mut push = hokku.git_push(&repository, "main").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(push.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("Hanging")));
    hokku.ok(&["builds:cancel", "-a", "hangs"]);
    let rest: Vec<String> = lines.collect();
    assert!(!push.wait().unwrap().success(), "{rest:?}");
    let stages = std::fs::read_dir(hokku.root().join("builds")).map_or(0, Iterator::count);
    assert_eq!(stages, 0, "half-made builds are removed");
}

#[test]
fn a_push_whose_app_is_destroyed_says_so() {
    let hokku = Hokku::start();
    let repository = hokku.app("doomed", "echo");
    repository.write("hang", "").commit("hangs");
    let mut push = hokku.git_push(&repository, "main").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(push.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("Hanging")), "{}", hokku.server_log());
    hokku.ok(&["apps:destroy", "doomed", "--confirm", "doomed"]);
    let rest = lines.collect::<Vec<_>>().join("\n");
    assert!(!push.wait().unwrap().success(), "{rest}");
    assert!(rest.contains(" !     The app was destroyed during the build."), "{rest}");
    assert!(rest.contains(" !     Push rejected to doomed."), "{rest}");
    // What git says when its directory vanishes.
    assert!(!rest.contains("fatal") && !rest.contains("Build canceled"), "{rest}");
    for folder in ["repos", "builds"] {
        let left = || std::fs::read_dir(hokku.root().join(folder)).map_or(0, Iterator::count);
        wait_for("all of the app to be removed", || (left() == 0).then_some(()));
    }
}

#[test]
fn two_pushes_to_one_app_queue() {
    let hokku = Hokku::start();
    let repository = hokku.app("queued", "echo");
    repository.write("hang", "").commit("hangs");
    let mut first = hokku.git_push(&repository, "main").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Hanging")));
    let other = Repository::of("echo");
    let directory = other.path().to_str().unwrap().to_owned();
    let mut second = hokku
        .command(&["deploy", &directory, "-a", "queued"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let builds = || hokku.json(&["builds", "--json", "-a", "queued"]).as_array().unwrap().clone();
    wait_for("the second build", || (builds().len() == 2).then_some(()));
    interrupt(&first);
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    let mut output = String::new();
    std::io::Read::read_to_string(&mut second.stdout.take().unwrap(), &mut output).unwrap();
    assert!(output.to_lowercase().contains("wait"), "{output}");
    assert_eq!(hokku.get("queued", "/").status, 200);
}
