//! `/pipelines`, `/pipeline-couplings`, `/pipeline-promotions`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Made, Note, Noted, Segments, Which, note, time};
use super::{account, builds, paging, platform, releases, stacks};
use crate::control::access::Visible;
use crate::control::{self, Control, access, pipelines};
use crate::domain::access::Caller;
use crate::domain::actor::Actor;
use crate::domain::pipeline::{Coupling, Pipeline, Promotion, Target};
use crate::domain::release::{Release, ReleaseId, ReleaseStatus};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/pipelines", get(list).post(create))
        .route("/pipelines/{pipeline}", get(info).patch(rename).delete(destroy))
        .route("/pipelines/{pipeline}/pipeline-couplings", get(couplings_of))
        .route("/pipelines/{pipeline}/pipeline-stack", get(stack))
        .route("/pipeline-transfers", post(transfer))
        .route("/pipelines/{pipeline}/latest-builds", get(latest_builds))
        .route("/pipelines/{pipeline}/latest-releases", get(latest_releases))
        .route("/pipelines/{pipeline}/latest-deployments", get(latest_deployments))
        .route("/pipeline-couplings", get(couplings).post(couple))
        .route("/users/{user}/pipeline-couplings", get(couplings_of_user))
        .route("/pipeline-couplings/{coupling}", get(coupling).patch(move_to).delete(uncouple))
        .route("/apps/{app}/pipeline-couplings", get(coupling_of))
        .route("/pipeline-promotions", post(promote))
        .route("/pipeline-promotions/{promotion}", get(promotion))
        .route("/pipeline-promotions/{promotion}/promotion-targets", get(targets))
}

#[derive(Debug, Deserialize)]
struct Owner {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Create {
    name: String,
    owner: Option<Owner>,
}

#[derive(Debug, Deserialize)]
struct Rename {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Transfer {
    pipeline: Which,
    new_owner: Owner,
}

#[derive(Debug, Deserialize)]
struct Couple {
    app: Which,
    pipeline: Which,
    stage: String,
}

#[derive(Debug, Deserialize)]
struct Move {
    stage: Option<String>,
}

#[derive(Debug, Deserialize)]
struct End {
    app: Which,
}

#[derive(Debug, Deserialize)]
struct Promote {
    pipeline: Which,
    source: End,
    targets: Vec<End>,
}

/// `?eq[name]=NAME` asks for the one of that name.
#[derive(Debug, Deserialize)]
struct Filter {
    #[serde(rename = "eq[name]")]
    name: Option<String>,
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let visible = access::visible(&control, &caller).await?;
    let mut rows = pipelines::list(&control, &visible).await?;
    if let Some(name) = filter.name {
        rows.retain(|pipeline| pipeline.name.as_str() == name);
    }
    paging::page(&headers, rows.iter().map(serialize).collect(), &["name", "id"])
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    if let Some(id) = body.owner.map(user).transpose()?.flatten() {
        account::check_user(&actor, &id)?;
    }
    let pipeline = pipelines::create(&control, &actor, &body.name).await?;
    Ok((StatusCode::CREATED, note(pipeline.name.as_str()), Json(serialize(&pipeline))))
}

fn user(Owner { id, kind }: Owner) -> ApiResult<Option<String>> {
    if kind.is_some_and(|kind| kind != "user") {
        return Err(ApiError::invalid("The owner of a pipeline is a user: there are no teams here."));
    }
    Ok(id)
}

/// For apps that CI and review apps would make; there are none, so it is that of new apps.
async fn stack(State(control): State<Control>) -> Json<Value> {
    Json(json!({ "stack": stacks::reference(control.place.stack) }))
}

async fn transfer(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Input(body): Input<Transfer>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let heir = user(body.new_owner)?.ok_or_else(|| ApiError::invalid("The new owner needs an id."))?;
    let (pipeline, before) = pipelines::transfer(&control, &caller, body.pipeline.text(), &heir).await?;
    let owner = |id: Uuid| json!({ "id": id, "type": "user" });
    let row = json!({
        "new_owner": owner(pipeline.owner), "pipeline": { "id": pipeline.id }, "previous_owner": owner(before),
    });
    Ok((StatusCode::CREATED, note(format!("{} to {heir}", pipeline.name)), Json(row)))
}

async fn info(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&pipelines::find(&control, path.get("pipeline")).await?)))
}

