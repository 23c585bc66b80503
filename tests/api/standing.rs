//! What a request was let in by holds when it changes something, or it changes nothing.
#![forbid(unsafe_code)]

use crate::server::Server;
use hokku::control::ControlError;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

/// `shop` with code, and bob, who may view, deploy and operate. He owns `bobs`.
async fn shop() -> (Server, String) {
    let server = Server::with_code().await;
    let bob = server.newcomer("bob@example.com", false).await;
    server.quietly("POST", "/apps/shop/collaborators", r#"{"user":"bob@example.com"}"#).await;
    let (status, _) = server.as_with(&bob, "POST", "/apps", r#"{"name":"bobs"}"#).await;
    assert_eq!(status, 201);
    (server, bob)
}

/// What bob asks for while the store is busy, and what is done to him after he was let in and before it is done.
async fn overtaken(
    server: &Server,
    bob: &str,
    (method, path, body): (&str, &str, &str),
    taken: &'static str,
) -> (u16, Value) {
    let (release, released) = mpsc::channel::<()>();
    let store = server.control.store.clone();
    let busy = tokio::spawn(async move {
        store
            .write(move |_| {
                released.recv().unwrap();
                Ok::<_, ControlError>(())
            })
            .await
    });
    let request = Server::request(method, path).header("authorization", format!("Bearer {bob}"));
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let asked = server.send_tcp(request);
    let taking = async {
        // By now he waits for the store to write down what he asks for.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let store = server.control.store.clone();
        let taken = tokio::spawn(async move {
            let take_away = move |tx: &hokku::store::Tx<'_>| {
                let account = hokku::store::accounts::find(tx, "bob@example.com")?.unwrap().id;
                match taken {
                    "access" => {
                        let app = hokku::store::apps::find(tx, "shop")?.unwrap().id;
                        hokku::store::collaborators::remove(tx, app, account)?;
                    }
                    "token" => hokku::store::tokens::delete_all(tx, account, None)?,
                    other => panic!("{other}"),
                }
                Ok::<_, ControlError>(())
            };
            store.write(take_away).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        release.send(()).unwrap();
        taken.await.unwrap().unwrap();
    };
    let (response, ()) = tokio::join!(asked, taking);
    busy.await.unwrap().unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// All that could have changed.
async fn state(server: &Server) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/apps",
        "/apps/shop/config-vars",
        "/apps/shop/formation",
        "/apps/shop/domains",
        "/apps/shop/log-drains",
        "/apps/shop/features",
        "/apps/shop/releases",
        "/apps/shop/builds",
        "/apps/shop/addons",
        "/apps/shop/buildpack-installations",
        "/addon-attachments",
        "/pipelines",
        "/pipeline-couplings",
        "/account/keys",
    ] {
        all.push(server.quietly("GET", path, "").await);
    }
    all
}

#[tokio::test]
async fn who_loses_access_after_he_was_let_in_changes_nothing_any_more() {
    let addon = r#"{"plan":"external","name":"db","config":{"url":"postgres://h/d"}}"#;
    let changes = [
        ("PATCH", "/apps/shop/config-vars", r#"{"KEY":"value"}"#, "app"),
        ("PATCH", "/apps/shop/formation", r#"{"updates":[{"type":"worker","quantity":3}]}"#, "app"),
        ("PATCH", "/apps/shop", r#"{"maintenance":true}"#, "app"),
        ("PATCH", "/apps/shop/features/runtime-dyno-metadata", r#"{"enabled":true}"#, "app"),
        ("POST", "/apps/shop/domains", r#"{"hostname":"www.example.com"}"#, "app"),
        ("POST", "/apps/shop/log-drains", r#"{"url":"https://logs.example.com/"}"#, "app"),
        ("POST", "/apps/shop/releases", r#"{"release":"3"}"#, "app"),
        ("POST", "/apps/shop/addons", addon, "app"),
        ("PUT", "/apps/shop/buildpack-installations", r#"{"updates":[{"buildpack":"heroku/go"}]}"#, "app"),
        ("POST", "/apps/shop/builds/actions/rebuild", "", "app"),
        // Named by the body only.
        ("POST", "/pipeline-couplings", r#"{"app":"shop","pipeline":"line","stage":"staging"}"#, "app"),
    ];
    for (method, path, body, hidden) in changes {
        let (server, bob) = shop().await;
        assert_eq!(server.as_with(&bob, "POST", "/pipelines", r#"{"name":"line"}"#).await.0, 201);
        let source = server.root().join(format!("sources/{}.tar.zst", server.app().await));
        std::fs::write(source, "the last source").unwrap();
        let before = state(&server).await;
        let (status, answer) = overtaken(&server, &bob, (method, path, body), "access").await;
        assert_eq!((status, &answer["resource"]), (404, &json!(hidden)), "{method} {path}: {answer}");
        assert_eq!(state(&server).await, before, "{method} {path}");
        // He was let in: the log names the app, which it does not for strangers.
        let events = server.quietly("GET", "/audit-events?user=bob@example.com&max=1", "").await;
        assert_eq!((&events[0]["path"], &events[0]["status"]), (&json!(path), &json!(404)), "{method} {path}");
        if path.starts_with("/apps/shop") {
            assert_eq!(events[0]["app"]["name"], "shop", "{method} {path}: too early");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_after_it_was_shown_changes_nothing_any_more() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG laptop";
    let key = json!({ "public_key": key }).to_string();
    for (method, path, body) in [
        ("PATCH", "/apps/shop/config-vars", r#"{"KEY":"value"}"#),
        ("POST", "/account/keys", key.as_str()),
        ("POST", "/apps", r#"{"name":"late"}"#),
        ("POST", "/pipelines", r#"{"name":"late"}"#),
        ("POST", "/oauth/authorizations", "{}"),
    ] {
        let (server, bob) = shop().await;
        let before = state(&server).await;
        let (status, answer) = overtaken(&server, &bob, (method, path, body), "token").await;
        assert_eq!(status, 401, "{method} {path}: {answer}");
        assert_eq!(state(&server).await, before, "{method} {path}");
        let tokens = server.quietly("GET", "/accounts/bob@example.com/authorizations", "").await;
        assert_eq!(tokens, json!([]), "{method} {path}");
        let events = server.quietly("GET", "/audit-events?user=bob@example.com&max=1", "").await;
        assert_eq!(events[0]["path"], path, "too early: it was not let in");
    }
}
