//! `/runtimes`, beyond Heroku's API: versions of languages that the box keeps for its builds.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{Base, Input, Note, Segments, note, time};
use super::{paging, sources};
use crate::control::Control;
use crate::control::runtimes::{self, NewRuntime};
use crate::stack::runtimes::Kept;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/runtimes", get(list).post(import)).route("/runtimes/{language}/{version}", delete(remove))
}

fn serialize(kept: &Kept) -> Value {
    json!({
        "digest": kept.digest,
        "imported_at": time(kept.imported_at),
        "language": kept.runtime.language,
        "size": kept.bytes,
        "version": kept.runtime.version,
    })
}

async fn list(State(control): State<Control>, headers: HeaderMap) -> ApiResult<Response> {
    let rows = runtimes::list(&control).await?.iter().map(serialize).collect();
    paging::page(&headers, rows, &["language"])
}

#[derive(Debug, Deserialize)]
struct Import {
    source_blob: SourceBlob,
    file: String,
    language: Option<String>,
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SourceBlob {
    url: String,
    checksum: Option<String>,
}

async fn import(
    State(control): State<Control>,
    base: Base,
    Input(body): Input<Import>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let Some(secret) = base.own_path(&body.source_blob.url).and_then(sources::secret_in) else {
        return Err(ApiError::invalid("Upload the file first: POST /sources, and put it to its put_url."));
    };
    let new = NewRuntime {
        secret: secret.to_owned(),
        checksum: body.source_blob.checksum.filter(|text| !text.is_empty()),
        file: body.file,
        language: body.language,
        version: body.version,
    };
    let kept = runtimes::import(&control, new).await?;
    let noted = note(format!("{} {}", kept.runtime.language, kept.runtime.version));
    Ok((StatusCode::CREATED, noted, Json(serialize(&kept))))
}

async fn remove(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    runtimes::remove(&control, path.get("language"), path.get("version")).await?;
    Ok(Json(json!({})))
}
