//! `/apps/:app/buildpack-installations`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{At, Input, Note, note};
use crate::build::Buildpack;
use crate::control::{Control, buildpacks};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/buildpack-installations", get(list).put(replace))
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

async fn replace(
    State(control): State<Control>,
    at: At,
    Input(body): Input<Replace>,
) -> ApiResult<(Extension<Note>, Json<Vec<Value>>)> {
    let urls = body.updates.into_iter().map(|row| row.buildpack).collect();
    let urls = buildpacks::put(&control, at.app.id, urls).await?;
    // Without the passwords that they may have.
    let shown = urls.iter().filter_map(|url| Buildpack::parse(url).ok()).map(|buildpack| buildpack.to_string());
    Ok((note(shown.collect::<Vec<_>>().join(", ")), Json(serialize(&urls))))
}

fn serialize(urls: &[String]) -> Vec<Value> {
    let row = |(ordinal, url)| json!({ "buildpack": { "name": url, "url": url }, "ordinal": ordinal });
    urls.iter().enumerate().map(row).collect()
}
