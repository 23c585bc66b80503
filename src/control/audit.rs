//! The audit log: every request that changes something is written down before it is carried out, and again with how it
//! ended; what was refused is, once a minute for the same of the same from the same place.
#![forbid(unsafe_code)]

use super::access::{Visible, visible};
use super::tokens::Peer;
use super::{Control, ControlError};
use crate::domain::access::Caller;
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{App, AppId};
use crate::store;
pub use crate::store::audit::{Attempt, Event, Wanted};
use axum::http::Extensions;
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The longest note or path, in characters.
const LONGEST: usize = 500;

/// Where a request came from, put into its extensions by the listener; none over the Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub Option<SocketAddr>);

impl Address {
    pub fn ip(self) -> Option<IpAddr> {
        self.0.map(|address| address.ip())
    }
}

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
        owner: app.map(|app| app.owner.id),
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
pub async fn end(control: &Control, id: i64, status: u16, note: Option<String>, app: Option<AppId>) {
    let note = note.map(|note| note.chars().take(LONGEST).collect::<String>());
    let written = control
        .store
        .write(move |tx| Ok::<_, ControlError>(store::audit::end(tx, id, status, note.as_deref(), app)?))
        .await;
    if let Err(error) = written {
        tracing::warn!(event = id, %error, "could not write down how a change ended");
    }
}

/// The action of a password that was wrong, and of a token that is none.
pub const FAILED_LOG_IN: &str = "log-in:failed";
pub const FAILED_TOKEN: &str = "token:refused";
/// That of what would have changed nothing.
pub const READ: &str = "read";

/// So many different refusals in a minute have an event each; the rest share one. Whoever tries from everywhere can't fill
/// the log, nor keep the disk busy.
const DIFFERENT: usize = 100;

const MINUTE: Duration = Duration::from_secs(60);

/// What was refused in this minute.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<HashMap<Refused, Repeats>>>);

/// What makes two refusals the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Refused {
    action: String,
    email: String,
    app: Option<AppId>,
    origin: String,
    status: u16,
}

#[derive(Debug, Default)]
struct Repeats {
    /// None while the first is written down.
    event: Option<i64>,
    more: u32,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, HashMap<Refused, Repeats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status of an answer that says no to who asked; none when it is none of ours to write down.
fn refusal(error: &ControlError) -> Option<u16> {
    match error {
        ControlError::Denied => Some(401),
        ControlError::Forbidden { .. } | ControlError::Lacks { .. } => Some(403),
        ControlError::NotFound(_) => Some(404),
        ControlError::TooManyGuesses { .. } => Some(429),
        _ => None,
    }
}

/// Who is not known. What such do is shown to administrators only.
pub fn nobody(email: &str) -> Actor {
    Actor { id: AccountId(Uuid::nil()), email: if email.is_empty() { "unknown" } else { email }.to_owned() }
}

/// Writes down that a request was refused.
pub async fn refused(control: &Control, mut attempt: Attempt, error: &ControlError) {
    let Some(status) = refusal(error) else { return };
    let mut key = Refused {
        action: attempt.action.clone(),
        email: attempt.actor.email.clone(),
        app: attempt.app.as_ref().map(|(id, _)| *id),
        origin: attempt.origin.clone(),
        status,
    };
    {
        let mut refusals = control.refusals.lock();
        if refusals.len() >= DIFFERENT && !refusals.contains_key(&key) {
            attempt = Attempt {
                actor: nobody("others"),
                action: "refused:many".to_owned(),
                app: None,
                owner: None,
                path: String::new(),
                origin: "several".to_owned(),
                ..attempt
            };
            let (action, email, origin) = (&attempt.action, &attempt.actor.email, &attempt.origin);
            key =
                Refused { action: action.clone(), email: email.clone(), app: None, origin: origin.clone(), status: 0 };
        }
        if let Some(repeats) = refusals.get_mut(&key) {
            repeats.more = repeats.more.saturating_add(1);
            return;
        }
        refusals.insert(key.clone(), Repeats::default());
    }
    let written = control.store.write(move |tx| {
        let id = store::audit::begin(tx, &attempt, Timestamp::now())?;
        store::audit::end(tx, id, status, None, None)?;
        Ok::<_, ControlError>(id)
    });
    match written.await {
        Ok(id) => {
            if let Some(repeats) = control.refusals.lock().get_mut(&key) {
                repeats.event = Some(id);
            }
        }
        Err(error) => tracing::warn!(%error, "could not write down that a request was refused"),
    }
}

/// Writes down how often what was refused was, once a minute, until the server goes down.
pub(super) async fn count(control: Control) {
    while control.closing.run_until_cancelled(tokio::time::sleep(MINUTE)).await.is_some() {
        write_counts(&control).await;
        control.refusals.lock().clear();
    }
    write_counts(&control).await;
}

async fn write_counts(control: &Control) {
    let counted = |repeats: &mut Repeats| repeats.event.zip(Some(std::mem::take(&mut repeats.more)));
    let counts: Vec<(i64, u32)> =
        control.refusals.lock().values_mut().filter_map(counted).filter(|(_, more)| *more > 0).collect();
    if counts.is_empty() {
        return;
    }
    let written = control
        .store
        .write(move |tx| counts.iter().try_for_each(|(id, more)| store::audit::repeat(tx, *id, *more)))
        .await;
    if let Err::<(), store::StoreError>(error) = written {
        tracing::warn!(%error, "could not write down how often requests were refused");
    }
}

/// What the caller may see of what `wanted` asks for: everything for an administrator, for others what they did and what
/// was done to apps that are or were their own. Newest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(
    control: &Control,
    caller: &Caller,
    app: Option<&App>,
    wanted: Wanted,
) -> Result<Vec<Event>, ControlError> {
    write_counts(control).await;
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
