//! `/apps/:app/dynos`, and what is done to all dynos of a type.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Base, Input, Note, note, time};
use super::{formation, paging};
use crate::control::dynos::{self, DynoRow, NewRun, Protocol};
use crate::control::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::config_vars::{ConfigPatch, ConfigVars};
use crate::domain::dyno::{DynoId, DynoName};
use crate::domain::release::ReleaseError;
use crate::supervisor::{Attach, Stop};
use crate::wire::attach;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/dynos", get(list).post(create).delete(restart_all))
        .route("/apps/{app}/dynos/{dyno}", get(info).post(run_inside).delete(restart_one))
        .route("/apps/{app}/dynos/{dyno}/actions/stop", post(stop_one))
        .route("/apps/{app}/formations/{type}", delete(restart_type))
        .route("/apps/{app}/formations/{type}/actions/stop", post(stop_type))
}

#[derive(Debug, Deserialize)]
struct Create {
    command: String,
    #[serde(default)]
    attach: bool,
    /// Our own: which protocol the client speaks when it attaches; without it, that of Heroku's CLI.
    attach_protocol: Option<String>,
    /// Our own: whether it has a terminal.
    tty: Option<bool>,
    #[serde(default)]
    force_no_tty: Option<bool>,
    env: Option<Map<String, Value>>,
    size: Option<String>,
}

/// Heroku's CLI attaches at once, and does not say so.
async fn run_inside(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let body = Create { attach: true, ..body };
    let new = new_run(&body)?;
    let tty = new.attach.is_some_and(|attach| attach.tty.is_some());
    let (row, id) = dynos::run_inside(&control, &actor, at.app.id, at.path.get("dyno"), new).await?;
    let url = attach_url(&control, &base, &body, id, tty);
    Ok((StatusCode::CREATED, Json(serialize(&at.app, &row, Some(&url)))))
}

fn new_run(body: &Create) -> ApiResult<NewRun> {
    Ok(NewRun {
        env: environment(body.env.clone())?,
        size: body.size.as_deref().map(formation::size).transpose()?,
        attach: attachment(body)?,
        command: body.command.clone(),
    })
}

/// Where a client that speaks the protocol it has named, or Heroku's CLI, comes to what waits for it.
fn attach_url(control: &Control, base: &Base, body: &Create, id: DynoId, tty: bool) -> String {
    let secret = |protocol| dynos::attach_secret(control, base.bearer(), id, protocol);
    if body.attach_protocol.is_some() {
        base.url(&format!("/attach/{}", secret(Protocol::Frames)))
    } else {
        format!("rendezvous://{}/{}", base.authority(), secret(Protocol::Rendezvous { tty }))
    }
}

async fn create(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    base: Base,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let new = new_run(&body)?;
    let attached = new.attach.map(|attach| attach.tty.is_some());
    let row = dynos::run(&control, (&actor, base.bearer()), at.app.clone(), new).await?;
    let url = attached.map(|tty| attach_url(&control, &base, &body, row.dyno.id, tty));
    let noted = note(format!("{} ({})", row.dyno.name, row.dyno.size));
    Ok((StatusCode::CREATED, noted, Json(serialize(&at.app, &row, url.as_deref()))))
}

fn attachment(body: &Create) -> ApiResult<Option<Attach>> {
    if !body.attach {
        return Ok(None);
    }
    if let Some(other) = body.attach_protocol.as_deref().filter(|protocol| *protocol != attach::PROTOCOL) {
        let protocol = attach::PROTOCOL;
        return Err(ApiError::invalid(format!(
            "This server attaches clients that speak {protocol}, or that of Heroku's CLI, and not {other:?}."
        )));
    }
    let tty = body.tty.unwrap_or(true) && body.force_no_tty != Some(true);
    let side = |name: &str, default: u16| {
        let value = body.env.as_ref().and_then(|env| env.get(name)).map(plain);
        value.and_then(|text| text.parse().ok()).filter(|side| *side > 0).unwrap_or(default)
    };
    Ok(Some(Attach { tty: tty.then(|| (side("COLUMNS", 80), side("LINES", 24))) }))
}

/// Checked like config vars.
fn environment(env: Option<Map<String, Value>>) -> ApiResult<Vec<(String, String)>> {
    let env = env.unwrap_or_default();
    let patch: ConfigPatch = env.iter().map(|(key, value)| (key.clone(), Some(plain(value)))).collect();
    let (vars, _) = ConfigVars::default()
        .merge(&patch)
        .map_err(|error| ApiError::from(ControlError::from(ReleaseError::from(error))))?;
    Ok(vars.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn list(State(control): State<Control>, at: At, headers: HeaderMap) -> ApiResult<Response> {
    let rows = dynos::list(&control, at.app.id).await?;
    paging::page(&headers, rows.iter().map(|row| serialize(&at.app, row, None)).collect(), &["name", "id"])
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let row = dynos::find(&control, at.app.id, at.path.get("dyno")).await?;
    Ok(Json(serialize(&at.app, &row, None)))
}

/// What restarting and stopping answer.
type Accepted = (StatusCode, Json<Value>);

fn accepted() -> Accepted {
    (StatusCode::ACCEPTED, Json(json!({})))
}

async fn restart_all(State(control): State<Control>, at: At) -> ApiResult<Accepted> {
    dynos::restart(&control, at.app.id, Stop::All).await?;
    Ok(accepted())
}

async fn restart_one(State(control): State<Control>, at: At) -> ApiResult<Accepted> {
    let name = dyno_name(&control, &at).await?;
    dynos::restart(&control, at.app.id, Stop::Dyno(name)).await?;
    Ok(accepted())
}

async fn restart_type(State(control): State<Control>, at: At) -> ApiResult<Accepted> {
    let kind = formation::process_type(at.path.get("type"))?;
    dynos::restart(&control, at.app.id, Stop::Type(kind)).await?;
    Ok(accepted())
}

async fn stop_one(State(control): State<Control>, at: At) -> ApiResult<Accepted> {
    let name = dyno_name(&control, &at).await?;
    dynos::stop(&control, at.app.id, Stop::Dyno(name)).await?;
    Ok(accepted())
}

async fn stop_type(State(control): State<Control>, at: At) -> ApiResult<Accepted> {
    let kind = formation::process_type(at.path.get("type"))?;
    dynos::stop(&control, at.app.id, Stop::Type(kind)).await?;
    Ok(accepted())
}

/// The name that the path has, or that the dyno of that UUID has.
async fn dyno_name(control: &Control, at: &At) -> ApiResult<DynoName> {
    let which = at.path.get("dyno");
    if let Ok(name) = which.parse() {
        return Ok(name);
    }
    let row = dynos::find(control, at.app.id, which).await.map_err(|_| ControlError::NotFound(Resource::Dyno))?;
    Ok(row.dyno.name)
}

fn serialize(app: &App, row: &DynoRow, attach_url: Option<&str>) -> Value {
    let dyno = &row.dyno;
    json!({
        "app": { "id": app.id, "name": app.name },
        "attach_url": attach_url,
        "command": dyno.command,
        "created_at": time(dyno.created_at),
        "id": dyno.id,
        "name": dyno.name,
        "release": { "id": row.release, "version": dyno.release_version },
        "size": dyno.size,
        "state": dyno.state.word(),
        "type": dyno.name.kind,
        "updated_at": time(dyno.updated_at),
    })
}
