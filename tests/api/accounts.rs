//! People, what they may do with which app, and what is written down of it.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use hokku::control::ControlError;
use hokku::control::accounts::{self, NewPassword, Patch};
use hokku::control::tokens::{self, Peer};
use hokku::domain::scope::Scopes;
use serde_json::{Value, json};

/// What `token`'s account is answered, as one line.
async fn said(server: &mut Server, who: &str, token: &str, method: &str, path: &str, body: &str) -> Value {
    let (status, answer) = server.as_with(token, method, path, body).await;
    let text = answer["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
    let text: String = if text.chars().count() > 160 { "…".to_owned() } else { text };
    server.note(format_args!("{who}: {method} {path} {body}\n=> {status} {text}"));
    answer
}

#[tokio::test]
async fn accounts_are_made_changed_and_removed() {
    let mut server = Server::start().await;
    let made = server.quietly("POST", "/accounts", r#"{"email":"ann@example.com"}"#).await;
    let password = made["password"].as_str().unwrap().to_owned();
    assert_eq!(password.len(), 24);
    server.ask("POST", "/accounts", r#"{"email":"ANN@example.com"}"#).await;
    server.ask("POST", "/accounts", r#"{"email":"not an address"}"#).await;
    server.ask("POST", "/accounts", r#"{"email":"bob@example.com","password":"short"}"#).await;
    server.ask("POST", "/accounts", r#"{"email":"bob@example.com","password":"long enough","admin":true}"#).await;
    server.ask("GET", "/accounts", "").await;
    server.ask("PATCH", "/accounts/nobody@example.com", r#"{"admin":true}"#).await;
    server.ask("PATCH", "/accounts/bob@example.com", r#"{"admin":false,"password":"another one"}"#).await;
    server.note("the last administrator stays one:");
    server.ask("PATCH", "/accounts/admin@localhost", r#"{"admin":false}"#).await;
    server.ask("DELETE", "/accounts/admin@localhost", "").await;

    let log_in = async |server: &Server, email: &str, password: &str| {
        use base64::Engine as _;
        let basic =
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{email}:{password}")));
        let request = Server::request("POST", "/oauth/authorizations").header("authorization", basic);
        server.send_tcp(request.body("{}".into()).unwrap()).await.status().as_u16()
    };
    assert_eq!(log_in(&server, "ann@example.com", &password).await, 201);
    for (email, wrong) in [
        ("ann@example.com", "another one"),
        ("bob@example.com", "long enough"),
        ("nobody@example.com", &password),
        ("admin@localhost", ""),
        ("ann@example.com", &"x".repeat(100_000)),
    ] {
        assert_eq!(log_in(&server, email, wrong).await, 401, "{email}");
    }
    server.note("a password is good for a token and nothing else:");
    let basic = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("ann@example.com:{password}"))
    };
    server.ask_tcp("GET", "/account", &[("authorization", &format!("Basic {basic}"))]).await;

    let bob = server.newcomer("carl@example.com", false).await;
    said(&mut server, "carl", &bob, "PATCH", "/account", r#"{"name":"Carl","new_password":"something new"}"#).await;
    let body = r#"{"new_password":"something new","password":"wrong one"}"#;
    said(&mut server, "carl", &bob, "PATCH", "/account", body).await;
    let (_, other) = server.as_with(&bob, "POST", "/oauth/authorizations", "{}").await;
    let other = other["access_token"]["token"].as_str().unwrap().to_owned();
    let body = r#"{"name":"Carl","new_password":"something new","password":"correct horse"}"#;
    let (status, row) = server.as_with(&bob, "PATCH", "/account", body).await;
    assert_eq!((status, &row["name"]), (200, &json!("Carl")));
    assert_eq!(server.as_with(&other, "GET", "/account", "").await.0, 401, "a new password ends the other tokens");
    assert_eq!(server.as_with(&bob, "GET", "/account", "").await.0, 200);
    assert_eq!(log_in(&server, "carl@example.com", "something new").await, 201);

    assert_eq!(server.as_with(&bob, "POST", "/apps", r#"{"name":"carls"}"#).await.0, 201);
    server.note("who owns something is not removed:");
    server.ask("DELETE", "/accounts/carl@example.com", "").await;
    server.quietly("DELETE", "/apps/carls", "").await;
    assert_eq!(server.as_with(&bob, "POST", "/pipelines", r#"{"name":"carls-line"}"#).await.0, 201);
    server.quietly("DELETE", "/accounts/carl@example.com", "").await;
    let admin = server.quietly("GET", "/account", "").await;
    assert_eq!(server.quietly("GET", "/pipelines/carls-line", "").await["owner"]["id"], admin["id"]);
    assert_eq!(server.as_with(&bob, "GET", "/account", "").await.0, 401);
    assert_eq!(log_in(&server, "carl@example.com", "something new").await, 401);
    server.quietly("POST", "/accounts", r#"{"email":"carl@example.com"}"#).await;
    assert_eq!(log_in(&server, "carl@example.com", "something new").await, 401, "the password is a new one");
    let transcript = server.transcript().replace(&basic, "[basic]");
    assert_said!(transcript);
}

#[tokio::test]
async fn a_new_password_by_an_administrator_ends_all_tokens() {
    let server = Server::start().await;
    let carl = server.newcomer("carl@example.com", false).await;
    assert_eq!(server.as_with(&carl, "GET", "/account", "").await.0, 200);
    server.quietly("PATCH", "/accounts/carl@example.com", r#"{"admin":false}"#).await;
    assert_eq!(server.as_with(&carl, "GET", "/account", "").await.0, 200);
    server.quietly("PATCH", "/accounts/carl@example.com", r#"{"new_password":true}"#).await;
    assert_eq!(server.as_with(&carl, "GET", "/account", "").await.0, 401);
    assert!(server.quietly("GET", "/account", "").await["id"].is_string());
}

#[tokio::test]
async fn an_account_is_removed_by_its_owner_with_its_password_when_it_owns_no_app() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bearer = format!("Bearer {ann}");
    let (status, _) = server.as_with(&ann, "POST", "/apps", r#"{"name":"anns"}"#).await;
    assert_eq!(status, 201);
    server.as_with(&ann, "POST", "/pipelines", r#"{"name":"line"}"#).await;
    let right = ("heroku-password", "correct horse");
    let with = async |server: &mut Server, path: &str, more: &[(&str, &str)]| {
        let headers: Vec<_> = [("authorization", bearer.as_str())].iter().chain(more).copied().collect();
        let response = {
            let request =
                headers.iter().fold(Server::request("DELETE", path), |r, (name, value)| r.header(*name, *value));
            server.send_tcp(request.body("".into()).unwrap()).await
        };
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let text = answer["message"].as_str().unwrap_or("removed");
        server.note(format_args!("DELETE {path} {more:?}\n=> {status} {text}"));
        answer
    };
    with(&mut server, "/account", &[]).await;
    with(&mut server, "/account", &[("heroku-password", "wrong")]).await;
    with(&mut server, "/account", &[("heroku-password-base64", "%")]).await;
    with(&mut server, "/users/admin@localhost", &[right]).await;
    with(&mut server, "/account", &[right]).await;
    assert_eq!(server.as_with(&ann, "GET", "/apps/anns", "").await.0, 200);
    server.as_with(&ann, "DELETE", "/apps/anns", "").await;
    let gone = with(&mut server, "/users/~", &[("heroku-password-base64", "Y29ycmVjdCBob3JzZQ==")]).await;
    assert_eq!(gone["email"], "ann@example.com");
    assert_eq!(server.as_with(&ann, "GET", "/account", "").await.0, 401);
    assert_eq!(server.quietly("GET", "/accounts", "").await.as_array().unwrap().len(), 1);
    let admin = server.quietly("GET", "/account", "").await["id"].clone();
    assert_eq!(
        server.quietly("GET", "/pipelines/line", "").await["owner"]["id"],
        admin,
        "an administrator looks after it"
    );
    server.note("the last administrator stays:");
    server.quietly("PATCH", "/accounts/admin@localhost", r#"{"password":"correct horse"}"#).await;
    server.ask_with("DELETE", "/account", "", &[right]).await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_has_been_shown_is_good_for_no_token_once_the_password_is_another() {
    let server = Server::start().await;
    let control = &server.control;
    let carl = server.newcomer("carl@example.com", false).await;
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "carl@example.com:correct horse");
    for shown in [format!("Bearer {carl}"), format!("Basic {basic}")] {
        // In the middle of a request for a token.
        let (caller, proof) = accounts::log_in(control, (Peer::Network, None), Some(&shown)).await.unwrap();
        let create = || tokens::create(control, (&caller.actor, proof.clone()), "late", Scopes::default(), None);
        create().await.unwrap();
        server.quietly("PATCH", "/accounts/carl@example.com", r#"{"new_password":true}"#).await;
        assert!(matches!(create().await, Err(ControlError::Denied)));
        server.quietly("PATCH", "/accounts/carl@example.com", r#"{"password":"correct horse"}"#).await;
        assert!(matches!(create().await, Err(ControlError::Denied)), "another one, though the same word");
        if shown.starts_with("Basic") {
            let hash =
                accounts::check_password(control, &caller.actor, None, "correct horse".to_owned()).await.unwrap();
            server.quietly("PATCH", "/accounts/carl@example.com", r#"{"new_password":true}"#).await;
            let password = Some(NewPassword::Given("mallory's own".to_owned()));
            let late = Patch { password, so_far: Some(hash), ..Patch::default() };
            let refused = accounts::update(control, "carl@example.com", late).await.unwrap_err();
            assert_eq!(refused.to_string(), "That is not the password so far.");
        }
    }
}

#[tokio::test]
async fn apps_are_shared_left_locked_and_transferred() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    let eve = server.newcomer("eve@example.com", true).await;
    assert_eq!(server.as_with(&ann, "POST", "/apps", r#"{"name":"shop"}"#).await.0, 201);
    said(&mut server, "bob", &bob, "GET", "/apps/shop", "").await;
    said(&mut server, "bob", &bob, "GET", "/apps", "").await;
    let body = r#"{"user":"nobody@example.com"}"#;
    said(&mut server, "ann", &ann, "POST", "/apps/shop/collaborators", body).await;
    let body = r#"{"user":"bob@example.com","silent":true}"#;
    let (_, made) = server.as_with(&ann, "POST", "/apps/shop/collaborators", body).await;
    let words: Vec<&str> =
        made["permissions"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(words, ["view", "deploy", "operate"]);
    said(&mut server, "ann", &ann, "POST", "/apps/shop/collaborators", body).await;
    said(&mut server, "ann", &ann, "POST", "/apps/shop/collaborators", r#"{"user":"ann@example.com"}"#).await;
    server.note("he may everything but manage:");
    said(&mut server, "bob", &bob, "PATCH", "/apps/shop/config-vars", r#"{"A":"1"}"#).await;
    said(&mut server, "bob", &bob, "DELETE", "/apps/shop", "").await;
    said(&mut server, "bob", &bob, "DELETE", "/apps/shop/collaborators/ann@example.com", "").await;
    let path = "/teams/apps/shop/collaborators/bob@example.com";
    said(&mut server, "ann", &ann, "PATCH", path, r#"{"permissions":["everything"]}"#).await;
    assert_eq!(server.as_with(&ann, "PATCH", path, r#"{"permissions":["view"]}"#).await.0, 200);
    said(&mut server, "bob", &bob, "PATCH", "/apps/shop/config-vars", r#"{"A":"1"}"#).await;
    let (_, rows) = server.as_with(&bob, "GET", "/apps/shop/collaborators", "").await;
    let mut rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| (&row["user"]["email"], &row["role"])).collect();
    rows.sort_by_key(|(email, _)| email.as_str());
    assert_eq!(
        rows,
        [(&json!("ann@example.com"), &json!("owner")), (&json!("bob@example.com"), &json!("collaborator"))]
    );
    let listed = async |server: &Server, token: &str, path: &str| {
        let (_, rows) = server.as_with(token, "GET", path, "").await;
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&server, &bob, "/users/~/apps").await, ["shop"]);
    assert_eq!(listed(&server, &eve, "/apps").await, ["shop"], "an administrator sees all");
    assert!(listed(&server, &eve, "/users/~/apps").await.is_empty(), "but it is not his own");
    said(&mut server, "bob", &bob, "DELETE", "/apps/shop/collaborators/eve@example.com", "").await;
    assert_eq!(server.as_with(&bob, "DELETE", "/apps/shop/collaborators/bob@example.com", "").await.0, 200);
    said(&mut server, "bob, who has left", &bob, "GET", "/apps/shop", "").await;

    server.note("a locked app is not joined:");
    assert_eq!(server.as_with(&ann, "PATCH", "/teams/apps/shop", r#"{"locked":true}"#).await.1["locked"], true);
    let join = r#"{"user":"eve@example.com"}"#;
    said(&mut server, "eve", &eve, "POST", "/teams/apps/shop/collaborators", join).await;
    assert_eq!(server.as_with(&ann, "PATCH", "/teams/apps/shop", r#"{"locked":false}"#).await.1["locked"], false);
    assert_eq!(server.as_with(&eve, "POST", "/teams/apps/shop/collaborators", join).await.0, 201);

    let body = r#"{"user":"bob@example.com","permissions":["manage"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/shop/collaborators", body).await.0, 201);
    let body = r#"{"app":"shop","recipient":"bob@example.com"}"#;
    said(&mut server, "bob, who manages it", &bob, "POST", "/account/app-transfers", body).await;
    assert_eq!(server.as_with(&ann, "DELETE", "/apps/shop/collaborators/bob@example.com", "").await.0, 200);
    server.note("a transfer waits for its answer:");
    let body = r#"{"app":"shop","recipient":"bob@example.com"}"#;
    said(&mut server, "bob", &bob, "POST", "/account/app-transfers", body).await;
    let (status, offer) = server.as_with(&ann, "POST", "/account/app-transfers", body).await;
    assert_eq!((status, &offer["state"]), (201, &json!("pending")));
    let path = format!("/account/app-transfers/{}", offer["id"].as_str().unwrap());
    said(&mut server, "ann", &ann, "PATCH", &path, r#"{"state":"accepted"}"#).await;
    said(&mut server, "bob", &bob, "PATCH", &path, r#"{"state":"perhaps"}"#).await;
    assert_eq!(server.as_with(&bob, "GET", "/account/app-transfers", "").await.1.as_array().unwrap().len(), 1);
    let (status, taken) = server.as_with(&bob, "PATCH", &path, r#"{"state":"accepted"}"#).await;
    assert_eq!((status, &taken["state"]), (200, &json!("accepted")));
    said(&mut server, "bob", &bob, "PATCH", &path, r#"{"state":"declined"}"#).await;
    assert_eq!(server.as_with(&bob, "GET", "/apps/shop", "").await.1["owner"]["email"], "bob@example.com");
    said(&mut server, "ann, who keeps access but", &ann, "DELETE", "/apps/shop", "").await;
    server.note("an administrator's takes effect at once:");
    let body = r#"{"app":"shop","recipient":"ann@example.com"}"#;
    assert_eq!(server.as_with(&eve, "POST", "/account/app-transfers", body).await.1["state"], "accepted");
    assert_eq!(server.as_with(&bob, "DELETE", "/apps/shop", "").await.0, 403);
    assert_said!(server.transcript());
}

#[tokio::test]
async fn what_is_in_a_body_needs_permission_too() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    for (token, app) in [(&ann, "anns"), (&bob, "bobs"), (&ann, "seen")] {
        assert_eq!(server.as_with(token, "POST", "/apps", &json!({ "name": app }).to_string()).await.0, 201);
    }
    let body = r#"{"user":"bob@example.com","permissions":["view"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/seen/collaborators", body).await.0, 201);
    for (token, pipeline) in [(&ann, "anns-line"), (&bob, "bobs-line")] {
        assert_eq!(server.as_with(token, "POST", "/pipelines", &json!({ "name": pipeline }).to_string()).await.0, 201);
    }
    let addon = json!({ "plan": "external", "name": "anns-db", "config": { "url": "postgres://u:secret@h/d" } });
    assert_eq!(server.as_with(&ann, "POST", "/apps/anns/addons", &addon.to_string()).await.0, 201);

    let couple = |app: &str, line: &str| json!({ "app": app, "pipeline": line, "stage": "staging" }).to_string();
    for (app, line) in [("anns", "bobs-line"), ("seen", "bobs-line"), ("bobs", "anns-line")] {
        said(&mut server, "bob", &bob, "POST", "/pipeline-couplings", &couple(app, line)).await;
    }
    for (token, app, line) in [(&bob, "bobs", "bobs-line"), (&ann, "anns", "anns-line")] {
        assert_eq!(server.as_with(token, "POST", "/pipeline-couplings", &couple(app, line)).await.0, 201);
    }
    for (source, target) in [("anns", "bobs"), ("bobs", "anns"), ("bobs", "seen")] {
        let body = json!({ "pipeline": "bobs-line", "source": { "app": source }, "targets": [{ "app": target }] });
        said(&mut server, "bob", &bob, "POST", "/pipeline-promotions", &body.to_string()).await;
    }
    for (addon, app) in [("anns-db", "bobs"), ("anns-db", "seen"), ("nope", "bobs")] {
        let body = json!({ "addon": addon, "app": app }).to_string();
        said(&mut server, "bob", &bob, "POST", "/addon-attachments", &body).await;
    }
    said(&mut server, "bob", &bob, "POST", "/actions/addons/resolve", r#"{"addon":"anns-db"}"#).await;
    let body = r#"{"addon_attachment":"DATABASE","app":"anns"}"#;
    said(&mut server, "bob", &bob, "POST", "/actions/addon-attachments/resolve", body).await;
    for path in ["/addons", "/addon-attachments", "/pipeline-couplings", "/pipelines", "/apps"] {
        let (_, rows) = server.as_with(&bob, "GET", path, "").await;
        assert!(!rows.to_string().contains("anns"), "{path}: {rows}");
    }
    let (_, app) = server.as_with(&ann, "GET", "/apps/anns", "").await;
    let (_, rows) =
        server.as_with(&bob, "POST", "/filters/apps", &json!({ "in": { "id": [app["id"]] } }).to_string()).await;
    assert_eq!(rows, json!([]));

    server.note("who uses another's add-on does not rename it:");
    let body = r#"{"user":"bob@example.com","permissions":["operate"]}"#;
    assert_eq!(server.as_with(&ann, "POST", "/teams/apps/anns/collaborators", body).await.0, 201);
    let attach = r#"{"addon":"anns-db","app":"bobs"}"#;
    said(&mut server, "bob, who may operate it alone", &bob, "POST", "/addon-attachments", attach).await;
    let path = "/teams/apps/anns/collaborators/bob@example.com";
    assert_eq!(server.as_with(&ann, "PATCH", path, r#"{"permissions":["operate","deploy"]}"#).await.0, 200);
    assert_eq!(server.as_with(&bob, "POST", "/addon-attachments", r#"{"addon":"anns-db","app":"bobs"}"#).await.0, 201);
    assert_eq!(server.as_with(&ann, "DELETE", "/apps/anns/collaborators/bob@example.com", "").await.0, 200);
    said(&mut server, "bob", &bob, "PATCH", "/apps/bobs/addons/anns-db", r#"{"name":"mine"}"#).await;
    said(&mut server, "bob", &bob, "GET", "/addons/anns-db/config", "").await;
    assert_said!(server.transcript());
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG ann laptop";

#[tokio::test]
async fn keys_are_kept_for_their_owner() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    server.ask("POST", "/account/keys", &json!({ "public_key": format!("{KEY}\n") }).to_string()).await;
    server.ask("GET", "/account/keys", "").await;
    server.ask("POST", "/account/keys", &json!({ "public_key": KEY }).to_string()).await;
    server.ask("POST", "/account/keys", r#"{"public_key":"ssh-rsa nonsense"}"#).await;
    assert_eq!(server.as_with(&ann, "GET", "/account/keys", "").await.1, json!([]));
    assert_eq!(server.as_with(&ann, "DELETE", "/account/keys/ann%20laptop", "").await.0, 404);
    server.ask("DELETE", "/account/keys/ann%20laptop", "").await;
    server.ask("GET", "/account/keys/ann%20laptop", "").await;
    assert_said!(server.transcript());
}

#[tokio::test]
async fn every_change_is_written_down_without_secrets() {
    let mut server = Server::start().await;
    let ann = server.newcomer("ann@example.com", false).await;
    let bob = server.newcomer("bob@example.com", false).await;
    let with =
        async |server: &Server, method: &str, path: &str, body: &str| server.as_with(&ann, method, path, body).await.0;
    assert_eq!(with(&server, "POST", "/apps", r#"{"name":"shop"}"#).await, 201);
    assert_eq!(with(&server, "PATCH", "/apps/shop/config-vars", r#"{"TOKEN":"s3cret","OLD":null}"#).await, 200);
    assert_eq!(with(&server, "POST", "/apps/shop/log-drains", r#"{"url":"https://u:s3cret@h.example/x"}"#).await, 201);
    let drain = "/apps/shop/log-drains/https%3A%2F%2Fu%3As3cret%40h.example%2Fx";
    assert_eq!(with(&server, "DELETE", drain, "").await, 200);
    assert_eq!(with(&server, "POST", "/apps/shop/collaborators", r#"{"user":"bob@example.com"}"#).await, 201);
    assert_eq!(with(&server, "PATCH", "/apps/shop", r#"{"maintenance":true}"#).await, 200);
    assert_eq!(with(&server, "PATCH", "/apps/shop", r#"{"name":"Bad Name"}"#).await, 422);
    assert_eq!(server.as_with(&bob, "DELETE", "/apps/shop", "").await.0, 403);
    assert_eq!(with(&server, "GET", "/apps/shop/config-vars", "").await, 200);
    let (_, events) = server.as_with(&ann, "GET", "/audit-events", "").await;
    let lines = |events: &Value| {
        let line = |row: &Value| {
            let part = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let (who, app) = (part(&row["actor"]["email"]), part(&row["app"]["name"]));
            format!(
                "{who} {} {app} {} {} ({}) from {}",
                part(&row["action"]),
                part(&row["path"]),
                row["status"],
                part(&row["note"]),
                part(&row["origin"])
            )
        };
        events.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
    };
    server.note(lines(&events));
    assert!(!events.to_string().contains("s3cret"));
    server.note("of the app alone, for who manages it:");
    assert_eq!(server.as_with(&bob, "GET", "/apps/shop/audit-events", "").await.0, 403);
    let (_, events) = server.as_with(&ann, "GET", "/apps/shop/audit-events?action=app&max=2", "").await;
    server.note(lines(&events));
    server.note("others see what they did:");
    let (_, events) = server.as_with(&bob, "GET", "/audit-events", "").await;
    server.note(lines(&events));
    let all = server.quietly("GET", "/audit-events?user=admin@localhost", "").await;
    server.note("and an administrator sees all:");
    server.note(lines(&all));
    assert_said!(server.transcript());
}
