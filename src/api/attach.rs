//! `/attach/:secret`: the client of a one-off dyno changes from HTTP to attach frames.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::Segments;
use crate::control::dynos::{self, ACCESS_ENDED, Protocol};
use crate::control::grants::Held;
use crate::control::{Control, Resource};
use crate::wire::attach::{Frame, MAX_PAYLOAD, PROTOCOL};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

/// A client has this long to take the last word.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/attach/{secret}", get(attach))
}

async fn attach(State(control): State<Control>, path: Segments, mut request: Request) -> ApiResult<Response> {
    let client = dynos::client(&control, path.get("secret")).await?;
    if client.protocol != Protocol::Frames {
        return Err(ApiError::not_found(Resource::Dyno));
    }
    if !has_word(request.headers(), &UPGRADE, PROTOCOL) || !has_word(request.headers(), &CONNECTION, "upgrade") {
        return Err(ApiError::bad_request(format!(
            "Attaching needs the headers Connection: Upgrade, Upgrade: {PROTOCOL}."
        )));
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("This connection can't be upgraded."))?;
    // The dyno gets its end now, so that one that waits for nobody is an ordinary error and not a silent stream.
    let (ours, theirs) = tokio::io::duplex(MAX_PAYLOAD);
    let held = dynos::attach(&control, client, Box::new(theirs)).await?;
    tokio::spawn(async move { pass_on(upgrade, ours, &held, || control.supervisor.evict(client.dyno)).await });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(CONNECTION, "Upgrade"), (UPGRADE, PROTOCOL)]).into_response())
}

/// Until either side is gone, or the client's access; then `evict` comes first, so that nothing it says from then on
/// matters. A client that never comes back is one that is gone.
async fn pass_on(upgrade: OnUpgrade, dyno: DuplexStream, held: &Held, evict: impl Fn()) {
    let Ok(client) = upgrade.await else { return };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_dyno, mut to_dyno) = tokio::io::split(dyno);
    let mut answer = pin!(async {
        tokio::select! {
            biased;
            () = held.ended() => {
                evict();
                // It may have stopped reading.
                let last = Frame::Error(ACCESS_ENDED.to_owned()).encode();
                let _ = tokio::time::timeout(PATIENCE, to_client.write_all(&last)).await;
            }
            // A broken connection is the end of the session, and the dyno's side of it says so in the app's log.
            _ = tokio::io::copy(&mut from_dyno, &mut to_client) => {}
        }
        let _ = tokio::time::timeout(PATIENCE, to_client.shutdown()).await;
    });
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_dyno) => {
            // Whether the client has gone or the dyno takes no more: what that has said is still to be read.
            let _ = to_dyno.shutdown().await;
            answer.await;
        }
        () = &mut answer => {}
    }
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}
