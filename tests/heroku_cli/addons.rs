//! Add-ons: from what an operator has elsewhere to a variable of a running dyno.

use crate::heroku::Heroku;
use crate::hokku::{Hokku, wait_for};

#[test]
fn a_url_becomes_an_add_on_that_apps_share() {
    let hokku = Hokku::start();
    let Some(heroku) = Heroku::of(&hokku) else { return };
    hokku.serving("shop");
    hokku.serving("reports");
    let seen = |app: &'static str, variable: &str, value: &'static str| {
        let path = format!("/env/{variable}");
        wait_for("the dyno's variable", || (hokku.get(app, &path).body == value).then_some(()));
    };
    assert!(heroku.ok(&["addons:services"]).contains("external"));
    assert!(heroku.ok(&["addons:plans", "external"]).contains("external:url"));
    let url = "postgres://shop:pw@db.example/shop";
    let made = heroku.done(&["addons:create", "external", "-a", "shop", "--name", "shop-db", "--", "--url", url]);
    assert!(made.out.contains("DATABASE_URL") || made.err.contains("DATABASE_URL"), "{made:?}");
    seen("shop", "DATABASE_URL", "postgres://shop:pw@db.example/shop");
    let listed = heroku.ok(&["addons", "-a", "shop"]);
    assert!(listed.contains("shop-db") && listed.contains("DATABASE") && !listed.contains("pw@"), "{listed}");
    assert!(heroku.ok(&["addons", "--all"]).contains("shop-db"));
    assert!(heroku.ok(&["config", "-a", "shop"]).contains(url));
    assert!(
        heroku.fails(&["config:unset", "DATABASE_URL", "-a", "shop"]).contains("Cannot overwrite attachment values")
    );

    heroku.done(&["addons:attach", "shop-db", "--as", "SHOP", "-a", "reports"]);
    seen("reports", "SHOP_URL", "postgres://shop:pw@db.example/shop");
    let info = heroku.ok(&["addons:info", "shop-db"]);
    assert!(info.contains("external:url") && info.contains("reports::SHOP"), "{info}");
    heroku.done(&["addons:rename", "shop-db", "main-db"]);
    assert!(hokku.ok(&["addons", "-a", "reports"]).contains("main-db"));

    heroku.done(&["addons:detach", "SHOP", "-a", "reports"]);
    seen("reports", "SHOP_URL", "");
    heroku.done(&["addons:destroy", "main-db", "-a", "shop", "--confirm", "shop"]);
    seen("shop", "DATABASE_URL", "");
    let release = hokku.json(&["releases:info", "--json", "-a", "shop"]);
    assert_eq!(release["description"], "Detach DATABASE (@ref:main-db)");

    // By our own command line.
    hokku.ok(&["addons:create", "external", "--url", "rediss://h:1", "--as", "CACHE", "-a", "shop"]);
    seen("shop", "CACHE_URL", "rediss://h:1");
    assert!(hokku.ok(&["addons:info", "CACHE", "-a", "shop"]).contains("shop::CACHE"));
    hokku.ok(&["addons:update", "CACHE", "--url", "rediss://h:2", "-a", "shop"]);
    seen("shop", "CACHE_URL", "rediss://h:2");
    let release = hokku.json(&["releases:info", "--json", "-a", "shop"]);
    assert!(release["description"].as_str().unwrap().starts_with("Update CACHE (@ref:external-"), "{release}");
    assert!(hokku.fails(&["addons:update", "CACHE", "--url", "nothing", "-a", "shop"]).contains("has to be a URL"));
    assert!(hokku.fails(&["addons:detach", "CACHE", "-a", "shop"]).contains("last attachment"));
    hokku.ok(&["addons:destroy", "CACHE", "-a", "shop", "--confirm", "shop"]);
    seen("shop", "CACHE_URL", "");
}
