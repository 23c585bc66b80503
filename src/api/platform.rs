//! What is the same for all apps (regions), and lists that clients ask for beside an app and that are empty or
//! have one row here.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::Segments;
use crate::control::{Control, Resource};
use crate::domain::access::Permission;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    let mut router = Router::new()
        .route("/regions", get(regions))
        .route("/regions/{region}", get(region))
        .route("/generations", get(generations))
        .route("/generations/{generation}", get(generation))
        .route("/teams/permissions", get(permissions))
        .route("/account/rate-limits", get(rate_limits))
        .route("/account/features/{feature}", get(no_feature));
    for path in ["/account/features", "/teams", "/spaces"] {
        router = router.route(path, get(empty));
    }
    router
}

/// When the constants below were made; they have to say something.
pub(super) const EPOCH: &str = "2026-11-22T00:00:00Z";

const REGION_ID: Uuid = Uuid::from_u128(0x686f_6b6b_752d_7265_8001_6769_6f6e_0001);
const GENERATION_ID: Uuid = Uuid::from_u128(0x686f_6b6b_752d_6765_8001_6e65_7200_0001);

pub(super) fn region_reference() -> Value {
    json!({ "id": REGION_ID, "name": "local" })
}

/// Clients must not take an app for one of Heroku's newer generation, which has other rules.
pub(super) fn generation_reference() -> Value {
    json!({ "id": GENERATION_ID, "name": "cedar" })
}

fn region_row() -> Value {
    json!({
        "country": "",
        "created_at": EPOCH,
        "description": "This machine",
        "id": REGION_ID,
        "locale": "",
        "name": "local",
        "private_capable": false,
        "provider": { "name": "hokku", "region": "local" },
        "updated_at": EPOCH,
    })
}

async fn regions(headers: HeaderMap) -> ApiResult<Response> {
    paging::page(&headers, vec![region_row()], &["name", "id"])
}

async fn region(path: Segments) -> ApiResult<Json<Value>> {
    named(region_row(), path.get("region"), Resource::Region)
}

fn named(row: Value, which: &str, resource: Resource) -> ApiResult<Json<Value>> {
    if row["name"] == which || row["id"] == which { Ok(Json(row)) } else { Err(ApiError::not_found(resource)) }
}

fn generation_row() -> Value {
    let mut row = generation_reference();
    row["created_at"] = EPOCH.into();
    row["updated_at"] = EPOCH.into();
    row
}

async fn generations(headers: HeaderMap) -> ApiResult<Response> {
    paging::page(&headers, vec![generation_row()], &["name", "id"])
}

async fn generation(path: Segments) -> ApiResult<Json<Value>> {
    named(generation_row(), path.get("generation"), Resource::Generation)
}

/// What a collaborator can be given.
async fn permissions(headers: HeaderMap) -> ApiResult<Response> {
    let row = |permission: Permission| json!({ "description": permission.description(), "name": permission.word() });
    paging::page(&headers, Permission::ALL.map(row).into(), &["name"])
}

/// Requests are not counted: whoever has a token is known, and slow or greedy connections are bounded otherwise.
async fn rate_limits() -> Json<Value> {
    Json(json!({ "remaining": 4500 }))
}

async fn empty(headers: HeaderMap) -> ApiResult<Response> {
    paging::page(&headers, Vec::new(), &["id"])
}

async fn no_feature() -> ApiError {
    ApiError::not_found(Resource::Feature)
}
