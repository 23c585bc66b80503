//! `/apps/:app/slugs/:slug`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{At, time};
use super::stacks;
use crate::control::{Control, slugs};
use crate::domain::slug::Slug;
use crate::domain::stack::StackName;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/slugs/{slug}", get(info))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let slug = slugs::find(&control, at.app.id, at.path.get("slug")).await?;
    Ok(Json(serialize(&slug, at.app.stack)))
}

/// The archive itself can't be had by a URL, so `blob` has none.
fn serialize(slug: &Slug, stack: StackName) -> Value {
    json!({
        "blob": { "method": "get", "url": null },
        "buildpack_provided_description": slug.buildpack_description,
        "checksum": format!("SHA256:{}", slug.digest),
        "commit": slug.commit,
        "commit_description": null,
        "created_at": time(slug.created_at),
        "deleted_at": null,
        "id": slug.id,
        "process_types": slug.process_types,
        "size": slug.size,
        "stack": stacks::reference(stack),
        "updated_at": time(slug.created_at),
    })
}
