//! `/apps/:app/buildpack-installations`, and `/buildpacks`: the registry in which Heroku's CLI looks names up.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{At, Input, Segments};
use crate::build::Buildpack;
use crate::build::buildpack::OWN;
use crate::control::{Control, Resource, buildpacks};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/buildpack-installations", get(list).put(replace))
}

/// For everybody: that client sends no token there.
pub(super) fn registry() -> Router<Control> {
    Router::new()
        .route("/buildpacks", get(search))
        .route("/buildpacks/{buildpack}", get(look_up))
        .route("/buildpacks/{buildpack}/revisions", get(no_revisions))
}

#[derive(Debug, Deserialize)]
struct Replace {
    updates: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    /// A URL or a name.
    buildpack: String,
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    paging::page(&headers, serialize(&buildpacks::get(&control, at.app.id).await?), &["ordinal"])
}

async fn replace(State(control): State<Control>, at: At, Input(body): Input<Replace>) -> ApiResult<Json<Vec<Value>>> {
    let urls = body.updates.into_iter().map(|row| row.buildpack).collect();
    Ok(Json(serialize(&buildpacks::put(&control, at.app.id, urls).await?)))
}

fn serialize(urls: &[String]) -> Vec<Value> {
    let row = |(ordinal, url)| json!({ "buildpack": { "name": url, "url": url }, "ordinal": ordinal });
    urls.iter().enumerate().map(row).collect()
}

/// Ours are few, so the words that are searched for don't matter.
async fn search() -> Json<Vec<Value>> {
    Json(OWN.iter().map(|(folder, language)| registered(&format!("heroku/{folder}"), language)).collect())
}

/// What the client makes a name's URL is the name itself. It takes any answer for one with a URL, so that a name which
/// is none gets one too, and what is wrong with it is told when it is to be an app's.
async fn look_up(path: Segments) -> (StatusCode, Json<Value>) {
    let name = path.get("buildpack");
    let Some(own) = Buildpack::parse(name).ok().filter(Buildpack::is_own) else {
        let message = "Couldn't find that buildpack.";
        return (StatusCode::NOT_FOUND, Json(json!({ "blob_url": name, "id": "not_found", "message": message })));
    };
    let name = own.to_string();
    let known = OWN.iter().find(|(folder, _)| name.strip_prefix("heroku/") == Some(folder));
    (StatusCode::OK, Json(registered(&name, known.map_or("", |(_, language)| language))))
}

async fn no_revisions() -> ApiError {
    ApiError::not_found(Resource::Buildpack)
}

fn registered(name: &str, language: &str) -> Value {
    json!({
        "blob_url": name,
        "category": "languages",
        "description": format!("{language}, as it is part of hokku").trim_start_matches(", "),
        "name": name.strip_prefix("heroku/"),
        "namespace": "heroku",
        "two_factor_authentication": false,
    })
}
