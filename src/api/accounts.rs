//! `/accounts`, beyond Heroku's API: who may use this instance, for its administrators.
#![forbid(unsafe_code)]

use super::error::ApiResult;
use super::request::{Input, Note, Segments};
use super::{account, authorizations, paging};
use crate::control::accounts::{self, NewPassword, Patch};
use crate::control::{Control, tokens};
use crate::store::accounts::Account;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, patch};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::Value;

pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/accounts", get(list).post(create))
        .route("/accounts/{account}", patch(update).delete(remove))
        .route("/accounts/{account}/authorizations", get(tokens_of))
        .route("/accounts/{account}/authorizations/{authorization}", delete(revoke))
}

/// An account as its owner sees it, with what an administrator wants to know; the password only when it was made up here.
fn serialize(account: &Account, password: Option<String>) -> Value {
    let mut row = account::serialize(account);
    row["admin"] = account.admin.into();
    row["has_password"] = account.has_password.into();
    if let Some(password) = password {
        row["password"] = password.into();
    }
    row
}

async fn list(State(control): State<Control>, headers: HeaderMap) -> ApiResult<Response> {
    let rows = accounts::list(&control).await?;
    paging::page(&headers, rows.iter().map(|row| serialize(row, None)).collect(), &["email", "id"])
}

#[derive(Debug, Deserialize)]
struct Create {
    email: String,
    password: Option<String>,
    #[serde(default)]
    admin: bool,
}

async fn create(
    State(control): State<Control>,
    Input(body): Input<Create>,
) -> ApiResult<(StatusCode, Extension<Note>, Json<Value>)> {
    let (account, password) = accounts::create(&control, &body.email, body.password, body.admin).await?;
    let note = format!("{}{}", account.email, if account.admin { ", administrator" } else { "" });
    Ok((StatusCode::CREATED, Extension(Note(note)), Json(serialize(&account, password))))
}

#[derive(Debug, Deserialize)]
struct Update {
    admin: Option<bool>,
    password: Option<String>,
    /// One is to be made up.
    #[serde(default)]
    new_password: bool,
}

async fn update(
    State(control): State<Control>,
    path: Segments,
    headers: HeaderMap,
    Input(body): Input<Update>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let password = match body.password {
        Some(text) => Some(NewPassword::Given(text)),
        None if body.new_password => Some(NewPassword::Made),
        None => None,
    };
    let words = [
        body.admin.map(|admin| if admin { "administrator" } else { "no administrator" }),
        password.as_ref().map(|_| "new password"),
    ];
    let tokens = account::others_end(&control, &headers).await?;
    let changes = Patch { admin: body.admin, password, tokens, ..Patch::default() };
    let (account, password) = accounts::update(&control, path.get("account"), changes).await?;
    let note = words.into_iter().flatten().fold(account.email.clone(), |note, word| note + ", " + word);
    Ok((Extension(Note(note)), Json(serialize(&account, password))))
}

#[derive(Debug, Deserialize)]
struct Remove {
    /// Who gets what the account owns.
    transfer_to: Option<String>,
}

async fn remove(
    State(control): State<Control>,
    path: Segments,
    Input(body): Input<Remove>,
) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let (account, given) = accounts::remove(&control, path.get("account"), body.transfer_to.as_deref(), None).await?;
    let given = given.iter().map(|name| format!(", {name} to {}", body.transfer_to.as_deref().unwrap_or_default()));
    let note = given.fold(account.email.clone(), |note, given| note + &given);
    Ok((Extension(Note(note)), Json(serialize(&account, None))))
}

/// Their texts are known to nobody.
async fn tokens_of(State(control): State<Control>, path: Segments, headers: HeaderMap) -> ApiResult<Response> {
    let whose = accounts::find(&control, path.get("account")).await?.actor();
    let rows = tokens::list(&control, &whose).await?;
    paging::page(&headers, rows.iter().map(|row| authorizations::serialize(&whose, row, None)).collect(), &["id"])
}

async fn revoke(State(control): State<Control>, path: Segments) -> ApiResult<(Extension<Note>, Json<Value>)> {
    let whose = accounts::find(&control, path.get("account")).await?.actor();
    let row = tokens::find(&control, &whose, path.get("authorization"), None).await?;
    tokens::delete(&control, &whose, row.id).await?;
    let note = format!("{} of {}", row.description, whose.email);
    Ok((Extension(Note(note)), Json(authorizations::serialize(&whose, &row, None))))
}
