//! `/streams/:id/:secret`: the output of a build or a release phase, followed while it grows.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{Base, Segments};
use crate::control::builds::{self, Reading};
use crate::control::{Control, Resource};
use crate::domain::build::BuildId;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use std::convert::Infallible;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const GOODBYE: &str = "\n !     The server is going down; the output can be read on when it is back.\n";

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/streams/{id}/{secret}", get(read))
}

/// Where the output of the build or release `id` can be read.
pub(super) fn url(control: &Control, base: &Base, id: Uuid) -> String {
    base.url(&format!("/streams/{id}/{}", builds::output_secret(control, id)))
}

/// The same for who began the build, which ends with this reading.
pub(super) fn attached_url(control: &Control, base: &Base, id: BuildId) -> String {
    base.url(&format!("/streams/{}/{}", id.0, builds::attached_secret(control, id)))
}

async fn read(State(control): State<Control>, path: Segments) -> ApiResult<Response> {
    let id: Uuid = path.get("id").parse().map_err(|_| ApiError::not_found(Resource::Output))?;
    let reading = builds::read_output(&control, id, path.get("secret"))?;
    let body = Body::from_stream(stream::unfold(Some((reading, control.closing)), next));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

type Following = Option<(Reading, CancellationToken)>;

async fn next(state: Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    let (mut reading, closing) = state?;
    tokio::select! {
        piece = reading.next() => Some((Ok(piece?), Some((reading, closing)))),
        () = closing.cancelled() => {
            reading.release();
            Some((Ok(Bytes::from_static(GOODBYE.as_bytes())), None))
        }
    }
}
