//! `docs/api.md`: all links of the Platform API's schema, and which of them there are. Written anew with
//! `HOKKU_WRITE_DOCS=1`.
#![forbid(unsafe_code)]

use hokku::api::rules::{RULES, Rule};
use hokku::domain::access::Need;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Resource, method, path and title of each link of the published schema.
const LINKS: &str = include_str!("links.txt");

/// Links that have a route and no more: what they answer instead.
const ANSWERS: [(&str, &str, &str); 8] = [
    ("GET", "/account/features", "empty: there are none"),
    ("GET", "/account/features/{}", "404: there are none"),
    ("GET", "/teams", "empty: accounts and access do without teams"),
    ("GET", "/spaces", "empty: each app has a network of its own anyway"),
    ("POST", "/apps/{}/acm", "422: certificates are not fetched; `certs:add` takes yours"),
    ("PATCH", "/apps/{}/acm", "422: certificates are not fetched; `certs:add` takes yours"),
    ("DELETE", "/apps/{}/acm", "422: certificates are not fetched; `certs:add` takes yours"),
    ("GET", "/account/rate-limits", "always 4500: requests are not counted"),
];

/// Why there is no such route, by how its path begins, in this order.
const REASONS: [(&str, &str); 35] = [
    ("/account/app", "not built yet"),
    ("/account/delinquency", "nothing is billed"),
    ("/account/credits", "nothing is billed"),
    ("/account/invoice", "nothing is billed"),
    ("/account/features", "there are none"),
    ("/users/{}/sms-number", "no messages are sent"),
    ("/users/{}/preferences", "preferences of Heroku's web pages"),
    ("/password-resets", "no mails are sent: `users:password`"),
    ("/enterprise-accounts", "one box is no enterprise"),
    ("/spaces", "each app has a network of its own anyway"),
    ("/teams", "accounts and access do without teams"),
    ("/telemetry-drains", "of Heroku's next generation; log drains are here"),
    ("/apps/{}/telemetry-drains", "of Heroku's next generation; log drains are here"),
    ("/apps/{}/oci-images", "apps are slugs: there is no Docker here"),
    ("/apps/{}/webhook", "not built yet"),
    ("/addons/{}/webhook", "not built yet"),
    ("/apps/{}/review-app", "needs GitHub"),
    ("/app-setups", "not built yet"),
    ("/review-apps", "needs GitHub"),
    ("/pipelines/{}/review-app", "needs GitHub"),
    ("/pipelines/{}/stage", "there is no CI here to have them"),
    ("/pipelines/{}/test-runs", "there is no CI here"),
    ("/test-runs", "there is no CI here"),
    ("/addons/{}/actions", "for partners of Heroku's: providers are part of the server here"),
    ("/addons/{}/config", "for partners of Heroku's: providers are part of the server here"),
    ("/addons/{}/log-drains", "for partners of Heroku's: providers are part of the server here"),
    ("/addon-region-capabilities", "there is one region"),
    ("/addon-services/{}/region-capabilities", "there is one region"),
    ("/regions/{}/addon-region-capabilities", "there is one region"),
    ("/oauth/tokens", "nothing logs in for somebody else"),
    ("/oauth", "not built yet"),
    ("/generations", "there is one"),
    ("/credits", "nothing is billed"),
    ("/invoices", "nothing is billed"),
    ("/vpn", "each app has a network of its own anyway"),
];

