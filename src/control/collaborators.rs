//! Who has access to an app, and what they may do with it.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::access::{Caller, Need, Permission, Permissions, Role, Verdict, verdict};
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
    let found = list(control, app).await?.into_iter().find(|row| {
        row.account.email.eq_ignore_ascii_case(which)
            || row.account.id.to_string() == which
            || row.id.to_string() == which
    });
    found.ok_or(ControlError::NotFound(Resource::Collaborator))
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
/// When it has no access.
pub async fn update(
    control: &Control,
    app: &App,
    which: &str,
    permissions: Permissions,
) -> Result<Collaborator, ControlError> {
    let found = find(control, app, which).await?;
    let app = app.clone();
    control
        .store
        .write(move |tx| {
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
    let found = find(control, app, which).await?;
    let (app, caller) = (app.clone(), caller.clone());
    control
        .store
        .write(move |tx| {
            let need = Need::On(Permission::Manage);
            let role = if caller.admin { Role::Admin } else { store::collaborators::role(tx, &app, caller.actor.id)? };
            if found.account.id != caller.actor.id && verdict(&role, need) != Verdict::May {
                return Err(ControlError::Lacks { need });
            }
            store::collaborators::remove(tx, app.id, found.account.id)?;
            Ok(found)
        })
        .await
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
