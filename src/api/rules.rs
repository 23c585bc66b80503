//! What each route needs and, when it changes something, what that is called in the audit log: one row a route, no row
//! for several, and a route without a row answers nobody.
#![forbid(unsafe_code)]

use crate::domain::access::{Need, Permission};
use crate::domain::scope::Scope;
use std::collections::HashMap;
use std::sync::LazyLock;

/// What one route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub method: &'static str,
    pub path: &'static str,
    /// What the token has to be good for.
    pub scope: Scope,
    /// What its account has to be allowed; of apps that are not in the path but in the body, the use case asks.
    pub need: Need,
    /// What is changed; none when nothing is.
    pub action: Option<&'static str>,
}

/// The row of a request, by its method and the pattern of its path.
pub fn rule(method: &str, path: &str) -> Option<&'static Rule> {
    static BY_ROUTE: LazyLock<HashMap<(&str, &str), &Rule>> =
        LazyLock::new(|| RULES.iter().map(|rule| ((rule.method, rule.path), rule)).collect());
    BY_ROUTE.get(&(if method == "HEAD" { "GET" } else { method }, path)).copied()
}

const ACCOUNT: Need = Need::Account;
const ADMIN: Need = Need::Admin;
const VIEW: Need = Need::On(Permission::View);
const DEPLOY: Need = Need::On(Permission::Deploy);
const OPERATE: Need = Need::On(Permission::Operate);
const MANAGE: Need = Need::On(Permission::Manage);

use Scope::{Global, Identity, Read, ReadProtected, Write, WriteProtected};

const fn get(path: &'static str, scope: Scope, need: Need) -> Rule {
    Rule { method: "GET", path, scope, need, action: None }
}

/// A `POST` that only asks.
const fn ask(path: &'static str, scope: Scope, need: Need) -> Rule {
    Rule { method: "POST", path, scope, need, action: None }
}

const fn post(path: &'static str, scope: Scope, need: Need, action: &'static str) -> Rule {
    Rule { method: "POST", path, scope, need, action: Some(action) }
}

const fn put(path: &'static str, scope: Scope, need: Need, action: &'static str) -> Rule {
    Rule { method: "PUT", path, scope, need, action: Some(action) }
}

const fn patch(path: &'static str, scope: Scope, need: Need, action: &'static str) -> Rule {
    Rule { method: "PATCH", path, scope, need, action: Some(action) }
}

const fn delete(path: &'static str, scope: Scope, need: Need, action: &'static str) -> Rule {
    Rule { method: "DELETE", path, scope, need, action: Some(action) }
}

