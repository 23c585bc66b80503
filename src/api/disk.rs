//! `/disk`, beyond Heroku's API: who has what of the box's disk, and making room.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use crate::control::Control;
use crate::control::disk::{self, AppUsage};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/disk", get(usage)).route("/disk/actions/collect", post(collect))
}

async fn usage(State(control): State<Control>) -> ApiResult<Json<Value>> {
    let usage = disk::usage(&control).await?;
    let parts: Map<String, Value> = usage.parts.iter().map(|(part, bytes)| ((*part).into(), (*bytes).into())).collect();
    let app = |app: &AppUsage| json!({ "name": app.name, "slugs": app.slugs, "cache": app.cache, "repository": app.repository });
    Ok(Json(json!({
        "total": usage.total,
        "free": usage.free,
        "reserve": usage.keep.reserve,
        "keep": { "slugs": usage.keep.slugs, "caches": usage.keep.caches },
        "parts": parts,
        "apps": usage.apps.iter().map(app).collect::<Vec<_>>(),
    })))
}

async fn collect(State(control): State<Control>) -> ApiResult<Json<Value>> {
    let done = disk::collect(&control, true).await?;
    Ok(Json(
        json!({ "trees": done.trees, "caches": done.caches, "slugs": done.slugs, "outputs": done.outputs, "freed": done.freed }),
    ))
}
