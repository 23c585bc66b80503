//! `/account`, `/users/~`: who asks.
#![forbid(unsafe_code)]

use super::error::{ApiError, ApiResult};
use super::request::{Segments, time};
use crate::control::{Control, Resource, tokens};
use crate::domain::actor::Actor;
use crate::store::accounts::Account;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/account", get(info)).route("/users/{user}", get(user))
}

async fn info(State(control): State<Control>, Extension(actor): Extension<Actor>) -> ApiResult<Json<Value>> {
    Ok(Json(serialize(&tokens::account(&control, &actor).await?)))
}

async fn user(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    path: Segments,
) -> ApiResult<Json<Value>> {
    check_user(&actor, path.get("user"))?;
    Ok(Json(serialize(&tokens::account(&control, &actor).await?)))
}

/// One sees oneself only: as `~`, by address or by UUID.
pub(super) fn check_user(actor: &Actor, user: &str) -> ApiResult<()> {
    let oneself = user == "~" || user.eq_ignore_ascii_case(&actor.email) || user == actor.id.to_string();
    if oneself { Ok(()) } else { Err(ApiError::not_found(Resource::User)) }
}

fn serialize(account: &Account) -> Value {
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
        "name": null,
        "sms_number": null,
        "suspended_at": null,
        "two_factor_authentication": false,
        "updated_at": time(account.updated_at),
        "verified": true,
    })
}
