//! `/apps/:app/formation`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Input, Note, Segments, time};
use super::{paging, platform};
use crate::control::formation::{self, FormationView};
use crate::control::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::formation::{Quantity, Update};
use crate::domain::limits::DynoSize;
use crate::domain::procfile::ProcessType;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/formation", get(list).patch(update_all))
        .route("/apps/{app}/formation/{type}", get(info).patch(update_one))
        .route("/dyno-sizes", get(sizes))
        .route("/dyno-sizes/{size}", get(size_info))
        .route("/apps/{app}/available-dyno-sizes", get(sizes))
}

#[derive(Debug, Deserialize)]
struct Batch {
    updates: Vec<TypedRow>,
}

#[derive(Debug, Deserialize)]
struct TypedRow {
    #[serde(rename = "type")]
    kind: String,
    quantity: Option<Value>,
    size: Option<Size>,
    dyno_size: Option<Size>,
}

#[derive(Debug, Deserialize)]
struct Row {
    quantity: Option<Value>,
    size: Option<Size>,
    dyno_size: Option<Size>,
}

/// A size by its name, as a text or as `{"name"}`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the name of a dyno size")]
enum Size {
    Plain(String),
    Reference { name: String },
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let rows = formation::list(&control, at.app.id).await?;
    paging::page(&headers, rows.iter().map(|view| serialize(&at.app, view)).collect(), &["type", "id"])
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let view = formation::find(&control, at.app.id, &process_type(at.path.get("type"))?).await?;
    Ok(Json(serialize(&at.app, &view)))
}

async fn update_all(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Batch>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let updates = body
        .updates
        .into_iter()
        .map(|row| update(&row.kind, row.quantity, row.size.or(row.dyno_size)))
        .collect::<ApiResult<Vec<_>>>()?;
    let views = formation::scale(&control, &actor, at.app.id, updates).await?;
    Ok((note(&views), Json(views.iter().map(|view| serialize(&at.app, view)).collect())))
}

async fn update_one(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(row): Input<Row>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let update = update(at.path.get("type"), row.quantity, row.size.or(row.dyno_size))?;
    let views = formation::scale(&control, &actor, at.app.id, vec![update]).await?;
    let view = views.first().ok_or(ControlError::NotFound(Resource::ProcessType))?;
    Ok((note(&views), Json(serialize(&at.app, view))))
}

fn note(views: &[FormationView]) -> Extension<Note> {
    let scale = |view: &FormationView| format!("{}={}:{}", view.row.kind, view.row.scale.quantity, view.row.scale.size);
    Extension(Note(views.iter().map(scale).collect::<Vec<_>>().join(" ")))
}

fn update(kind: &str, quantity: Option<Value>, size: Option<Size>) -> ApiResult<Update> {
    Ok(Update {
        kind: process_type(kind)?,
        quantity: quantity.filter(|value| !value.is_null()).map(|value| self::quantity(&value)).transpose()?,
        size: size.map(|(Size::Plain(name) | Size::Reference { name })| self::size(&name)).transpose()?,
    })
}

/// A type that can't be one is one that is not there.
pub(super) fn process_type(text: &str) -> ApiResult<ProcessType> {
    ProcessType::parse(text).map_err(|_| ApiError::not_found(Resource::ProcessType))
}

fn quantity(value: &Value) -> ApiResult<Quantity> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // A plain number below 0 is no change by so many.
    if value.is_number() && text.starts_with('-') {
        return Err(ApiError::invalid(format!("{text} is not a quantity.")));
    }
    Quantity::parse(&text).map_err(|error| ApiError::from(ControlError::from(error)))
}

pub(super) fn size(name: &str) -> ApiResult<DynoSize> {
    name.parse().map_err(|error: crate::domain::limits::UnknownSize| ApiError::invalid(error.to_string()))
}

fn serialize(app: &App, view: &FormationView) -> Value {
    let FormationView { row, command } = view;
    json!({
        "app": { "id": app.id, "name": app.name },
        "command": command,
        "created_at": time(row.created_at),
        "dyno_size": { "id": size_id(row.scale.size), "name": row.scale.size },
        "id": row.id,
        "quantity": row.scale.quantity,
        "size": row.scale.size,
        "type": row.kind,
        "updated_at": time(row.updated_at),
    })
}

/// Memory is in GB as Heroku has it, that is 1024³ bytes.
fn size_row(control: &Control, size: DynoSize) -> Value {
    let limits = control.supervisor.sizes().of(size);
    let mebibytes = u32::try_from(limits.memory_quota >> 20).unwrap_or(u32::MAX);
    json!({
        "architecture": std::env::consts::ARCH,
        "compute": limits.cpu_shares / 100,
        "cost": null,
        "dedicated": false,
        "generation": platform::generation_reference(),
        "id": size_id(size),
        "memory": f64::from(mebibytes) / 1024.0,
        "name": size,
        "precise_dyno_units": 0.0,
        "private_space_only": false,
    })
}

async fn sizes(State(control): State<Control>, headers: HeaderMap) -> ApiResult<Response> {
    let rows = DynoSize::ALL.iter().map(|size| size_row(&control, *size)).collect();
    paging::page(&headers, rows, &["name", "id"])
}

async fn size_info(State(control): State<Control>, path: Segments) -> ApiResult<Json<Value>> {
    let which = path.get("size");
    let is_it = |size: &DynoSize| size.name().eq_ignore_ascii_case(which) || size_id(*size).to_string() == which;
    let found = DynoSize::ALL.into_iter().find(is_it);
    found.map(|size| Json(size_row(&control, size))).ok_or_else(|| ApiError::not_found(Resource::DynoSize))
}

fn size_id(size: DynoSize) -> Uuid {
    let place = DynoSize::ALL.iter().position(|other| *other == size).unwrap_or_default();
    Uuid::from_u128(0x686f_6b6b_752d_7369_8001_7a65_0000_0001 + place as u128)
}
