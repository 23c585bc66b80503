//! Releases: what a change does, what a bad one must not do, and the way back.

use crate::hokku::{Hokku, wait_for};

#[test]
fn a_release_that_does_not_boot_is_failed_and_the_old_one_serves_on() {
    let hokku = Hokku::start();
    let repository = hokku.serving("careful");

    // By push: rejected, with the app's last lines, and the ref is not moved.
    let before = repository.run(&["ls-remote", "hokku", "main"]);
    let server = std::fs::read_to_string(repository.path().join("server.js")).unwrap();
    repository.write("server.js", "console.error('boom at boot'); process.exit(3)").commit("broken");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("boom at boot") && output.contains("status 3"), "{output}");
    assert_eq!(repository.run(&["ls-remote", "hokku", "main"]), before);
    assert_eq!(hokku.get("careful", "/").status, 200);

    // By config:set: the old dynos and the old config serve on.
    let error = hokku.fails(&["config:set", "BOOT=exit", "-a", "careful"]);
    assert!(error.contains("v5 failed") && error.contains("status 7"), "{error}");
    assert_eq!(hokku.json(&["releases", "--json", "-a", "careful"])[0]["status"], "failed");
    assert_eq!(hokku.get("careful", "/env/BOOT").body, "");
    assert!(hokku.ok(&["config", "-a", "careful"]).contains("exit"), "config shows what was set last");
    let current = hokku.json(&["releases", "--json", "-a", "careful"]);
    let current: Vec<_> = current.as_array().unwrap().iter().filter(|release| release["current"] == true).collect();
    assert_eq!((current.len(), &current[0]["version"]), (1, &serde_json::json!(3)));

    // And it goes on from there once the cause is taken back.
    repository.write("server.js", &server).write("version", "two").commit("mended");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("this release does not boot"), "{output}");
    hokku.ok(&["config:unset", "BOOT", "-a", "careful"]);
    let output = hokku.push(&repository);
    assert!(output.success, "{}", output.output);
    assert!(hokku.get("careful", "/").body.contains("version two"));
}

#[test]
fn a_procfile_that_names_a_missing_command_is_told_to_the_pusher_and_in_the_log() {
    let hokku = Hokku::start();
    let repository = hokku.serving("typo");
    repository.write("Procfile", "web: noode server.js\nworker: bin/absent --all\n").commit("typo");
    let output = hokku.push(&repository).expect_rejection();
    for said in ["web.1 exited with status 127", "a command was not found", "app[web.1]: ", "noode: "] {
        assert!(output.contains(said), "{said:?} is missing in\n{output}");
    }
    assert!(hokku.log("typo").contains("noode: "), "{}", hokku.log("typo"));
    assert_eq!(hokku.get("typo", "/").status, 200, "the old release serves on");

    repository.write("Procfile", "web: ./server.js\n").commit("not executable");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("which means that a command can't be executed: make its file executable"), "{output}");

    // No process but web decides on a release: of others the log tells.
    repository.write("Procfile", "web: node server.js\nworker: bin/absent --all\n").commit("worker");
    hokku.push(&repository).expect_success();
    hokku.ok(&["ps:scale", "worker=1", "-a", "typo"]);
    let log = hokku.wait_for_log("typo", "heroku[worker.1]: Process exited with status 127");
    let said = |line: &str| line.contains("app[worker.1]: ") && line.contains("bin/absent: No such file");
    assert!(log.lines().any(said), "{log}");

    repository.write("Procfile", "web: node server.js\nrelease: migrate\n").commit("phase");
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("the release command exited with status 127, which means"), "{output}");
    assert!(output.contains("migrate: "), "{output}");
}

#[test]
fn rollback_restores_code_and_config() {
    let hokku = Hokku::start();
    let repository = hokku.app("back", "echo");
    repository.write("version", "one").commit("one");
    hokku.push(&repository).expect_success(); // v3
    hokku.ok(&["config:set", "COLOUR=blue", "-a", "back"]); // v4
    repository.write("version", "two").commit("two");
    hokku.push(&repository).expect_success(); // v5
    assert!(hokku.get("back", "/").body.contains("version two"));
    hokku.ok(&["rollback", "v3", "-a", "back"]); // v6
    wait_for("the old code", || hokku.get("back", "/").body.contains("version one").then_some(()));
    assert_eq!(hokku.get("back", "/env/COLOUR").body, "");
    let releases = hokku.json(&["releases", "--json", "-a", "back"]);
    let descriptions: Vec<&str> =
        releases.as_array().unwrap().iter().map(|r| r["description"].as_str().unwrap()).collect();
    assert_eq!(descriptions[0], "Rollback to v3");
    assert_eq!(descriptions[2], "Set COLOUR config vars");
    assert_eq!(&descriptions[4..], ["Enable Logplex", "Initial release"]);
    assert!(descriptions[1].starts_with("Deploy ") && descriptions[1].len() == "Deploy 1a2b3c4d".len());
    assert!(hokku.fails(&["rollback", "v2", "-a", "back"]).contains("v2"), "it has no code");
    assert!(hokku.fails(&["rollback", "v99", "-a", "back"]).to_lowercase().contains("release"));
}

