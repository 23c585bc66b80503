//! `/apps/:app/features`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::platform::EPOCH;
use super::request::{At, Input, Note, time};
use crate::control::{Control, Resource, features};
use crate::domain::feature::Feature;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/features", get(list))
        .route("/apps/{app}/features/{feature}", get(info).patch(update))
}

fn serialize(feature: Feature, since: Option<Timestamp>) -> Value {
    json!({
        "created_at": EPOCH,
        "description": feature.description(),
        "display_name": feature.name(),
        "doc_url": "",
        "enabled": since.is_some(),
        "feedback_email": "",
        "id": feature.id(),
        "name": feature.name(),
        "state": "public",
        "updated_at": since.map_or_else(|| EPOCH.into(), time),
    })
}

fn named(at: &At) -> ApiResult<Feature> {
    at.path.get("feature").parse().map_err(|_| ApiError::not_found(Resource::Feature))
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let on = features::get(&control, at.app.id).await?;
    let rows = Feature::ALL.map(|feature| serialize(feature, on.get(&feature).copied()));
    paging::page(&headers, rows.into(), &["name", "id"])
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let feature = named(&at)?;
    let on = features::get(&control, at.app.id).await?;
    Ok(Json(serialize(feature, on.get(&feature).copied())))
}

#[derive(Debug, Deserialize)]
struct Update {
    enabled: bool,
}

async fn update(
    State(control): State<Control>,
    at: At,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let feature = named(&at)?;
    features::set(&control, at.app.id, feature, body.enabled).await?;
    let on = features::get(&control, at.app.id).await?;
    let note = format!("{feature} {}", if body.enabled { "on" } else { "off" });
    Ok((Extension(Note(note)), Json(serialize(feature, on.get(&feature).copied()))))
}
