//! `/apps/:app/sni-endpoints`, and `/apps/:app/acm`, which is refused: nobody issues certificates here.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{At, Input, Note, note, time};
use crate::control::Control;
use crate::control::certs::{self, Shown};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/sni-endpoints", get(list).post(create))
        .route("/apps/{app}/sni-endpoints/{sni_endpoint}", get(info).patch(update).delete(remove))
        .route("/apps/{app}/acm", get(no_acm).post(no_acm).patch(no_acm).delete(no_acm))
}

#[derive(Debug, Deserialize)]
struct Bring {
    certificate_chain: String,
    private_key: String,
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let endpoints = certs::list(&control, at.app.id).await?;
    let rows = endpoints.iter().map(|shown| serialize(&at.app, shown)).collect();
    paging::page(&headers, rows, &["id", "name"])
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Bring>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let made = certs::add(&control, &actor, &at.app, &body.certificate_chain, &body.private_key).await?;
    Ok((StatusCode::CREATED, noted(&made), Json(serialize(&at.app, &made))))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let shown = certs::find(&control, at.app.id, at.path.get("sni_endpoint")).await?;
    Ok(Json(serialize(&at.app, &shown)))
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Bring>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let (which, pair) = (at.path.get("sni_endpoint"), (&*body.certificate_chain, &*body.private_key));
    let made = certs::update(&control, &actor, &at.app, which, pair).await?;
    Ok((noted(&made), Json(serialize(&at.app, &made))))
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let gone = certs::remove(&control, &actor, &at.app, at.path.get("sni_endpoint")).await?;
    Ok((noted(&gone), Json(serialize(&at.app, &gone))))
}

/// For the audit log.
fn noted(shown: &Shown) -> Extension<Note> {
    note(format!("{} for {}", shown.endpoint.name, shown.described.names.join(", ")))
}

async fn no_acm(at: At) -> ApiError {
    let name = &at.app.name;
    ApiError::invalid(format!(
        "This server does not issue certificates by itself; add one of your own to {name} with certs:add."
    ))
}

fn serialize(app: &App, shown: &Shown) -> Value {
    let Shown { endpoint, described, domains } = shown;
    json!({
        "app": { "id": app.id, "name": app.name },
        "certificate_chain": endpoint.chain,
        "created_at": time(endpoint.created_at),
        "display_name": null,
        "domains": domains,
        "id": endpoint.id,
        "name": endpoint.name,
        "ssl_cert": {
            "acm": false,
            "ca_signed?": described.trusted,
            "cert_domains": described.names,
            "expires_at": time(described.expires_at),
            "id": endpoint.id,
            "issuer": described.issuer,
            "self_signed?": described.self_signed,
            "starts_at": time(described.starts_at),
            "subject": described.subject,
        },
        "updated_at": time(endpoint.updated_at),
    })
}
