//! What one account may do to others, and how much it may keep.
#![forbid(unsafe_code)]

use crate::server::Server;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

async fn people() -> (Server, String, String, String) {
    let server = Server::start().await;
    let admin = server.newcomer("root@example.com", true).await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    (server, admin, ann, bob)
}

async fn app(server: &Server, token: &str, name: &str) {
    let (status, made) = server.as_with(token, "POST", "/apps", &json!({ "name": name }).to_string()).await;
    assert_eq!(status, 201, "{made}");
}

fn message(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_administrator_lists_and_ends_the_tokens_of_others() {
    let (server, admin, ann, bob) = people().await;
    let path = "/accounts/ann@example.com/authorizations";
    assert_eq!(server.as_with(&bob, "GET", path, "").await.0, 403);
    let (_, rows) = server.as_with(&admin, "GET", path, "").await;
    let row = &rows.as_array().unwrap()[0];
    assert_eq!((&row["description"], &row["user"]["email"]), (&json!("test"), &json!("ann@example.com")));
    assert_eq!(row["access_token"]["token"], Value::Null);
    let token = format!("{path}/{}", row["id"].as_str().unwrap());
    assert_eq!(server.as_with(&bob, "DELETE", &token, "").await.0, 403);
    let other = token.replace("ann@", "bob@");
    assert_eq!(server.as_with(&admin, "DELETE", &other, "").await.0, 404, "it is not bob's");
    assert_eq!(server.as_with(&ann, "GET", "/account", "").await.0, 200);
    assert_eq!(server.as_with(&admin, "DELETE", &token, "").await.0, 200);
    assert_eq!(server.as_with(&ann, "GET", "/account", "").await.0, 401);
    let (_, events) = server.as_with(&admin, "GET", "/audit-events?action=authorization:revoke", "").await;
    assert_eq!(events[0]["note"], "test of ann@example.com");
}

#[tokio::test]
async fn an_account_is_removed_with_all_that_it_owns_in_that_moment() {
    let (server, admin, ann, bob) = people().await;
    for name in ["shop", "live"] {
        app(&server, &ann, name).await;
    }
    let body = r#"{"user":"bob@example.com","permissions":["view"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/shop/collaborators", body).await.0, 201);
    let refused = server.as_with(&admin, "DELETE", "/accounts/ann@example.com", "").await;
    let text = "ann@example.com owns live, shop: transfer or destroy what it owns first, or remove it with --transfer-to EMAIL.";
    assert_eq!(message(&refused), (422, text));
    for nobody in ["ann@example.com", "nobody@example.com"] {
        let body = json!({ "transfer_to": nobody }).to_string();
        assert_eq!(server.as_with(&admin, "DELETE", "/accounts/ann@example.com", &body).await.0, 422, "{nobody}");
    }
    let body = r#"{"transfer_to":"bob@example.com"}"#;
    assert_eq!(server.as_with(&admin, "DELETE", "/accounts/ann@example.com", body).await.0, 200);
    assert_eq!(server.as_with(&ann, "GET", "/apps", "").await.0, 401);
    let (_, apps) = server.as_with(&bob, "GET", "/users/~/apps", "").await;
    let owned: Vec<_> = apps.as_array().unwrap().iter().map(|app| (&app["name"], &app["owner"]["email"])).collect();
    let bobs = json!("bob@example.com");
    assert_eq!(owned, [(&json!("live"), &bobs), (&json!("shop"), &bobs)]);
    let (_, others) = server.as_with(&bob, "GET", "/teams/apps/shop/collaborators", "").await;
    assert!(!others.to_string().contains("view\"}]"), "the owner is no collaborator beside: {others}");
}

#[tokio::test]
async fn an_add_on_that_others_use_goes_only_if_one_may_take_it_from_them() {
    let (server, admin, ann, bob) = people().await;
    app(&server, &ann, "shop").await;
    app(&server, &bob, "bobs").await;
    let addon = r#"{"plan":"external","name":"shop-db","config":{"url":"postgres://u:p@h/d"}}"#;
    assert_eq!(server.as_with(&ann, "POST", "/apps/shop/addons", addon).await.0, 201);
    let access = r#"{"user":"bob@example.com","permissions":["deploy","operate"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/shop/collaborators", access).await.0, 201);
    let attach = r#"{"addon":"shop-db","app":"bobs"}"#;
    let (status, attached) = server.as_with(&bob, "POST", "/addon-attachments", attach).await;
    assert_eq!(status, 201);
    let unseen =
        "shop-db is attached to 1 app(s) that you have no access to: whoever may operate that has to detach it first.";
    let forced = r#"{"force":true}"#;
    assert_eq!(message(&server.as_with(&ann, "DELETE", "/apps/shop/addons/shop-db", forced).await), (422, unseen));
    assert_eq!(message(&server.as_with(&ann, "DELETE", "/apps/shop", "").await), (422, unseen));
    let access = r#"{"user":"ann@example.com","permissions":["view"]}"#;
    assert_eq!(server.as_with(&bob, "POST", "/teams/apps/bobs/collaborators", access).await.0, 201);
    let named = "shop-db is attached to bobs: whoever may operate that has to detach it first.";
    assert_eq!(message(&server.as_with(&ann, "DELETE", "/apps/shop", "").await), (422, named));
    // Nothing was taken away, and what was detached there is no reason any more.
    let (_, vars) = server.as_with(&bob, "GET", "/apps/bobs/config-vars", "").await;
    assert_eq!(vars.as_object().unwrap().len(), 1, "{vars}");
    let detach = format!("/addon-attachments/{}", attached["id"].as_str().unwrap());
    assert_eq!(server.as_with(&bob, "DELETE", &detach, "").await.0, 200);
    assert_eq!(server.as_with(&bob, "POST", "/addon-attachments", attach).await.0, 201);
    assert_eq!(server.as_with(&admin, "DELETE", "/apps/shop", "").await.0, 200, "who may operate both may do both");
    let (_, releases) = server.as_with(&bob, "GET", "/apps/bobs/releases", "").await;
    let last = releases.as_array().unwrap().iter().max_by_key(|release| release["version"].as_u64()).unwrap();
    assert_eq!(last["user"]["email"], "root@example.com", "in whose name it went");
}

#[tokio::test]
async fn sources_that_are_not_built_are_bounded_for_each_account() {
    let (server, _, ann, bob) = people().await;
    app(&server, &ann, "shop").await;
    let place = async |token: &str| {
        let (status, made) = server.as_with(token, "POST", "/sources", "").await;
        let url = made["source_blob"]["put_url"].as_str().map(|url| url["http://paas.test:5000".len()..].to_owned());
        (status, url.unwrap_or_default())
    };
    let put = async |path: &str, size: usize| {
        let body = Full::<Bytes>::from(vec![b'x'; size]);
        server.send_tcp(Server::request("PUT", path).body(body).unwrap()).await.status().as_u16()
    };
    let mut places = Vec::new();
    for _ in 0..20 {
        places.push(place(&ann).await.1);
    }
    assert_eq!(place(&ann).await.0, 429);
    assert_eq!(server.as_with(&ann, "POST", "/apps/shop/sources", "").await.0, 429);
    assert_eq!(place(&bob).await.0, 201, "another's are others");
    // Four of the largest size, which is 100,000 bytes here.
    for path in &places[..4] {
        assert_eq!(put(path, 99_000).await, 200);
    }
    assert_eq!(put(&places[4], 5_000).await, 429);
    assert_eq!(put(&places[4], 3_000).await, 200);
    let source = json!({ "source_blob": { "url": format!("http://paas.test:5000{}", places[0]) } }).to_string();
    assert_eq!(server.as_with(&ann, "POST", "/apps/shop/builds", &source).await.0, 201);
    assert_eq!(put(&places[5], 90_000).await, 200, "what is built makes room");
    assert_eq!(place(&ann).await.0, 201);
}

#[tokio::test]
async fn an_administrators_own_couplings_are_of_his_own_apps() {
    let (server, admin, ann, _) = people().await;
    for (token, name) in [(&ann, "anns"), (&admin, "admins")] {
        app(&server, token, name).await;
        let line = format!("{name}-line");
        assert_eq!(server.as_with(token, "POST", "/pipelines", &json!({ "name": line }).to_string()).await.0, 201);
        let couple = json!({ "app": name, "pipeline": line, "stage": "staging" }).to_string();
        assert_eq!(server.as_with(token, "POST", "/pipeline-couplings", &couple).await.0, 201);
    }
    let count = async |path| server.as_with(&admin, "GET", path, "").await.1.as_array().unwrap().len();
    assert_eq!(count("/users/~/pipeline-couplings").await, 1);
    assert_eq!(count("/pipeline-couplings").await, 2);
}
