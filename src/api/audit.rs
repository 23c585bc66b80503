//! `/audit-events`, beyond Heroku's API: who changed what, when and from where.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{At, time};
use crate::control::Control;
use crate::control::audit::{self, Event, Wanted};
use crate::domain::access::Caller;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// Events of one answer, when the client does not say.
const PAGE: usize = 200;
/// And at most.
const MOST: usize = 10_000;

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/audit-events", get(list)).route("/apps/{app}/audit-events", get(list_of_app))
}

/// `?user=EMAIL&action=ACTION&max=N`; an action may be the part before its colon, `config-vars`.
#[derive(Debug, Deserialize)]
struct Filter {
    user: Option<String>,
    action: Option<String>,
    max: Option<usize>,
}

impl From<Filter> for Wanted {
    fn from(filter: Filter) -> Self {
        let max = filter.max.unwrap_or(PAGE).min(MOST);
        Self { of: None, app: None, email: filter.user, action: filter.action, max }
    }
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Query(filter): Query<Filter>,
) -> ApiResult<Json<Vec<Value>>> {
    let events = audit::list(&control, &caller, None, filter.into()).await?;
    Ok(Json(events.iter().map(serialize).collect()))
}

async fn list_of_app(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    at: At,
    Query(filter): Query<Filter>,
) -> ApiResult<Json<Vec<Value>>> {
    let events = audit::list(&control, &caller, Some(&at.app), filter.into()).await?;
    Ok(Json(events.iter().map(serialize).collect()))
}

fn serialize(event: &Event) -> Value {
    let Event { id, at, attempt, note, status, count } = event;
    json!({
        "action": attempt.action,
        "actor": { "email": attempt.actor.email, "id": attempt.actor.id },
        "app": attempt.app.as_ref().map(|(id, name)| json!({ "id": id, "name": name })),
        // More than one only of what was refused, within a minute.
        "count": count,
        "created_at": time(*at),
        "id": id,
        "note": note,
        "origin": attempt.origin,
        "path": attempt.path,
        "request_id": attempt.request,
        // None: the client or the server had gone before the answer.
        "status": status,
    })
}
