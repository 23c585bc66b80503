//! `/streams/:id/:secret`: the output of a build or a release phase, followed while it grows.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{Base, Segments};
use crate::control::builds::{self, Purpose, Reading};
use crate::control::{Control, Resource};
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
const ENDED: &str = "\n !     Your access has ended, and with it this output.\n";

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/streams/{id}/{secret}", get(read))
}

/// Where whoever asks can read an output.
pub(super) fn url(control: &Control, base: &Base, output: (Purpose, Uuid)) -> String {
    base.url(&format!("/streams/{}/{}", output.1, builds::output_secret(control, base.bearer(), output)))
}

async fn read(State(control): State<Control>, path: Segments) -> ApiResult<Response> {
    let id: Uuid = path.get("id").parse().map_err(|_| ApiError::not_found(Resource::Output))?;
    let reading = builds::read_output(&control, id, path.get("secret")).await?;
    let body = Body::from_stream(stream::unfold(Some((reading, control.closing)), next));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

type Following = Option<(Reading, CancellationToken)>;

async fn next(state: Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    let (mut reading, closing) = state?;
    let ended = reading.ended();
    let last = tokio::select! {
        biased;
        () = ended.cancelled() => ENDED,
        () = closing.cancelled() => {
            reading.release();
            GOODBYE
        }
        piece = reading.next() => return Some((Ok(piece?), Some((reading, closing)))),
    };
    Some((Ok(Bytes::from_static(last.as_bytes())), None))
}