#[test]
fn the_release_phase_decides() {
    let hokku = Hokku::start();
    let repository = hokku.app("phased", "echo");
    repository
        .write("Procfile", "web: node server.js\nrelease: echo migrating with $COLOUR; exit ${PHASE:-0}\n")
        .commit("phase");
    let output = hokku.push(&repository).expect_success();
    assert!(output.contains("migrating with"), "{output}");
    let error = hokku.fails(&["config:set", "PHASE=9", "COLOUR=red", "-a", "phased"]);
    assert!(error.contains("v4 failed") && error.contains("status 9"), "{error}");
    hokku.wait_for_log("phased", "migrating with red");
    assert_eq!(hokku.json(&["releases", "--json", "-a", "phased"])[0]["status"], "failed");
    assert_eq!(hokku.get("phased", "/env/COLOUR").body, "", "the old release serves");
    repository.write("version", "two").commit("two");
    assert!(hokku.push(&repository).expect_rejection().contains("status 9"));
}

#[test]
fn a_web_process_that_never_listens_is_r10() {
    let hokku = Hokku::with_config("[dyno]\nboot_timeout_seconds = 2\n");
    let repository = hokku.app("deaf", "echo");
    hokku.ok(&["config:set", "BOOT=deaf", "-a", "deaf"]);
    let output = hokku.push(&repository).expect_rejection();
    assert!(output.contains("R10"), "{output}");
    let log = hokku.log("deaf");
    assert!(log.contains("Error R10 (Boot timeout)") && log.contains("Process exited with status 137"), "{log}");
}

#[test]
fn scaling_and_restarting() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("scaled");
    let output = hokku.cli(&["ps:scale", "web=2", "worker=1", "-a", "scaled"]);
    assert!(output.status.success());
    hokku.wait_until_up("scaled", 3);
    let seen = || {
        let bodies: std::collections::BTreeSet<String> = (0..40).map(|_| hokku.get("scaled", "/").body).collect();
        (bodies.len() == 2).then_some(())
    };
    wait_for("both web dynos to answer", seen);
    hokku.wait_for_log("scaled", "worker at work");

    let ids = |kind: &str| -> Vec<String> {
        let dynos = hokku.dynos("scaled");
        dynos
            .iter()
            .filter(|d| d["type"] == kind && d["state"] == "up")
            .map(|d| d["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (web, worker) = (ids("web"), ids("worker"));
    hokku.ok(&["ps:restart", "worker", "-a", "scaled"]);
    wait_for("a new worker", || (ids("worker").len() == 1 && ids("worker") != worker).then_some(()));
    assert_eq!(ids("web"), web, "only the worker was restarted");
    hokku.ok(&["ps:stop", "worker.1", "-a", "scaled"]);
    wait_for("the worker again", || (ids("worker").len() == 1).then_some(()));

    hokku.ok(&["ps:scale", "web=1", "worker=0", "-a", "scaled"]);
    wait_for("one dyno", || (hokku.dynos("scaled").len() == 1).then_some(()));
    assert_eq!(hokku.dynos("scaled")[0]["name"], "web.1");
    hokku.ok(&["ps:scale", "web=0", "-a", "scaled"]);
    wait_for("H14", || (hokku.get("scaled", "/").status == 503).then_some(()));
    hokku.wait_for_log("scaled", "code=H14");
    assert!(hokku.fails(&["ps:scale", "nope=1", "-a", "scaled"]).contains("process type"));
    assert!(hokku.fails(&["ps:scale", "web=1000", "-a", "scaled"]).contains("100"));
}

#[test]
fn a_crash_loop_backs_off_and_says_so() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("crashes");
    assert_eq!(hokku.get("crashes", "/exit/5").status, 200);
    hokku.wait_for_log("crashes", "Process exited with status 5");
    hokku.wait_for_log("crashes", "State changed from up to crashed");
    wait_for("the app to be back", || (hokku.get("crashes", "/").status == 200).then_some(()));
    for _ in 0..3 {
        let _ = hokku.try_get("crashes", "/exit/6"); // it may be down just now
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    wait_for("the app to be back", || (hokku.get("crashes", "/").status == 200).then_some(()));
}

#[test]
fn config_vars_are_sealed_and_appear_nowhere() {
    let hokku = Hokku::start();
    let _repository = hokku.serving("sealed");
    let secret = "S3CRET-0f1e2d3c4b5a";
    hokku.ok(&["config:set", &format!("TOKEN={secret}"), "-a", "sealed"]);
    wait_for("the new release", || (hokku.get("sealed", "/env/TOKEN").body == secret).then_some(()));
    let found = std::process::Command::new("grep")
        .args(["-rlaF", secret])
        .arg(hokku.root())
        .arg(hokku.run_dir())
        .output()
        .unwrap();
    assert_eq!(crate::hokku::text(&found.stdout), "", "the value is on the disk");
    let processes = std::process::Command::new("sh")
        .args(["-c", "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f 2>/dev/null; echo; done"])
        .output()
        .unwrap();
    assert!(!crate::hokku::text(&processes.stdout).contains(secret), "the value is in a process list");
    assert!(!hokku.log("sealed").contains(secret) && !hokku.server_log().contains(secret));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(hokku.root().join("key")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}