/// What Heroku's own CLI has asked and got in `tests/heroku_cli`, by the server's word.
const DRIVEN: [&str; 87] = [
    "DELETE /addon-attachments/{}",
    "DELETE /apps/{}",
    "DELETE /apps/{}/addons/{}",
    "DELETE /apps/{}/collaborators/{}",
    "DELETE /apps/{}/domains/{}",
    "DELETE /apps/{}/dynos",
    "DELETE /apps/{}/dynos/{}",
    "DELETE /apps/{}/formations/{}",
    "DELETE /apps/{}/log-drains/{}",
    "DELETE /apps/{}/sni-endpoints/{}",
    "DELETE /oauth/authorizations/{}",
    "DELETE /oauth/clients/{}",
    "DELETE /pipeline-couplings/{}",
    "DELETE /pipelines/{}",
    "GET /account",
    "GET /account/keys",
    "GET /addon-attachments",
    "GET /addon-services",
    "GET /addon-services/{}/plans",
    "GET /addons",
    "GET /addons/{}",
    "GET /addons/{}/addon-attachments",
    "GET /apps",
    "GET /apps/{}",
    "GET /apps/{}/addon-attachments/{}",
    "GET /apps/{}/addons",
    "GET /apps/{}/buildpack-installations",
    "GET /apps/{}/collaborators",
    "GET /apps/{}/config-vars",
    "GET /apps/{}/domains",
    "GET /apps/{}/domains/{}",
    "GET /apps/{}/dynos",
    "GET /apps/{}/features",
    "GET /apps/{}/features/{}",
    "GET /apps/{}/formation",
    "GET /apps/{}/log-drains",
    "GET /apps/{}/pipeline-couplings",
    "GET /apps/{}/releases",
    "GET /apps/{}/releases/{}",
    "GET /apps/{}/releases/{}/config-vars",
    "GET /apps/{}/sni-endpoints",
    "GET /apps/{}/sni-endpoints/{}",
    "GET /oauth/authorizations",
    "GET /oauth/authorizations/{}",
    "GET /oauth/clients",
    "GET /oauth/clients/{}",
    "GET /pipeline-promotions/{}/promotion-targets",
    "GET /pipelines",
    "GET /pipelines/{}/pipeline-couplings",
    "GET /stacks",
    "GET /teams/apps/{}",
    "GET /users/{}",
    "GET /users/{}/apps",
    "PATCH /apps/{}",
    "PATCH /apps/{}/addons/{}",
    "PATCH /apps/{}/config-vars",
    "PATCH /apps/{}/features/{}",
    "PATCH /apps/{}/formation",
    "PATCH /apps/{}/sni-endpoints/{}",
    "PATCH /oauth/authorizations/{}",
    "PATCH /oauth/clients/{}",
    "PATCH /pipelines/{}",
    "PATCH /teams/apps/{}",
    "POST /account/app-transfers",
    "POST /actions/addons/resolve",
    "POST /addon-attachments",
    "POST /apps",
    "POST /apps/{}/addons",
    "POST /apps/{}/collaborators",
    "POST /apps/{}/domains",
    "POST /apps/{}/dynos",
    "POST /apps/{}/dynos/{}/actions/stop",
    "POST /apps/{}/formations/{}/actions/stop",
    "POST /apps/{}/log-drains",
    "POST /apps/{}/log-sessions",
    "POST /apps/{}/releases",
    "POST /apps/{}/sni-endpoints",
    "POST /filters/apps",
    "POST /oauth/authorizations",
    "POST /oauth/authorizations/{}/actions/regenerate-tokens",
    "POST /oauth/clients",
    "POST /oauth/clients/{}/actions/rotate-credentials",
    "POST /pipeline-couplings",
    "POST /pipeline-promotions",
    "POST /pipelines",
    "POST /teams/apps/{}/collaborators",
    "PUT /apps/{}/buildpack-installations",
];

fn plain(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/").replace("/users/~", "/users/{}")
}

fn needs(rule: &Rule) -> &'static str {
    match rule.need {
        Need::Account => "an account",
        Need::Admin => "an administrator",
        Need::On(permission) => permission.word(),
    }
}

/// The reason why it is not there, of the longest beginning that fits.
fn reason(path: &str) -> &'static str {
    let fitting = REASONS.iter().filter(|(begins, _)| path.starts_with(begins));
    fitting.max_by_key(|(begins, _)| begins.len()).map_or_else(|| panic!("why is there no {path}?"), |(_, why)| why)
}

