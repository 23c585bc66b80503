//! Add-ons: made by providers, used through attachments. Attaching and detaching makes a release of the app.
#![forbid(unsafe_code)]

use super::access::{self, Subject};
use super::{Control, ControlError, Resource, releases};
use crate::domain::access::{Caller, Need, Permission, Verdict, verdict};
use crate::domain::actor::Actor;
use crate::domain::addon::{
    self, Addon, AddonError, AddonName, Attachment, AttachmentName, External, Plan, Provider, Provisioned, Service,
};
use crate::domain::app::{App, AppId, AppName};
use crate::domain::release::{Change, Release};
use crate::store::{self, StoreError, Tx};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io;
use uuid::Uuid;

/// All that there are.
const PROVIDERS: [&dyn Provider; 1] = [&External];

/// An add-on with the name of the app it was made for, and how apps use it.
#[derive(Clone, Debug)]
pub struct AddonView {
    pub addon: Addon,
    pub app: AppName,
    pub attachments: Vec<Attachment>,
}

/// An attachment with its app's name and its add-on.
#[derive(Clone, Debug)]
pub struct AttachmentView {
    pub attachment: Attachment,
    pub app: AppName,
    pub addon: Addon,
    /// The app that the add-on was made for.
    pub owner: AppName,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct NewAddon {
    /// `SERVICE` or `SERVICE:PLAN`
    pub plan: String,
    pub name: Option<String>,
    pub attachment: Option<String>,
    pub options: BTreeMap<String, String>,
}

pub fn services() -> impl Iterator<Item = &'static Service> {
    PROVIDERS.iter().map(|provider| provider.service())
}

/// By name or UUID.
///
/// # Errors
/// When there is none.
pub fn service(which: &str) -> Result<&'static Service, ControlError> {
    let is_it = |service: &&Service| service.name == which || service.id.to_string() == which;
    services().find(is_it).ok_or(ControlError::NotFound(Resource::AddOnService))
}

fn provider(service: &str) -> Result<&'static dyn Provider, ControlError> {
    let found = PROVIDERS.into_iter().find(|provider| provider.service().name == service);
    found.ok_or(ControlError::NotFound(Resource::AddOnService))
}

/// `SERVICE` or `SERVICE:PLAN`.
fn plan(text: &str) -> Result<(&'static dyn Provider, &'static Plan), ControlError> {
    let (service, plan) = text.split_once(':').map_or((text, None), |(service, plan)| (service, Some(plan)));
    let provider = provider(service)?;
    let Service { name, plans, .. } = *provider.service();
    let found = plans.iter().find(|known| plan.is_none_or(|plan| known.name == plan));
    let there = || plans.iter().map(|plan| format!("{name}:{}", plan.name)).collect::<Vec<_>>().join(", ");
    let missing = || AddonError::Plan { service: name, plan: text.chars().take(60).collect(), there: there() };
    Ok((provider, found.ok_or_else(missing)?))
}

/// Of one app (those made for it), or of all; by name.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: Option<AppId>) -> Result<Vec<AddonView>, ControlError> {
    control
        .store
        .read(move |tx| {
            let addons = match app {
                Some(app) => store::addons::of_app(tx, app)?,
                None => store::addons::list(tx)?,
            };
            addons.into_iter().map(|addon| view(tx, addon)).collect()
        })
        .await
}

/// By name or UUID; with `app` also by what that app calls it, or a config var that it has from it.
///
/// # Errors
/// When there is none.
pub async fn find(control: &Control, app: Option<AppId>, which: &str) -> Result<AddonView, ControlError> {
    let which = which.to_owned();
    control.store.read(move |tx| found(tx, app, &which).and_then(|addon| view(tx, addon))).await
}

pub(super) fn found(tx: &Tx<'_>, app: Option<AppId>, which: &str) -> Result<Addon, ControlError> {
    // First what the app calls so: an add-on of others may have any name.
    let attachment = match app {
        Some(app) => called(tx, app, which)?,
        None => None,
    };
    let addon = match (attachment, which.parse()) {
        (Some(attachment), _) => store::addons::get(tx, attachment.addon)?,
        (None, Ok(id)) => store::addons::get(tx, id)?,
        (None, Err(_)) => store::addons::by_name(tx, which)?,
    };
    addon.ok_or(ControlError::NotFound(Resource::AddOn))
}

