//! Every route for every role: who may, who may not, and for whom nothing is there.
#![forbid(unsafe_code)]

use crate::server::Server;
use hokku::api::rules::{RULES, Rule};
use hokku::domain::access::{Need, Permissions, Role, Verdict, verdict};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What exists, for the parts of paths; what is not here does not exist.
struct World {
    server: Server,
    attachment: String,
    coupling: String,
    promotion: String,
}

fn text(row: &Value) -> String {
    row.as_str().unwrap().to_owned()
}

impl World {
    async fn new() -> (Self, Vec<(&'static str, String)>) {
        let server = Server::start().await;
        let mut tokens = Vec::new();
        for name in ["admin", "owner", "manage", "operate", "deploy", "view", "stranger"] {
            tokens.push((name, server.newcomer(&format!("{name}@example.com"), name == "admin").await));
        }
        let owner = &tokens[1].1;
        assert_eq!(server.as_with(owner, "POST", "/apps", r#"{"name":"shop"}"#).await.0, 201);
        for name in ["manage", "operate", "deploy", "view"] {
            let body = json!({ "user": format!("{name}@example.com"), "permissions": [name] }).to_string();
            assert_eq!(server.as_with(owner, "POST", "/teams/apps/shop/collaborators", &body).await.0, 201);
        }
        server.deploy("1a2b3c4d5e6f").await;
        assert_eq!(server.as_with(owner, "POST", "/apps", r#"{"name":"live"}"#).await.0, 201);
        let mut world = Self { server, attachment: String::new(), coupling: String::new(), promotion: String::new() };
        world.restore(owner).await;
        (world, tokens)
    }

    /// Makes again what a request that was allowed has taken away.
    async fn restore(&mut self, owner: &str) {
        let server = &self.server;
        if server.as_with(owner, "GET", "/addons/shop-db", "").await.0 != 200 {
            let body = json!({ "plan": "external", "name": "shop-db", "config": { "url": "postgres://u:p@h/d" } });
            assert_eq!(server.as_with(owner, "POST", "/apps/shop/addons", &body.to_string()).await.0, 201);
        }
        let (_, attachments) = server.as_with(owner, "GET", "/apps/shop/addon-attachments", "").await;
        self.attachment = text(&attachments[0]["id"]);
        if server.as_with(owner, "GET", "/pipelines/line", "").await.0 != 200 {
            assert_eq!(server.as_with(owner, "POST", "/pipelines", r#"{"name":"line"}"#).await.0, 201);
        }
        for (app, stage) in [("shop", "staging"), ("live", "production")] {
            let path = format!("/apps/{app}/pipeline-couplings");
            if server.as_with(owner, "GET", &path, "").await.0 != 200 {
                let body = json!({ "app": app, "pipeline": "line", "stage": stage }).to_string();
                assert_eq!(server.as_with(owner, "POST", "/pipeline-couplings", &body).await.0, 201);
            }
        }
        self.coupling = text(&server.as_with(owner, "GET", "/apps/shop/pipeline-couplings", "").await.1["id"]);
        let path = format!("/pipeline-promotions/{}", self.promotion);
        if self.promotion.is_empty() || server.as_with(owner, "GET", &path, "").await.0 != 200 {
            let body = json!({ "pipeline": "line", "source": { "app": "shop" }, "targets": [{ "app": "live" }] });
            let (status, made) = server.as_with(owner, "POST", "/pipeline-promotions", &body.to_string()).await;
            assert_eq!(status, 201, "{made}");
            self.promotion = text(&made["id"]);
        }
    }

    /// The path with what exists, or does not, in it; and the word that a client hears when that is hidden from it.
    fn path(&self, rule: &Rule) -> (String, &'static str) {
        let known = [
            ("{app}", "shop", "app"),
            ("{addon}", "shop-db", "add_on"),
            ("{attachment}", &self.attachment, "add_on attachment"),
            ("{pipeline}", "line", "pipeline"),
            ("{coupling}", &self.coupling, "pipeline coupling"),
            ("{promotion}", &self.promotion, "pipeline promotion"),
        ];
        let hidden = known.iter().find(|(part, ..)| rule.path.contains(part)).map_or("", |(.., word)| word);
        // Under an app, what else the path names need not exist: the verdict comes first.
        let known = if rule.path.contains("{app}") { &known[..1] } else { &known[..] };
        let path = known.iter().fold(rule.path.to_owned(), |path, (part, value, _)| path.replace(part, value));
        let path = path.replace("{user}", "~").replace("{release}", "1").replace("{type}", "clock");
        let mut parts: Vec<&str> = path.split('/').collect();
        for part in &mut parts {
            if part.starts_with('{') {
                *part = "nope";
            }
        }
        (parts.join("/"), hidden)
    }
}

/// How somebody of that name stands to what a path names: pipelines are seen by who sees one of their apps.
fn role(name: &str, rule: &Rule) -> Role {
    let through = rule.path.starts_with("/pipelines/");
    match name {
        "admin" => Role::Admin,
        "stranger" => Role::Stranger,
        // On the box, they all are strangers.
        _ if rule.need == Need::Account || rule.need == Need::Admin => Role::Stranger,
        "owner" => Role::Owner,
        _ if through => Role::Collaborator(Permissions::only_view()),
        permission => Role::Collaborator(permission.parse().unwrap()),
    }
}

#[tokio::test]
async fn every_route_says_yes_no_or_nothing_there_to_every_role() {
    let (mut world, tokens) = World::new().await;
    let owner = tokens[1].1.clone();
    // At last, what takes the app itself away: of those who may, the administrator does it.
    let destroys = |rule: &Rule| rule.method == "DELETE" && rule.path == "/apps/{app}";
    let mut rules: Vec<&Rule> = RULES.iter().collect();
    rules.sort_by_key(|rule| destroys(rule));
    let mut asked = 0;
    for rule in rules {
        // Whoever may comes after those who may not.
        for (name, token) in tokens.iter().rev() {
            if destroys(rule) && matches!(*name, "owner" | "manage") {
                continue;
            }
            let (path, hidden) = world.path(rule);
            // Nothing that a handler could read, so that whoever may changes as little as possible.
            let (status, body) = world.server.as_with(token, rule.method, &path, "[").await;
            let found = match status {
                404 if body["resource"] == hidden && !hidden.is_empty() => Verdict::Hidden,
                403 => Verdict::MayNot,
                401 => panic!("{} {path} as {name}: {body}", rule.method),
                _ => Verdict::May,
            };
            let wanted = verdict(&role(name, rule), rule.need);
            assert_eq!(found, wanted, "{} {path} as {name}: {status} {body}", rule.method);
            assert_ne!(status, 500, "{} {path} as {name}: {body}", rule.method);
            asked += 1;
            if rule.method == "DELETE" && found == Verdict::May && !rule.path.contains("{app}") {
                world.restore(&owner).await;
            }
        }
    }
    assert_eq!(asked, RULES.len() * tokens.len() - 2);
    let (status, _) = world.server.as_with(&owner, "GET", "/apps/shop", "").await;
    assert_eq!(status, 404, "the administrator has destroyed it");
}

#[tokio::test]
async fn no_route_is_without_its_rule_and_no_rule_without_its_route() {
    let server = Server::start().await;
    let rules: BTreeSet<(&str, &str)> = RULES.iter().map(|rule| (rule.method, rule.path)).collect();
    assert_eq!(rules.len(), RULES.len(), "a rule is there twice");
    let paths: BTreeSet<&str> = RULES.iter().map(|rule| rule.path).collect();
    for path in paths {
        let real: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "nope" } else { part }).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            // Without a token, who asks hears of no route but that he must say who he is.
            let request = Server::request(method, &real.join("/")).body(http_body_util::Full::default()).unwrap();
            let answered = server.send_tcp(request).await.status().as_u16() == 401;
            assert_eq!(answered, rules.contains(&(method, path)), "{method} {path}");
        }
    }
}
