//! The audit log: every request that changes something is written down before it is carried out, and again with how it
//! ended.
#![forbid(unsafe_code)]

use super::access::{Visible, visible};
use super::tokens::Peer;
use super::{Control, ControlError};
use crate::domain::access::Caller;
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::store;
pub use crate::store::audit::{Attempt, Event, Wanted};
use axum::http::Extensions;
use jiff::Timestamp;
use std::net::SocketAddr;

/// The longest note or path, in characters.
const LONGEST: usize = 500;

/// Where a request came from, put into its extensions by the listener; none over the Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub Option<SocketAddr>);

/// The id that a request's answer has.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// What is written down of a request; `path` is without secrets.
pub fn attempt(
    action: &str,
    (actor, app): (&Actor, Option<&App>),
    path: &str,
    peer: Peer,
    extensions: &Extensions,
) -> Attempt {
    let origin = match (peer, extensions.get()) {
        (Peer::Local { uid }, _) => format!("socket, uid {uid}"),
        (Peer::Network, Some(Address(Some(address)))) => address.ip().to_string(),
        (Peer::Network, _) => "network".to_owned(),
    };
    Attempt {
        actor: actor.clone(),
        action: action.to_owned(),
        app: app.map(|app| (app.id, app.name.to_string())),
        path: path.chars().take(LONGEST).collect(),
        origin,
        request: extensions.get().map(|RequestId(id)| id.clone()).unwrap_or_default(),
    }
}

/// # Errors
/// When it can't be written down; then the change must not be made.
pub async fn begin(control: &Control, attempt: Attempt) -> Result<i64, ControlError> {
    control.store.write(move |tx| Ok::<_, ControlError>(store::audit::begin(tx, &attempt, Timestamp::now())?)).await
}

/// The change has been made by now, so that it could not be written down is only logged.
pub async fn end(control: &Control, id: i64, status: u16, note: Option<String>, app: Option<(AppId, String)>) {
    let note = note.map(|note| note.chars().take(LONGEST).collect::<String>());
    let written = control
        .store
        .write(move |tx| Ok::<_, ControlError>(store::audit::end(tx, id, status, note.as_deref(), app.as_ref())?))
        .await;
    if let Err(error) = written {
        tracing::warn!(event = id, %error, "could not write down how a change ended");
    }
}

/// What the caller may see of what `wanted` asks for: everything for an administrator, for others what they did and what
/// was done to their own apps. Newest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(
    control: &Control,
    caller: &Caller,
    app: Option<&App>,
    wanted: Wanted,
) -> Result<Vec<Event>, ControlError> {
    let mut wanted = Wanted { app: app.map(|app| app.id), ..wanted };
    let all = visible(control, caller).await?;
    let account = caller.actor.id;
    control
        .store
        .read(move |tx| {
            // Of the app itself the caller's permission was asked for already.
            if wanted.app.is_none() && matches!(all, Visible::Of { .. }) {
                let mut mine = std::collections::BTreeSet::new();
                for app in store::apps::list(tx)? {
                    if app.owner.id == account {
                        mine.insert(app.id);
                    }
                }
                wanted.of = Some((mine, account));
            }
            Ok(store::audit::list(tx, &wanted)?)
        })
        .await
}
