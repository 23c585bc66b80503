//! Add-ons, their attachments and the releases they make.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use serde_json::{Value, json};

fn text(row: &Value) -> String {
    row.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn add_ons_are_made_shared_renamed_and_taken_away() {
    let mut server = Server::with_code().await;
    server.quietly("POST", "/apps", r#"{"name":"reports"}"#).await;
    server.ask("GET", "/addon-services", "").await;
    server.ask("GET", "/addon-services/external/plans", "").await;
    server.ask("GET", "/plans/external:url", "").await;
    let body = json!({
        "plan": { "name": "external" }, "name": "shop-db", "attachment": {}, "config": { "url": "postgres://u:pw@db/shop" },
    });
    let headers = [("accept-expansion", "plan")];
    let made = server.ask_with("POST", "/apps/shop/addons", &body.to_string(), &headers).await;
    server.ask("GET", "/apps/shop/config-vars", "").await;
    server.quiet().await;
    server.ask("GET", "/apps/shop/releases/current", "").await;
    server.ask("GET", "/addons/shop-db/config", "").await;
    let attached =
        server.ask("POST", "/addon-attachments", r#"{"addon":"shop-db","app":"reports","name":"shop"}"#).await;
    server.ask("GET", "/apps/reports/config-vars", "").await;
    server.ask("GET", "/apps/reports/addons/SHOP", "").await;
    server.ask("GET", "/apps/reports/addons", "").await;
    server.ask("GET", "/addon-attachments", "").await;
    let resolve = [("accept-inclusion", "addon:plan,config_vars")];
    let body = r#"{"addon_attachment":"DATABASE_URL","app":"shop"}"#;
    server.ask_with("POST", "/actions/addon-attachments/resolve", body, &resolve).await;
    server.ask("POST", "/actions/addons/resolve", r#"{"addon":"shop","app":"reports"}"#).await;
    server.ask("PATCH", "/apps/shop/addons/shop-db", r#"{"name":"main-db"}"#).await;
    server.ask("GET", "/apps/reports/releases/current", "").await;
    let path = format!("/apps/shop/addons/{}", text(&made["id"]));
    server.ask("DELETE", &path, "{}").await;
    server.ask("DELETE", &format!("/addon-attachments/{}", text(&attached["id"])), "").await;
    server.ask("GET", "/apps/reports/config-vars", "").await;
    server.ask("DELETE", &path, r#"{"force":false}"#).await;
    server.ask("GET", "/apps/shop/config-vars", "").await;
    server.quiet().await;
    server.ask("GET", "/apps/shop/releases/current", "").await;
    server.ask("GET", "/addons", "").await;
    assert!(!server.log().await.contains("pw@db"));
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_is_no_add_on_changes_nothing() {
    let mut server = Server::with_code().await;
    server.quietly("PATCH", "/apps/shop/config-vars", r#"{"REDIS_URL":"by hand"}"#).await;
    let order = |plan: &str, config: Value, name: &str| {
        json!({ "plan": plan, "config": config, "attachment": { "name": name } }).to_string()
    };
    let url = || json!({ "url": "redis://:secret@h" });
    for body in [
        order("heroku-postgresql", url(), "A"),
        order("external:large", url(), "A"),
        order("external", json!({}), "A"),
        order("external", json!({ "url": "secret" }), "A"),
        order("external", json!({ "url": ["secret"] }), "A"),
        order("external", json!({ "url": "redis://h", "size": 1 }), "A"),
        order("external", url(), "1A"),
        order("external", url(), "REDIS"),
        "{}".to_owned(),
    ] {
        server.ask("POST", "/apps/shop/addons", &body).await;
    }
    server.ask("GET", "/addons", "").await;
    // Nobody said what it is to be called, and that name is not free.
    let body = json!({ "plan": "external", "config": url(), "name": "cache" }).to_string();
    let made = server.quietly("POST", "/apps/shop/addons", &body).await;
    assert_eq!(made["config_vars"], json!(["REDIS_2_URL"]));
    server.ask("POST", "/apps/shop/addons", &body).await;
    for patch in [r#"{"REDIS_2_URL":"other"}"#, r#"{"REDIS_2_URL":null,"A":"1"}"#] {
        server.ask("PATCH", "/apps/shop/config-vars", patch).await;
    }
    let attachment = server.quietly("GET", "/apps/shop/addon-attachments/REDIS_2", "").await;
    server.ask("DELETE", &format!("/addon-attachments/{}", text(&attachment["id"])), "").await;
    for (method, path) in [
        ("GET", "/addons/nothing"),
        ("GET", "/apps/shop/addons/nothing"),
        ("GET", "/addon-attachments/nothing"),
        ("GET", "/addon-services/nothing"),
        ("GET", "/plans/external:large"),
    ] {
        server.ask(method, path, "").await;
    }
    server.ask("POST", "/actions/addons/resolve", r#"{"addon":"nothing","app":"shop"}"#).await;
    server.ask("POST", "/actions/addon-attachments/resolve", r#"{"addon_attachment":"NOTHING","app":"shop"}"#).await;
    server.ask("POST", "/addon-attachments", r#"{"addon":"nothing","app":"shop"}"#).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn going_back_leaves_add_ons_as_they_are_and_an_app_takes_its_own_with_it() {
    let server = Server::with_code().await; // v3
    server.quietly("POST", "/apps", r#"{"name":"reports"}"#).await;
    let body = json!({ "plan": "external", "name": "db", "config": { "url": "postgres://h/d" } });
    server.quietly("POST", "/apps/shop/addons", &body.to_string()).await; // v4
    server.quietly("POST", "/addon-attachments", r#"{"addon":"db","app":"reports"}"#).await;
    server.quiet().await;
    let back = server.quietly("POST", "/apps/shop/releases", r#"{"release":"3"}"#).await;
    assert_eq!(back["addon_plan_names"], json!(["external:url"]), "{back}");
    let vars = server.quietly("GET", "/apps/shop/config-vars", "").await;
    assert_eq!(vars["DATABASE_URL"], "postgres://h/d");
    let before = server.quietly("GET", "/apps/shop/releases/3/config-vars", "").await;
    assert_eq!(before["DATABASE_URL"], Value::Null);

    server.quietly("DELETE", "/apps/shop", "").await;
    let vars = server.quietly("GET", "/apps/reports/config-vars", "").await;
    assert_eq!(vars, json!({}));
    let release = server.quietly("GET", "/apps/reports/releases/current", "").await;
    assert_eq!(release["description"], "Detach DATABASE (@ref:db)");
    assert_eq!(server.quietly("GET", "/addons", "").await, json!([]));
}

#[tokio::test]
async fn an_add_on_gets_another_url_in_its_place() {
    let mut server = Server::with_code().await; // v3
    server.quietly("POST", "/apps", r#"{"name":"reports"}"#).await;
    let body = json!({ "plan": "external", "name": "db", "config": { "url": "postgres://u:old@h/d" } });
    server.quietly("POST", "/apps/shop/addons", &body.to_string()).await; // v4
    for (app, name) in [("shop", "MAIN"), ("reports", "SHOP")] {
        let body = json!({ "addon": "db", "app": app, "name": name });
        server.quietly("POST", "/addon-attachments", &body.to_string()).await; // v5; v3
    }
    server.quiet().await;
    for body in [
        r#"{"config":{}}"#,
        r#"{"config":{"url":"secret"}}"#,
        r#"{"config":{"url":"postgres://h","size":1}}"#,
        r#"{"config":{"url":["secret"]}}"#,
        r#"{"config":{"url":"postgres://h"},"name":"A"}"#,
        r#"{"config":{"url":"postgres://h"},"plan":"external:large"}"#,
    ] {
        server.ask("PATCH", "/apps/shop/addons/DATABASE", body).await;
    }
    server.note("nothing has changed by that:");
    server.ask("PATCH", "/apps/shop/addons/db", r#"{"config":{"url":"postgres://u:old@h/d"}}"#).await;
    assert_eq!(server.quietly("GET", "/apps/shop/releases/current", "").await["version"], 5);
    server.note("and by this:");
    server.ask("PATCH", "/apps/shop/addons/db", r#"{"config":{"url":"postgres://u:fresh@h/d"},"name":"main"}"#).await;
    server.ask("GET", "/apps/shop/config-vars", "").await;
    server.ask("GET", "/apps/reports/config-vars", "").await;
    server.ask("GET", "/apps/shop/releases/5/config-vars", "").await;
    server.quiet().await;
    server.ask("GET", "/apps/shop/releases/current", "").await;
    server.ask("GET", "/apps/reports/releases/current", "").await;
    assert!(!server.log().await.contains("u:fresh"));
    assert_said!(server.transcript());
}