/// What the app calls so: `DATABASE`, or `DATABASE_URL`.
fn called(tx: &Tx<'_>, app: AppId, which: &str) -> Result<Option<Attachment>, StoreError> {
    let mine = store::addons::attachments_of_app(tx, app)?;
    let named = |name: &str| mine.iter().find(|attachment| attachment.name.as_str() == name).cloned();
    let name = which.to_ascii_uppercase();
    Ok(named(&name).or_else(|| named(name.strip_suffix("_URL")?)))
}

fn view(tx: &Tx<'_>, addon: Addon) -> Result<AddonView, ControlError> {
    let app = store::apps::get(tx, addon.app)?.ok_or(ControlError::NotFound(Resource::App))?;
    Ok(AddonView { attachments: store::addons::attachments_of(tx, addon.id)?, app: app.name, addon })
}

/// Has its provider make one and attaches it to the app.
///
/// # Errors
/// When there is no such plan, an option is wrong, or a name is taken; then nothing is made.
pub async fn create(
    control: &Control,
    actor: &Actor,
    app: &App,
    new: NewAddon,
) -> Result<(AddonView, &'static str), ControlError> {
    let (provider, plan) = plan(&new.plan)?;
    let wanted = new.name.as_deref().map(str::parse::<AddonName>).transpose()?;
    let attachment = new.attachment.as_deref().map(str::parse::<AttachmentName>).transpose()?;
    let options = new.options;
    let made = tokio::task::spawn_blocking(move || provider.provision(plan, &options)).await;
    let Provisioned { values, suggested, message } = made.map_err(io::Error::other)??;
    let (id, owner, actor) = (Uuid::new_v4(), app.id, actor.clone());
    let full_plan = format!("{}:{}", provider.service().name, plan.name);
    let (view, release) = control
        .store
        .write(move |tx| {
            let now = Timestamp::now();
            let name = free_name(tx, wanted, provider.service().name)?;
            let addon = Addon { id, app: owner, name, plan: full_plan, values, created_at: now, updated_at: now };
            store::addons::insert(tx, &addon)?;
            let release = attach_in(tx, &addon, owner, attachment, Some(suggested), &actor, now)?.1;
            Ok::<_, ControlError>((view(tx, addon)?, release))
        })
        .await?;
    announce(control, &release);
    Ok((view, message))
}

/// `external-quiet-harbor-48213` when nobody says.
fn free_name(tx: &Tx<'_>, wanted: Option<AddonName>, service: &str) -> Result<AddonName, ControlError> {
    if let Some(name) = wanted {
        return match store::addons::by_name(tx, name.as_str())? {
            Some(_) => Err(ControlError::Invalid(format!("Name {name} is already taken"))),
            None => Ok(name),
        };
    }
    loop {
        let invented = AppName::invent(getrandom::u64().map_err(StoreError::Random)?);
        let name: AddonName = format!("{service}-{invented}").parse()?;
        if store::addons::by_name(tx, name.as_str())?.is_none() {
            return Ok(name);
        }
    }
}

/// Lets another app use it too, or the same under another name.
///
/// # Errors
/// When there is no such add-on or app, or the app has something else of that name.
pub async fn attach(
    control: &Control,
    caller: &Caller,
    which: &str,
    app: &str,
    name: Option<&str>,
) -> Result<AttachmentView, ControlError> {
    let app = access::app(control, caller, app, Permission::Operate).await?;
    let addon = find(control, Some(app.id), which).await?.addon;
    // It brings the values along.
    for permission in [Permission::Operate, Permission::Deploy] {
        access::check(control, caller, Subject::Addon(addon.id.to_string()), permission).await?;
    }
    let name = name.map(str::parse::<AttachmentName>).transpose()?;
    let (which, actor) = (addon.id.to_string(), caller.actor.clone());
    let (attached, release) = control
        .store
        .write(move |tx| {
            let addon = found(tx, Some(app.id), &which)?;
            // As the app that it was made for calls it.
            let first = store::addons::attachments_of(tx, addon.id)?.into_iter().next().map(|first| first.name);
            let (attachment, release) = attach_in(tx, &addon, app.id, name, first, &actor, Timestamp::now())?;
            Ok::<_, ControlError>((attachment_view(tx, attachment)?, release))
        })
        .await?;
    announce(control, &release);
    Ok(attached)
}

