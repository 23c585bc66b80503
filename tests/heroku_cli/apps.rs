//! Who one is, apps, their config vars and settings.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, Repository};
use std::process::Command;

#[test]
fn apps_are_created_looked_at_renamed_and_destroyed() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    assert_eq!(heroku.ok(&["auth:whoami"]), "admin@localhost\n");
    let token = heroku.ok(&["auth:token"]);
    assert_eq!(token.trim(), heroku.variable("HEROKU_API_KEY"));

    // As a beginner does it: by the shell, in a repository.
    let repository = Repository::of("echo");
    let mut shell = Command::new("sh");
    heroku.environment(&mut shell).env_remove("HEROKU_API_KEY").env("HOKKU_ROOT", hokku.root());
    let line = format!("eval \"$({} env)\" && exec heroku create shop", env!("CARGO_BIN_EXE_hokku"));
    let output = shell.args(["-c", &line]).current_dir(repository.path()).output().unwrap();
    let said = crate::heroku::Said::of(&output).with("Creating shop... done");
    let git = format!("https://{}/shop.git", hokku.api);
    assert_eq!(said.out.trim(), format!("http://shop.localhost:{}/ | {git}", hokku.router.port()));
    assert_eq!(repository.run(&["config", "remote.heroku.url"]).trim(), git);
    assert_eq!(hokku.json(&["apps:info", "--json", "-a", "shop"])["app"]["name"], "shop");

    heroku.ok(&["create"]);
    let names: Vec<String> =
        hokku.json(&["apps", "--json"]).as_array().unwrap().iter().map(|app| app["name"].to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let listed = heroku.ok(&["apps"]);
    assert!(names.iter().all(|name| listed.contains(name.trim_matches('"'))), "{listed}");
    assert!(heroku.fails(&["create", "shop"]).contains("Name shop is already taken"));
    assert!(heroku.fails(&["apps:info", "nobody"]).contains("Couldn't find that app."));

    let info = heroku.ok(&["apps:info", "shop"]);
    for line in ["=== shop", "Owner:", "admin@localhost", "Region:", "local", "Stack:"] {
        assert!(info.contains(line), "{line}\n{info}");
    }
    assert!(heroku.ok(&["apps:info", "shop", "-s"]).contains("stack=host"));
    assert_eq!(heroku.json(&["apps:info", "shop", "--json"])["app"]["name"], "shop");

    heroku.done(&["apps:rename", "store", "-a", "shop"]).with("Renaming shop to store... done");
    hokku.fails(&["apps:info", "-a", "shop"]);
    assert_eq!(hokku.json(&["apps:info", "--json", "-a", "store"])["app"]["name"], "store");
    assert!(heroku.fails(&["apps:destroy", "store", "--confirm", "other"]).contains("did not match"));
    heroku.done(&["apps:destroy", "store", "--confirm", "store"]).with("Destroying store");
    assert!(hokku.fails(&["apps:info", "-a", "store"]).contains("Couldn't find that app"));
}

