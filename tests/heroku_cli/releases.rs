//! Releases.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, wait_for};

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
