//! Giving an app to another owner: offered by who owns it, accepted by who gets it; an administrator needs no consent.
#![forbid(unsafe_code)]

use super::access::{self, Visible};
use super::{Control, ControlError, Resource};
use crate::domain::access::{Caller, Permission, Permissions};
use crate::store::transfers::Transfer;
use crate::store::{self, Tx};
use jiff::Timestamp;
use uuid::Uuid;

/// # Errors
/// When there is no such app or account, the caller does not own the app, or the recipient has it already.
pub async fn create(control: &Control, caller: &Caller, app: &str, recipient: &str) -> Result<Transfer, ControlError> {
    let app = access::app(control, caller, app, Permission::Manage).await?;
    if !caller.admin && app.owner.id != caller.actor.id {
        // To himself, too: nobody else's consent would be asked.
        return Err(ControlError::Invalid(format!(
            "Only {}, who owns {}, can give it away.",
            app.owner.email, app.name
        )));
    }
    let (caller, recipient) = (caller.clone(), recipient.to_owned());
    control
        .store
        .write(move |tx| {
            let found = store::accounts::find(tx, &recipient)?;
            let recipient = found.ok_or_else(|| {
                let recipient: String = recipient.chars().take(60).collect();
                ControlError::Invalid(format!("There is no account {recipient:?} to transfer {} to.", app.name))
            })?;
            if recipient.id == app.owner.id {
                return Err(ControlError::Invalid(format!("{} owns {} already.", recipient.email, app.name)));
            }
            let id = store::transfers::insert(tx, app.id, app.owner.id, recipient.id, Timestamp::now())?;
            if caller.admin {
                accept(tx, &get(tx, id)?)?;
            }
            get(tx, id)
        })
        .await
}

fn get(tx: &Tx<'_>, id: Uuid) -> Result<Transfer, ControlError> {
    store::transfers::get(tx, id)?.ok_or(ControlError::NotFound(Resource::Transfer))
}

/// The old owner keeps access, but for managing it.
fn accept(tx: &Tx<'_>, transfer: &Transfer) -> Result<(), ControlError> {
    let now = Timestamp::now();
    let Transfer { app, owner, recipient, .. } = transfer;
    store::apps::set_owner(tx, *app, recipient.id)?;
    store::collaborators::remove(tx, *app, recipient.id)?;
    store::collaborators::put(tx, *app, owner.id, &Permissions::default(), now)?;
    Ok(store::transfers::set_state(tx, transfer.id, "accepted", now)?)
}

/// What the caller offers or is offered; everything for an administrator. Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, caller: &Caller) -> Result<Vec<Transfer>, ControlError> {
    let all: Vec<Transfer> = control.store.read(move |tx| Ok::<_, ControlError>(store::transfers::list(tx)?)).await?;
    let visible = access::visible(control, caller).await?;
    Ok(all.into_iter().filter(|transfer| concerns(&visible, transfer)).collect())
}

fn concerns(visible: &Visible, transfer: &Transfer) -> bool {
    visible.owns(transfer.owner.id.0) || visible.owns(transfer.recipient.id.0)
}

/// By UUID, or the app's name when one waits for its answer.
///
/// # Errors
/// When there is none that concerns the caller.
pub async fn find(control: &Control, caller: &Caller, which: &str) -> Result<Transfer, ControlError> {
    let is_it = |transfer: &Transfer| {
        transfer.id.to_string() == which || (transfer.state == "pending" && transfer.app_name.as_str() == which)
    };
    list(control, caller).await?.into_iter().find(is_it).ok_or(ControlError::NotFound(Resource::Transfer))
}

/// # Errors
/// When it has been answered, or is not the caller's to answer.
pub async fn answer(control: &Control, caller: &Caller, which: &str, yes: bool) -> Result<Transfer, ControlError> {
    let found = find(control, caller, which).await?;
    if !caller.admin && found.recipient.id != caller.actor.id {
        return Err(ControlError::Invalid(format!("Only {} can answer that.", found.recipient.email)));
    }
    control
        .store
        .write(move |tx| {
            // Whoever owns the app by now has not offered it.
            let current = get(tx, found.id)?;
            let app = store::apps::get(tx, current.app)?.ok_or(ControlError::NotFound(Resource::App))?;
            if current.state != "pending" || app.owner.id != current.owner.id {
                return Err(ControlError::Conflict("That transfer does not wait for an answer any more.".to_owned()));
            }
            if yes {
                accept(tx, &current)?;
            } else {
                store::transfers::set_state(tx, current.id, "declined", Timestamp::now())?;
            }
            get(tx, current.id)
        })
        .await
}

/// Takes an offer back, or an answered one off the list.
///
/// # Errors
/// When there is none that concerns the caller.
pub async fn withdraw(control: &Control, caller: &Caller, which: &str) -> Result<Transfer, ControlError> {
    let found = find(control, caller, which).await?;
    let id = found.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::transfers::delete(tx, id)?)).await?;
    Ok(found)
}
