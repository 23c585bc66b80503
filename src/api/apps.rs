//! `/apps`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Made, Note, Segments, time};
use super::{account, collaborators, paging, platform, stacks};
use crate::control::apps::{self, AppPatch, AppView, NewApp};
use crate::control::{Control, access, transfers};
use crate::domain::access::Caller;
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
        .route("/teams/apps/{app}", get(info_of_team_app).patch(update_team_app))
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
) -> ApiResult<(StatusCode, Extension<Made>, Json<Value>)> {
    if let Some(region) = body.region.map(Name::text).filter(|region| region != "local") {
        return Err(ApiError::invalid(format!("There is no region {region:?} here; the region is local.")));
    }
    let new = NewApp { name: body.name.filter(|name| !name.is_empty()), stack: body.stack.map(Name::text) };
    let view = apps::create(&control, &actor, new).await?;
    let made = Made(view.app.id);
    Ok((StatusCode::CREATED, Extension(made), Json(serialize(&control, &base, &view))))
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let visible = access::visible(&control, &caller).await?;
    let views = apps::list(&control, &visible).await?;
    paging::page(&headers, views.iter().map(|view| serialize(&control, &base, view)).collect(), &["name", "id"])
}

async fn list_of_user(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    account::check_user(&actor, path.get("user"))?;
    let views = apps::list(&control, &access::own(&control, actor.id).await?).await?;
    paging::page(&headers, views.iter().map(|view| serialize(&control, &base, view)).collect(), &["name", "id"])
}

async fn filter(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    base: Base,
    headers: HeaderMap,
    Input(body): Input<Filter>,
) -> ApiResult<Response> {
    let ids = body.among.and_then(|among| among.id);
    let is_wanted = |view: &&AppView| ids.as_ref().is_none_or(|ids| ids.contains(&view.app.id.to_string()));
    let views = apps::list(&control, &access::visible(&control, &caller).await?).await?;
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
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let Update { name, maintenance, build_stack } = body;
    let patch = AppPatch { name, maintenance, stack: build_stack.map(Name::text) };
    let notes = [
        patch.name.as_ref().map(|name| format!("name {name}")),
        patch.maintenance.map(|on| format!("maintenance {}", if on { "on" } else { "off" })),
        patch.stack.as_ref().map(|stack| format!("stack {stack}")),
    ];
    let note = notes.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let view = apps::update(&control, &at.app, patch).await?;
    Ok((Extension(Note(note)), Json(serialize(&control, &base, &view))))
}

async fn destroy(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    base: Base,
) -> ApiResult<Json<Value>> {
    let view = apps::destroy(&control, &caller, at.app).await?;
    Ok(Json(serialize(&control, &base, &view)))
}

/// What a team's members want to know. There are no teams, but clients lock and unlock apps here.
fn of_team(control: &Control, base: &Base, caller: &Caller, view: &AppView) -> Value {
    let mut row = serialize(control, base, view);
    row["joined"] = (view.app.owner.id == caller.actor.id).into();
    row
}

async fn info_of_team_app(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    base: Base,
) -> ApiResult<Json<Value>> {
    Ok(Json(of_team(&control, &base, &caller, &apps::view(&control, at.app).await?)))
}

#[derive(Debug, Deserialize)]
struct UpdateTeamApp {
    locked: Option<bool>,
    owner: Option<collaborators::User>,
}

async fn update_team_app(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    base: Base,
    Input(body): Input<UpdateTeamApp>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let id = at.app.id.to_string();
    let mut notes = Vec::new();
    if let Some(owner) = body.owner {
        let transfer = transfers::create(&control, &caller, &id, owner.text()).await?;
        notes.push(format!("to {}: {}", transfer.recipient.email, transfer.state));
    }
    if let Some(locked) = body.locked {
        apps::lock(&control, &at.app, locked).await?;
        notes.push(if locked { "locked".to_owned() } else { "unlocked".to_owned() });
    }
    let view = apps::view(&control, apps::find(&control, &id).await?).await?;
    Ok((Extension(Note(notes.join(", "))), Json(of_team(&control, &base, &caller, &view))))
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
        "locked": app.locked,
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
