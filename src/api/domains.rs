//! `/apps/:app/domains`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{At, Input, time};
use crate::control::{Control, Resource, domains};
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
    let rows = added.iter().map(|domain| serialize(&control, &at.app, domain));
    paging::page(&headers, std::iter::once(own(&control, &at.app)).chain(rows).collect(), &["id", "hostname"])
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    no_endpoint(body.sni_endpoint)?;
    let domain = domains::add(&control, &actor, &at.app, &body.hostname).await?;
    Ok((StatusCode::CREATED, Json(serialize(&control, &at.app, &domain))))
}

fn no_endpoint(name: Option<String>) -> ApiResult<()> {
    name.map_or(Ok(()), |_| Err(ApiError::not_found(Resource::SniEndpoint)))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let which = at.path.get("domain");
    if which == at.app.id.to_string() || which.eq_ignore_ascii_case(&control.place.hostname(at.app.name.as_str())) {
        return Ok(Json(own(&control, &at.app)));
    }
    let domain = domains::find(&control, at.app.id, which).await?;
    Ok(Json(serialize(&control, &at.app, &domain)))
}

async fn update(State(control): State<Control>, at: At, Input(body): Input<Update>) -> ApiResult<Json<Value>> {
    no_endpoint(body.sni_endpoint)?;
    info(State(control), at).await
}

async fn remove(State(control): State<Control>, Extension(actor): Extension<Actor>, at: At) -> ApiResult<Json<Value>> {
    let domain = domains::remove(&control, &actor, &at.app, at.path.get("domain")).await?;
    Ok(Json(serialize(&control, &at.app, &domain)))
}

/// The one that an app has by its name.
fn own(control: &Control, app: &App) -> Value {
    json!({
        "acm_status": null,
        "acm_status_reason": null,
        "app": { "id": app.id, "name": app.name },
        "cname": null,
        "created_at": time(app.created_at),
        "hostname": control.place.hostname(app.name.as_str()),
        "id": app.id,
        "kind": "heroku",
        "sni_endpoint": null,
        "status": "none",
        "updated_at": time(app.updated_at),
    })
}

/// Where DNS should lead is wherever it leads for the app's own name.
fn serialize(control: &Control, app: &App, domain: &Domain) -> Value {
    json!({
        "acm_status": null,
        "acm_status_reason": null,
        "app": { "id": app.id, "name": app.name },
        "cname": control.place.hostname(app.name.as_str()),
        "created_at": time(domain.created_at),
        "hostname": domain.hostname.as_str(),
        "id": domain.id,
        "kind": "custom",
        "sni_endpoint": null,
        "status": "none",
        "updated_at": time(domain.created_at),
    })
}