/// All of them, by what they are about.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    // ---- oneself ----
    get   ("/account",                                                  Identity,       ACCOUNT),
    patch ("/account",                                                  Global,         ACCOUNT, "account:update"),
    delete("/account",                                                  Global,         ACCOUNT, "account:remove"),
    get   ("/account/rate-limits",                                      Identity,       ACCOUNT),
    get   ("/account/features",                                         Global,         ACCOUNT),
    get   ("/account/features/{feature}",                               Global,         ACCOUNT),
    get   ("/account/keys",                                             Global,         ACCOUNT),
    post  ("/account/keys",                                             Global,         ACCOUNT, "key:add"),
    get   ("/account/keys/{key}",                                       Global,         ACCOUNT),
    delete("/account/keys/{key}",                                       Global,         ACCOUNT, "key:remove"),
    get   ("/account/app-transfers",                                    Global,         ACCOUNT),
    post  ("/account/app-transfers",                                    Global,         ACCOUNT, "transfer:create"),
    get   ("/account/app-transfers/{transfer}",                         Global,         ACCOUNT),
    patch ("/account/app-transfers/{transfer}",                         Global,         ACCOUNT, "transfer:answer"),
    delete("/account/app-transfers/{transfer}",                         Global,         ACCOUNT, "transfer:withdraw"),
    get   ("/oauth/authorizations",                                     Global,         ACCOUNT),
    post  ("/oauth/authorizations",                                     Global,         ACCOUNT, "authorization:create"),
    get   ("/oauth/authorizations/{authorization}",                     Global,         ACCOUNT),
    patch ("/oauth/authorizations/{authorization}",                     Global,         ACCOUNT, "authorization:update"),
    delete("/oauth/authorizations/{authorization}",                     Global,         ACCOUNT, "authorization:revoke"),
    post  ("/oauth/authorizations/{authorization}/actions/regenerate-tokens", Global,   ACCOUNT, "authorization:rotate"),
    get   ("/oauth/clients",                                            Global,         ACCOUNT),
    post  ("/oauth/clients",                                            Global,         ACCOUNT, "client:create"),
    get   ("/oauth/clients/{client}",                                   Global,         ACCOUNT),
    patch ("/oauth/clients/{client}",                                   Global,         ACCOUNT, "client:update"),
    delete("/oauth/clients/{client}",                                   Global,         ACCOUNT, "client:destroy"),
    post  ("/oauth/clients/{client}/actions/rotate-credentials",        Global,         ACCOUNT, "client:rotate"),
    get   ("/oauth/sessions",                                           Global,         ACCOUNT),
    delete("/oauth/sessions/{session}",                                 Global,         ACCOUNT, "session:destroy"),
    get   ("/users/{user}",                                             Identity,       ACCOUNT),
    patch ("/users/{user}",                                             Global,         ACCOUNT, "account:update"),
    delete("/users/{user}",                                             Global,         ACCOUNT, "account:remove"),
    get   ("/users/{user}/apps",                                        Read,           ACCOUNT),
    get   ("/users/{user}/addons",                                      Read,           ACCOUNT),
    get   ("/users/{user}/pipeline-couplings",                          Read,           ACCOUNT),

    // ---- apps ----
    get   ("/apps",                                                     Read,           ACCOUNT),
    post  ("/apps",                                                     Write,          ACCOUNT, "app:create"),
    ask   ("/filters/apps",                                             Read,           ACCOUNT),
    get   ("/apps/{app}",                                               Read,           VIEW),
    patch ("/apps/{app}",                                               Write,          OPERATE, "app:update"),
    delete("/apps/{app}",                                               Write,          MANAGE,  "app:destroy"),
    get   ("/apps/{app}/features",                                      Read,           VIEW),
    get   ("/apps/{app}/features/{feature}",                            Read,           VIEW),
    patch ("/apps/{app}/features/{feature}",                            Write,          OPERATE, "feature:update"),
    get   ("/apps/{app}/available-stacks",                              Read,           VIEW),
    // Whoever gives access gives more than a token for `write` has: config vars, for one.
    get   ("/apps/{app}/collaborators",                                 Read,           VIEW),
    post  ("/apps/{app}/collaborators",                                 Global,         MANAGE,  "collaborator:add"),
    get   ("/apps/{app}/collaborators/{collaborator}",                  Read,           VIEW),
    // Everybody may leave: who may take whom off is the use case's.
    delete("/apps/{app}/collaborators/{collaborator}",                  Global,         VIEW,    "collaborator:remove"),
    get   ("/teams/apps/{app}",                                         Read,           VIEW),
    patch ("/teams/apps/{app}",                                         Global,         MANAGE,  "app:update"),
    get   ("/teams/apps/{app}/collaborators",                           Read,           VIEW),
    post  ("/teams/apps/{app}/collaborators",                           Global,         MANAGE,  "collaborator:add"),
    get   ("/teams/apps/{app}/collaborators/{collaborator}",            Read,           VIEW),
    patch ("/teams/apps/{app}/collaborators/{collaborator}",            Global,         MANAGE,  "collaborator:update"),
    delete("/teams/apps/{app}/collaborators/{collaborator}",            Global,         VIEW,    "collaborator:remove"),

    // ---- code ----
    get   ("/apps/{app}/builds",                                        Read,           VIEW),
    post  ("/apps/{app}/builds",                                        Write,          DEPLOY,  "build:create"),
    get   ("/apps/{app}/builds/{build}",                                Read,           VIEW),
    delete("/apps/{app}/builds/{build}",                                Write,          DEPLOY,  "build:cancel"),
    post  ("/apps/{app}/builds/actions/rebuild",                        Write,          DEPLOY,  "build:create"),
    delete("/apps/{app}/build-cache",                                   Write,          DEPLOY,  "build-cache:purge"),
    // Their URLs may hold passwords.
    get   ("/apps/{app}/buildpack-installations",                       ReadProtected,  DEPLOY),
    put   ("/apps/{app}/buildpack-installations",                       Write,          DEPLOY,  "buildpacks:set"),
    // An upload changes nothing until it is built.
    ask   ("/sources",                                                  Write,          ACCOUNT),
    ask   ("/apps/{app}/sources",                                       Write,          DEPLOY),
    post  ("/apps/{app}/slugs",                                         Write,          DEPLOY,  "slug:create"),
    get   ("/apps/{app}/slugs/{slug}",                                  Read,           DEPLOY),
    get   ("/apps/{app}/releases",                                      Read,           VIEW),
    post  ("/apps/{app}/releases",                                      Write,          DEPLOY,  "release:create"),
    get   ("/apps/{app}/releases/{release}",                            Read,           VIEW),
    get   ("/apps/{app}/releases/{release}/config-vars",                ReadProtected,  DEPLOY),
    get   ("/apps/{app}/config-vars",                                   ReadProtected,  DEPLOY),
    patch ("/apps/{app}/config-vars",                                   WriteProtected, DEPLOY,  "config-vars:update"),

    // ---- dynos ----
    get   ("/apps/{app}/dynos",                                         Read,           VIEW),
    post  ("/apps/{app}/dynos",                                         WriteProtected, DEPLOY,  "dyno:run"),
    delete("/apps/{app}/dynos",                                         Write,          OPERATE, "dyno:restart"),
    get   ("/apps/{app}/dynos/{dyno}",                                  Read,           VIEW),
    post  ("/apps/{app}/dynos/{dyno}",                                  WriteProtected, DEPLOY,  "dyno:run-inside"),
    delete("/apps/{app}/dynos/{dyno}",                                  Write,          OPERATE, "dyno:restart"),
    post  ("/apps/{app}/dynos/{dyno}/actions/stop",                     Write,          OPERATE, "dyno:stop"),
    delete("/apps/{app}/formations/{type}",                             Write,          OPERATE, "dyno:restart"),
    post  ("/apps/{app}/formations/{type}/actions/stop",                Write,          OPERATE, "dyno:stop"),
    get   ("/apps/{app}/formation",                                     Read,           VIEW),
    patch ("/apps/{app}/formation",                                     Write,          OPERATE, "formation:update"),
    get   ("/apps/{app}/formation/{type}",                              Read,           VIEW),
    patch ("/apps/{app}/formation/{type}",                              Write,          OPERATE, "formation:update"),
    ask   ("/apps/{app}/log-sessions",                                  Read,           VIEW),
    // Their URLs may hold passwords.
    get   ("/apps/{app}/log-drains",                                    ReadProtected,  OPERATE),
    post  ("/apps/{app}/log-drains",                                    WriteProtected, OPERATE, "log-drain:add"),
    get   ("/apps/{app}/log-drains/{drain}",                            ReadProtected,  OPERATE),
    delete("/apps/{app}/log-drains/{drain}",                            WriteProtected, OPERATE, "log-drain:remove"),

    // ---- how an app is reached, and what it reaches ----
    get   ("/apps/{app}/domains",                                       Read,           VIEW),
    post  ("/apps/{app}/domains",                                       Write,          OPERATE, "domain:add"),
    get   ("/apps/{app}/domains/{domain}",                              Read,           VIEW),
    patch ("/apps/{app}/domains/{domain}",                              Write,          OPERATE, "domain:update"),
    delete("/apps/{app}/domains/{domain}",                              Write,          OPERATE, "domain:remove"),
    get   ("/apps/{app}/sni-endpoints",                                 Read,           VIEW),
    post  ("/apps/{app}/sni-endpoints",                                 Write,          OPERATE, "sni-endpoint:add"),
    get   ("/apps/{app}/sni-endpoints/{sni_endpoint}",                  Read,           VIEW),
    patch ("/apps/{app}/sni-endpoints/{sni_endpoint}",                  Write,          OPERATE, "sni-endpoint:update"),
    delete("/apps/{app}/sni-endpoints/{sni_endpoint}",                  Write,          OPERATE, "sni-endpoint:remove"),
    get   ("/apps/{app}/acm",                                           Read,           VIEW),
    post  ("/apps/{app}/acm",                                           Write,          OPERATE, "acm:enable"),
    patch ("/apps/{app}/acm",                                           Write,          OPERATE, "acm:refresh"),
    delete("/apps/{app}/acm",                                           Write,          OPERATE, "acm:disable"),
    get   ("/apps/{app}/egress",                                        Read,           VIEW),
    patch ("/apps/{app}/egress",                                        Write,          OPERATE, "egress:update"),

    // ---- add-ons ----
    get   ("/addon-services",                                           Read,           ACCOUNT),
    get   ("/addon-services/{service}",                                 Read,           ACCOUNT),
    get   ("/addon-services/{service}/plans",                           Read,           ACCOUNT),
    get   ("/addon-services/{service}/plans/{plan}",                    Read,           ACCOUNT),
    get   ("/plans/{plan}",                                             Read,           ACCOUNT),
    get   ("/addons",                                                   Read,           ACCOUNT),
    get   ("/addons/{addon}",                                           Read,           VIEW),
    get   ("/addons/{addon}/config",                                    ReadProtected,  DEPLOY),
    get   ("/addons/{addon}/addon-attachments",                         Read,           VIEW),
    get   ("/apps/{app}/addons",                                        Read,           VIEW),
    post  ("/apps/{app}/addons",                                        Write,          OPERATE, "addon:create"),
    get   ("/apps/{app}/addons/{addon}",                                Read,           VIEW),
    patch ("/apps/{app}/addons/{addon}",                                Write,          OPERATE, "addon:update"),
    delete("/apps/{app}/addons/{addon}",                                Write,          OPERATE, "addon:destroy"),
    get   ("/apps/{app}/addon-attachments",                             Read,           VIEW),
    get   ("/apps/{app}/addon-attachments/{attachment}",                Read,           VIEW),
    get   ("/addon-attachments",                                        Read,           ACCOUNT),
    post  ("/addon-attachments",                                        Write,          ACCOUNT, "addon:attach"),
    get   ("/addon-attachments/{attachment}",                           Read,           VIEW),
    delete("/addon-attachments/{attachment}",                           Write,          OPERATE, "addon:detach"),
    ask   ("/actions/addons/resolve",                                   Read,           ACCOUNT),
    ask   ("/actions/addon-attachments/resolve",                        Read,           ACCOUNT),

    // ---- pipelines ----
    get   ("/pipelines",                                                Read,           ACCOUNT),
    post  ("/pipelines",                                                Write,          ACCOUNT, "pipeline:create"),
    get   ("/pipelines/{pipeline}",                                     Read,           VIEW),
    patch ("/pipelines/{pipeline}",                                     Write,          MANAGE,  "pipeline:update"),
    delete("/pipelines/{pipeline}",                                     Write,          MANAGE,  "pipeline:destroy"),
    get   ("/pipelines/{pipeline}/pipeline-couplings",                  Read,           VIEW),
    get   ("/pipelines/{pipeline}/pipeline-stack",                      Read,           VIEW),
    // Who may give which away is the use case's.
    post  ("/pipeline-transfers",                                       Write,          ACCOUNT, "pipeline:transfer"),
    get   ("/pipelines/{pipeline}/latest-builds",                       Read,           VIEW),
    get   ("/pipelines/{pipeline}/latest-releases",                     Read,           VIEW),
    get   ("/pipelines/{pipeline}/latest-deployments",                  Read,           VIEW),
    get   ("/pipeline-couplings",                                       Read,           ACCOUNT),
    post  ("/pipeline-couplings",                                       Write,          ACCOUNT, "pipeline:couple"),
    get   ("/pipeline-couplings/{coupling}",                            Read,           VIEW),
    patch ("/pipeline-couplings/{coupling}",                            Write,          OPERATE, "pipeline:move"),
    delete("/pipeline-couplings/{coupling}",                            Write,          OPERATE, "pipeline:uncouple"),
    get   ("/apps/{app}/pipeline-couplings",                            Read,           VIEW),
    post  ("/pipeline-promotions",                                      Write,          ACCOUNT, "pipeline:promote"),
    get   ("/pipeline-promotions/{promotion}",                          Read,           VIEW),
    get   ("/pipeline-promotions/{promotion}/promotion-targets",        Read,           VIEW),

    // ---- the box ----
    get   ("/regions",                                                  Read,           ACCOUNT),
    get   ("/regions/{region}",                                         Read,           ACCOUNT),
    get   ("/generations",                                              Read,           ACCOUNT),
    get   ("/generations/{generation}",                                 Read,           ACCOUNT),
    get   ("/teams/permissions",                                        Read,           ACCOUNT),
    get   ("/dyno-sizes",                                               Read,           ACCOUNT),
    get   ("/dyno-sizes/{size}",                                        Read,           ACCOUNT),
    get   ("/apps/{app}/available-dyno-sizes",                          Read,           VIEW),
    get   ("/teams",                                                    Read,           ACCOUNT),
    get   ("/spaces",                                                   Read,           ACCOUNT),
    get   ("/stacks",                                                   Read,           ACCOUNT),
    get   ("/stacks/{stack}",                                           Read,           ACCOUNT),
    post  ("/stacks/{stack}/builds",                                    Global,         ADMIN,   "stack:build"),
    get   ("/stacks/{stack}/builds/{build}",                            Read,           ACCOUNT),
    delete("/stacks/{stack}/builds/{build}",                            Global,         ADMIN,   "stack:cancel"),
    get   ("/stacks/{stack}/archive",                                   Read,           ADMIN),
    post  ("/stacks/{stack}/imports",                                   Global,         ADMIN,   "stack:import"),
    get   ("/runtimes",                                                 Read,           ACCOUNT),
    post  ("/runtimes",                                                 Global,         ADMIN,   "runtime:import"),
    delete("/runtimes/{language}/{version}",                            Global,         ADMIN,   "runtime:remove"),
    get   ("/disk",                                                     Read,           ADMIN),
    post  ("/disk/actions/collect",                                     Global,         ADMIN,   "disk:collect"),
    get   ("/accounts",                                                 Global,         ADMIN),
    post  ("/accounts",                                                 Global,         ADMIN,   "account:create"),
    patch ("/accounts/{account}",                                       Global,         ADMIN,   "account:update"),
    delete("/accounts/{account}",                                       Global,         ADMIN,   "account:remove"),
    get   ("/accounts/{account}/authorizations",                        Global,         ADMIN),
    delete("/accounts/{account}/authorizations/{authorization}",        Global,         ADMIN,   "authorization:revoke"),
    // One's own apps; all for administrators.
    get   ("/audit-events",                                             Global,         ACCOUNT),
    get   ("/apps/{app}/audit-events",                                  ReadProtected,  MANAGE),
];
