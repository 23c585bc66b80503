//! `/apps/:app/collaborators`, and the same under `/teams/apps`, where clients look for permissions.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{At, Input, Note, Which, time};
use crate::control::{Control, ControlError, collaborators};
use crate::domain::access::{Caller, Permission, Permissions};
use crate::domain::app::App;
use crate::store::collaborators::Collaborator;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/collaborators", get(list).post(add))
        .route("/apps/{app}/collaborators/{collaborator}", get(info).delete(remove))
        .route("/teams/apps/{app}/collaborators", get(list).post(add))
        .route("/teams/apps/{app}/collaborators/{collaborator}", get(info).patch(update).delete(remove))
}

fn owner(app: &App) -> Value {
    json!({
        "app": { "id": app.id, "name": app.name },
        "created_at": time(app.created_at),
        "id": app.owner.id,
        "permissions": Permission::ALL.map(permission),
        "role": "owner",
        "updated_at": time(app.created_at),
        "user": { "email": app.owner.email, "federated": false, "id": app.owner.id },
    })
}

fn permission(permission: Permission) -> Value {
    json!({ "description": permission.description(), "name": permission.word() })
}

fn serialize(app: &App, row: &Collaborator) -> Value {
    json!({
        "app": { "id": app.id, "name": app.name },
        "created_at": time(row.created_at),
        "id": row.id,
        "permissions": row.permissions.iter().map(permission).collect::<Vec<_>>(),
        "role": "collaborator",
        "updated_at": time(row.updated_at),
        "user": { "email": row.account.email, "federated": false, "id": row.account.id },
    })
}

fn note(row: &Collaborator) -> Extension<Note> {
    Extension(Note(format!("{}: {}", row.account.email, row.permissions)))
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let others = collaborators::list(&control, &at.app).await?;
    let rows = std::iter::once(owner(&at.app)).chain(others.iter().map(|row| serialize(&at.app, row))).collect();
    paging::page(&headers, rows, &["id"])
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let which = at.path.get("collaborator");
    if which.eq_ignore_ascii_case(&at.app.owner.email) || which == at.app.owner.id.to_string() {
        return Ok(Json(owner(&at.app)));
    }
    Ok(Json(serialize(&at.app, &collaborators::find(&control, &at.app, which).await?)))
}

/// `silent` says whether to send a mail; none is ever sent.
#[derive(Debug, Deserialize)]
struct Add {
    user: User,
    permissions: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an address or an id")]
pub(super) enum User {
    Email { email: String },
    Other(Which),
}

impl User {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Email { email } => email,
            Self::Other(which) => which.text(),
        }
    }
}

fn parse(words: &[String]) -> ApiResult<Permissions> {
    Permissions::parse(words.iter().map(String::as_str)).map_err(|error| ControlError::from(error).into())
}

async fn add(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    Input(body): Input<Add>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let permissions = body.permissions.as_deref().map(parse).transpose()?;
    let row = collaborators::add(&control, &caller, &at.app, body.user.text(), permissions).await?;
    Ok((StatusCode::CREATED, note(&row), Json(serialize(&at.app, &row))))
}

#[derive(Debug, Deserialize)]
struct Update {
    permissions: Vec<String>,
}

async fn update(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let permissions = parse(&body.permissions)?;
    let row = collaborators::update(&control, &caller, &at.app, at.path.get("collaborator"), permissions).await?;
    Ok((note(&row), Json(serialize(&at.app, &row))))
}

async fn remove(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let row = collaborators::remove(&control, &caller, &at.app, at.path.get("collaborator")).await?;
    Ok((Extension(Note(row.account.email.clone())), Json(serialize(&at.app, &row))))
}