#[test]
fn config_vars_reach_the_dyno_and_settings_hold() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let _repository = hokku.serving("shop");
    heroku.done(&["config:set", "A=1", "B=two words", "-a", "shop"]).with("done, v4").with("A: 1");
    crate::hokku::wait_for("the new release to serve", || {
        (hokku.get("shop", "/env/B").body == "two words").then_some(())
    });
    heroku.done(&["config:set", "A=1", "-a", "shop"]).with("done, v4");
    assert_eq!(heroku.ok(&["config:get", "B", "-a", "shop"]), "two words\n");
    assert_eq!(heroku.ok(&["config:get", "B", "--shell", "-a", "shop"]), "B='two words'\n");
    assert_eq!(heroku.json(&["config", "--json", "-a", "shop"]), serde_json::json!({ "A": "1", "B": "two words" }));
    heroku.done(&["config:unset", "B", "-a", "shop"]).with("done, v5");
    assert_eq!(heroku.ok(&["config", "-s", "-a", "shop"]), "A=1\n");
    crate::hokku::wait_for("the variable to be gone", || hokku.get("shop", "/env/B").body.is_empty().then_some(()));
    assert!(heroku.fails(&["config:set", "1=x", "-a", "shop"]).contains("invalid_params"));

    assert!(hokku.get("shop", "/env/HEROKU_APP_NAME").body.is_empty());
    heroku.done(&["labs:enable", "runtime-dyno-metadata", "-a", "shop"]).with("done");
    assert!(heroku.ok(&["labs", "-a", "shop"]).contains("[+] runtime-dyno-metadata"));
    heroku.done(&["ps:restart", "-a", "shop"]);
    crate::hokku::wait_for("the app's name", || {
        (hokku.get("shop", "/env/HEROKU_APP_NAME").body == "shop").then_some(())
    });
    let version = hokku.json(&["releases:info", "--json", "-a", "shop"])["version"].to_string();
    assert_eq!(hokku.get("shop", "/env/HEROKU_RELEASE_VERSION").body, format!("v{version}"));
    heroku.done(&["labs:disable", "runtime-dyno-metadata", "-a", "shop"]);
    assert!(heroku.ok(&["labs", "-a", "shop"]).contains("[ ] runtime-dyno-metadata"));

    assert_eq!(heroku.ok(&["maintenance", "-a", "shop"]), "off\n");
    heroku.done(&["maintenance:on", "-a", "shop"]).with("Enabling maintenance mode for shop... done");
    crate::hokku::wait_for("the maintenance page", || (hokku.get("shop", "/").status == 503).then_some(()));
    assert_eq!(heroku.ok(&["maintenance", "-a", "shop"]), "on\n");
    heroku.done(&["maintenance:off", "-a", "shop"]);
    crate::hokku::wait_for("the app again", || (hokku.get("shop", "/").status == 200).then_some(()));

    assert!(heroku.ok(&["stack", "-a", "shop"]).contains("* host"));
    heroku.done(&["stack:set", "debian-13", "-a", "shop"]).with("You will need to redeploy");
    let app = &hokku.json(&["apps:info", "--json", "-a", "shop"])["app"];
    assert_eq!((&app["build_stack"]["name"], &app["stack"]["name"]), (&"debian-13".into(), &"host".into()));

    let own = || hokku.json(&["buildpacks", "--json", "-a", "shop"]);
    heroku.done(&["buildpacks:set", "https://example.com/one.git", "-a", "shop"]).with("Buildpack set.");
    heroku.done(&["buildpacks:add", "https://example.com/two.git", "-i", "1", "-a", "shop"]);
    assert!(heroku.ok(&["buildpacks", "-a", "shop"]).contains("1. https://example.com/two.git"));
    assert_eq!(own().as_array().unwrap().len(), 2);
    heroku.done(&["buildpacks:add", "heroku/nodejs", "-a", "shop"]).with("  3. heroku/nodejs");
    assert_eq!(own()[2]["buildpack"]["url"], "heroku/nodejs");
    heroku.done(&["buildpacks:remove", "heroku/nodejs", "-a", "shop"]);
    assert!(heroku.fails(&["buildpacks:add", "heroku/cobol", "-a", "shop"]).contains("there is no buildpack"));
    let found = heroku.ok(&["buildpacks:search", "python"]);
    assert!(found.contains("heroku/python") && found.contains("1 buildpack found"), "{found}");
    let about = heroku.ok(&["buildpacks:info", "heroku/ruby"]);
    assert!(about.contains("Ruby apps have a Gemfile in their root."), "{about}");
    assert_eq!(heroku.json(&["buildpacks:info", "heroku/ruby", "--json"])["license"], "MIT OR Apache-2.0");
    let versions = heroku.ok(&["buildpacks:versions", "heroku/ruby"]);
    assert!(versions.contains(env!("CARGO_PKG_VERSION")) && versions.contains("published"), "{versions}");
    assert!(heroku.fails(&["buildpacks:info", "heroku/cobol"]).contains("Could not find the buildpack"));
    assert!(heroku.fails(&["buildpacks:versions", "heroku/cobol"]).contains("Could not find"));
    heroku.done(&["buildpacks:remove", "https://example.com/one.git", "-a", "shop"]);
    assert_eq!(own()[0]["buildpack"]["url"], "https://example.com/two.git");
    heroku.done(&["buildpacks:clear", "-a", "shop"]);
    assert_eq!(own(), serde_json::json!([]));
}
