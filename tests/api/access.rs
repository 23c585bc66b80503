//! Who may ask, and what is there for everybody.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::{Server, altered};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

#[tokio::test]
async fn tokens_are_made_used_and_taken_back() {
    let mut server = Server::start().await;
    let body = r#"{"description":"laptop","expires_in":2592000,"scope":["global"]}"#;
    let made = server.quietly("POST", "/oauth/authorizations", body).await;
    let (token, id) = (made["access_token"]["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let bearer = format!("Bearer {token}");
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{token}")));
    for header in [bearer.clone(), basic(""), basic("admin@localhost")] {
        assert_eq!(status(&server, "GET", "/account", Some(&header)).await, 200);
    }
    let wrong = format!("Bearer {}", altered(token));
    for header in [None, Some(wrong.as_str()), Some("Bearer"), Some("Bearer "), Some("Basic Og=="), Some(token)] {
        assert_eq!(status(&server, "GET", "/account", header).await, 401, "{header:?}");
    }
    assert_eq!(status(&server, "GET", "/oauth/authorizations/~", Some(&bearer)).await, 200);
    assert_eq!(status(&server, "DELETE", &format!("/oauth/authorizations/{id}"), Some(&bearer)).await, 200);
    assert_eq!(status(&server, "GET", "/account", Some(&bearer)).await, 401);

    server.ask("POST", "/oauth/authorizations", r#"{"description":"phone"}"#).await;
    server.ask("GET", "/oauth/authorizations", "").await;
    server.ask("GET", "/oauth/authorizations/~", "").await;
    server.ask("DELETE", &format!("/oauth/authorizations/{id}"), "").await;
    server.ask("DELETE", "/oauth/sessions/~", "").await;
    server.ask("POST", "/oauth/authorizations", r#"{"expires_in":-1}"#).await;
    server.ask("POST", "/oauth/authorizations", r#"{"expires_in":"soon"}"#).await;
    let typed = server.quietly("POST", "/oauth/authorizations", r#"{"expires_in":"3600"}"#).await;
    assert!((3590..=3600).contains(&typed["access_token"]["expires_in"].as_u64().unwrap()));
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_token_is_good_for_its_scope() {
    let mut server = Server::with_code().await;
    for (scope, can) in [
        ("identity", [200, 403, 403, 403, 403, 403]),
        ("read", [200, 200, 403, 403, 403, 403]),
        ("read-protected", [200, 200, 200, 403, 403, 403]),
        ("write", [200, 200, 403, 202, 403, 403]),
        ("write-protected", [200, 200, 200, 202, 201, 403]),
        ("global", [200, 200, 200, 202, 201, 200]),
    ] {
        let made = server.quietly("POST", "/oauth/authorizations", &format!(r#"{{"scope":["{scope}"]}}"#)).await;
        let bearer = format!("Bearer {}", made["access_token"]["token"].as_str().unwrap());
        let mut found = Vec::new();
        for (method, path, body) in [
            ("GET", "/account", ""),
            ("GET", "/apps/shop", ""),
            ("GET", "/apps/shop/config-vars", ""),
            ("DELETE", "/apps/shop/dynos", ""),
            ("POST", "/apps/shop/dynos", r#"{"command":"env"}"#),
            ("GET", "/oauth/authorizations", ""),
        ] {
            let request =
                Server::request(method, path).header("authorization", &bearer).body(Full::<Bytes>::from(body));
            found.push(server.send_tcp(request.unwrap()).await.status().as_u16());
        }
        assert_eq!(found, can, "{scope}");
    }
    let all = server.quietly("POST", "/oauth/authorizations", r#"{"description":"all"}"#).await;
    let bearer = format!("Bearer {}", all["access_token"]["token"].as_str().unwrap());
    let request = Server::request("GET", "/oauth/authorizations").header("authorization", &bearer);
    let response = server.send_tcp(request.body(Full::<Bytes>::default()).unwrap()).await;
    let listed = response.into_body().collect().await.unwrap().to_bytes();
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let shown = listed.as_array().unwrap().iter().filter(|row| !row["access_token"]["token"].is_null());
    let shown: Vec<_> = shown.map(|row| (&row["id"], &row["access_token"]["token"])).collect();
    assert_eq!(shown, [(&all["id"], &all["access_token"]["token"])], "only what the client has shown itself");

    let made = server.quietly("POST", "/oauth/authorizations", r#"{"description":"ci","scope":["read"]}"#).await;
    let path = format!("/oauth/authorizations/{}", made["id"].as_str().unwrap());
    let old = format!("Bearer {}", made["access_token"]["token"].as_str().unwrap());
    server.ask_tcp("GET", "/apps/shop/config-vars", &[("authorization", &old)]).await;
    server.ask("PATCH", &path, r#"{"description":"status page"}"#).await;
    let renewed = server.ask("POST", &format!("{path}/actions/regenerate-tokens"), "").await;
    let new = format!("Bearer {}", renewed["access_token"]["token"].as_str().unwrap());
    assert_eq!(status(&server, "GET", "/apps", Some(&old)).await, 401);
    assert_eq!(status(&server, "GET", "/apps", Some(&new)).await, 200);
    assert_eq!(status(&server, "POST", "/apps", Some(&new)).await, 403);
    server.ask("POST", "/oauth/authorizations", r#"{"scope":["everything"]}"#).await;
    server.ask("GET", "/oauth/clients", "").await;
    server.ask("GET", "/oauth/sessions", "").await;
    let transcript = server.transcript().replace(&old, "Bearer [token]");
    assert_said!(transcript);
}

#[tokio::test]
async fn an_expired_token_is_none() {
    let server = Server::start().await;
    let made = server.quietly("POST", "/oauth/authorizations", r#"{"expires_in":0}"#).await;
    let bearer = format!("Bearer {}", made["access_token"]["token"].as_str().unwrap());
    assert_eq!(status(&server, "GET", "/account", Some(&bearer)).await, 401);
}

async fn status(server: &Server, method: &str, path: &str, authorization: Option<&str>) -> u16 {
    let mut request = Server::request(method, path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    server.send_tcp(request.body(Full::<Bytes>::default()).unwrap()).await.status().as_u16()
}

#[tokio::test]
async fn nothing_but_secret_urls_is_answered_without_a_token() {
    let mut server = Server::with_app().await;
    for (method, path) in [
        ("GET", "/account"),
        ("GET", "/apps"),
        ("POST", "/apps"),
        ("GET", "/apps/shop"),
        ("DELETE", "/apps/shop"),
        ("GET", "/apps/nope"),
        ("GET", "/apps/shop/config-vars"),
        ("GET", "/apps/shop/releases/1/config-vars"),
        ("POST", "/apps/shop/dynos"),
        ("POST", "/apps/shop/log-sessions"),
        ("POST", "/sources"),
        ("GET", "/oauth/authorizations"),
        ("GET", "/stacks"),
    ] {
        assert_eq!(status(&server, method, path, None).await, 401, "{method} {path}");
    }
    server.ask_tcp("GET", "/apps", &[]).await;
    server.note("a wrong token is wrong on the Unix socket too:");
    server.ask_with("GET", "/apps", "", &[("authorization", "Bearer x")]).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn the_account_and_what_is_not_there() {
    let mut server = Server::start().await;
    server.ask("GET", "/account", "").await;
    server.ask("GET", "/users/~", "").await;
    server.ask("GET", "/users/someone@example.com", "").await;
    server.ask("GET", "/users/someone@example.com/apps", "").await;
    server.ask("GET", "/users/~/apps", "").await;
    server.ask("GET", "/nothing/here", "").await;
    server.ask("PUT", "/apps", "").await;
    server.ask("GET", "/", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn a_request_keeps_the_id_its_client_gave_it() {
    let server = Server::start().await;
    let id = "0193b6a0-7c5e-7e3c-9a0b-2f1d4c5e6f70";
    let request = |ids: &str| {
        Server::request("GET", "/account").header("request-id", ids).body(Full::<Bytes>::default()).unwrap()
    };
    let response = server.send(request(&format!("{id},5b8e4ff5-61a9-4f0b-8f4f-5a8d7a0c9f11"))).await;
    assert_eq!(response.headers()["request-id"], id);
    let response = server.send(request("not an id")).await;
    let invented = response.headers()["request-id"].to_str().unwrap();
    assert!(invented.parse::<uuid::Uuid>().is_ok(), "{invented}");
}

#[tokio::test]
async fn sessions_are_the_tokens_had_by_password() {
    let server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let (_, made) = server.as_with(&ann, "POST", "/oauth/authorizations", r#"{"description":"ci"}"#).await;
    assert_eq!(made["session"], serde_json::Value::Null);
    let ci = made["access_token"]["token"].as_str().unwrap();
    let (_, rows) = server.as_with(ci, "GET", "/oauth/sessions", "").await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows[0]["description"], "test");
    let id = rows[0]["id"].as_str().unwrap();
    let (_, own) = server.as_with(&ann, "GET", "/oauth/authorizations/~", "").await;
    assert_eq!(own["session"]["id"], rows[0]["id"]);
    // Neither the one that shows itself, nor another token, nor somebody else's.
    let bob = server.newcomer("bob@example.com", false).await;
    let other = format!("/oauth/sessions/{}", made["id"].as_str().unwrap());
    for (token, path) in [(ci, "/oauth/sessions/~"), (ci, &other), (&bob, &format!("/oauth/sessions/{id}"))] {
        let (status, said) = server.as_with(token, "DELETE", path, "").await;
        assert_eq!((status, &said["resource"]), (404, &"session".into()), "{path}");
    }
    assert_eq!(server.as_with(ci, "DELETE", &format!("/oauth/sessions/{id}"), "").await.0, 200);
    assert_eq!(server.as_with(&ann, "GET", "/account", "").await.0, 401);
    assert_eq!(server.as_with(ci, "GET", "/oauth/sessions", "").await.1, serde_json::json!([]));
}

#[tokio::test]
async fn oauth_clients_are_their_accounts_and_their_secrets_are_sealed() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    for body in [
        r#"{"name":"Amazing"}"#,
        r#"{"name":"","redirect_uri":"https://example.com"}"#,
        r#"{"name":"Amazing","redirect_uri":"http://example.com"}"#,
        r#"{"name":"Amazing","redirect_uri":"javascript:alert(1)"}"#,
    ] {
        server.ask("POST", "/oauth/clients", body).await;
    }
    let made =
        server.ask("POST", "/oauth/clients", r#"{"name":"Amazing","redirect_uri":"https://a.example/cb"}"#).await;
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let path = format!("/oauth/clients/{id}");
    server.ask("PATCH", &path, r#"{"redirect_uri":"http://localhost:3000/cb"}"#).await;
    server.ask("PATCH", &path, r#"{"name":"Better"}"#).await;
    let renewed = server.ask("POST", &format!("{path}/actions/rotate-credentials"), "").await;
    assert_ne!(renewed["secret"], secret);
    assert_eq!(server.quietly("GET", &path, "").await, renewed);
    server.ask("GET", "/oauth/clients", "").await;
    assert_eq!(server.as_with(&ann, "GET", "/oauth/clients", "").await.1, serde_json::json!([]));
    for (method, at) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/actions/rotate-credentials"))]
    {
        assert_eq!(server.as_with(&ann, method, &at, "").await.0, 404, "{method}");
    }
    for file in ["db.sqlite", "db.sqlite-wal"] {
        let bytes = std::fs::read(server.root().join(file)).unwrap();
        for text in [secret, renewed["secret"].as_str().unwrap()] {
            assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "{file}");
        }
    }
    server.ask("DELETE", &path, "").await;
    server.ask("GET", &path, "").await;
    // They go with their account.
    let (_, hers) =
        server.as_with(&ann, "POST", "/oauth/clients", r#"{"name":"x","redirect_uri":"https://a.example"}"#).await;
    server.quietly("DELETE", "/accounts/ann@example.com", "").await;
    let ann = server.newcomer("ann@example.com", false).await;
    let gone = server.as_with(&ann, "GET", &format!("/oauth/clients/{}", hers["id"].as_str().unwrap()), "").await;
    assert_eq!(gone.0, 404, "an account of that address is the same, and has nothing left");
    assert_said!(server.transcript());
}