async fn rename(
    State(control): State<Control>,
    path: Segments,
    Input(body): Input<Rename>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let pipeline = match body.name {
        Some(name) => pipelines::rename(&control, path.get("pipeline"), &name).await?,
        None => pipelines::find(&control, path.get("pipeline")).await?,
    };
    Ok((note(pipeline.name.as_str()), Json(serialize(&pipeline))))
}

async fn destroy(State(control): State<Control>, path: Segments) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let gone = pipelines::destroy(&control, path.get("pipeline")).await?;
    Ok((note(gone.name.as_str()), Json(serialize(&gone))))
}

async fn couplings_of(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let pipeline = pipelines::find(&control, path.get("pipeline")).await?;
    let visible = access::visible(&control, &caller).await?;
    page(&control, &visible, &headers, Some(pipeline.id)).await
}

/// The newest build of each app that the caller sees.
async fn latest_builds(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let visible = access::visible(&control, &caller).await?;
    let mut rows = Vec::new();
    for app in pipelines::apps(&control, path.get("pipeline"), &visible).await? {
        let builds = control::builds::list(&control, app.id).await?;
        rows.extend(builds.first().map(|build| builds::serialize(&control, &base, &app, build)));
    }
    paging::page(&headers, rows, &["id"])
}

async fn latest_releases(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let newest = |releases: &[Release]| releases.first().map(|release| release.id);
    releases_of(&control, &caller, path.get("pipeline"), &base, &headers, newest).await
}

async fn latest_deployments(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    base: Base,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let deployed = |releases: &[Release]| Release::latest_deployment(releases).map(|release| release.id);
    releases_of(&control, &caller, path.get("pipeline"), &base, &headers, deployed).await
}

/// The one of each app that `which` chooses of all, newest first.
async fn releases_of(
    control: &Control,
    caller: &Caller,
    pipeline: &str,
    base: &Base,
    headers: &HeaderMap,
    which: impl Fn(&[Release]) -> Option<ReleaseId>,
) -> ApiResult<Response> {
    let visible = access::visible(control, caller).await?;
    let mut rows = Vec::new();
    for app in pipelines::apps(control, pipeline, &visible).await? {
        let views = control::releases::list(control, app.id).await?;
        let all: Vec<Release> = views.iter().map(|view| view.release.clone()).collect();
        let chosen = which(&all).and_then(|id| views.iter().find(|view| view.release.id == id));
        rows.extend(chosen.map(|view| releases::serialize(control, base, &app, view)));
    }
    paging::page(headers, rows, &["id"])
}

async fn couplings(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let visible = access::visible(&control, &caller).await?;
    page(&control, &visible, &headers, None).await
}

/// Those of apps that are visible.
async fn page(control: &Control, visible: &Visible, headers: &HeaderMap, of: Option<Uuid>) -> ApiResult<Response> {
    let mut rows = pipelines::couplings(control, of).await?;
    rows.retain(|row| visible.has(row.app));
    paging::page(headers, rows.iter().map(place).collect(), &["id"])
}

