//! `/account`, `/users/~`: who asks.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{Input, Note, Segments, authorization, time};
use crate::control::accounts::{self, NewPassword, Patch, Tokens};
use crate::control::audit::Address;
use crate::control::{Control, Resource, tokens};
use crate::domain::actor::Actor;
use crate::store::accounts::Account;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/account", get(info).patch(update).delete(remove))
        .route("/users/{user}", get(info).patch(update).delete(remove))
}

/// What the account is removed with, as on Heroku; the second is base64.
const PASSWORD: [&str; 2] = ["heroku-password", "heroku-password-base64"];

async fn info(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    check_oneself(&actor, &path)?;
    Ok(Json(serialize(&tokens::account(&control, &actor).await?)))
}

#[derive(Debug, Deserialize)]
struct Update {
    name: Option<String>,
    /// The one to be had from now on; `password` is the one so far.
    new_password: Option<String>,
    password: Option<String>,
}

async fn update(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Extension(address): Extension<Address>,
    path: Segments,
    headers: HeaderMap,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    check_oneself(&actor, &path)?;
    let words = [body.name.as_ref().map(|_| "name"), body.new_password.as_ref().map(|_| "password")];
    let note = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let (so_far, password) = match (body.new_password, body.password) {
        (None, _) => (None, None),
        (Some(new), Some(old)) => {
            (Some(accounts::check_password(&control, &actor, address.ip(), old).await?), Some(NewPassword::Given(new)))
        }
        (Some(_), None) => return Err(ApiError::invalid("To change the password, send the one so far too.")),
    };
    let tokens = others_end(&control, &headers).await?;
    let changes = Patch { admin: None, name: body.name, password, so_far, tokens };
    let (account, _) = accounts::update(&control, &actor.id.to_string(), changes).await?;
    Ok((Extension(Note(note)), Json(serialize(&account))))
}

/// All tokens end but the one that the request shows.
pub(super) async fn others_end(control: &Control, headers: &HeaderMap) -> ApiResult<Tokens> {
    let shown = tokens::shown(control, authorization(headers)).await?;
    Ok(Tokens::End { but: shown.map(|(id, _)| id) })
}

async fn remove(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Extension(address): Extension<Address>,
    path: Segments,
    headers: HeaderMap,
) -> ApiResult<Json<Value>> {
    check_oneself(&actor, &path)?;
    let password = password_in(&headers)
        .ok_or_else(|| ApiError::invalid("To remove your account, send its password in the header Heroku-Password."))?;
    let so_far = accounts::check_password(&control, &actor, address.ip(), password).await?;
    let (gone, _) = accounts::remove(&control, &actor.id.to_string(), None, Some(so_far)).await?;
    Ok(Json(serialize(&gone)))
}

fn password_in(headers: &HeaderMap) -> Option<String> {
    let [plain, encoded] = PASSWORD.map(|name| headers.get(name).and_then(|value| value.to_str().ok()));
    plain.map(str::to_owned).or_else(|| String::from_utf8(STANDARD.decode(encoded?).ok()?).ok())
}

/// Of paths that name a user.
fn check_oneself(actor: &Actor, path: &Segments) -> ApiResult<()> {
    match path.get("user") {
        "" => Ok(()),
        user => check_user(actor, user),
    }
}

/// One sees oneself only: as `~`, by address or by UUID.
pub(super) fn check_user(actor: &Actor, user: &str) -> ApiResult<()> {
    let oneself = user == "~" || user.eq_ignore_ascii_case(&actor.email) || user == actor.id.to_string();
    if oneself { Ok(()) } else { Err(ApiError::not_found(Resource::User)) }
}

pub(super) fn serialize(account: &Account) -> Value {
    json!({
        "acknowledged_msa": false,
        "acknowledged_msa_at": null,
        "allow_tracking": false,
        "beta": false,
        "country_of_residence": null,
        "created_at": time(account.created_at),
        "default_organization": null,
        "default_team": null,
        "delinquent_at": null,
        "email": account.email,
        "federated": false,
        "id": account.id,
        "identity_provider": null,
        "italian_customer_terms": null,
        "italian_partner_terms": null,
        "last_login": null,
        "name": account.name,
        "sms_number": null,
        "suspended_at": null,
        "two_factor_authentication": false,
        "updated_at": time(account.updated_at),
        "verified": true,
    })
}