fn document() -> String {
    let rules: BTreeMap<(&str, String), &Rule> =
        RULES.iter().map(|rule| ((rule.method, plain(rule.path)), rule)).collect();
    let (mut rows, mut there, mut beside) = (String::new(), 0, rules.clone());
    for line in LINKS.lines() {
        let mut words = line.splitn(4, ' ');
        let (resource, method) = (words.next().unwrap(), words.next().unwrap());
        let (path, title) = (plain(words.next().unwrap()), words.next().unwrap_or_default());
        let answer = ANSWERS.iter().find(|(verb, place, _)| *verb == method && *place == path).map(|(.., text)| *text);
        let rule = rules.get(&(method, path.clone()));
        beside.remove(&(method, path.clone()));
        let (here, need) = match (rule, answer) {
            (Some(rule), Some(answer)) => (answer.to_owned(), needs(rule)),
            (Some(rule), None) => {
                there += 1;
                let driven = DRIVEN.contains(&format!("{method} {path}").as_str());
                (if driven { "yes, driven by Heroku's CLI".to_owned() } else { "yes".to_owned() }, needs(rule))
            }
            (None, _) => (format!("404: {}", reason(&path)), ""),
        };
        writeln!(rows, "| {resource} | {title} | `{method} {path}` | {here} | {need} |").unwrap();
    }
    let mut own = String::new();
    for ((method, path), rule) in &beside {
        writeln!(own, "| `{method} {path}` | {} |", needs(rule)).unwrap();
    }
    let links = LINKS.lines().count();
    format!(
        "# The API\n\n\
         Heroku's Platform API, version 3. Of the {links} links of its published schema {there} are here; the others say so in \
         the API's own form. Each answer in the API's suite that succeeds is checked against the schema, property by property, where the \
         schema lies beside the checkout (`tests/api/schema.rs`). What Heroku's own CLI asks in `tests/heroku_cli`, where its \
         effect is seen by a second way, is marked.\n\n\
         This page is made of the routes' own table, `src/api/rules.rs`, by a test: \
         `HOKKU_WRITE_DOCS=1 cargo test --test api docs`.\n\n\
         ## Links of the schema\n\n\
         The last column is what an account has to be allowed: a permission on the app, or on what belongs to it; see \
         [security.md](security.md).\n\n\
         | resource | link | request | here | needs |\n| --- | --- | --- | --- | --- |\n{rows}\n\
         ## Beside the schema\n\n\
         What Heroku's CLI asks for though the schema does not have it, and hokku's own.\n\n\
         | request | needs |\n| --- | --- |\n{own}\n\
         For everybody: `GET /buildpacks`, `/buildpacks/{{}}`, `/buildpacks/{{}}/readme`, `/buildpacks/{{}}/revisions`, in which Heroku's CLI \
         looks up names. \
         Addresses that are secrets themselves, from an answer of the API: `/streams/…`, `/sources/…`, `/slugs/…`, `/logs/…`, `/attach/…`.\n\n\
         ## Known differences from Heroku\n\n\
         - A token's text is shown when it is made, and then only to who shows it; elsewhere it is null. Only its digest is kept.\n\
         - OAuth clients are kept with their secrets, and nobody logs in by them: `/oauth/tokens` is not here. Sessions are the tokens \
         that were had by address and password; `/oauth/sessions/~` is none, as Heroku's CLI takes that token back itself.\n\
         - `run:inside` (`POST /apps/{{}}/dynos/{{}}`) takes a dyno of any app that is up; the command is one of a shell, never the name of \
         a process type.\n\
         - `source_blob.url` of a build and `blob.url` of a slug are null: what was sent is kept, but not given out by URL.\n\
         - A slug that a client brings is packed anew: `size` is that of our archive. On `debian-13` its dynos have the base alone, no layer of a language. A slug that was asked for is forgotten after an hour, or by a restart, when nothing was put to its URL.\n\
         - `DELETE /apps/{{}}/build-cache` answers `{{}}`.\n\
         - There is one region, `local`, of the provider `hokku`; one generation, `cedar`; teams and spaces there are none. \
         `/teams/apps/{{}}` is every app, since clients lock apps and give permissions there.\n\
         - A collaborator may everything but manage, unless permissions are given; a transfer made by an administrator needs no \
         answer.\n\
         - `failure_message` of a release and of a build says why it failed; Heroku has none.\n\
         - `/pipelines/{{}}/pipeline-stack` is the stack of new apps, as there is no CI to have another. `/pipeline-transfers` takes the new \
         owner's address as well as the id.\n\
         - The registry of buildpacks has those that are part of hokku; each has one version, hokku's own, without a date.\n\
         - Nothing costs anything: prices are 0, and no request is ever refused for its number.\n\
         - Dynos are not cycled every day, and no app sleeps.\n"
    )
}

#[test]
fn the_table_of_the_api_is_the_one_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let made = document();
    if std::env::var_os("HOKKU_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/api.md is out of date: HOKKU_WRITE_DOCS=1 cargo test --test api docs");
}

#[test]
fn what_is_said_of_links_is_said_of_some() {
    let links: Vec<String> = LINKS
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            format!("{} {}", words[1], plain(words[2]))
        })
        .collect();
    let rules: Vec<String> = RULES.iter().map(|rule| format!("{} {}", rule.method, plain(rule.path))).collect();
    for driven in DRIVEN {
        assert!(rules.iter().any(|rule| rule == driven) && links.iter().any(|link| link == driven), "{driven}");
    }
    for (method, path, _) in ANSWERS {
        assert!(rules.contains(&format!("{method} {path}")), "{method} {path}");
    }
}