/// Of one's own apps, an administrator's too.
async fn couplings_of_user(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Response> {
    account::check_user(&caller.actor, path.get("user"))?;
    page(&control, &access::own(&control, caller.actor.id).await?, &headers, None).await
}

fn noted<T>(coupling: &Coupling, what: T) -> Noted<T> {
    (Extension(Note(coupling.stage.word().to_owned())), Extension(Made(coupling.app)), what)
}

async fn couple(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Input(body): Input<Couple>,
) -> ApiResult<(StatusCode, Noted<Json<Value>>)> {
    let made = pipelines::couple(&control, &caller, body.app.text(), body.pipeline.text(), &body.stage).await?;
    Ok((StatusCode::CREATED, noted(&made, Json(place(&made)))))
}

async fn coupling(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    Ok(Json(place(&pipelines::coupling(&control, path.get("coupling")).await?)))
}

async fn move_to(
    State(control): State<Control>,
    path: Segments,
    Input(body): Input<Move>,
) -> ApiResult<Noted<Json<Value>>> {
    let coupling = match body.stage {
        Some(stage) => pipelines::move_to(&control, path.get("coupling"), &stage).await?,
        None => pipelines::coupling(&control, path.get("coupling")).await?,
    };
    Ok(noted(&coupling, Json(place(&coupling))))
}

async fn uncouple(State(control): State<Control>, path: Segments) -> ApiResult<Noted<Json<Value>>> {
    let gone = pipelines::uncouple(&control, path.get("coupling")).await?;
    Ok(noted(&gone, Json(place(&gone))))
}

async fn coupling_of(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let (coupling, pipeline) = pipelines::coupling_of(&control, at.app.id).await?;
    let mut row = place(&coupling);
    row["pipeline"] = json!({ "id": pipeline.id, "name": pipeline.name.as_str() });
    Ok(Json(row))
}

async fn promote(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Input(body): Input<Promote>,
) -> ApiResult<(StatusCode, Noted<Json<Value>>)> {
    let ends: Vec<String> = body.targets.iter().map(|end| end.app.text().to_owned()).collect();
    let (promotion, targets) =
        pipelines::promote(&control, &caller, body.pipeline.text(), body.source.app.text(), &ends).await?;
    let note = Extension(Note(format!("to {}", ends.join(", "))));
    let row = Json(promoted(&promotion, &targets));
    Ok((StatusCode::CREATED, (note, Extension(Made(promotion.app)), row)))
}

async fn promotion(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    let (promotion, targets) = pipelines::promotion(&control, path.get("promotion")).await?;
    Ok(Json(promoted(&promotion, &targets)))
}

async fn targets(State(control): State<Control>, path: Segments, headers: HeaderMap) -> ApiResult<Response> {
    let (_, targets) = pipelines::promotion(&control, path.get("promotion")).await?;
    paging::page(&headers, targets.iter().map(target).collect(), &["id"])
}

fn serialize(pipeline: &Pipeline) -> Value {
    json!({
        "created_at": time(pipeline.created_at),
        "generation": platform::generation_reference(),
        "id": pipeline.id,
        "name": pipeline.name.as_str(),
        "owner": { "id": pipeline.owner, "type": "user" },
        "updated_at": time(pipeline.updated_at),
    })
}

fn place(coupling: &Coupling) -> Value {
    json!({
        "app": { "id": coupling.app },
        "created_at": time(coupling.created_at),
        "id": coupling.id,
        "pipeline": { "id": coupling.pipeline },
        "stage": coupling.stage.word(),
        "updated_at": time(coupling.updated_at),
    })
}

fn promoted(promotion: &Promotion, targets: &[Target]) -> Value {
    json!({
        "created_at": time(promotion.created_at),
        "id": promotion.id,
        "pipeline": { "id": promotion.pipeline },
        "source": { "app": { "id": promotion.app }, "release": { "id": promotion.release } },
        "status": if targets.iter().any(Target::is_pending) { "pending" } else { "completed" },
        "updated_at": time(promotion.created_at),
    })
}

fn target(target: &Target) -> Value {
    let (status, error) = match target.status {
        Some(ReleaseStatus::Pending) => ("pending", None),
        Some(ReleaseStatus::Succeeded) => ("succeeded", None),
        Some(ReleaseStatus::Failed) => ("failed", target.failure.as_deref()),
        None => ("failed", Some("the app is gone")),
    };
    json!({
        "app": { "id": target.app },
        "error_message": error,
        "id": target.id,
        "pipeline_promotion": { "id": target.promotion },
        "release": target.status.map(|_| json!({ "id": target.release })),
        "status": status,
    })
}
