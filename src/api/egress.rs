//! `/apps/:app/egress`: not of Heroku's API, which has no such thing.
//!
//! `{"app": {"id", "name"}, "mode": "internet" | "none" | "allow", "allow": ["10.0.0.0/8", "192.0.2.7:5432", "tcp/443"]}`
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{At, Input, Note, note};
use crate::control::{Control, ControlError, egress};
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::egress::Egress;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/apps/{app}/egress", get(info).patch(update))
}

/// A list alone means `allow`.
#[derive(Debug, Deserialize)]
struct Update {
    mode: Option<Mode>,
    allow: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Internet,
    None,
    Allow,
}

async fn info(State(control): State<Control>, at: At) -> ApiResult<Json<Value>> {
    let egress = egress::get(&control, at.app.id).await?;
    Ok(Json(serialize(&at.app, &egress)))
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    at: At,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let egress = match (body.mode, body.allow) {
        (None | Some(Mode::Allow), Some(allow)) => {
            let parsed = Egress::parse(allow.iter().map(String::as_str)).map_err(ControlError::from)?;
            if parsed.destinations().is_empty() {
                return Err(ApiError::invalid(format!("A list can't be {parsed}; that is a mode.")));
            }
            parsed
        }
        (Some(Mode::Internet), None) => Egress::Internet,
        (Some(Mode::None), None) => Egress::None,
        (Some(Mode::Allow), None) => return Err(ApiError::invalid("The mode allow needs a list, \"allow\".")),
        (Some(_), Some(_)) => return Err(ApiError::invalid("Only the mode allow has a list, \"allow\".")),
        (None, None) => return Err(ApiError::invalid("Say a mode (internet or none) or a list, \"allow\".")),
    };
    let egress = egress::set(&control, &actor, &at.app, egress).await?;
    Ok((note(egress.to_string()), Json(serialize(&at.app, &egress))))
}

fn serialize(app: &App, egress: &Egress) -> Value {
    let mode = match egress {
        Egress::Internet => "internet",
        Egress::None => "none",
        Egress::Only(_) => "allow",
    };
    let allow: Vec<String> = egress.destinations().iter().map(ToString::to_string).collect();
    json!({ "app": { "id": app.id, "name": app.name }, "mode": mode, "allow": allow })
}
