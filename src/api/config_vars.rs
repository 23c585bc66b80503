//! `/apps/:app/config-vars`
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{At, Input, Note};
use crate::control::{Control, config, releases};
use crate::domain::actor::Actor;
use crate::domain::config_vars::{self, ConfigPatch, ConfigVars};
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/apps/{app}/config-vars", get(info).patch(update))
        .route("/apps/{app}/releases/{release}/config-vars", get(of_release))
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<ConfigVars>> {
    Ok(Json(config::get(&control, at.app.id).await?))
}

async fn of_release(State(control): State<Control>, at: At) -> ApiResult<Json<ConfigVars>> {
    let view = releases::find(&control, at.app.id, at.path.get("release")).await?;
    Ok(Json(view.release.vars()))
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(patch): Input<ConfigPatch>,
) -> ApiResult<(Extension<Note>, Json<ConfigVars>)> {
    // Names, never values.
    let note = config_vars::describe(&patch);
    let (config, _) = config::set(&control, &actor, at.app.id, patch).await?;
    Ok((Extension(Note(note)), Json(config)))
}
