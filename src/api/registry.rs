//! `/buildpacks`: the registry in which Heroku's CLI looks names up. It has the buildpacks that are part of hokku; each has
//! one version, which is hokku's.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::Segments;
use crate::build::Buildpack;
use crate::build::buildpack::{self, Source};
use crate::control::{Control, Resource};
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// For everybody: that client sends no token there.
pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/buildpacks", get(search))
        .route("/buildpacks/{buildpack}", get(look_up))
        .route("/buildpacks/{buildpack}/readme", get(readme))
        .route("/buildpacks/{buildpack}/revisions", get(revisions))
}

/// The folder of one of ours, by whatever name.
fn own(name: &str) -> Option<&'static str> {
    match Buildpack::parse(name).ok()?.source {
        Source::Own(folder) => Some(folder),
        _ => None,
    }
}

fn found(path: &Segments) -> ApiResult<&'static str> {
    own(path.get("buildpack")).ok_or_else(|| ApiError::not_found(Resource::Buildpack))
}

/// `in[namespace][]`, `in[name][]` and `like[description]`: a row fits when it fits each of those that are given.
async fn search(Query(wanted): Query<Vec<(String, String)>>) -> Json<Vec<Value>> {
    let one_of = |key: &str, name: &str| {
        let mut named = wanted.iter().filter(|(given, _)| given == key).peekable();
        named.peek().is_none() || named.any(|(_, value)| value == name)
    };
    let like = wanted.iter().find(|(key, _)| key == "like[description]").map(|(_, value)| value.to_lowercase());
    let fits = |folder: &&str| {
        one_of("in[namespace][]", "heroku")
            && one_of("in[name][]", folder)
            && like.as_ref().is_none_or(|words| description(folder).to_lowercase().contains(words))
    };
    Json(buildpack::folders().filter(fits).map(registered).collect())
}

/// What the client makes a name's URL is the name itself. It takes any answer for one with a URL, so that a name which
/// is none gets one too, and what is wrong with it is told when it is to be an app's.
async fn look_up(path: Segments) -> (StatusCode, Json<Value>) {
    let name = path.get("buildpack");
    let Some(folder) = own(name) else {
        let message = "Couldn't find that buildpack.";
        return (StatusCode::NOT_FOUND, Json(json!({ "blob_url": name, "id": "not_found", "message": message })));
    };
    (StatusCode::OK, Json(registered(folder)))
}

async fn revisions(path: Segments) -> ApiResult<Json<Value>> {
    found(&path)?;
    let license = env!("CARGO_PKG_LICENSE");
    // When that was released, the server does not know.
    Ok(Json(json!([{ "created_at": null, "license": license, "release": VERSION, "status": "published" }])))
}

async fn readme(path: Segments) -> ApiResult<Json<Value>> {
    let folder = found(&path)?;
    let text = format!(
        "{}\n\nheroku/{folder} is part of hokku and has its version, {VERSION}.\n",
        buildpack::when_it_fits(folder)
    );
    Ok(Json(json!({ "content": STANDARD.encode(text), "encoding": "base64" })))
}

fn description(folder: &str) -> String {
    format!("{}, as it is part of hokku", buildpack::language(folder))
}

fn registered(folder: &str) -> Value {
    json!({
        "blob_url": format!("heroku/{folder}"),
        "category": "languages",
        "description": description(folder),
        "name": folder,
        "namespace": "heroku",
        "source": { "type": "hokku" },
        "support": { "address": "hokku's maintainers", "method": "other" },
        "two_factor_authentication": false,
    })
}
