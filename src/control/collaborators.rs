//! Who has access to an app, and what they may do with it.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource, access};
use crate::domain::access::{Caller, Need, Permission, Permissions};
use crate::domain::app::App;
use crate::store::accounts::Account;
use crate::store::collaborators::Collaborator;
use crate::store::{self, Tx};
use jiff::Timestamp;

/// Without the owner, by address.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: &App) -> Result<Vec<Collaborator>, ControlError> {
    let app = app.id;
    control.store.read(move |tx| Ok(store::collaborators::list(tx, app)?)).await
}

/// By address or UUID of the account, or UUID of the access.
///
/// # Errors
/// When there is none.
pub async fn find(control: &Control, app: &App, which: &str) -> Result<Collaborator, ControlError> {
    found(list(control, app).await?, which)
}

fn found(rows: Vec<Collaborator>, which: &str) -> Result<Collaborator, ControlError> {
    let is_it = |row: &Collaborator| {
        row.account.email.eq_ignore_ascii_case(which)
            || row.account.id.to_string() == which
            || row.id.to_string() == which
    };
    rows.into_iter().find(is_it).ok_or(ControlError::NotFound(Resource::Collaborator))
}

/// Gives somebody access. Without permissions given, he may everything but manage.
///
/// # Errors
/// When there is no such account, it has access already, or an administrator joins a locked app.
pub async fn add(
    control: &Control,
    caller: &Caller,
    app: &App,
    which: &str,
    permissions: Option<Permissions>,
) -> Result<Collaborator, ControlError> {
    let (app, caller, which) = (app.clone(), caller.clone(), which.to_owned());
    control
        .store
        .write(move |tx| {
            must_manage(tx, &caller, &app)?;
            let account = account(tx, &which)?;
            if account.id == app.owner.id {
                return Err(ControlError::Invalid(format!("{} owns {}.", account.email, app.name)));
            }
            if store::collaborators::get(tx, app.id, account.id)?.is_some() {
                return Err(ControlError::Invalid(format!("{} has access to {} already.", account.email, app.name)));
            }
            let joins = account.id == caller.actor.id;
            if joins && app.locked {
                return Err(ControlError::Invalid(format!("{} is locked: its owner has to add you.", app.name)));
            }
            put(tx, &app, &account, &permissions.unwrap_or_default())
        })
        .await
}

/// # Errors
/// When it has no access, or the caller may not manage the app any more.
pub async fn update(
    control: &Control,
    caller: &Caller,
    app: &App,
    which: &str,
    permissions: Permissions,
) -> Result<Collaborator, ControlError> {
    let (app, caller, which) = (app.clone(), caller.clone(), which.to_owned());
    control
        .store
        .write(move |tx| {
            must_manage(tx, &caller, &app)?;
            let found = found(store::collaborators::list(tx, app.id)?, &which)?;
            let account = store::accounts::get(tx, found.account.id)?;
            put(tx, &app, &account.ok_or(ControlError::NotFound(Resource::User))?, &permissions)
        })
        .await
}

/// Whoever may not manage the app takes only himself off.
///
/// # Errors
/// When it has no access, or the caller may not.
pub async fn remove(control: &Control, caller: &Caller, app: &App, which: &str) -> Result<Collaborator, ControlError> {
    let (app, caller, which) = (app.clone(), caller.clone(), which.to_owned());
    control
        .store
        .write(move |tx| {
            let found = found(store::collaborators::list(tx, app.id)?, &which)?;
            if found.account.id != caller.actor.id {
                must_manage(tx, &caller, &app)?;
            }
            store::collaborators::remove(tx, app.id, found.account.id)?;
            Ok(found)
        })
        .await
}

/// In the transaction that changes something: the caller, or the app's owner, may have become another since the request
/// was let in.
fn must_manage(tx: &Tx<'_>, caller: &Caller, app: &App) -> Result<(), ControlError> {
    let account = store::accounts::get(tx, caller.actor.id)?.ok_or(ControlError::Denied)?;
    let app = store::apps::get(tx, app.id)?.ok_or(ControlError::NotFound(Resource::App))?;
    let role = access::role(tx, &Caller { admin: account.admin, ..caller.clone() }, &app)?;
    access::judge(&role, Need::On(Permission::Manage), Resource::App)
}

fn account(tx: &Tx<'_>, which: &str) -> Result<Account, ControlError> {
    store::accounts::find(tx, which)?.ok_or_else(|| {
        let which: String = which.chars().take(60).collect();
        ControlError::Invalid(format!(
            "There is no account {which:?}: an administrator makes one with hokku users:create."
        ))
    })
}

fn put(tx: &Tx<'_>, app: &App, account: &Account, permissions: &Permissions) -> Result<Collaborator, ControlError> {
    store::collaborators::put(tx, app.id, account.id, permissions, Timestamp::now())?;
    let made = store::collaborators::get(tx, app.id, account.id)?;
    made.ok_or(ControlError::NotFound(Resource::Collaborator))
}
