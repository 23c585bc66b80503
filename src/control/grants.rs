//! What was let in once and goes on: tails of logs, outputs, clients of dynos. Whoever opened it may lose the token, the
//! account or the permission meanwhile; so all that is open is looked at again, and ends with what it was opened by.
//!
//! ```text
//!  secret URL ─▶ [`Bearer`] ─▶ [`Grant`] ─▶ [`hold`] ─▶ [`Held`]: `ended` ◀─ [`watch`], twice a second
//!  one-off dyno ─▶ the account that began it ────────────────▶ killed ◀─┘
//! ```
#![forbid(unsafe_code)]

use super::access::{self, judge};
use super::tokens::{self, Shown};
use super::{Control, ControlError, Resource};
use crate::domain::access::{Caller, Need, Permission};
use crate::domain::actor::AccountId;
use crate::domain::app::AppId;
use crate::store::{self, Tx};
use crate::supervisor::OneOff;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often all that is open is looked at: access that ends, ends within a second.
const PERIOD: Duration = Duration::from_millis(500);

/// Whom a secret URL is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bearer {
    /// Root on the Unix socket.
    Root,
    /// Who shows the token of that id, while its text is the one of this digest.
    Token { id: Uuid, digest: [u8; 32] },
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id().to_string())
    }
}

impl Bearer {
    /// What stands for it in URLs.
    pub fn id(self) -> Uuid {
        match self {
            Self::Root => Uuid::nil(),
            Self::Token { id, .. } => id,
        }
    }

    fn found(tx: &Tx<'_>, id: Uuid) -> Result<Self, ControlError> {
        if id.is_nil() {
            return Ok(Self::Root);
        }
        let digest = store::tokens::digest(tx, id)?.ok_or(ControlError::Denied)?;
        Ok(Self::Token { id, digest })
    }

    /// A secret that is good for this bearer only, as for this purpose and id.
    pub(super) fn secret(self, control: &Control, purpose: &str, id: Uuid) -> String {
        match self {
            Self::Root => control.store.secret(purpose, id),
            Self::Token { digest, .. } => control.store.secret(&format!("{purpose} {}", hex::encode(digest)), id),
        }
    }

    fn caller(self, tx: &Tx<'_>) -> Result<Caller, ControlError> {
        let shown = match self {
            Self::Root => Shown::Root,
            Self::Token { digest, .. } => Shown::Token(digest),
        };
        tokens::caller(tx, shown).map(|(caller, ..)| caller)
    }
}

/// Whom a secret URL is for: that id is in it.
///
/// # Errors
/// [`ControlError::Denied`] when there is no such token any more.
pub(super) async fn bearer(control: &Control, id: Uuid) -> Result<Bearer, ControlError> {
    control.store.read(move |tx| Bearer::found(tx, id)).await
}

/// What somebody needs for as long as something is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    pub bearer: Bearer,
    /// On an app; what is the box's needs an account only.
    pub on: Option<(AppId, Permission)>,
}

impl Grant {
    /// An app that is gone ends what is open of it by itself.
    fn check(&self, tx: &Tx<'_>) -> Result<(), ControlError> {
        let caller = self.bearer.caller(tx)?;
        match self.on {
            Some((app, permission)) => may(tx, &caller, app, permission),
            None => Ok(()),
        }
    }
}

fn may(tx: &Tx<'_>, caller: &Caller, app: AppId, permission: Permission) -> Result<(), ControlError> {
    let Some(app) = store::apps::get(tx, app)? else { return Ok(()) };
    judge(&access::role(tx, caller, &app)?, Need::On(permission), Resource::App)
}

/// Whoever began it, by account: a detached one outlives the token that it was begun with.
fn check_dyno(tx: &Tx<'_>, dyno: &OneOff) -> Result<(), ControlError> {
    dyno.by.map_or(Ok(()), |by| may_deploy(tx, by, dyno.app))
}

