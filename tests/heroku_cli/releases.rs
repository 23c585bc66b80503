//! Releases.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, wait_for};
use std::io::Write as _;
use std::process::Stdio;

#[test]
fn releases_are_listed_looked_at_and_rolled_back() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let repository = hokku.serving("shop");
    hokku.ok(&["config:set", "A=old", "-a", "shop"]);
    repository.write("version", "two").commit("two");
    hokku.push(&repository).expect_success();
    hokku.ok(&["config:set", "A=new", "-a", "shop"]);
    hokku.wait_until_up("shop", 1);
    let list = heroku.ok(&["releases", "-a", "shop"]);
    for line in
        ["=== shop Releases - Current: v6", "Deploy ", "Set A config vars", "Initial release", "admin@localhost"]
    {
        assert!(list.contains(line), "{line}\n{list}");
    }
    let two = heroku.ok(&["releases", "-n", "2", "-a", "shop"]);
    assert!(two.contains("v6") && two.contains("v5") && !two.contains("v4"), "{two}");
    let info = heroku.ok(&["releases:info", "v4", "-a", "shop"]);
    assert!(info.contains("=== Release v4") && info.contains("Set A config vars") && info.contains("A: old"), "{info}");
    assert!(heroku.ok(&["releases:info", "-a", "shop"]).contains("A: new"));
    assert!(heroku.says(&["releases:output", "-a", "shop"]).err.contains("no release output available"));

    assert!(hokku.get("shop", "/").body.starts_with("version two"));
    heroku.done(&["rollback", "v4", "-a", "shop"]).with("Rolling back shop to v4... done, v7");
    wait_for("the old code", || hokku.get("shop", "/").body.starts_with("version none").then_some(()));
    assert_eq!(hokku.get("shop", "/env/A").body, "old");
    assert!(heroku.fails(&["rollback", "v1", "-a", "shop"]).contains("it has no code"));
    assert!(heroku.fails(&["rollback", "v99", "-a", "shop"]).contains("Couldn't find that release."));

    // A release phase that fails leaves the old release serving.
    let procfile = "web: node server.js\nrelease: echo migrating; test -z \"$BROKEN\"\n";
    repository.write("Procfile", procfile).commit("release phase");
    hokku.push(&repository).expect_success();
    assert_eq!(heroku.ok(&["releases:output", "-a", "shop"]).trim(), "migrating");
    heroku.done(&["config:set", "BROKEN=1", "-a", "shop"]).with("done, v9");
    wait_for("v9 to fail", || {
        (hokku.json(&["releases:info", "v9", "--json", "-a", "shop"])["status"] == "failed").then_some(())
    });
    assert!(heroku.ok(&["releases", "-a", "shop"]).contains("release command failed"));
    assert_eq!(hokku.get("shop", "/env/BROKEN").body, "");
}

#[test]
fn a_release_command_is_heard_and_run_again_and_vars_are_edited() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let repository = hokku.app("shop", "echo");
    repository.write("Procfile", "web: node server.js\nrelease: echo \"phase says $WORD\"; test \"$WORD\" != bad\n");
    repository.commit("with a release command");
    hokku.push(&repository).expect_success();
    heroku.done(&["releases:output", "-a", "shop"]).with("phase says");
    assert!(heroku.ok(&["releases:output", "v2", "-a", "shop"]).is_empty());

    let editor = heroku.home().join("editor");
    std::fs::write(&editor, "#!/bin/sh\necho \"WORD='edited by hand'\" > \"$1\"; touch \"$0.ran\"\n").unwrap();
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut edit = heroku.command(&["config:edit", "-a", "shop"]);
    let mut edit = edit.env("EDITOR", &editor).stdin(Stdio::piped()).spawn().unwrap();
    // It asks whether that is meant. What comes earlier it may take for the KEY that its command line does not give.
    let ran = heroku.home().join("editor.ran");
    wait_for("the editor", || ran.exists().then_some(()));
    edit.stdin.take().unwrap().write_all(b"y\n").unwrap();
    assert!(edit.wait().unwrap().success());
    assert_eq!(hokku.ok(&["config:get", "WORD", "-a", "shop"]).trim(), "edited by hand");
    let wait = || hokku.json(&["releases:info", "--json", "-a", "shop"])["status"].as_str().unwrap().to_owned();
    wait_for("the release", || (wait() == "succeeded").then_some(()));
    heroku.done(&["releases:output", "-a", "shop"]).with("phase says edited by hand");
    heroku.done(&["ps:wait", "-a", "shop"]);

    let before = hokku.json(&["releases:info", "--json", "-a", "shop"])["version"].as_u64().unwrap();
    let said = heroku.done(&["releases:retry", "-a", "shop"]);
    assert!(said.out.contains("Running release command...") && said.out.contains("phase says edited"), "{said:?}");
    let after = hokku.json(&["releases:info", "--json", "-a", "shop"]);
    assert_eq!(after["version"].as_u64(), Some(before + 1));
    assert!(after["description"].as_str().unwrap().starts_with(&format!("Retry of v{before}")), "{after}");

    heroku.done(&["ps:type", "web=standard-2x", "-a", "shop"]).with("Standard-2X");
    hokku.ok(&["ps:wait", "-a", "shop"]);
    let sizes = || hokku.json(&["ps", "--json", "-a", "shop"])[0]["size"].clone();
    wait_for("a dyno of that size", || (sizes() == "Standard-2X").then_some(()));
    heroku.done(&["ps:wait", "-t", "web", "-a", "shop"]);
}
