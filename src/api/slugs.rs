//! `/apps/:app/slugs`: those that are there, and a place for those that a client brings.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{At, Base, Input, Note, Segments, note, time};
use super::stacks;
use crate::control::Control;
use crate::control::slugs::{self, Draft, NewSlug, SlugView};
use crate::domain::actor::Actor;
use crate::domain::slug::Slug;
use crate::domain::stack::StackName;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/slugs", post(create)).route("/apps/{app}/slugs/{slug}", get(info))
}

/// For whoever has the URL.
pub(super) fn uploads() -> Router<Control> {
    Router::new().route("/slugs/{secret}", put(receive))
}

#[derive(Debug, Deserialize)]
struct Create {
    process_types: BTreeMap<String, String>,
    commit: Option<String>,
    commit_description: Option<String>,
    buildpack_provided_description: Option<String>,
    checksum: Option<String>,
    stack: Option<String>,
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let new = NewSlug {
        process_types: body.process_types,
        commit: body.commit,
        commit_description: body.commit_description,
        buildpack_description: body.buildpack_provided_description,
        checksum: body.checksum,
        stack: body.stack.map(|stack| stacks::named(&stack)).transpose()?,
    };
    let (secret, draft) = slugs::create(&control, &at.app, actor.id, new)?;
    let mut row = waiting(&draft);
    row["blob"] = json!({ "method": "put", "url": base.url(&format!("/slugs/{secret}")) });
    Ok((StatusCode::CREATED, note(draft.id.to_string()), Json(row)))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let view = slugs::find(&control, at.app.id, at.path.get("slug")).await?;
    Ok(Json(match view {
        SlugView::Made(slug) => serialize(&slug),
        SlugView::Waiting(draft) => waiting(&draft),
    }))
}

async fn receive(State(control): State<Control>, path: Segments, headers: HeaderMap, body: Body) -> ApiResult<()> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(slugs::receive(&control, path.get("secret"), length, body.into_data_stream()).await?)
}

/// The archive itself can't be had by a URL, so `blob` has none.
fn serialize(slug: &Slug) -> Value {
    let checksum = slug.checksum.as_ref().unwrap_or(&slug.digest);
    json!({
        "blob": { "method": "get", "url": null },
        "buildpack_provided_description": slug.buildpack_description,
        "checksum": format!("SHA256:{checksum}"),
        "commit": slug.commit,
        "commit_description": slug.commit_description,
        "created_at": time(slug.created_at),
        "deleted_at": null,
        "id": slug.id,
        "process_types": slug.process_types,
        "size": slug.size,
        "stack": stacks::reference(StackName::of_slug(&slug.stack)),
        "updated_at": time(slug.created_at),
    })
}

/// One that has no archive yet. Where it is to be put is said once: whoever may only read must not put one there.
fn waiting(draft: &Draft) -> Value {
    json!({
        "blob": { "method": "put", "url": null },
        "buildpack_provided_description": draft.buildpack_description,
        "checksum": draft.checksum.as_ref().map(|checksum| format!("SHA256:{checksum}")),
        "commit": draft.commit,
        "commit_description": draft.commit_description,
        "created_at": time(draft.created_at),
        "deleted_at": null,
        "id": draft.id,
        "process_types": draft.process_types,
        "size": null,
        "stack": stacks::reference(StackName::of_slug(&draft.stack)),
        "updated_at": time(draft.created_at),
    })
}
