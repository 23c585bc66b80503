//! `/apps`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Segments, time};
use super::{account, paging, platform, stacks};
use crate::control::Control;
use crate::control::apps::{self, AppPatch, AppView, NewApp};
use crate::domain::actor::Actor;
use crate::domain::stack::StackName;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps", get(list).post(create))
        .route("/users/{user}/apps", get(list_of_user))
        .route("/filters/apps", post(filter))
        .route("/apps/{app}", get(info).patch(update).delete(destroy))
}

/// A name, or a resource that is named by `{"name"}` or `{"id"}`; clients write either.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a name")]
enum Name {
    Plain(String),
    Reference { name: String },
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::Plain(name) | Self::Reference { name } => name,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Create {
    name: Option<String>,
    stack: Option<Name>,
    region: Option<Name>,
}

/// Those with one of the ids.
#[derive(Debug, Deserialize)]
struct Filter {
    #[serde(rename = "in")]
    among: Option<Among>,
}

#[derive(Debug, Deserialize)]
struct Among {
    id: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Update {
    name: Option<String>,
    maintenance: Option<bool>,
    build_stack: Option<Name>,
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    if let Some(region) = body.region.map(Name::text).filter(|region| region != "local") {
        return Err(ApiError::invalid(format!("There is no region {region:?} here; the region is local.")));
    }
    let new = NewApp { name: body.name.filter(|name| !name.is_empty()), stack: body.stack.map(Name::text) };
    let view = apps::create(&control, &actor, new).await?;
    Ok((StatusCode::CREATED, Json(serialize(&control, &base, &view))))
}

async fn list(State(control): State<Control>, base: Base, headers: HeaderMap) -> ApiResult<Response> {
    let rows = apps::list(&control).await?.iter().map(|view| serialize(&control, &base, view)).collect();
    paging::page(&headers, rows, &["name", "id"])
}

async fn list_of_user(
    state: State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    account::check_user(&actor, path.get("user"))?;
    list(state, base, headers).await
}

async fn filter(
    State(control): State<Control>,
    base: Base,
    headers: HeaderMap,
    Input(body): Input<Filter>,
) -> ApiResult<Response> {
    let ids = body.among.and_then(|among| among.id);
    let is_wanted = |view: &&AppView| ids.as_ref().is_none_or(|ids| ids.contains(&view.app.id.to_string()));
    let views = apps::list(&control).await?;
    let rows = views.iter().filter(is_wanted).map(|view| serialize(&control, &base, view)).collect();
    paging::page(&headers, rows, &["name", "id"])
}

async fn info(State(control): State<Control>, at: At, base: Base) -> ApiResult<Json<Value>> {
    let view = apps::view(&control, at.app).await?;
    Ok(Json(serialize(&control, &base, &view)))
}

async fn update(
    State(control): State<Control>,
    at: At,
    base: Base,
    Input(body): Input<Update>,
) -> ApiResult<Json<Value>> {
    let Update { name, maintenance, build_stack } = body;
    let patch = AppPatch { name, maintenance, stack: build_stack.map(Name::text) };
    let view = apps::update(&control, &at.app, patch).await?;
    Ok(Json(serialize(&control, &base, &view)))
}

async fn destroy(State(control): State<Control>, at: At, base: Base) -> ApiResult<Json<Value>> {
    let view = apps::destroy(&control, at.app).await?;
    Ok(Json(serialize(&control, &base, &view)))
}

fn serialize(control: &Control, base: &Base, view: &AppView) -> Value {
    let AppView { app, slug, repository_size } = view;
    json!({
        "acm": false,
        "archived_at": null,
        "build_stack": stacks::reference(app.stack),
        "buildpack_provided_description": slug.as_ref().and_then(|slug| slug.buildpack_description.as_ref()),
        "create_status": "complete",
        "created_at": time(app.created_at),
        "current_build_architecture": [],
        "generation": platform::generation_reference(),
        "git_url": base.url(&format!("/{}.git", app.name)),
        "id": app.id,
        "internal_routing": null,
        "maintenance": app.maintenance,
        "name": app.name,
        "organization": null,
        "owner": { "email": app.owner.email, "id": app.owner.id },
        "region": platform::region_reference(),
        "released_at": app.released_at.map(time),
        "repo_size": repository_size,
        "slug_size": slug.as_ref().map(|slug| slug.size),
        "space": null,
        // What runs; `build_stack` is what the next build makes of it.
        "stack": stacks::reference(slug.as_ref().map_or(app.stack, |slug| StackName::of_slug(&slug.stack))),
        "team": null,
        "updated_at": time(app.updated_at),
        "web_url": control.place.web_url(app.name.as_str()),
    })
}
