//! `/oauth/authorizations`: tokens.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{Input, Segments, authorization, time};
use crate::control::{Control, Resource, tokens};
use crate::domain::actor::Actor;
use crate::store::tokens::TokenRow;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/oauth/authorizations", get(list).post(create))
        .route("/oauth/authorizations/{authorization}", get(info).delete(remove))
        .route("/oauth/sessions/{session}", delete(no_session))
}

#[derive(Debug, Deserialize)]
struct Create {
    description: Option<String>,
    /// Seconds.
    expires_in: Option<u32>,
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let description = body.description.unwrap_or_else(|| "Long-lived user authorization".to_owned());
    if description.chars().count() > 200 {
        return Err(ApiError::invalid("The description of a token can have at most 200 characters."));
    }
    let lifetime = body.expires_in.map(|seconds| SignedDuration::from_secs(i64::from(seconds)));
    let (row, token) = tokens::create(&control, &actor, &description, lifetime).await?;
    Ok((StatusCode::CREATED, Json(serialize(&actor, &row, Some(&token)))))
}

async fn list(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = tokens::list(&control, &actor).await?;
    paging::page(&headers, rows.iter().map(|row| serialize(&actor, row, None)).collect(), &["id"])
}

async fn info(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Json<Value>> {
    let row = tokens::find(&control, &actor, path.get("authorization"), authorization(&headers)).await?;
    Ok(Json(serialize(&actor, &row, None)))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Json<Value>> {
    let row = tokens::find(&control, &actor, path.get("authorization"), authorization(&headers)).await?;
    tokens::delete(&control, &actor, row.id).await?;
    Ok(Json(serialize(&actor, &row, None)))
}

/// There are no sessions beside tokens; clients that log out know what to make of this answer.
async fn no_session() -> ApiError {
    ApiError::not_found(Resource::Session)
}

/// The token's text is known only when it is made.
fn serialize(actor: &Actor, row: &TokenRow, token: Option<&str>) -> Value {
    let expires_in = row.expires_at.map(|at| (at - Timestamp::now()).get_seconds().max(0));
    json!({
        "access_token": { "expires_in": expires_in, "id": row.id, "token": token },
        "client": null,
        "created_at": time(row.created_at),
        "description": row.description,
        "grant": null,
        "id": row.id,
        "refresh_token": null,
        "scope": ["global"],
        "session": null,
        "updated_at": time(row.created_at),
        "user": { "email": actor.email, "full_name": null, "id": actor.id },
    })
}