fn attach_in(
    tx: &Tx<'_>,
    addon: &Addon,
    app: AppId,
    name: Option<AttachmentName>,
    suggested: Option<AttachmentName>,
    actor: &Actor,
    now: Timestamp,
) -> Result<(Attachment, Release), ControlError> {
    let mine = store::addons::attachments_of_app(tx, app)?;
    let config = store::releases::newest(tx, app)?.map(|release| release.config).unwrap_or_default();
    let attachment = |name| Attachment { id: Uuid::new_v4(), addon: addon.id, app, name, created_at: now };
    let named = |name: &AttachmentName| mine.iter().any(|other| other.name == *name);
    let set = |name: &AttachmentName| {
        let vars: Vec<String> = attachment(name.clone()).vars(addon).map(|(key, _)| key).collect();
        vars.into_iter().find(|key| config.get(key).is_some())
    };
    let name = match (name, suggested) {
        (Some(name), _) => {
            if named(&name) {
                return Err(ControlError::Invalid(format!("Name {name} is already taken by another attachment.")));
            }
            if let Some(key) = set(&name) {
                return Err(ControlError::Invalid(format!(
                    "{key} is set as a config var. Unset it first, or attach under another name."
                )));
            }
            name
        }
        (None, Some(suggested)) => suggested.free(|name| named(name) || set(name).is_some()),
        (None, None) => return Err(ControlError::Invalid("Say what the app is to call it.".into())),
    };
    let attachment = attachment(name);
    store::addons::attach(tx, &attachment)?;
    let release = release(tx, app, &attachment.describe("Attach", addon), actor, now)?;
    Ok((attachment, release))
}

/// The next release, with what is attached now.
fn release(tx: &Tx<'_>, app: AppId, why: &str, actor: &Actor, now: Timestamp) -> Result<Release, ControlError> {
    let mine = store::addons::attachments_of_app(tx, app)?;
    let mut pairs = Vec::new();
    for attachment in &mine {
        pairs.extend(store::addons::get(tx, attachment.addon)?.map(|addon| (attachment, addon)));
    }
    let attached = addon::attached(pairs.iter().map(|(attachment, addon)| (*attachment, addon)));
    let mut plans: Vec<String> = pairs.into_iter().map(|(_, addon)| addon.plan).collect();
    plans.sort_unstable();
    plans.dedup();
    releases::record(tx, app, &Change::Addons { attached, plans, description: why }, actor, now)
}

fn announce(control: &Control, release: &Release) {
    releases::log(control, release);
    control.supervisor.wake(release.app);
}

/// The app has it no more; the add-on stays.
///
/// # Errors
/// When there is no such attachment, or it is the last that the app has to its own add-on.
pub async fn detach(control: &Control, actor: &Actor, id: Uuid) -> Result<AttachmentView, ControlError> {
    let actor = actor.clone();
    let (gone, release) = control
        .store
        .write(move |tx| {
            let missing = ControlError::NotFound(Resource::AddOnAttachment);
            let gone = attachment_view(tx, store::addons::attachment(tx, id)?.ok_or(missing)?)?;
            let AttachmentView { attachment, addon, .. } = &gone;
            let others = store::addons::attachments_of(tx, addon.id)?;
            if addon.app == attachment.app && others.iter().filter(|other| other.app == addon.app).count() == 1 {
                return Err(ControlError::Invalid(format!(
                    "Cannot destroy last attachment to the app that {0} was made for. Destroy {0} itself instead.",
                    addon.name
                )));
            }
            store::addons::detach(tx, id)?;
            let why = attachment.describe("Detach", addon);
            let release = release(tx, attachment.app, &why, &actor, Timestamp::now())?;
            Ok::<_, ControlError>((gone, release))
        })
        .await?;
    announce(control, &release);
    Ok(gone)
}

/// What is to be different of an add-on; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct AddonPatch {
    pub name: Option<String>,
    /// All of them, as for a new one.
    pub options: Option<BTreeMap<String, String>>,
}

