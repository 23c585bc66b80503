//! Heroku's Platform API v3, as far as it goes, and the few routes of our own beside it.
//!
//! ```text
//!  listener ─▶ Request-Id ─▶ token ─▶ handler ─▶ control ─▶ serializer
//!                   │
//!                   ├─ /streams /sources /slugs /logs /attach: the URL itself is the secret
//!                   └─ /buildpacks: for everybody
//! ```
//!
//! One file per resource: its routes, what it accepts, how it looks. What is said when something is wrong is in
//! [`error`], who asks in [`request`], lists in [`paging`].
#![forbid(unsafe_code)]

mod account;
mod accounts;
mod addons;
mod apps;
mod attach;
mod audit;
mod authorizations;
mod buildpacks;
mod builds;
mod collaborators;
mod config_vars;
mod disk;
mod domains;
mod dynos;
mod egress;
mod error;
mod features;
mod formation;
mod keys;
mod listener;
mod log_drains;
mod logs;
mod oauth_clients;
mod paging;
mod pipelines;
mod platform;
mod registry;
mod releases;
mod rendezvous;
mod request;
pub mod rules;
mod runtimes;
mod sessions;
mod slugs;
mod sni_endpoints;
mod sources;
mod stacks;
mod streams;
mod transfers;

pub use listener::{serve_tcp, serve_unix};

use crate::control::Control;
use axum::{Router, middleware};

/// What is served beside the API has ids for its requests too.
fn identified(beside: Router) -> Router {
    beside.layer(middleware::from_fn(request::identify))
}

/// Everything the API answers.
fn routes(control: Control) -> Router {
    let with_token = Router::new()
        .merge(account::routes())
        .merge(accounts::routes())
        .merge(audit::routes())
        .merge(collaborators::routes())
        .merge(keys::routes())
        .merge(transfers::routes())
        .merge(addons::routes())
        .merge(apps::routes())
        .merge(authorizations::routes())
        .merge(buildpacks::routes())
        .merge(builds::routes())
        .merge(config_vars::routes())
        .merge(disk::routes())
        .merge(domains::routes())
        .merge(dynos::routes())
        .merge(egress::routes())
        .merge(features::routes())
        .merge(formation::routes())
        .merge(log_drains::routes())
        .merge(logs::routes())
        .merge(oauth_clients::routes())
        .merge(pipelines::routes())
        .merge(platform::routes())
        .merge(releases::routes())
        .merge(runtimes::routes())
        .merge(sessions::routes())
        .merge(slugs::routes())
        .merge(sni_endpoints::routes())
        .merge(sources::routes())
        .merge(stacks::routes())
        .route_layer(middleware::from_fn_with_state(control.clone(), request::authenticate));
    let with_secret = Router::new()
        .merge(attach::routes())
        .merge(logs::streams())
        .merge(slugs::uploads())
        .merge(sources::uploads())
        .merge(streams::routes());
    let for_everybody = registry::routes();
    with_token
        .merge(with_secret)
        .merge(for_everybody)
        .fallback(error::no_such_endpoint)
        .method_not_allowed_fallback(error::no_such_endpoint)
        .layer(middleware::from_fn(request::identify))
        .with_state(control)
}
