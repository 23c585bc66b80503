//! `/account/keys`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{Input, Note, Segments, time};
use crate::control::{Control, keys};
use crate::domain::actor::Actor;
use crate::store::keys::Key;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/account/keys", get(list).post(add)).route("/account/keys/{key}", get(info).delete(remove))
}

fn serialize(actor: &Actor, key: &Key) -> Value {
    json!({
        "comment": key.comment,
        "created_at": time(key.created_at),
        "email": actor.email,
        "fingerprint": key.fingerprint,
        "id": key.id,
        "public_key": key.public_key,
        "updated_at": time(key.created_at),
    })
}

async fn list(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = keys::list(&control, &actor).await?;
    paging::page(&headers, rows.iter().map(|key| serialize(&actor, key)).collect(), &["id"])
}

#[derive(Debug, Deserialize)]
struct Add {
    public_key: String,
}

async fn add(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Input(body): Input<Add>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let key = keys::add(&control, &actor, &body.public_key).await?;
    Ok((StatusCode::CREATED, Extension(Note(key.fingerprint.clone())), Json(serialize(&actor, &key))))
}

async fn info(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&actor, &keys::find(&control, &actor, path.get("key")).await?)))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let key = keys::remove(&control, &actor, path.get("key")).await?;
    Ok((Extension(Note(key.fingerprint.clone())), Json(serialize(&actor, &key))))
}
