//! `/apps/:app/builds`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Note, note, time};
use super::{paging, sources, streams};
use crate::build;
use crate::control::builds::{self, NewBuild, NewSource, Purpose};
use crate::control::{Control, buildpacks};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::build::{Build, BuildStatus};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/builds", get(list).post(create))
        .route("/apps/{app}/builds/{build}", get(info).delete(cancel))
        .route("/apps/{app}/builds/actions/rebuild", post(rebuild))
        .route("/apps/{app}/build-cache", delete(purge_cache))
}

/// The build is cancelled when the reader of the URL that is answered goes away before the release is made; the URL that
/// others see has no such effect.
const ATTACHED: HeaderName = HeaderName::from_static("x-hokku-attached");

#[derive(Debug, Deserialize)]
struct Create {
    source_blob: SourceBlob,
    buildpacks: Option<Vec<Buildpack>>,
}

#[derive(Debug, Deserialize)]
struct SourceBlob {
    url: String,
    version: Option<String>,
    checksum: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Buildpack {
    url: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rebuild {}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    headers: HeaderMap,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let SourceBlob { url, version, checksum } = body.source_blob;
    let Some(secret) = base.own_path(&url).and_then(sources::secret_in) else {
        return Err(ApiError::invalid(
            "This server builds only what was uploaded to it: POST /sources, put the archive to its put_url and give \
             its get_url here.",
        ));
    };
    let source = NewSource::Uploaded { secret: secret.to_owned(), checksum: checksum.filter(|text| !text.is_empty()) };
    let new = NewBuild { source, version, buildpacks: urls(body.buildpacks)? };
    start(&control, &actor, at.app, &base, new, attached(&headers)).await
}

async fn rebuild(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    headers: HeaderMap,
    Input(Rebuild {}): Input<Rebuild>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let new = NewBuild { source: NewSource::Last, version: None, buildpacks: Vec::new() };
    start(&control, &actor, at.app, &base, new, attached(&headers)).await
}

async fn start(
    control: &Control,
    actor: &Actor,
    app: App,
    base: &Base,
    new: NewBuild,
    attached: bool,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let build = builds::create(control, actor, app.clone(), new).await?;
    let mut row = serialize(control, base, &app, &build);
    if attached {
        row["output_stream_url"] = streams::url(control, base, (Purpose::Attached, build.id.0)).into();
    }
    let version = build.source_version.as_deref().map(|version| format!(" of {version}")).unwrap_or_default();
    Ok((StatusCode::CREATED, note(format!("{}{version}", build.id)), Json(row)))
}

fn attached(headers: &HeaderMap) -> bool {
    headers.get(ATTACHED).is_some_and(|value| value == "1")
}

/// Whoever sees the app sees this, but not the password of a URL.
fn shown(url: &str) -> Value {
    let shown = build::Buildpack::parse(url).map_or_else(|_| String::new(), |pack| pack.to_string());
    json!({ "name": shown, "url": shown })
}

fn urls(buildpacks: Option<Vec<Buildpack>>) -> ApiResult<Vec<String>> {
    let urls = buildpacks.unwrap_or_default().into_iter().map(|buildpack| buildpack.url.or(buildpack.name));
    let urls: Vec<String> = urls.map(Option::unwrap_or_default).collect();
    buildpacks::check(&urls)?;
    Ok(urls)
}

async fn list(State(control): State<Control>, at: At, base: Base, headers: HeaderMap) -> ApiResult<Response> {
    let builds = builds::list(&control, at.app.id).await?;
    let rows = builds.iter().map(|build| serialize(&control, &base, &at.app, build)).collect();
    paging::page(&headers, rows, &["id"])
}

async fn info(State(control): State<Control>, at: At, base: Base) -> ApiResult<Json<Value>> {
    let build = builds::find(&control, at.app.id, at.path.get("build")).await?;
    Ok(Json(serialize(&control, &base, &at.app, &build)))
}

async fn cancel(State(control): State<Control>, at: At, base: Base) -> ApiResult<Json<Value>> {
    let build = builds::cancel(&control, at.app.id, at.path.get("build")).await?;
    Ok(Json(serialize(&control, &base, &at.app, &build)))
}

async fn purge_cache(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    builds::purge_cache(&control, at.app.id).await?;
    Ok(Json(json!({})))
}

/// `failure_message`, why a build failed, is our own.
pub(super) fn serialize(control: &Control, base: &Base, app: &App, build: &Build) -> Value {
    let (slug, release, failure) = match &build.status {
        BuildStatus::Pending => (None, None, None),
        BuildStatus::Succeeded { slug, release } => (Some(slug), release.as_ref(), None),
        BuildStatus::Failed { reason } => (None, None, Some(reason)),
    };
    json!({
        "app": { "id": app.id },
        "buildpacks": build.buildpacks.iter().map(|url| shown(url)).collect::<Value>(),
        "created_at": time(build.created_at),
        "failure_message": failure,
        "generation": "cedar",
        "id": build.id,
        "output_stream_url": streams::url(control, base, (Purpose::App, build.id.0)),
        "release": release.map(|id| json!({ "id": id })),
        "slug": slug.map(|id| json!({ "id": id })),
        "source_blob": {
            "checksum": null,
            "url": null,
            "version": build.source_version,
            "version_description": null,
        },
        "stack": build.stack,
        "status": build.status.word(),
        "updated_at": time(build.updated_at),
        "user": { "email": build.actor.email, "id": build.actor.id },
    })
}
