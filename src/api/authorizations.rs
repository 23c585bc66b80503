//! `/oauth/authorizations`: tokens.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{Input, Note, Segments, authorization, note, time};
use crate::control::tokens::{self, Proof};
use crate::control::{Control, ControlError};
use crate::domain::actor::Actor;
use crate::domain::scope::Scopes;
use crate::store::tokens::TokenRow;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where a token is to be had, also by address and password.
pub(super) const PATH: &str = "/oauth/authorizations";

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route(PATH, get(list).post(create))
        .route("/oauth/authorizations/{authorization}", get(info).patch(update).delete(remove))
        .route("/oauth/authorizations/{authorization}/actions/regenerate-tokens", post(renew))
}

#[derive(Debug, Deserialize)]
struct Create {
    description: Option<String>,
    expires_in: Option<Seconds>,
    scope: Option<Vec<String>>,
}

/// Heroku's CLI sends what was typed.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of seconds")]
enum Seconds {
    Number(u32),
    Text(String),
}

impl Seconds {
    fn lifetime(self) -> ApiResult<SignedDuration> {
        let seconds = match self {
            Self::Number(seconds) => seconds,
            Self::Text(text) => text
                .parse()
                .map_err(|_| ApiError::invalid(format!("expires_in is a number of seconds, and {text:?} is none.")))?,
        };
        Ok(SignedDuration::from_secs(i64::from(seconds)))
    }
}

#[derive(Debug, Deserialize)]
struct Update {
    description: Option<String>,
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Extension(proof): Extension<Proof>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let description = body.description.unwrap_or_else(|| "Long-lived user authorization".to_owned());
    check_description(&description)?;
    let scopes = Scopes::parse(body.scope.iter().flatten().map(String::as_str)).map_err(ControlError::from)?;
    let lifetime = body.expires_in.map(Seconds::lifetime).transpose()?;
    let (row, token) = tokens::create(&control, (&actor, proof), &description, scopes, lifetime).await?;
    Ok((StatusCode::CREATED, noted(&row), Json(serialize(&actor, &row, Some(&token)))))
}

/// For the audit log.
fn noted(row: &TokenRow) -> Extension<Note> {
    let scopes = row.scopes.words().collect::<Vec<_>>().join(",");
    note(format!("{}, {scopes}: {}", row.id, row.description))
}

fn check_description(text: &str) -> ApiResult<()> {
    if text.chars().count() <= 200 {
        return Ok(());
    }
    Err(ApiError::invalid("The description of a token can have at most 200 characters."))
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let row = tokens::find(&control, &actor, path.get("authorization"), authorization(&headers)).await?;
    if let Some(description) = body.description {
        check_description(&description)?;
        tokens::describe(&control, &row, &description).await?;
    }
    let row = tokens::find(&control, &actor, &row.id.to_string(), None).await?;
    Ok((noted(&row), Json(serialize(&actor, &row, None))))
}

async fn renew(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let row = tokens::find(&control, &actor, path.get("authorization"), authorization(&headers)).await?;
    let token = tokens::renew(&control, &row).await?;
    let row = tokens::find(&control, &actor, &row.id.to_string(), None).await?;
    Ok((noted(&row), Json(serialize(&actor, &row, Some(&token)))))
}

async fn list(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = tokens::list(&control, &actor).await?;
    let own = tokens::shown(&control, authorization(&headers)).await?;
    let text = |row: &TokenRow| own.as_ref().filter(|(id, _)| *id == row.id).map(|(_, text)| text.as_str());
    paging::page(&headers, rows.iter().map(|row| serialize(&actor, row, text(row))).collect(), &["id"])
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
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let row = tokens::find(&control, &actor, path.get("authorization"), authorization(&headers)).await?;
    tokens::delete(&control, &actor, row.id).await?;
    Ok((noted(&row), Json(serialize(&actor, &row, None))))
}

/// The token's text is known only when it is made, and when it comes with a request: by that, Heroku's CLI finds the one to
/// delete when it logs out.
pub(super) fn serialize(actor: &Actor, row: &TokenRow, token: Option<&str>) -> Value {
    let expires_in = row.expires_at.map(|at| (at - Timestamp::now()).get_seconds().max(0));
    json!({
        "access_token": { "expires_in": expires_in, "id": row.id, "token": token },
        "client": null,
        "created_at": time(row.created_at),
        "description": row.description,
        "grant": null,
        "id": row.id,
        "refresh_token": null,
        "scope": row.scopes.words().collect::<Vec<_>>(),
        "session": row.login.then(|| json!({ "id": row.id })),
        "updated_at": time(row.updated_at),
        "user": { "email": actor.email, "full_name": null, "id": actor.id },
    })
}
