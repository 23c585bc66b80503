//! Pipelines: code moves along, config vars stay.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, wait_for};

#[test]
fn code_is_promoted_without_a_build_and_meets_the_targets_config_vars() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    let repository = hokku.serving("shop-staging");
    hokku.ok(&["create", "shop"]);
    hokku.ok(&["config:set", "WHERE=staging", "-a", "shop-staging"]);
    hokku.ok(&["config:set", "WHERE=production", "-a", "shop"]);

    heroku.done(&["pipelines:create", "line", "-a", "shop-staging", "-s", "staging"]).with("done");
    heroku.done(&["pipelines:add", "line", "-a", "shop", "-s", "production"]).with("done");
    assert!(heroku.ok(&["pipelines"]).contains("line"));
    let info = heroku.ok(&["pipelines:info", "line"]);
    for word in ["shop-staging", "staging", "production", "admin@localhost"] {
        assert!(info.contains(word), "{word}\n{info}");
    }
    heroku.done(&["pipelines:promote", "-a", "shop-staging"]).with("Promotion successful");
    wait_for("the promoted code", || (hokku.get("shop", "/env/WHERE").body == "production").then_some(()));
    let release = hokku.json(&["releases:info", "--json", "-a", "shop"]);
    assert_eq!(release["description"], "Promote shop-staging v4");
    assert_eq!(hokku.json(&["builds", "--json", "-a", "shop"]).as_array().unwrap().len(), 0);

    repository.write("version", "two").commit("two");
    hokku.push(&repository).expect_success();
    assert!(hokku.get("shop", "/").body.starts_with("version none"));
    let said = hokku.command(&["pipelines:promote", "-a", "shop-staging"]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    wait_for("the second version", || hokku.get("shop", "/").body.starts_with("version two").then_some(()));

    // The slug is the target's own from then on.
    heroku.done(&["pipelines:remove", "-a", "shop-staging"]);
    let refusal = heroku.fails(&["pipelines:promote", "-a", "shop-staging"]);
    assert!(refusal.contains("find that pipeline coupling"), "{refusal}");
    hokku.ok(&["apps:destroy", "-a", "shop-staging", "--confirm", "shop-staging"]);
    hokku.ok(&["ps:restart", "-a", "shop"]);
    hokku.wait_until_up("shop", 1);
    assert!(hokku.get("shop", "/").body.starts_with("version two"));
    heroku.done(&["rollback", "-a", "shop"]);
    wait_for("the first version", || hokku.get("shop", "/").body.starts_with("version none").then_some(()));
    heroku.done(&["pipelines:rename", "line", "track"]);
    heroku.done(&["pipelines:destroy", "track"]);
    assert!(heroku.says(&["pipelines"]).out.contains("no pipelines") || !heroku.ok(&["pipelines"]).contains("track"));
}
