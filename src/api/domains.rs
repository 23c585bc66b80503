//! `/apps/:app/domains`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::paging;
use super::request::{At, Input, Note, note, time};
use crate::control::{Control, certs, domains};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::hostname::Domain;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/domains", get(list).post(create))
        .route("/apps/{app}/domains/{domain}", get(info).patch(update).delete(remove))
}

#[derive(Debug, Deserialize)]
struct Create {
    hostname: String,
    sni_endpoint: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Update {
    sni_endpoint: Option<String>,
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let added = domains::list(&control, at.app.id).await?;
    let names = certs::names(&control, at.app.id).await?;
    let rows = added.iter().map(|domain| serialize(&control, &at.app, domain, &names));
    paging::page(&headers, std::iter::once(own(&control, &at.app).await?).chain(rows).collect(), &["id", "hostname"])
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let domain = domains::add(&control, &actor, &at.app, &body.hostname, body.sni_endpoint).await?;
    Ok((StatusCode::CREATED, note(domain.hostname.as_str()), Json(one(&control, &at.app, &domain).await?)))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let which = at.path.get("domain");
    if is_own(&control, &at.app, which) {
        return Ok(Json(own(&control, &at.app).await?));
    }
    let domain = domains::find(&control, at.app.id, which).await?;
    Ok(Json(one(&control, &at.app, &domain).await?))
}

fn is_own(control: &Control, app: &App, which: &str) -> bool {
    which == app.id.to_string() || which.eq_ignore_ascii_case(&control.place.hostname(app.name.as_str()))
}

async fn update(
    State(control): State<Control>,
    at: At,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let which = at.path.get("domain");
    let noted = note(format!("{which}: {}", body.sni_endpoint.as_deref().unwrap_or("no certificate")));
    if is_own(&control, &at.app, which) {
        // It has what is for it without being told.
        if let Some(which) = body.sni_endpoint {
            certs::find(&control, at.app.id, &which).await?;
        }
        return Ok((noted, Json(own(&control, &at.app).await?)));
    }
    let domain = domains::assign(&control, at.app.id, which, body.sni_endpoint).await?;
    Ok((noted, Json(one(&control, &at.app, &domain).await?)))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let domain = domains::remove(&control, &actor, &at.app, at.path.get("domain")).await?;
    Ok((note(domain.hostname.as_str()), Json(one(&control, &at.app, &domain).await?)))
}

async fn one(control: &Control, app: &App, domain: &Domain) -> ApiResult<Value> {
    Ok(serialize(control, app, domain, &certs::names(control, app.id).await?))
}

/// The one that an app has by its name.
async fn own(control: &Control, app: &App) -> ApiResult<Value> {
    let hostname = control.place.hostname(app.name.as_str());
    let endpoints = certs::list(control, app.id).await?;
    // Of several the newest, as the router does.
    let endpoint = endpoints.iter().rfind(|shown| shown.described.covers(&hostname)).map(|shown| &shown.endpoint);
    Ok(json!({
        "acm_status": null,
        "acm_status_reason": null,
        "app": { "id": app.id, "name": app.name },
        "cname": null,
        "created_at": time(app.created_at),
        "hostname": hostname,
        "id": app.id,
        "kind": "heroku",
        "sni_endpoint": endpoint.map(|endpoint| json!({ "id": endpoint.id, "name": endpoint.name })),
        "status": "none",
        "updated_at": time(app.updated_at),
    }))
}

/// Where DNS should lead is wherever it leads for the app's own name.
fn serialize(control: &Control, app: &App, domain: &Domain, endpoints: &BTreeMap<Uuid, String>) -> Value {
    let endpoint = domain.sni_endpoint.and_then(|id| Some(json!({ "id": id, "name": endpoints.get(&id)? })));
    json!({
        "acm_status": null,
        "acm_status_reason": null,
        "app": { "id": app.id, "name": app.name },
        "cname": control.place.hostname(app.name.as_str()),
        "created_at": time(domain.created_at),
        "hostname": domain.hostname.as_str(),
        "id": domain.id,
        "kind": "custom",
        "sni_endpoint": endpoint,
        "status": "none",
        "updated_at": time(domain.created_at),
    })
}
