//! Apps: create, find, change, destroy.
#![forbid(unsafe_code)]

use super::access::Visible;
use super::{Control, ControlError, Resource, addons, releases};
use crate::domain::access::Caller;
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId, AppName};
use crate::domain::egress::Egress;
use crate::domain::release::Change;
use crate::domain::slug::{Digest, Slug};
use crate::domain::stack::{StackName, StackNameError};
use crate::store::{self, StoreError, Tx};
use crate::sys::tree;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// An app with the code that serves.
#[derive(Clone, Debug)]
pub struct AppView {
    pub app: App,
    pub slug: Option<Slug>,
    /// Bytes on the disk; only when the app was asked for by itself and has been pushed to.
    pub repository_size: Option<u64>,
}

/// What a `POST /apps` asks for.
#[derive(Clone, Debug, Default)]
pub struct NewApp {
    /// Invented when there is none.
    pub name: Option<String>,
    pub stack: Option<String>,
}

/// What a `PATCH /apps/:app` asks for.
#[derive(Clone, Debug, Default)]
pub struct AppPatch {
    pub name: Option<String>,
    pub maintenance: Option<bool>,
    pub stack: Option<String>,
}

/// Makes an app with its first two releases, before any code.
///
/// # Errors
/// When the name or stack is not allowed or the name is taken.
pub async fn create(control: &Control, actor: &Actor, new: NewApp) -> Result<AppView, ControlError> {
    let wanted = new.name.map(|name| AppName::parse(&name)).transpose()?;
    let chosen = parse_stack(new.stack)?;
    let (stack, stack_chosen) = (chosen.unwrap_or(control.place.stack), chosen.is_some());
    let owner = actor.clone();
    let (app, first, second) = control
        .store
        .write(move |tx| {
            // It may have been removed since it was asked who it is.
            store::accounts::get(tx, owner.id)?.ok_or(ControlError::Denied)?;
            let now = Timestamp::now();
            let name = free_name(tx, wanted)?;
            let id = AppId(Uuid::new_v4());
            let app = App {
                id,
                name,
                owner,
                stack,
                stack_chosen,
                maintenance: false,
                locked: false,
                created_at: now,
                updated_at: now,
                released_at: None,
            };
            store::apps::insert(tx, &app)?;
            let first = releases::record(tx, id, &Change::Initial, &app.owner, now)?;
            let second = releases::record(tx, id, &Change::EnableLogplex, &app.owner, now)?;
            Ok::<_, ControlError>((app, first, second))
        })
        .await?;
    releases::log(control, &first);
    releases::log(control, &second);
    control.supervisor.wake(app.id);
    control.names.notify_one();
    Ok(AppView { app, slug: None, repository_size: None })
}

fn free_name(tx: &Tx<'_>, wanted: Option<AppName>) -> Result<AppName, ControlError> {
    if let Some(name) = wanted {
        return match store::apps::find(tx, name.as_str())? {
            Some(_) => Err(ControlError::NameTaken(name)),
            None => Ok(name),
        };
    }
    loop {
        let name = AppName::invent(getrandom::u64().map_err(StoreError::Random)?);
        if store::apps::find(tx, name.as_str())?.is_none() {
            return Ok(name);
        }
    }
}

fn parse_stack(stack: Option<String>) -> Result<Option<StackName>, ControlError> {
    let stack = stack.map(|stack| stack.parse()).transpose();
    stack.map_err(|error: StackNameError| ControlError::Invalid(format!("{error}.")))
}

/// By name or UUID.
///
/// # Errors
/// When there is no such app.
pub async fn find(control: &Control, name_or_id: &str) -> Result<App, ControlError> {
    let name_or_id = name_or_id.to_owned();
    let app: Option<App> = control.store.read(move |tx| store::apps::find(tx, &name_or_id)).await?;
    app.ok_or(ControlError::NotFound(Resource::App))
}

/// # Errors
/// When the store can't be read.
pub async fn view(control: &Control, app: App) -> Result<AppView, ControlError> {
    let repository = control.place.instance.root.join(format!("repos/{}.git", app.id));
    let size = tokio::task::spawn_blocking(move || size_of(&repository)).await.ok().flatten();
    let view = control.store.read(move |tx| view_of(tx, app)).await?;
    Ok(AppView { repository_size: size, ..view })
}

/// Bytes of all files in a directory; `None` where there is none yet.
fn size_of(dir: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(dir).ok()?;
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()).unwrap_or(0),
        Ok(metadata) => metadata.len(),
        // A file that git has just renamed.
        Err(_) => 0,
    };
    Some(entries.flatten().map(size).sum())
}

/// Of those that somebody sees, by name.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, visible: &Visible) -> Result<Vec<AppView>, ControlError> {
    let visible = visible.clone();
    control
        .store
        .read(move |tx| {
            let apps = store::apps::list(tx)?.into_iter().filter(|app| visible.has(app.id));
            apps.map(|app| view_of(tx, app)).collect()
        })
        .await
}

/// # Errors
/// When the store refuses.
pub async fn lock(control: &Control, app: &App, on: bool) -> Result<(), ControlError> {
    let id = app.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::apps::set_locked(tx, id, on)?)).await
}

fn view_of(tx: &Tx<'_>, app: App) -> Result<AppView, ControlError> {
    let current = store::releases::current(tx, app.id)?;
    let slug = current.and_then(|release| release.slug).map(|id| store::slugs::get(tx, id)).transpose()?;
    Ok(AppView { app, slug: slug.flatten(), repository_size: None })
}