/// Other options make a release of each app that uses it, when they change something.
///
/// # Errors
/// When there is no such add-on, the new name is none or taken, or an option is wrong; then nothing is changed.
pub async fn update(
    control: &Control,
    actor: &Actor,
    which: &str,
    patch: AddonPatch,
) -> Result<AddonView, ControlError> {
    let name = patch.name.as_deref().map(str::parse::<AddonName>).transpose()?;
    let addon = find(control, None, which).await?.addon;
    let (id, provider) = (addon.id, provider(addon.service())?);
    let values = match patch.options {
        Some(options) => {
            let made = tokio::task::spawn_blocking(move || provider.reconfigure(&addon, &options)).await;
            Some(made.map_err(io::Error::other)??)
        }
        None => None,
    };
    let actor = actor.clone();
    let (view, releases) = control
        .store
        .write(move |tx| {
            let missing = || ControlError::NotFound(Resource::AddOn);
            let (mut addon, now) = (store::addons::get(tx, id)?.ok_or_else(missing)?, Timestamp::now());
            if let Some(name) = name.filter(|name| *name != addon.name) {
                addon.name = free_name(tx, Some(name), "")?;
                store::addons::rename(tx, id, &addon.name, now)?;
            }
            let mut made = Vec::new();
            if let Some(values) = values.filter(|values| *values != addon.values) {
                addon.values = values;
                store::addons::set_values(tx, &addon, now)?;
                made = updated(tx, &addon, &actor, now)?;
            }
            Ok::<_, ControlError>((view(tx, store::addons::get(tx, id)?.ok_or_else(missing)?)?, made))
        })
        .await?;
    for release in &releases {
        announce(control, release);
    }
    Ok(view)
}

/// One release for each app, though it may use the add-on under several names.
fn updated(tx: &Tx<'_>, addon: &Addon, actor: &Actor, now: Timestamp) -> Result<Vec<Release>, ControlError> {
    let mut by_app: BTreeMap<AppId, Vec<String>> = BTreeMap::new();
    for attachment in store::addons::attachments_of(tx, addon.id)? {
        by_app.entry(attachment.app).or_default().push(attachment.describe("Update", addon));
    }
    by_app.into_iter().map(|(app, why)| release(tx, app, &why.join(", "), actor, now)).collect()
}

/// That the caller may take it from all other apps that use it: what else it means for those is not for its own app to say.
fn may_go(tx: &Tx<'_>, caller: &Caller, addon: &Addon) -> Result<(), ControlError> {
    let (mut named, mut unseen) = (Vec::new(), 0);
    for attachment in store::addons::attachments_of(tx, addon.id)? {
        let Some(app) = store::apps::get(tx, attachment.app)?.filter(|app| app.id != addon.app) else { continue };
        let role = access::role(tx, caller, &app)?;
        match verdict(&role, Need::On(Permission::Operate)) {
            Verdict::May => {}
            Verdict::MayNot => named.push(app.name.to_string()),
            Verdict::Hidden => unseen += 1,
        }
    }
    if unseen > 0 {
        named.push(format!("{unseen} app(s) that you have no access to"));
    }
    if named.is_empty() {
        return Ok(());
    }
    Err(ControlError::Invalid(format!(
        "{} is attached to {}: whoever may operate that has to detach it first.",
        addon.name,
        named.join(", ")
    )))
}

/// Takes it away from all apps that use it, then has its provider take it away; that it can't is logged.
///
/// # Errors
/// When there is no such add-on, or other apps use it and it is not to be `forced` or the caller may not operate them.
pub async fn destroy(
    control: &Control,
    caller: &Caller,
    app: Option<AppId>,
    which: &str,
    forced: bool,
) -> Result<AddonView, ControlError> {
    let (caller, which) = (caller.clone(), which.to_owned());
    let (gone, made) = control
        .store
        .write(move |tx| {
            // Nobody attaches it between the question and the end of it.
            let gone = view(tx, found(tx, app, &which)?)?;
            let others = gone.attachments.iter().filter(|attachment| attachment.app != gone.addon.app).count();
            if others > 0 && !forced {
                return Err(ControlError::Invalid(format!(
                    "{} is attached to {others} other app(s). Detach it there first, or use --force.",
                    gone.addon.name
                )));
            }
            may_go(tx, &caller, &gone.addon)?;
            let made = remove(tx, &gone.addon, &caller.actor)?;
            Ok::<_, ControlError>((gone, made))
        })
        .await?;
    left(control, vec![gone.addon.clone()], made).await;
    Ok(gone)
}

