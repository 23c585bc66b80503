//! Who may do what with which app: finds the role, asks [`verdict`].
#![forbid(unsafe_code)]

use super::grants::Bearer;
use super::tokens::{self, Peer, Shown};
use super::{Control, ControlError, Resource, addons, audit};
use crate::domain::access::{Caller, Need, Permission, Permissions, Role, Verdict, verdict};
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::{App, AppId};
use crate::domain::scope::Scope;
use crate::store::guard::{self, Check};
use crate::store::{self, StoreError, Tx};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a request's path names, by name or id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Box,
    App(String),
    Addon(String),
    Attachment(String),
    Pipeline(String),
    Coupling(String),
    Promotion(String),
}

/// Who asks, with the app that the path names.
#[derive(Clone, Debug)]
pub struct Entry {
    pub caller: Caller,
    pub bearer: Bearer,
    pub app: Option<App>,
    /// That all this is so still; for the transactions of what the request changes.
    pub check: Check,
}

/// Lets a request in, or says why not: its token, what that is good for, and what its account may do.
///
/// # Errors
/// [`ControlError::Denied`] without a valid token, [`ControlError::Forbidden`] when it is not good for that,
/// [`ControlError::NotFound`] for what the account has no access to, [`ControlError::Lacks`] when it has, but not that.
pub async fn enter(
    control: &Control,
    (peer, authorization): (Peer, Option<&str>),
    scope: Scope,
    need: Need,
    subject: Subject,
) -> Result<Entry, ControlError> {
    let shown = tokens::shown_by(peer, authorization);
    control
        .store
        .read(move |tx| {
            let (caller, bearer, app) = look(tx, shown, scope, need, &subject)?;
            // It may get another name meanwhile, and another one its name.
            let subject = app.as_ref().map_or(subject, |app| Subject::App(app.id.to_string()));
            let check = Check::new(move |tx| again(look(tx, shown, scope, need, &subject)));
            Ok(Entry { caller, bearer, app, check })
        })
        .await
}

fn look(
    tx: &Tx<'_>,
    shown: Shown,
    scope: Scope,
    need: Need,
    subject: &Subject,
) -> Result<(Caller, Bearer, Option<App>), ControlError> {
    let (caller, scopes, bearer) = tokens::caller(tx, shown)?;
    if !scopes.permit(scope) {
        return Err(ControlError::Forbidden { has: scopes });
    }
    let app = permit(tx, &caller, need, subject)?;
    Ok((caller, bearer, app))
}

fn again<T>(looked: Result<T, ControlError>) -> Result<(), StoreError> {
    match looked {
        Ok(_) => Ok(()),
        Err(ControlError::Store(error)) => Err(error),
        Err(refusal) => Err(StoreError::Refused(Box::new(refusal))),
    }
}

/// Who was refused, and which app it was about: that is said only when it was not hidden.
pub async fn refused(
    control: &Control,
    (peer, authorization): (Peer, Option<&str>),
    subject: &Subject,
    error: &ControlError,
) -> (Actor, Option<App>) {
    let typed = authorization.and_then(tokens::basic).map(|(user, _)| user.chars().take(254).collect::<String>());
    let nobody = audit::nobody(&typed.unwrap_or_default());
    let which = match (subject, error) {
        (Subject::App(which), ControlError::Lacks { .. }) => Some(which.clone()),
        _ => None,
    };
    let shown = tokens::shown_by(peer, authorization);
    let found = control.store.read(move |tx| {
        let app = which.map(|which| store::apps::find(tx, &which)).transpose()?.flatten();
        Ok::<_, ControlError>((tokens::caller(tx, shown)?.0.actor, app))
    });
    found.await.unwrap_or((nobody, None))
}

fn permit(tx: &Tx<'_>, caller: &Caller, need: Need, subject: &Subject) -> Result<Option<App>, ControlError> {
    let (role, resource, app) = match subject {
        Subject::Box => (if caller.admin { Role::Admin } else { Role::Stranger }, Resource::App, None),
        Subject::App(which) => {
            let app = store::apps::find(tx, which)?.ok_or(ControlError::NotFound(Resource::App))?;
            (role(tx, caller, &app)?, Resource::App, Some(app))
        }
        Subject::Addon(which) => (role_of_addon(tx, caller, which)?, Resource::AddOn, None),
        Subject::Attachment(which) => {
            let app = addons::app_of_attachment(tx, which)?;
            (role_on(tx, caller, app)?, Resource::AddOnAttachment, None)
        }
        Subject::Pipeline(which) => (role_of_pipeline(tx, caller, which)?, Resource::Pipeline, None),
        Subject::Coupling(which) => {
            let coupling = match which.parse() {
                Ok(id) => store::pipelines::coupling(tx, id)?,
                Err(_) => None,
            };
            let app = coupling.ok_or(ControlError::NotFound(Resource::PipelineCoupling))?.app;
            (role_on(tx, caller, app)?, Resource::PipelineCoupling, None)
        }
        Subject::Promotion(which) => {
            let found = match which.parse() {
                Ok(id) => store::pipelines::promotion(tx, id)?,
                Err(_) => None,
            };
            let (promotion, _) = found.ok_or(ControlError::NotFound(Resource::PipelinePromotion))?;
            (role_on(tx, caller, promotion.app)?, Resource::PipelinePromotion, None)
        }
    };
    judge(&role, need, resource)?;
    Ok(app)
}

