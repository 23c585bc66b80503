//! `/apps/:app/releases`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Note, time};
use super::{paging, streams};
use crate::control::builds::Purpose;
use crate::control::releases::{self, ReleaseView};
use crate::control::{Control, ControlError, Resource};
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
        .route("/apps/{app}/releases", get(list).post(create))
        .route("/apps/{app}/releases/{release}", get(info))
}

/// `{"release"}` rolls back, `{"slug"}` releases a slug.
#[derive(Debug, Deserialize)]
struct Create {
    release: Option<Which>,
    slug: Option<String>,
    description: Option<String>,
}

/// A release by UUID or version.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a release's id or version")]
enum Which {
    Text(String),
    Version(u32),
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let app = &at.app;
    let view = match (body.release, body.slug) {
        (Some(Which::Text(which)), None) => releases::rollback(&control, &actor, app.id, &which).await?,
        (Some(Which::Version(number)), None) => {
            releases::rollback(&control, &actor, app.id, &number.to_string()).await?
        }
        (None, Some(slug)) => {
            let slug = slug.parse().map_err(|_| ControlError::NotFound(Resource::Slug))?;
            releases::release_slug(&control, &actor, app.id, slug, body.description).await?
        }
        _ => return Err(ApiError::bad_request("Give either a release to go back to or a slug to release.")),
    };
    releases::command_begun(&control, &view.release).await;
    let note = format!("v{}: {}", view.release.version, view.release.description);
    Ok((StatusCode::CREATED, Extension(Note(note)), Json(serialize(&control, &base, app, &view))))
}

async fn list(State(control): State<Control>, at: At, base: Base, headers: HeaderMap) -> ApiResult<Response> {
    let views = releases::list(&control, at.app.id).await?;
    let rows = views.iter().map(|view| serialize(&control, &base, &at.app, view)).collect();
    paging::page(&headers, rows, &["version", "id"])
}

async fn info(State(control): State<Control>, at: At, base: Base) -> ApiResult<Json<Value>> {
    let view = releases::find(&control, at.app.id, at.path.get("release")).await?;
    Ok(Json(serialize(&control, &base, &at.app, &view)))
}

/// `failure_message`, why a release failed, is our own.
pub(super) fn serialize(control: &Control, base: &Base, app: &App, view: &ReleaseView) -> Value {
    let ReleaseView { release, current } = view;
    let output =
        control.outputs.exists(release.id.0).then(|| streams::url(control, base, (Purpose::App, release.id.0)));
    json!({
        "addon_plan_names": release.addons,
        "app": { "id": app.id, "name": app.name },
        "artifacts": [],
        "created_at": time(release.created_at),
        "current": current,
        "description": release.description,
        "eligible_for_rollback": release.eligible_for_rollback(),
        "failure_message": release.failure,
        "id": release.id,
        "oci_image": null,
        "output_stream_url": output,
        "slug": release.slug.map(|id| json!({ "id": id })),
        "status": release.status.word(),
        "updated_at": time(release.updated_at),
        "user": { "email": release.actor.email, "id": release.actor.id },
        "version": release.version,
    })
}
