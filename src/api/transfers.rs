//! `/account/app-transfers`
#![forbid(unsafe_code)]

use super::collaborators::User;
use super::error::{ApiError, ApiResult};
use super::paging;
use super::request::{Input, Made, Note, Noted, Segments, Which, time};
use crate::control::{Control, transfers};
use crate::domain::access::Caller;
use crate::store::transfers::Transfer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/account/app-transfers", get(list).post(create))
        .route("/account/app-transfers/{transfer}", get(info).patch(answer).delete(withdraw))
}

fn serialize(row: &Transfer) -> Value {
    json!({
        "app": { "id": row.app, "name": row.app_name },
        "created_at": time(row.created_at),
        "id": row.id,
        "owner": { "email": row.owner.email, "id": row.owner.id },
        "recipient": { "email": row.recipient.email, "id": row.recipient.id },
        "state": row.state,
        "updated_at": time(row.updated_at),
    })
}

/// For the audit log.
pub(super) fn noted<T>(row: &Transfer, what: T) -> Noted<T> {
    let note = format!("{} to {}: {}", row.owner.email, row.recipient.email, row.state);
    (Extension(Note(note)), Extension(Made(row.app)), what)
}

async fn list(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let rows = transfers::list(&control, &caller).await?;
    paging::page(&headers, rows.iter().map(serialize).collect(), &["id"])
}

#[derive(Debug, Deserialize)]
struct Create {
    app: Which,
    recipient: User,
}

async fn create(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Noted<Json<Value>>)> {
    let row = transfers::create(&control, &caller, body.app.text(), body.recipient.text()).await?;
    Ok((StatusCode::CREATED, noted(&row, Json(serialize(&row)))))
}

async fn info(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&transfers::find(&control, &caller, path.get("transfer")).await?)))
}

#[derive(Debug, Deserialize)]
struct Answer {
    state: String,
}

async fn answer(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
    Input(body): Input<Answer>,
) -> ApiResult<Noted<Json<Value>>> {
    let yes = match body.state.as_str() {
        "accepted" => true,
        "declined" => false,
        _ => return Err(ApiError::invalid("The state of a transfer becomes accepted or declined.")),
    };
    let row = transfers::answer(&control, &caller, path.get("transfer"), yes).await?;
    Ok(noted(&row, Json(serialize(&row))))
}

async fn withdraw(
    State(control): State<Control>,
    Extension(caller): Extension<Caller>,
    path: Segments,
) -> ApiResult<Noted<Json<Value>>> {
    let row = transfers::withdraw(&control, &caller, path.get("transfer")).await?;
    Ok(noted(&row, Json(serialize(&row))))
}