/// # Errors
/// When the name or stack is not allowed or the name is taken; then nothing is changed.
pub async fn update(control: &Control, app: &App, patch: AppPatch) -> Result<AppView, ControlError> {
    let name = patch.name.map(|name| AppName::parse(&name)).transpose()?;
    let stack = parse_stack(patch.stack)?;
    let id = app.id;
    let view = control
        .store
        .write(move |tx| {
            if let Some(name) = name {
                match store::apps::find(tx, name.as_str())? {
                    Some(other) if other.id != id => return Err(ControlError::NameTaken(name)),
                    Some(_) => {}
                    None => store::apps::rename(tx, id, &name)?,
                }
            }
            if let Some(on) = patch.maintenance {
                store::apps::set_maintenance(tx, id, on)?;
            }
            if let Some(stack) = stack {
                store::apps::set_stack(tx, id, stack)?;
            }
            let app = store::apps::get(tx, id)?.ok_or(ControlError::NotFound(Resource::App))?;
            view_of(tx, app)
        })
        .await?;
    control.supervisor.wake(id);
    control.names.notify_one();
    Ok(view)
}

/// Deletes the app. Its dynos stop and its files go in the background, what a crash leaves of them at the next start
/// ([`sweep`]).
///
/// # Errors
/// When there is no such app any more, or apps that the caller may not operate use one of its add-ons.
pub async fn destroy(control: &Control, caller: &Caller, app: App) -> Result<AppView, ControlError> {
    let (id, caller) = (app.id, caller.clone());
    let (view, remains, (addons, releases)) = control
        .store
        .write(move |tx| {
            let left = addons::leave(tx, &caller, &app)?;
            let view = view_of(tx, app)?;
            let remains = remains(tx, id)?;
            if !store::apps::delete(tx, id)? {
                return Err(ControlError::NotFound(Resource::App));
            }
            Ok((view, remains, left))
        })
        .await?;
    for build in &remains.builds {
        control.supervisor.builds().cancel(*build);
    }
    control.supervisor.wake(id);
    addons::left(control, addons, releases).await;
    control.names.notify_one();
    let control = control.clone();
    tokio::spawn(async move {
        all_stopped(&control, id).await;
        control.drains.stop_all(id);
        control.repositories.left(id).await;
        if let Err(error) = control.supervisor.set_egress(id, Egress::Internet).await {
            tracing::warn!(app = %id, "could not take the rules of a destroyed app away: {error}");
        }
        if let Err(error) = remove(&control, remains).await {
            tracing::warn!(app = %id, %error, "could not remove all files of a destroyed app; the next start tries again");
        }
    });
    Ok(view)
}

/// What a deleted app leaves on disk.
struct Remains {
    app: AppId,
    digests: BTreeSet<Digest>,
    builds: Vec<crate::domain::build::BuildId>,
    outputs: Vec<Uuid>,
}

fn remains(tx: &Tx<'_>, app: AppId) -> Result<Remains, ControlError> {
    let builds: Vec<_> = store::builds::list(tx, app)?.into_iter().map(|build| build.id).collect();
    let releases = store::releases::list(tx, app)?.into_iter().map(|release| release.id.0);
    Ok(Remains {
        app,
        digests: store::slugs::list(tx, app)?.into_iter().map(|slug| slug.digest).collect(),
        outputs: builds.iter().map(|build| build.0).chain(releases).collect(),
        builds,
    })
}

/// Waits until no dyno of the app is left, for as long as stopping one may take.
async fn all_stopped(control: &Control, app: AppId) {
    for _ in 0..600 {
        if control.supervisor.dynos(app).await.iter().all(|dyno| !dyno.state.is_live()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn remove(control: &Control, remains: Remains) -> Result<(), ControlError> {
    let Remains { app, digests, outputs, .. } = remains;
    let unused = control
        .store
        .read(move |tx| {
            let mut unused = Vec::new();
            for digest in digests {
                if !store::slugs::digest_in_use(tx, &digest)? {
                    unused.push(digest);
                }
            }
            Ok::<_, StoreError>(unused)
        })
        .await?;
    let control = control.clone();
    let task = tokio::task::spawn_blocking(move || {
        for output in outputs {
            gone(control.outputs.remove(output))?;
        }
        gone(control.hub.remove(app))?;
        for path in folders(&control, app) {
            gone(tree::remove(&path))?;
        }
        unused.iter().try_for_each(|digest| gone(control.slugs.remove(digest)))
    });
    Ok(task.await.map_err(io::Error::other)??)
}

/// An app's repository, cache and last source.
pub(super) fn folders(control: &Control, app: AppId) -> [PathBuf; 3] {
    let root = &control.place.instance.root;
    [
        root.join(format!("repos/{app}.git")),
        root.join(format!("cache/{app}")),
        root.join(format!("sources/{app}.tar.zst")),
    ]
}

/// What is not there any more need not be removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Removes what apps that are no more have left; to be called before anything is served.
///
/// # Errors
/// When the store or a folder can't be read.
pub async fn sweep(control: &Control) -> Result<(), ControlError> {
    let apps: Vec<App> = control.store.read(store::apps::list).await?;
    let known: BTreeSet<AppId> = apps.into_iter().map(|app| app.id).collect();
    let mut orphans = BTreeSet::new();
    for folder in ["repos", "cache", "logs", "sources"] {
        let Ok(entries) = std::fs::read_dir(control.place.instance.root.join(folder)) else { continue };
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.split('.').next()).and_then(|id| id.parse::<AppId>().ok());
            orphans.extend(id.filter(|id| !known.contains(id)));
        }
    }
    for app in orphans {
        let remains = Remains { app, digests: BTreeSet::new(), builds: Vec::new(), outputs: Vec::new() };
        remove(control, remains).await?;
    }
    Ok(())
}
