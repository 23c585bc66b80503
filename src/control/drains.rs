//! Drains: where an app's log is sent.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::drain::{Drain, DrainUrl};
use crate::store::{self, StoreError};
use jiff::Timestamp;
use uuid::Uuid;

/// An app may have so many (as on Heroku).
const MOST: usize = 5;

/// Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<Drain>, ControlError> {
    control.store.read(move |tx| Ok(store::drains::list(tx, app)?)).await
}

/// By UUID, token or URL.
///
/// # Errors
/// When the app has no such drain.
pub async fn find(control: &Control, app: AppId, which: &str) -> Result<Drain, ControlError> {
    let is_it = |drain: &Drain| drain.id.to_string() == which || drain.token == which || drain.url.as_str() == which;
    list(control, app).await?.into_iter().find(is_it).ok_or(ControlError::NotFound(Resource::LogDrain))
}

/// From now on the app's log goes there too.
///
/// # Errors
/// When that is no URL of a drain, the app has it already, or it has as many as it may.
pub async fn add(control: &Control, actor: &Actor, app: &App, url: &str) -> Result<Drain, ControlError> {
    let url = DrainUrl::parse(url)?;
    let drain = Drain {
        id: Uuid::new_v4(),
        app: app.id,
        token: format!("d.{}", Uuid::new_v4()),
        url,
        created_at: Timestamp::now(),
    };
    let kept = drain.clone();
    control
        .store
        .write(move |tx| {
            let there = store::drains::list(tx, kept.app)?;
            if there.iter().any(|other| other.url == kept.url) {
                return Err(ControlError::Invalid("Url has already been taken".into()));
            }
            if there.len() >= MOST {
                return Err(ControlError::Invalid(format!("An app can have at most {MOST} log drains.")));
            }
            Ok(store::drains::insert(tx, &kept)?)
        })
        .await?;
    control.log(app.id, format!("Add log drain {} by user {}", drain.token, actor.email));
    control.drains.start(drain.clone());
    Ok(drain)
}

/// # Errors
/// When the app has no such drain.
pub async fn remove(control: &Control, actor: &Actor, app: &App, which: &str) -> Result<Drain, ControlError> {
    let drain = find(control, app.id, which).await?;
    let id = drain.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::drains::delete(tx, id)?)).await?;
    control.drains.stop(id);
    control.log(app.id, format!("Remove log drain {} by user {}", drain.token, actor.email));
    Ok(drain)
}

/// Those that there are, when a server starts. What is logged while no server runs is kept and not sent.
///
/// # Errors
/// When the store can't be read.
pub async fn start_all(control: &Control) -> Result<(), StoreError> {
    let all: Vec<Drain> = control.store.read(store::drains::all).await?;
    for drain in all {
        control.drains.start(drain);
    }
    Ok(())
}