/// The releases that the apps have by that.
fn remove(tx: &Tx<'_>, addon: &Addon, actor: &Actor) -> Result<Vec<Release>, ControlError> {
    let attachments = store::addons::attachments_of(tx, addon.id)?;
    store::addons::delete(tx, addon.id)?;
    let now = Timestamp::now();
    attachments
        .iter()
        .map(|attachment| release(tx, attachment.app, &attachment.describe("Detach", addon), actor, now))
        .collect()
}

/// An app that goes takes its add-ons with it, if the caller may take them from others that use them: their releases.
pub(super) fn leave(tx: &Tx<'_>, caller: &Caller, app: &App) -> Result<(Vec<Addon>, Vec<Release>), ControlError> {
    let addons = store::addons::of_app(tx, app.id)?;
    let mut made = Vec::new();
    for addon in &addons {
        may_go(tx, caller, addon)?;
        made.extend(remove(tx, addon, &caller.actor)?);
    }
    made.retain(|release| release.app != app.id);
    Ok((addons, made))
}

/// When it is settled that they go: tells of the releases, and has the providers take away what was theirs.
pub(super) async fn left(control: &Control, addons: Vec<Addon>, made: Vec<Release>) {
    for release in &made {
        announce(control, release);
    }
    for addon in addons {
        let Ok(provider) = provider(addon.service()) else { continue };
        let taken = tokio::task::spawn_blocking(move || (provider.deprovision(&addon), addon)).await;
        if let Ok((Err(error), addon)) = taken {
            tracing::warn!(addon = %addon.name, "could not be taken away: {error}");
        }
    }
}

fn attachment_view(tx: &Tx<'_>, attachment: Attachment) -> Result<AttachmentView, ControlError> {
    let missing = || ControlError::NotFound(Resource::AddOnAttachment);
    let addon = store::addons::get(tx, attachment.addon)?.ok_or_else(missing)?;
    let name = |id| Ok::<_, ControlError>(store::apps::get(tx, id)?.ok_or_else(missing)?.name);
    Ok(AttachmentView { app: name(attachment.app)?, owner: name(addon.app)?, attachment, addon })
}

/// Which attachments are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    All,
    App(AppId),
    Addon(Uuid),
}

/// Oldest first.
///
/// # Errors
/// When the store can't be read.
pub async fn attachments(control: &Control, of: Of) -> Result<Vec<AttachmentView>, ControlError> {
    control
        .store
        .read(move |tx| {
            let rows = match of {
                Of::All => store::addons::attachments(tx)?,
                Of::App(app) => store::addons::attachments_of_app(tx, app)?,
                Of::Addon(addon) => store::addons::attachments_of(tx, addon)?,
            };
            rows.into_iter().map(|row| attachment_view(tx, row)).collect()
        })
        .await
}

/// The app that has the attachment of that UUID.
pub(super) fn app_of_attachment(tx: &Tx<'_>, which: &str) -> Result<AppId, ControlError> {
    let found = match which.parse() {
        Ok(id) => store::addons::attachment(tx, id)?,
        Err(_) => None,
    };
    found.map(|attachment| attachment.app).ok_or(ControlError::NotFound(Resource::AddOnAttachment))
}

/// By UUID, or, with `app`, by what that app calls it.
///
/// # Errors
/// When there is none.
pub async fn attachment(control: &Control, app: Option<AppId>, which: &str) -> Result<AttachmentView, ControlError> {
    let which = which.to_owned();
    control
        .store
        .read(move |tx| {
            let found = match (which.parse(), app) {
                (Ok(id), _) => store::addons::attachment(tx, id)?,
                (Err(_), Some(app)) => called(tx, app, &which)?,
                (Err(_), None) => None,
            };
            let found = found.filter(|found| app.is_none_or(|app| found.app == app));
            attachment_view(tx, found.ok_or(ControlError::NotFound(Resource::AddOnAttachment))?)
        })
        .await
}
