//! `/oauth/clients`: registered, and read by whoever registered them; nobody logs in by them here.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{Input, Note, Segments, time};
use crate::control::{Control, oauth_clients};
use crate::domain::actor::Actor;
use crate::domain::oauth::OauthClient;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/oauth/clients", get(list).post(create))
        .route("/oauth/clients/{client}", get(info).patch(update).delete(remove))
        .route("/oauth/clients/{client}/actions/rotate-credentials", post(rotate))
}

fn serialize(client: &OauthClient) -> Value {
    json!({
        "created_at": time(client.created_at),
        "id": client.id,
        "ignores_delinquent": false,
        "name": client.name.as_str(),
        "redirect_uri": client.redirect_uri.as_str(),
        "secret": client.secret,
        "updated_at": time(client.updated_at),
    })
}

/// With its name for the audit log.
fn changed(client: &OauthClient) -> (Extension<Note>, Json<Value>) {
    (Extension(Note(client.name.as_str().to_owned())), Json(serialize(client)))
}

async fn list(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = oauth_clients::list(&control, &actor).await?;
    paging::page(&headers, rows.iter().map(serialize).collect(), &["id"])
}

#[derive(Debug, Deserialize)]
struct Create {
    name: String,
    redirect_uri: String,
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let (note, row) = changed(&oauth_clients::create(&control, &actor, &body.name, &body.redirect_uri).await?);
    Ok((StatusCode::CREATED, note, row))
}

async fn info(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&oauth_clients::find(&control, &actor, path.get("client")).await?)))
}

#[derive(Debug, Deserialize)]
struct Update {
    name: Option<String>,
    redirect_uri: Option<String>,
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let (name, redirect_uri) = (body.name.as_deref(), body.redirect_uri.as_deref());
    Ok(changed(&oauth_clients::update(&control, &actor, path.get("client"), name, redirect_uri).await?))
}

async fn rotate(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    Ok(changed(&oauth_clients::rotate(&control, &actor, path.get("client")).await?))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    Ok(changed(&oauth_clients::remove(&control, &actor, path.get("client")).await?))
}
