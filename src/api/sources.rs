//! `/sources`: where clients put what they want built.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{At, Base, Segments};
use crate::control::Control;
use crate::domain::actor::Actor;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{post, put};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/sources", post(create)).route("/apps/{app}/sources", post(create_for_app))
}

/// For whoever has the URL.
pub(super) fn uploads() -> Router<Control> {
    Router::new().route("/sources/{secret}", put(receive))
}

/// The secret in the path of a `get_url`.
pub(super) fn secret_in(path: &str) -> Option<&str> {
    path.strip_prefix("/sources/").filter(|secret| secret.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    base: Base,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let url = base.url(&format!("/sources/{}", control.sources.create(actor.id)?));
    Ok((StatusCode::CREATED, Json(json!({ "source_blob": { "get_url": url, "put_url": url } }))))
}

async fn create_for_app(
    state: State<Control>,
    actor: Extension<Actor>,
    _: At,
    base: Base,
) -> ApiResult<(StatusCode, Json<Value>)> {
    create(state, actor, base).await
}

async fn receive(State(control): State<Control>, path: Segments, headers: HeaderMap, body: Body) -> ApiResult<()> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(control.sources.receive(path.get("secret"), length, body.into_data_stream()).await?)
}
