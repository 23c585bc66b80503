//! What is refused: bounded, and written down.
#![forbid(unsafe_code)]

use crate::assert_said;
use crate::server::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hokku::api::rules::{RULES, Rule};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

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

/// Who asks: address and token.
type Who<'a> = (&'a str, &'a str);

/// Makes changes, and looks at what each has left in the log.
struct Changes {
    server: Server,
    lines: Vec<String>,
    made: BTreeSet<(&'static str, &'static str)>,
}

/// The row of a request: that which names most of the path's parts.
fn rule(method: &str, path: &str) -> &'static Rule {
    let fits = |rule: &&Rule| {
        let (wanted, given) = (rule.path.split('/'), path.split('/'));
        rule.method == method
            && wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| wanted == given || wanted.starts_with('{'))
    };
    RULES.iter().filter(fits).min_by_key(|rule| rule.path.matches('{').count()).unwrap()
}

impl Changes {
    /// A change that is made.
    async fn made(&mut self, who: Who<'_>, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.asked(who, method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// One that its handler refuses.
    async fn refused(&mut self, who: Who<'_>, method: &str, path: &str, body: Value) {
        let (status, answer) = self.asked(who, method, path, body).await;
        assert!((400..500).contains(&status), "{method} {path}: {status} {answer}");
    }

    async fn asked(&mut self, (email, token): Who<'_>, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (rule, id) = (rule(method, path), Uuid::new_v4().to_string());
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Server::request(method, path).header("authorization", format!("Bearer {token}"));
        let request = request.header("request-id", &id).header("heroku-password", "correct horse");
        let request = request.body(Full::from(text)).unwrap();
        let response = self.server.send_tcp(request).await;
        let status = response.status().as_u16();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let events = self.server.quietly("GET", "/audit-events?max=10", "").await;
        let mine: Vec<&Value> = events.as_array().unwrap().iter().filter(|row| row["request_id"] == id).collect();
        let [event] = mine[..] else { panic!("{method} {path}: {status} {answer}, and {} events", mine.len()) };
        assert_eq!(event["action"], rule.action.unwrap(), "{method} {path}");
        assert_eq!(event["actor"]["email"], email, "{method} {path}");
        assert_eq!(event["origin"], "127.0.0.1", "{method} {path}");
        assert_eq!(event["status"], status, "{method} {path}");
        if rule.path.contains("{app}") {
            assert_eq!(event["app"]["name"], path.split('/').skip_while(|part| *part != "apps").nth(1).unwrap());
        }
        let part = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (app, note) = (part(&event["app"]["name"]), part(&event["note"]));
        self.lines.push(format!("{} {app} {status} {} ({note})", part(&event["action"]), part(&event["path"])));
        self.made.insert((rule.method, rule.path));
        (status, answer)
    }

    /// A new account, its token.
    async fn newcomer(&mut self, email: &str) -> String {
        self.server.newcomer(email, false).await
    }
}

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_route_that_changes_something_leaves_one_event_of_it_without_secrets() {
    let server = Server::with_code().await;
    let token = server.newcomer("root@example.com", true).await;
    let root = ("root@example.com", token.as_str());
    let mut changes = Changes { server, lines: Vec::new(), made: BTreeSet::new() };
    people(&mut changes, root).await;
    apps(&mut changes, root).await;
    code(&mut changes, root).await;
    dynos(&mut changes, root).await;
    names(&mut changes, root).await;
    shared(&mut changes, root).await;
    the_box(&mut changes, root).await;
    let all: BTreeSet<_> =
        RULES.iter().filter(|rule| rule.action.is_some()).map(|rule| (rule.method, rule.path)).collect();
    let missed: Vec<_> = all.difference(&changes.made).collect();
    assert!(missed.is_empty(), "nothing was changed by {missed:?}");
    let events = changes.server.quietly("GET", "/audit-events?max=1000", "").await.to_string();
    for secret in ["s3cret", "hokku_", "PRIVATE KEY", "correct horse"] {
        assert!(!events.contains(secret), "{secret} is in the log");
    }
    assert_said!(changes.lines.join("\n"));
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAgRfZvgvaUWFbVIgTHzZXpAJT6DbVnmGcySz85p4iCG laptop";

async fn people(changes: &mut Changes, root: Who<'_>) {
    let new = json!({ "email": "ann@example.com", "password": "s3cret-s3cret" });
    changes.made(root, "POST", "/accounts", new).await;
    changes.made(root, "PATCH", "/accounts/ann@example.com", json!({ "password": "s3cret-again" })).await;
    changes.made(root, "PATCH", "/account", json!({ "name": "Root" })).await;
    changes.made(root, "PATCH", "/users/~", json!({ "name": "Ruth" })).await;
    let key = changes.made(root, "POST", "/account/keys", json!({ "public_key": KEY })).await;
    changes.made(root, "DELETE", &format!("/account/keys/{}", id(&key)), Value::Null).await;
    let made =
        changes.made(root, "POST", "/oauth/authorizations", json!({ "description": "ci", "scope": ["read"] })).await;
    let path = format!("/oauth/authorizations/{}", id(&made));
    changes.made(root, "PATCH", &path, json!({ "description": "deploys" })).await;
    changes.made(root, "POST", &format!("{path}/actions/regenerate-tokens"), Value::Null).await;
    changes.made(root, "DELETE", &path, Value::Null).await;
    let client = json!({ "name": "board", "redirect_uri": "https://board.example.com/auth" });
    let path = format!("/oauth/clients/{}", id(&changes.made(root, "POST", "/oauth/clients", client).await));
    changes.made(root, "PATCH", &path, json!({ "name": "wall" })).await;
    changes.made(root, "POST", &format!("{path}/actions/rotate-credentials"), Value::Null).await;
    changes.made(root, "DELETE", &path, Value::Null).await;

    let bob = changes.newcomer("bob@example.com").await;
    let (_, sessions) = changes.server.as_with(&bob, "GET", "/oauth/sessions", "").await;
    let path = format!("/oauth/sessions/{}", id(&sessions[0]));
    changes.made(("bob@example.com", &bob), "DELETE", &path, Value::Null).await;
    let carl = changes.newcomer("carl@example.com").await;
    let tokens = changes.server.quietly("GET", "/accounts/carl@example.com/authorizations", "").await;
    let path = format!("/accounts/carl@example.com/authorizations/{}", id(&tokens[0]));
    changes.made(root, "DELETE", &path, Value::Null).await;
    assert_eq!(changes.server.as_with(&carl, "GET", "/account", "").await.0, 401);
    changes.made(root, "DELETE", "/accounts/carl@example.com", Value::Null).await;
    for (email, path) in [("dora@example.com", "/account"), ("emil@example.com", "/users/~")] {
        let token = changes.newcomer(email).await;
        changes.made((email, &token), "DELETE", path, Value::Null).await;
    }
}

async fn apps(changes: &mut Changes, root: Who<'_>) {
    changes.made(root, "POST", "/apps", json!({ "name": "live" })).await;
    changes.made(root, "PATCH", "/apps/live", json!({ "maintenance": true })).await;
    changes.made(root, "PATCH", "/teams/apps/live", json!({ "locked": true })).await;
    let feature = "/apps/live/features/runtime-dyno-metadata";
    changes.made(root, "PATCH", feature, json!({ "enabled": true })).await;
    let ann = "/apps/live/collaborators/ann@example.com";
    changes.made(root, "POST", "/apps/live/collaborators", json!({ "user": "ann@example.com" })).await;
    changes.made(root, "DELETE", ann, Value::Null).await;
    let given = json!({ "user": "ann@example.com", "permissions": ["view"] });
    changes.made(root, "POST", "/teams/apps/live/collaborators", given).await;
    changes.made(root, "PATCH", &format!("/teams{ann}"), json!({ "permissions": ["deploy"] })).await;
    changes.made(root, "DELETE", &format!("/teams{ann}"), Value::Null).await;

    let (fay, gus) = (changes.newcomer("fay@example.com").await, changes.newcomer("gus@example.com").await);
    let (fay, gus) = (("fay@example.com", fay.as_str()), ("gus@example.com", gus.as_str()));
    changes.made(fay, "POST", "/apps", json!({ "name": "gift" })).await;
    let offer = json!({ "app": "gift", "recipient": "gus@example.com" });
    let offered = changes.made(fay, "POST", "/account/app-transfers", offer.clone()).await;
    let path = format!("/account/app-transfers/{}", id(&offered));
    changes.made(gus, "PATCH", &path, json!({ "state": "declined" })).await;
    changes.made(fay, "DELETE", &path, Value::Null).await;
    changes.made(fay, "DELETE", "/apps/gift", Value::Null).await;
}

async fn code(changes: &mut Changes, root: Who<'_>) {
    changes.made(root, "PATCH", "/apps/shop/config-vars", json!({ "TOKEN": "s3cret", "OLD": null })).await;
    changes.server.quiet().await;
    changes.made(root, "POST", "/apps/shop/releases", json!({ "release": "3" })).await;
    changes.server.quiet().await;
    let pack =
        json!({ "updates": [{ "buildpack": "https://u:s3cret@example.com/x.git" }, { "buildpack": "heroku/go" }] });
    changes.made(root, "PUT", "/apps/shop/buildpack-installations", pack).await;
    changes.made(root, "POST", "/apps/shop/slugs", json!({ "process_types": { "web": "run --key s3cret" } })).await;
    let source = changes.server.quietly("POST", "/apps/shop/sources", "").await;
    let url = source["source_blob"]["put_url"].as_str().unwrap();
    let put = Server::request("PUT", url.strip_prefix("http://paas.test:5000").unwrap());
    assert_eq!(changes.server.send_tcp(put.body(Full::from("an archive")).unwrap()).await.status(), 200);
    let new = json!({ "source_blob": { "url": url, "version": "1a2b3c4d" } });
    let build = changes.made(root, "POST", "/apps/shop/builds", new).await;
    // It may have failed by itself.
    let path = format!("/apps/shop/builds/{}", id(&build));
    changes.asked(root, "DELETE", &path, Value::Null).await;
    changes.lines.pop();
    changes.refused(root, "POST", "/apps/live/builds/actions/rebuild", Value::Null).await;
    changes.made(root, "DELETE", "/apps/shop/build-cache", Value::Null).await;
}

async fn dynos(changes: &mut Changes, root: Who<'_>) {
    let run = json!({ "command": "echo s3cret", "env": { "KEY": "s3cret" } });
    changes.made(root, "POST", "/apps/shop/dynos", run).await;
    let inside = json!({ "command": "echo s3cret", "attach": true, "env": { "KEY": "s3cret" } });
    changes.made(root, "POST", "/apps/shop/dynos/web.1", inside).await;
    for (method, path) in [
        ("DELETE", "/apps/shop/dynos/web.1"),
        ("DELETE", "/apps/shop/dynos"),
        ("DELETE", "/apps/shop/formations/web"),
        ("POST", "/apps/shop/dynos/web.1/actions/stop"),
        ("POST", "/apps/shop/formations/web/actions/stop"),
    ] {
        changes.made(root, method, path, Value::Null).await;
        changes.server.quiet().await;
    }
    let more = json!({ "updates": [{ "type": "web", "quantity": 2 }, { "type": "worker", "quantity": 1 }] });
    changes.made(root, "PATCH", "/apps/shop/formation", more).await;
    changes.made(root, "PATCH", "/apps/shop/formation/web", json!({ "size": "standard-2x" })).await;
    let drain = json!({ "url": "https://u:s3cret@logs.example.com/s3cret" });
    changes.made(root, "POST", "/apps/shop/log-drains", drain).await;
    let path = "/apps/shop/log-drains/https%3A%2F%2Fu%3As3cret%40logs.example.com%2Fs3cret";
    changes.made(root, "DELETE", path, Value::Null).await;
}

async fn names(changes: &mut Changes, root: Who<'_>) {
    let names = vec!["www.example.com".to_owned()];
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    let pair = json!({ "certificate_chain": chain, "private_key": key.serialize_pem() });
    let endpoint = changes.made(root, "POST", "/apps/shop/sni-endpoints", pair.clone()).await;
    changes.made(root, "POST", "/apps/shop/domains", json!({ "hostname": "www.example.com" })).await;
    let path = "/apps/shop/domains/www.example.com";
    changes.made(root, "PATCH", path, json!({ "sni_endpoint": null })).await;
    changes.made(root, "DELETE", path, Value::Null).await;
    let path = format!("/apps/shop/sni-endpoints/{}", endpoint["name"].as_str().unwrap());
    changes.made(root, "PATCH", &path, pair).await;
    changes.made(root, "DELETE", &path, Value::Null).await;
    for method in ["POST", "PATCH", "DELETE"] {
        changes.refused(root, method, "/apps/shop/acm", Value::Null).await;
    }
    changes.made(root, "PATCH", "/apps/shop/egress", json!({ "allow": ["192.0.2.1:443"] })).await;
}

async fn shared(changes: &mut Changes, root: Who<'_>) {
    let addon = json!({ "plan": "external", "name": "db", "config": { "url": "postgres://u:s3cret@h/d" } });
    changes.made(root, "POST", "/apps/shop/addons", addon).await;
    let other = json!({ "name": "main-db", "config": { "url": "postgres://u:s3cret@other/d" } });
    changes.made(root, "PATCH", "/apps/shop/addons/db", other).await;
    let attached = changes.made(root, "POST", "/addon-attachments", json!({ "addon": "main-db", "app": "live" })).await;
    changes.made(root, "DELETE", &format!("/addon-attachments/{}", id(&attached)), Value::Null).await;
    changes.made(root, "DELETE", "/apps/shop/addons/main-db", Value::Null).await;
    changes.server.quiet().await;

    changes.made(root, "POST", "/pipelines", json!({ "name": "line" })).await;
    changes.made(root, "PATCH", "/pipelines/line", json!({ "name": "shops" })).await;
    let given = json!({ "pipeline": "shops", "new_owner": { "id": "ann@example.com", "type": "user" } });
    changes.made(root, "POST", "/pipeline-transfers", given).await;
    let mut couplings = Vec::new();
    for (app, stage) in [("shop", "development"), ("live", "production")] {
        let couple = json!({ "app": app, "pipeline": "shops", "stage": stage });
        couplings.push(format!(
            "/pipeline-couplings/{}",
            id(&changes.made(root, "POST", "/pipeline-couplings", couple).await)
        ));
    }
    changes.made(root, "PATCH", &couplings[0], json!({ "stage": "staging" })).await;
    let promote = json!({ "pipeline": "shops", "source": { "app": "shop" }, "targets": [{ "app": "live" }] });
    changes.made(root, "POST", "/pipeline-promotions", promote).await;
    changes.made(root, "DELETE", &couplings[0], Value::Null).await;
    changes.made(root, "DELETE", "/pipelines/shops", Value::Null).await;
    changes.made(root, "DELETE", "/apps/live", Value::Null).await;
}

/// Work on stacks and runtimes is tried where it is refused: it would need Debian's archives.
async fn the_box(changes: &mut Changes, root: Who<'_>) {
    let nothing = json!({ "source_blob": { "url": "http://paas.test:5000/sources/s3cret" }, "file": "node.tar.gz" });
    changes.refused(root, "POST", "/stacks/host/builds", Value::Null).await;
    changes.refused(root, "DELETE", "/stacks/host/builds/nope", Value::Null).await;
    changes.refused(root, "POST", "/stacks/debian-13/imports", nothing.clone()).await;
    changes.refused(root, "POST", "/runtimes", nothing).await;
    changes.refused(root, "DELETE", "/runtimes/node/1.2.3", Value::Null).await;
    changes.made(root, "POST", "/disk/actions/collect", Value::Null).await;
}

#[tokio::test]
async fn refusals_of_git_are_written_down_with_the_id_that_their_answers_have() {
    let server = Server::with_app().await;
    let admin = server.newcomer("root@example.com", true).await;
    let (bob, eve) = (server.newcomer("bob@example.com", false).await, server.newcomer("eve@example.com", false).await);
    let (status, made) = server.as_with(&bob, "POST", "/oauth/authorizations", r#"{"scope":["read"]}"#).await;
    assert_eq!(status, 201);
    let reads = made["access_token"]["token"].as_str().unwrap();
    let body = r#"{"user":"bob@example.com","permissions":["view"]}"#;
    server.quietly("POST", "/teams/apps/shop/collaborators", body).await;
    let mut wanted = Vec::new();
    for (token, service, status, event) in [
        ("", "git-receive-pack", 401, None),
        ("hokku_nonsense", "git-receive-pack", 401, Some("unknown token:refused -")),
        (bob.as_str(), "git-receive-pack", 403, Some("bob@example.com git:push shop")),
        (bob.as_str(), "git-upload-pack", 403, Some("bob@example.com read shop")),
        (reads, "git-receive-pack", 403, Some("bob@example.com git:push -")),
        (eve.as_str(), "git-receive-pack", 404, Some("eve@example.com git:push -")),
    ] {
        let basic = format!("Basic {}", STANDARD.encode(format!(":{token}")));
        let request = Server::request("GET", &format!("/shop.git/info/refs?service={service}"));
        let request = if token.is_empty() { request } else { request.header("authorization", basic) };
        let response = server.send_tcp(request.body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), status, "{event:?}");
        let id = response.headers()["request-id"].to_str().unwrap().to_owned();
        wanted.extend(event.map(|event| format!("{event} {status} 127.0.0.1 {id}")));
    }
    let (_, events) = server.as_with(&admin, "GET", "/audit-events?max=1000", "").await;
    let line = |row: &Value| {
        let (who, what) = (row["actor"]["email"].as_str()?, row["action"].as_str()?);
        let (app, origin) = (row["app"]["name"].as_str().unwrap_or("-"), row["origin"].as_str()?);
        Some(format!("{who} {what} {app} {} {origin} {}", row["status"], row["request_id"].as_str()?))
    };
    let found: Vec<String> = events.as_array().unwrap().iter().filter_map(line).collect();
    for line in &wanted {
        assert_eq!(found.iter().filter(|found| *found == line).count(), 1, "{line}: {found:#?}");
    }
    let of_git =
        found.iter().filter(|line| [" git:push ", " read ", " token:refused "].iter().any(|word| line.contains(word)));
    assert_eq!(of_git.count(), wanted.len(), "who shows nothing yet is not refused: git asks so first");
}
