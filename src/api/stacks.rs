//! `/stacks`: which there are, and, beyond Heroku's API, work on the layers of `debian-13`.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Segments, time};
use super::{paging, sources, streams};
use crate::control::builds::Purpose;
use crate::control::stacks::{self, Job, NewWork, Status, Work};
use crate::control::{Control, Resource};
use crate::domain::access::Caller;
use crate::domain::stack::{Layer, StackName};
use crate::stack::{Debian, Generation};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read as _;
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/stacks", get(list))
        .route("/stacks/{stack}", get(info))
        .route("/apps/{app}/available-stacks", get(available))
        .route("/stacks/{stack}/builds", post(build))
        .route("/stacks/{stack}/builds/{build}", get(build_info).delete(cancel))
        .route("/stacks/{stack}/archive", get(export))
        .route("/stacks/{stack}/imports", post(import))
}

/// When the stacks came about; it has to say something.
const EPOCH: &str = "2026-11-22T00:00:00Z";

fn id(name: StackName) -> Uuid {
    let number = match name {
        StackName::Host => 1,
        StackName::Debian13 => 2,
    };
    Uuid::from_u128(0x686f_6b6b_752d_7374_8001_636b_0000_0000 | number)
}

/// `{"id", "name"}` of a stack.
pub(super) fn reference(name: StackName) -> Value {
    json!({ "id": id(name), "name": name.as_str() })
}

/// `layers` and `outdated_apps` are our own.
/// Which apps there are is only an administrator's to know.
fn serialize(control: &Control, caller: &Caller, name: StackName) -> Value {
    let mut row = json!({
        "created_at": EPOCH,
        "default": control.place.stack == name,
        "id": id(name),
        "name": name.as_str(),
        "state": "public",
        "updated_at": EPOCH,
    });
    if name == StackName::Debian13 {
        row["layers"] = layers(&control.stacks.debian().current());
        row["outdated_apps"] = if caller.admin { stacks::outdated_apps(control) } else { Vec::new() }.into();
    }
    row
}

fn layers(generation: &Generation) -> Value {
    let layer = |(layer, made): (&Layer, &crate::stack::Made)| {
        json!({
            "base": made.base,
            "digest": made.digest,
            "made_at": time(made.made_at),
            "name": layer.as_str(),
            "packages": made.packages,
            "size": made.bytes,
            "up_to_date": !Debian::is_of_another_list(*layer, made),
        })
    };
    generation.iter().map(layer).collect()
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = StackName::ALL.map(|name| serialize(&control, &caller, name)).to_vec();
    paging::page(&headers, rows, &["name", "id"])
}

async fn available(state: State<Control>, caller: Extension<Caller>, _: At, headers: HeaderMap) -> ApiResult<Response> {
    list(state, caller, headers).await
}

/// By name or id.
pub(super) fn named(wanted: &str) -> ApiResult<StackName> {
    let by_id = StackName::ALL.into_iter().find(|name| id(*name).to_string() == wanted);
    by_id.or_else(|| wanted.parse().ok()).ok_or_else(|| ApiError::not_found(Resource::Stack))
}

async fn info(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    let name = named(path.get("stack"))?;
    Ok(Json(serialize(&control, &caller, name)))
}

#[derive(Debug, Deserialize)]
struct Build {
    #[serde(default)]
    languages: Vec<String>,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    update: bool,
}

async fn build(
    State(control): State<Control>,
    path: Segments,
    base: Base,
    Input(body): Input<Build>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let languages = stacks::languages(&body.languages)?;
    let what = if body.update { Work::Update } else { Work::Build(languages) };
    let job = stacks::start(&control, path.get("stack"), NewWork { what, mirrors: body.mirrors })?;
    Ok((StatusCode::CREATED, Json(job_row(&control, &base, &job))))
}

async fn build_info(State(control): State<Control>, path: Segments, base: Base) -> ApiResult<Json<Value>> {
    Ok(Json(job_row(&control, &base, &stacks::find(&control, path.get("build"))?)))
}

async fn cancel(State(control): State<Control>, path: Segments, base: Base) -> ApiResult<Json<Value>> {
    Ok(Json(job_row(&control, &base, &stacks::cancel(&control, path.get("build"))?)))
}

/// As far as it has them, the fields of an app's build.
fn job_row(control: &Control, base: &Base, job: &Job) -> Value {
    let (status, failure) = match &job.status {
        Status::Pending => ("pending", None),
        Status::Succeeded => ("succeeded", None),
        Status::Failed(reason) => ("failed", Some(reason)),
    };
    json!({
        "failure_message": failure,
        "id": job.id,
        "output_stream_url": streams::url(control, base, (Purpose::Box, job.id)),
        "status": status,
    })
}

#[derive(Debug, Deserialize)]
struct Export {
    /// Separated by commas; all that are there when it is missing.
    languages: Option<String>,
}

async fn export(State(control): State<Control>, path: Segments, Query(query): Query<Export>) -> ApiResult<Response> {
    let wanted = query.languages.map(|list| {
        let names: Vec<String> = list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        stacks::languages(&names)
    });
    let mut pipe = stacks::export(&control, path.get("stack"), wanted.transpose()?)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; 256 << 10];
            let read = pipe.read(&mut piece).map(|read| {
                piece.truncate(read);
                bytes::Bytes::from(piece)
            });
            if let Err(error) = &read {
                tracing::warn!("can't export the stack: {error}");
            }
            let last = !read.as_ref().is_ok_and(|piece| !piece.is_empty());
            if sender.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    Ok(([(CONTENT_TYPE, "application/zstd")], body).into_response())
}

#[derive(Debug, Deserialize)]
struct Import {
    source_blob: SourceBlob,
}

#[derive(Debug, Deserialize)]
struct SourceBlob {
    url: String,
    checksum: Option<String>,
}

async fn import(
    State(control): State<Control>,
    path: Segments,
    base: Base,
    Input(body): Input<Import>,
) -> ApiResult<Json<Value>> {
    let Some(secret) = base.own_path(&body.source_blob.url).and_then(sources::secret_in) else {
        return Err(ApiError::invalid("Upload the file first: POST /sources, and put it to its put_url."));
    };
    let checksum = body.source_blob.checksum.filter(|text| !text.is_empty());
    let imported = stacks::import(&control, path.get("stack"), secret, checksum.as_deref()).await?;
    Ok(Json(json!({ "layers": layers(&imported) })))
}
