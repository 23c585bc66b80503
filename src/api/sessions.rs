//! `/oauth/sessions`: the tokens that were had by address and password.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{Note, Segments, time};
use crate::control::{Control, Resource, tokens};
use crate::domain::actor::Actor;
use crate::store::tokens::TokenRow;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/oauth/sessions", get(list)).route("/oauth/sessions/{session}", delete(end))
}

fn serialize(row: &TokenRow) -> Value {
    json!({
        "created_at": time(row.created_at),
        "description": row.description,
        "expires_in": row.expires_at.map(|at| (at - Timestamp::now()).get_seconds().max(0)),
        "id": row.id,
        "updated_at": time(row.updated_at),
    })
}

async fn list(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let mut rows = tokens::list(&control, &actor).await?;
    rows.retain(|row| row.login);
    paging::page(&headers, rows.iter().map(serialize).collect(), &["id"])
}

/// `~` is none: Heroku's CLI logs out of that and takes its token back in the same moment, and only one of both can be.
async fn end(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let missing = || ApiError::not_found(Resource::Session);
    let id = path.get("session").parse::<Uuid>().map_err(|_| missing())?;
    let rows = tokens::list(&control, &actor).await?;
    let row = rows.into_iter().find(|row| row.login && row.id == id).ok_or_else(missing)?;
    tokens::delete(&control, &actor, row.id).await?;
    Ok((Extension(Note(row.description.clone())), Json(serialize(&row))))
}
