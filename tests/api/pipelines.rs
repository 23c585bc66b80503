//! Pipelines and promotion.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::{Server, until};
use serde_json::{Value, json};

fn text(row: &Value) -> String {
    row.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pipelines_are_made_filled_promoted_and_removed() {
    let mut server = Server::with_code().await;
    server.quietly("POST", "/apps", r#"{"name":"live"}"#).await;
    server.ask("GET", "/apps/shop/pipeline-couplings", "").await;
    let account = text(&server.quietly("GET", "/account", "").await["id"]);
    let body = json!({ "name": "line", "owner": { "id": account, "type": "user" }, "generation": { "name": "cedar" } });
    let pipeline = text(&server.ask("POST", "/pipelines", &body.to_string()).await["id"]);
    server.ask("GET", "/pipelines?eq%5Bname%5D=line", "").await;
    server.ask("GET", "/pipelines?eq%5Bname%5D=other", "").await;
    let place = |app: &str, stage: &str| json!({ "app": app, "pipeline": pipeline, "stage": stage }).to_string();
    server.ask("POST", "/pipeline-couplings", &place("shop", "development")).await;
    server.ask("GET", "/pipelines/line/pipeline-couplings", "").await;
    let coupling = text(&server.ask("POST", "/pipeline-couplings", &place("live", "production")).await["id"]);
    server.ask("PATCH", &format!("/pipeline-couplings/{coupling}"), r#"{"stage":"staging"}"#).await;
    server.ask("GET", "/apps/live/pipeline-couplings", "").await;
    let ends = json!({
        "pipeline": { "id": pipeline }, "source": { "app": { "id": "shop" } }, "targets": [{ "app": { "id": "live" } }],
    });
    let promotion = text(&server.ask("POST", "/pipeline-promotions", &ends.to_string()).await["id"]);
    let path = format!("/pipeline-promotions/{promotion}");
    until(async || server.quietly("GET", &path, "").await["status"] == "completed").await;
    server.ask("GET", &path, "").await;
    server.ask("GET", &format!("/pipeline-promotions/{promotion}/promotion-targets"), "").await;
    server.ask("GET", "/apps/live/releases/current", "").await;
    server.ask("PATCH", "/pipelines/line", r#"{"name":"track"}"#).await;
    server.ask("DELETE", &format!("/pipeline-couplings/{coupling}"), "").await;
    server.ask("DELETE", "/pipelines/track", "").await;
    server.ask("GET", "/pipeline-couplings", "").await;
    server.ask("GET", &format!("/pipeline-promotions/{promotion}"), "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_is_no_promotion_changes_nothing() {
    let mut server = Server::with_code().await;
    for name in ["live", "outside"] {
        server.quietly("POST", "/apps", &json!({ "name": name }).to_string()).await;
    }
    for body in [r#"{"name":"X"}"#, r#"{"name":"line","owner":{"id":"~","type":"team"}}"#, "{}"] {
        server.ask("POST", "/pipelines", body).await;
    }
    server.quietly("POST", "/pipelines", r#"{"name":"line"}"#).await;
    server.ask("POST", "/pipelines", r#"{"name":"line"}"#).await;
    for (app, stage) in [("shop", "live"), ("nowhere", "staging")] {
        let body = json!({ "app": app, "pipeline": "line", "stage": stage });
        server.ask("POST", "/pipeline-couplings", &body.to_string()).await;
    }
    for (app, stage) in [("shop", "staging"), ("live", "production")] {
        let body = json!({ "app": app, "pipeline": "line", "stage": stage });
        server.quietly("POST", "/pipeline-couplings", &body.to_string()).await;
    }
    server.ask("POST", "/pipeline-couplings", r#"{"app":"shop","pipeline":"line","stage":"production"}"#).await;
    for (source, targets) in [
        ("shop", vec![]),
        ("shop", vec!["shop"]),
        ("shop", vec!["live", "live"]),
        ("shop", vec!["outside"]),
        ("live", vec!["shop"]),
    ] {
        let targets: Vec<Value> = targets.iter().map(|app| json!({ "app": { "name": app } })).collect();
        let body = json!({ "pipeline": "line", "source": { "app": { "name": source } }, "targets": targets });
        server.ask("POST", "/pipeline-promotions", &body.to_string()).await;
    }
    server.ask("GET", "/pipeline-promotions/x/promotion-targets", "").await;
    server.ask("GET", "/apps/live/releases", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn the_latest_of_each_app_of_a_pipeline_is_told_to_who_sees_the_app() {
    let mut server = Server::with_code().await; // v3
    server.quietly("POST", "/apps", r#"{"name":"live"}"#).await;
    server.quietly("POST", "/pipelines", r#"{"name":"line"}"#).await;
    for (app, stage) in [("shop", "staging"), ("live", "production")] {
        let body = json!({ "app": app, "pipeline": "line", "stage": stage });
        server.quietly("POST", "/pipeline-couplings", &body.to_string()).await;
    }
    server.quietly("PATCH", "/apps/shop/config-vars", r#"{"A":"1"}"#).await; // v4
    let versions = async |path: &str| {
        let rows = server.quietly("GET", &format!("/pipelines/line/{path}"), "").await;
        let mut rows: Vec<_> =
            rows.as_array().unwrap().iter().map(|row| (text(&row["app"]["name"]), row["version"].clone())).collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        rows
    };
    let row = |app: &str, version: u32| (app.to_owned(), json!(version));
    assert_eq!(versions("latest-releases").await, [row("live", 2), row("shop", 4)]);
    assert_eq!(versions("latest-deployments").await, [row("shop", 3)]);
    server.quietly("POST", "/apps/shop/releases", r#"{"release":"3"}"#).await; // v5, the same code
    assert_eq!(versions("latest-deployments").await, [row("shop", 3)]);
    server.deploy("beef").await; // v6
    assert_eq!(versions("latest-deployments").await, [row("shop", 6)]);
    server.ask("GET", "/pipelines/line/latest-deployments", "").await;
    server.ask("GET", "/pipelines/line/latest-builds", "").await;
    server.ask("GET", "/pipelines/other/latest-builds", "").await;

    // Who sees one app of it sees nothing of the other.
    let ann = server.newcomer("ann@example.com", false).await;
    server.quietly("POST", "/apps/live/collaborators", r#"{"user":"ann@example.com"}"#).await;
    let (status, rows) = server.as_with(&ann, "GET", "/pipelines/line/latest-releases", "").await;
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 1));
    assert_eq!(rows[0]["app"]["name"], "live");
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_pipeline_is_given_to_another_by_who_may_manage_it() {
    let server = Server::start().await;
    let (ann, bob) = (server.newcomer("ann@example.com", false).await, server.newcomer("bob@example.com", false).await);
    assert_eq!(server.as_with(&ann, "POST", "/pipelines", r#"{"name":"line"}"#).await.0, 201);
    let to = |whom: &str, kind: &str| {
        json!({ "pipeline": { "id": "line" }, "new_owner": { "id": whom, "type": kind } }).to_string()
    };
    let path = "/pipeline-transfers";
    assert_eq!(server.as_with(&bob, "POST", path, &to("bob@example.com", "user")).await.0, 404, "he sees none");
    assert_eq!(server.as_with(&ann, "POST", path, &to("nobody@example.com", "user")).await.0, 404);
    assert_eq!(server.as_with(&ann, "POST", path, &to("bob@example.com", "team")).await.0, 422);
    let (_, account) = server.as_with(&bob, "GET", "/account", "").await;
    let (status, given) = server.as_with(&ann, "POST", path, &to(&text(&account["id"]), "user")).await;
    assert_eq!((status, &given["new_owner"]["id"]), (201, &account["id"]), "{given}");
    assert_eq!(server.as_with(&ann, "GET", "/pipelines/line", "").await.0, 404, "it is not hers any more");
    assert_eq!(server.as_with(&bob, "PATCH", "/pipelines/line", r#"{"name":"track"}"#).await.0, 200);
    let (status, stack) = server.as_with(&bob, "GET", "/pipelines/track/pipeline-stack", "").await;
    assert_eq!((status, &stack["stack"]["name"]), (200, &json!("host")));
}