pub(super) fn judge(role: &Role, need: Need, resource: Resource) -> Result<(), ControlError> {
    match verdict(role, need) {
        Verdict::May => Ok(()),
        Verdict::MayNot => Err(ControlError::Lacks { need }),
        Verdict::Hidden => Err(ControlError::NotFound(resource)),
    }
}

pub(super) fn role(tx: &Tx<'_>, caller: &Caller, app: &App) -> Result<Role, ControlError> {
    Ok(if caller.admin { Role::Admin } else { store::collaborators::role(tx, app, caller.actor.id)? })
}

fn role_on(tx: &Tx<'_>, caller: &Caller, app: AppId) -> Result<Role, ControlError> {
    match store::apps::get(tx, app)? {
        Some(app) => role(tx, caller, &app),
        None => Ok(if caller.admin { Role::Admin } else { Role::Stranger }),
    }
}

/// That on the app it was made for; who has access to another that it is attached to sees it.
fn role_of_addon(tx: &Tx<'_>, caller: &Caller, which: &str) -> Result<Role, ControlError> {
    let addon = addons::found(tx, None, which)?;
    let role = role_on(tx, caller, addon.app)?;
    if role != Role::Stranger {
        return Ok(role);
    }
    let mine = store::collaborators::apps_of(tx, caller.actor.id)?;
    let attachments = store::addons::attachments_of(tx, addon.id)?;
    Ok(seen_through(attachments.iter().any(|attachment| mine.contains(&attachment.app))))
}

/// Its owner's, and who has access to one of its apps sees it.
fn role_of_pipeline(tx: &Tx<'_>, caller: &Caller, which: &str) -> Result<Role, ControlError> {
    let pipeline = super::pipelines::found(tx, which)?;
    if caller.admin {
        return Ok(Role::Admin);
    }
    if pipeline.owner == caller.actor.id.0 {
        return Ok(Role::Owner);
    }
    let mine = store::collaborators::apps_of(tx, caller.actor.id)?;
    let couplings = store::pipelines::couplings_of(tx, pipeline.id)?;
    Ok(seen_through(couplings.iter().any(|coupling| mine.contains(&coupling.app))))
}

fn seen_through(any: bool) -> Role {
    if any { Role::Collaborator(Permissions::only_view()) } else { Role::Stranger }
}

/// The app of that name or id, for a request that does not have it in its path.
///
/// # Errors
/// When there is none, or the caller may not do that with it.
pub async fn app(control: &Control, caller: &Caller, which: &str, permission: Permission) -> Result<App, ControlError> {
    let (asks, which) = (caller.clone(), which.to_owned());
    let found = control.store.read(move |tx| permit(tx, &asks, Need::On(permission), &Subject::App(which))).await?;
    let app = found.ok_or(ControlError::NotFound(Resource::App))?;
    and_still(caller, Subject::App(app.id.to_string()), permission);
    Ok(app)
}

/// The same for what else a body can name.
///
/// # Errors
/// When there is none, or the caller may not do that with it.
pub async fn check(
    control: &Control,
    caller: &Caller,
    subject: Subject,
    permission: Permission,
) -> Result<(), ControlError> {
    let (asks, what) = (caller.clone(), subject.clone());
    control.store.read(move |tx| permit(tx, &asks, Need::On(permission), &what).map(|_| ())).await?;
    and_still(caller, subject, permission);
    Ok(())
}

/// In the transactions of what the request changes, too. Who asks is looked at there anyway, but for an administrator
/// who is none any more.
fn and_still(caller: &Caller, subject: Subject, permission: Permission) {
    let actor = caller.actor.clone();
    guard::also(Check::new(move |tx| {
        let account = store::accounts::get(tx, actor.id)?;
        let caller = Caller { actor: actor.clone(), admin: account.is_some_and(|account| account.admin) };
        again(permit(tx, &caller, Need::On(permission), &subject))
    }));
}

/// What an account sees in lists.
#[derive(Clone, Debug)]
pub enum Visible {
    All,
    Of { account: AccountId, apps: BTreeSet<AppId> },
}

impl Visible {
    pub fn has(&self, app: AppId) -> bool {
        match self {
            Self::All => true,
            Self::Of { apps, .. } => apps.contains(&app),
        }
    }

    /// Whether it is this account's own.
    pub fn owns(&self, owner: Uuid) -> bool {
        match self {
            Self::All => true,
            Self::Of { account, .. } => account.0 == owner,
        }
    }
}

/// Everything, for an administrator.
///
/// # Errors
/// When the store can't be read.
pub async fn visible(control: &Control, caller: &Caller) -> Result<Visible, ControlError> {
    if caller.admin {
        return Ok(Visible::All);
    }
    own(control, caller.actor.id).await
}

/// The apps that an account owns or collaborates on, an administrator's too.
///
/// # Errors
/// When the store can't be read.
pub async fn own(control: &Control, account: AccountId) -> Result<Visible, ControlError> {
    let apps = control.store.read(move |tx| Ok::<_, ControlError>(store::collaborators::apps_of(tx, account)?)).await?;
    Ok(Visible::Of { account, apps })
}
