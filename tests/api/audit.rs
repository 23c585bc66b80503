//! What is refused: bounded, and written down.
#![forbid(unsafe_code)]

use crate::server::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};

async fn log_in(server: &Server, email: &str, password: &str) -> Response<Incoming> {
    let basic = format!("Basic {}", STANDARD.encode(format!("{email}:{password}")));
    let request = Server::request("POST", "/oauth/authorizations").header("authorization", basic);
    server.send_tcp(request.body(Full::from("{}")).unwrap()).await
}

/// Newest first: who, what, of which app, with what answer, how often.
async fn events(server: &Server, token: &str, query: &str) -> Vec<String> {
    let (status, events) = server.as_with(token, "GET", &format!("/audit-events?{query}"), "").await;
    assert_eq!(status, 200, "{events}");
    let line = |row: &Value| {
        let (who, what) = (row["actor"]["email"].as_str().unwrap(), row["action"].as_str().unwrap());
        let app = row["app"]["name"].as_str().unwrap_or("-");
        format!("{who} {what} {app} {} x{}", row["status"], row["count"])
    };
    events.as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn guessing_passwords_ends_soon_and_locks_nobody_out() {
    let server = Server::start().await;
    let admin = server.newcomer("root@example.com", true).await;
    server.newcomer("ann@example.com", false).await;
    for _ in 0..5 {
        assert_eq!(log_in(&server, "ann@example.com", "a wrong one").await.status(), 401);
    }
    let refused = log_in(&server, "ann@example.com", "correct horse").await;
    assert_eq!(refused.status(), 429, "right or not: it is not looked at any more");
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((55..=61).contains(&seconds), "{seconds}");
    // Others at the same address go on, and so does she elsewhere: root's socket is another place.
    assert_eq!(log_in(&server, "root@example.com", "correct horse").await.status(), 201);
    let basic = format!("Basic {}", STANDARD.encode("ann@example.com:correct horse"));
    let request = Server::request("POST", "/oauth/authorizations").header("authorization", basic);
    assert_eq!(server.send(request.body(Full::from("{}")).unwrap()).await.status(), 201);

    let failed = events(&server, &admin, "action=log-in").await;
    assert_eq!(failed, ["ann@example.com log-in:failed - 429 x1", "ann@example.com log-in:failed - 401 x5"]);
}

#[tokio::test]
async fn a_stolen_token_is_no_way_to_guess_the_password() {
    let server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let body = r#"{"password":"a wrong one","new_password":"battery staple"}"#;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(server.as_with(&ann, "PATCH", "/account", body).await.0);
    }
    assert_eq!(statuses, [422, 422, 422, 422, 422, 429]);
}

#[tokio::test]
async fn refusals_are_written_down_once_a_minute_each() {
    let server = Server::start().await;
    let admin = server.newcomer("root@example.com", true).await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    assert_eq!(server.as_with(&ann, "POST", "/apps", r#"{"name":"shop"}"#).await.0, 201);
    for _ in 0..3 {
        assert_eq!(server.as_with(&bob, "DELETE", "/apps/shop", "").await.0, 404);
    }
    let body = r#"{"user":"bob@example.com","permissions":["view"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/shop/collaborators", body).await.0, 201);
    for _ in 0..4 {
        assert_eq!(server.as_with(&bob, "DELETE", "/apps/shop", "").await.0, 403);
        assert_eq!(server.as_with(&bob, "GET", "/apps/shop/config-vars", "").await.0, 403);
        assert_eq!(server.as_with("hokku_nonsense", "GET", "/apps/shop", "").await.0, 401);
        assert_eq!(server.as_with(&bob, "GET", "/apps/nope", "").await.0, 404);
    }
    let bobs = ["bob@example.com read shop 403 x4", "bob@example.com app:destroy shop 403 x4"];
    // What he could not see is not shown to be there.
    let own = events(&server, &bob, "").await;
    assert_eq!(own[..2], bobs);
    assert_eq!(own[2], "bob@example.com app:destroy - 404 x3");
    assert_eq!(events(&server, &ann, "").await[..2], bobs, "the app's owner sees who tried");
    let all = events(&server, &admin, "").await;
    assert!(all.contains(&"unknown token:refused - 401 x4".to_owned()), "{all:?}");
}

#[tokio::test]
async fn trying_from_everywhere_does_not_fill_the_log() {
    let server = Server::start().await;
    let admin = server.newcomer("root@example.com", true).await;
    for name in 0..150 {
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}@example.com:hokku_nonsense")));
        let request = Server::request("GET", "/apps").header("authorization", basic);
        assert_eq!(server.send_tcp(request.body(Full::default()).unwrap()).await.status(), 401);
    }
    let refused = events(&server, &admin, "action=token&max=1000").await;
    assert_eq!(refused.len(), 100);
    assert_eq!(events(&server, &admin, "action=refused&max=1000").await, ["others refused:many - 401 x50"]);
}

#[tokio::test]
async fn an_app_is_named_also_when_only_the_body_does_and_its_owner_keeps_reading() {
    let server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    for name in ["shop", "live"] {
        assert_eq!(server.as_with(&ann, "POST", "/apps", &json!({ "name": name }).to_string()).await.0, 201);
    }
    let addon = r#"{"plan":"external","name":"shop-db","config":{"url":"postgres://u:p@h/d"}}"#;
    assert_eq!(server.as_with(&ann, "POST", "/apps/shop/addons", addon).await.0, 201);
    let attach = r#"{"addon":"shop-db","app":"live"}"#;
    assert_eq!(server.as_with(&ann, "POST", "/addon-attachments", attach).await.0, 201);
    assert_eq!(server.as_with(&ann, "POST", "/pipelines", r#"{"name":"line"}"#).await.0, 201);
    let couple = r#"{"app":"shop","pipeline":"line","stage":"staging"}"#;
    assert_eq!(server.as_with(&ann, "POST", "/pipeline-couplings", couple).await.0, 201);
    let body = r#"{"user":"bob@example.com","permissions":["manage"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/live/collaborators", body).await.0, 201);
    assert_eq!(server.as_with(&bob, "DELETE", "/apps/live", "").await.0, 200);
    let seen = events(&server, &ann, "").await;
    for line in [
        "ann@example.com addon:attach live 201 x1",
        "ann@example.com pipeline:couple shop 201 x1",
        "bob@example.com app:destroy live 200 x1",
    ] {
        assert!(seen.contains(&line.to_owned()), "{line}: {seen:?}");
    }
}
