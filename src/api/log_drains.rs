//! `/apps/:app/log-drains`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{At, Input, Note, note, time};
use crate::control::{Control, drains};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::drain::Drain;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/log-drains", get(list).post(create))
        .route("/apps/{app}/log-drains/{drain}", get(info).delete(remove))
}

#[derive(Debug, Deserialize)]
struct Create {
    url: String,
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let drains = drains::list(&control, at.app.id).await?;
    paging::page(&headers, drains.iter().map(|drain| serialize(&at.app, drain)).collect(), &["id", "url"])
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let drain = drains::add(&control, &actor, &at.app, &body.url).await?;
    Ok((StatusCode::CREATED, noted(&drain), Json(serialize(&at.app, &drain))))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let drain = drains::find(&control, at.app.id, at.path.get("drain")).await?;
    Ok(Json(serialize(&at.app, &drain)))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let drain = drains::remove(&control, &actor, &at.app, at.path.get("drain")).await?;
    Ok((noted(&drain), Json(serialize(&at.app, &drain))))
}

/// For the audit log: where to, without what a URL has of secrets.
fn noted(drain: &Drain) -> Extension<Note> {
    note(format!("{} to {}:{}", drain.id, drain.url.host, drain.url.port))
}

fn serialize(app: &App, drain: &Drain) -> Value {
    json!({
        "addon": null,
        "app": { "id": app.id, "name": app.name },
        "created_at": time(drain.created_at),
        "id": drain.id,
        "token": drain.token,
        "updated_at": time(drain.created_at),
        "url": drain.url.as_str(),
    })
}
