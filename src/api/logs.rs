//! `/apps/:app/log-sessions`, and the streams that they open.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Segments, time};
use crate::control::Control;
use crate::control::grants::Held;
use crate::control::logs::{self, Reading, Session};
use crate::domain::log::{LogFilter, LogFrame, Source};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/log-sessions", post(create))
}

/// For whoever has the URL.
pub(super) fn streams() -> Router<Control> {
    Router::new().route("/logs/{ticket}", get(read))
}

const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Often enough for proxies and clients that give up on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize)]
struct Create {
    lines: Option<usize>,
    tail: Option<bool>,
    source: Option<String>,
    /// A dyno or a type, in any of these.
    dyno: Option<String>,
    dyno_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

async fn create(
    State(control): State<Control>,
    at: At,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let process = body.dyno.or(body.dyno_name).or(body.kind).filter(|process| !process.is_empty());
    if process.as_ref().is_some_and(|process| process.len() > 80) {
        return Err(ApiError::invalid("There is no dyno with such a long name."));
    }
    let filter = LogFilter { source: source(body.source.as_deref())?, process };
    let now = Timestamp::now();
    let session = Session::new((at.app.id, base.bearer()), filter, body.lines, body.tail.unwrap_or(false), now);
    let id = Uuid::new_v4();
    let row = json!({
        "created_at": time(now),
        "id": id,
        "logplex_url": base.url(&format!("/logs/{}", logs::ticket(&control, base.bearer(), id, &session))),
        "updated_at": time(now),
    });
    Ok((StatusCode::CREATED, Json(row)))
}

fn source(word: Option<&str>) -> ApiResult<Option<Source>> {
    match word {
        None | Some("") => Ok(None),
        Some("app") => Ok(Some(Source::App)),
        Some("heroku") => Ok(Some(Source::Heroku)),
        Some(other) => Err(ApiError::invalid(format!("There is no log source {other:?}; use app or heroku."))),
    }
}

async fn read(State(control): State<Control>, path: Segments, headers: HeaderMap) -> ApiResult<Response> {
    let (session, held) = logs::session(&control, path.get("ticket"), Timestamp::now()).await?;
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let events = text(ACCEPT).is_some_and(|accept| accept.contains(EVENT_STREAM));
    let after = text(LAST_EVENT_ID).and_then(|id| id.parse().ok());
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reading = logs::open(&control, &session, after.is_some());
    let following = Following { reading, held, events, after, beat, closing: control.closing };
    let body = Body::from_stream(stream::unfold(Some(following), next));
    let kind = if events { EVENT_STREAM } else { "text/plain; charset=utf-8" };
    Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body).into_response())
}

/// A log while a client reads it.
struct Following {
    reading: Reading,
    held: Held,
    /// As server-sent events; otherwise as plain lines.
    events: bool,
    /// The event the client has seen last, before the connection broke.
    after: Option<i128>,
    beat: tokio::time::Interval,
    closing: CancellationToken,
}

async fn next(state: Option<Following>) -> Option<(Result<Bytes, Infallible>, Option<Following>)> {
    let mut following = state?;
    loop {
        let text = tokio::select! {
            biased;
            () = following.held.ended() => return Some((Ok(following.line(&ended()).into()), None)),
            () = following.closing.cancelled() => return Some((Ok(following.goodbye().into()), None)),
            frame = following.reading.next() => {
                let frame = frame?;
                if following.after.is_some_and(|after| frame.at.as_nanosecond() <= after) {
                    continue;
                }
                following.line(&frame)
            }
            _ = following.beat.tick(), if following.events => ": keep-alive\n\n".to_owned(),
        };
        return Some((Ok(text.into()), Some(following)));
    }
}

/// The last line for whoever may not follow the log any more.
fn ended() -> LogFrame {
    LogFrame::platform(Timestamp::now(), Source::Heroku, "logplex", "Your access to this log has ended")
}

impl Following {
    /// An event's id is its time: with it a client goes on after a broken connection.
    fn line(&self, frame: &LogFrame) -> String {
        if self.events { format!("id: {}\ndata: {frame}\n\n", frame.at.as_nanosecond()) } else { format!("{frame}\n") }
    }

    /// Readers of events come again by themselves.
    fn goodbye(&self) -> String {
        let text = "the server is going down";
        if self.events { format!(": {text}\nretry: 1000\n\n") } else { format!("{text}\n") }
    }
}