/// Whether an account may still deploy to an app, if that is still there.
pub(super) fn may_deploy(tx: &Tx<'_>, by: AccountId, app: AppId) -> Result<(), ControlError> {
    let account = store::accounts::get(tx, by)?.ok_or(ControlError::Denied)?;
    may(tx, &Caller { actor: account.actor(), admin: account.admin }, app, Permission::Deploy)
}

/// A no, and not a store that can't be read.
fn is_refusal(error: &ControlError) -> bool {
    matches!(error, ControlError::Denied | ControlError::Lacks { .. } | ControlError::NotFound(_))
}

fn refused(checked: Result<(), ControlError>) -> Result<bool, ControlError> {
    match checked {
        Ok(()) => Ok(false),
        Err(error) if is_refusal(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What is open by a secret URL only is not there for whom it is not open.
pub(super) fn hidden(resource: Resource) -> impl Fn(ControlError) -> ControlError {
    move |error| if is_refusal(&error) { ControlError::NotFound(resource) } else { error }
}

/// All that is open, by what it needs.
#[derive(Clone, Debug, Default)]
pub struct Grants(Arc<Mutex<HashMap<Grant, Open>>>);

#[derive(Debug, Default)]
struct Open {
    holders: usize,
    ended: CancellationToken,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, HashMap<Grant, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is open, until this is dropped.
#[derive(Debug)]
pub struct Held {
    grant: Grant,
    ended: CancellationToken,
    grants: Grants,
}

impl Held {
    /// Returns when whoever opened it may no longer.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The same, for who has this lent out.
    pub fn token(&self) -> CancellationToken {
        self.ended.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.grants.lock();
        if let Some(row) = open.get_mut(&self.grant).filter(|row| row.ended == self.ended) {
            row.holders -= 1;
            if row.holders == 0 {
                open.remove(&self.grant);
            }
        }
    }
}

/// Opens something, if its bearer may.
///
/// # Errors
/// [`ControlError::Denied`], [`ControlError::Lacks`] or [`ControlError::NotFound`] when he may not.
pub async fn hold(control: &Control, grant: Grant) -> Result<Held, ControlError> {
    // First, so that the watch sees what ends from now on.
    let held = {
        let mut open = control.grants.lock();
        let row = open.entry(grant).or_default();
        row.holders += 1;
        Held { grant, ended: row.ended.clone(), grants: control.grants.clone() }
    };
    control.store.read(move |tx| grant.check(tx)).await?;
    Ok(held)
}

/// Ends what is open when whoever opened it may no longer, until the server goes down.
pub(super) async fn watch(control: Control) {
    let mut beat = tokio::time::interval(PERIOD);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while control.closing.run_until_cancelled(beat.tick()).await.is_some() {
        let open: Vec<Grant> = control.grants.lock().keys().copied().collect();
        let dynos = control.supervisor.one_offs().await;
        if open.is_empty() && dynos.is_empty() {
            continue;
        }
        if let Err(error) = look_again(&control, open, dynos).await {
            tracing::error!(%error, "could not look whether access has ended");
        }
    }
}

async fn look_again(control: &Control, open: Vec<Grant>, dynos: Vec<OneOff>) -> Result<(), ControlError> {
    let looked = control.store.read(move |tx| {
        // What can't be looked at stays, and keeps nothing else from being looked at.
        let mut failed = None;
        let mut has_ended = |checked| {
            refused(checked).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        };
        let grants: Vec<Grant> = open.into_iter().filter(|grant| has_ended(grant.check(tx))).collect();
        let strays: Vec<OneOff> = dynos.into_iter().filter(|dyno| has_ended(check_dyno(tx, dyno))).collect();
        Ok::<_, ControlError>((grants, strays, failed))
    });
    let (grants, strays, failed) = looked.await?;
    for grant in grants {
        let gone = control.grants.lock().remove(&grant);
        gone.inspect(|open| open.ended.cancel());
    }
    for dyno in strays {
        control.supervisor.evict(dyno.id);
    }
    failed.map_or(Ok(()), Err)
}
