//! Releases: every change of code or settings makes one.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource, slugs};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::log;
use crate::domain::procfile::ProcessType;
use crate::domain::release::{Change, History, Release, ReleaseId};
use crate::domain::slug::SlugId;
use crate::slug::SlugStore;
use crate::store::{self, StoreError, Tx};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A release, and whether it is the one that serves.
#[derive(Clone, Debug)]
pub struct ReleaseView {
    pub release: Release,
    pub current: bool,
}

/// Makes the next release within a transaction that may do more.
pub(super) fn record(
    tx: &Tx<'_>,
    app: AppId,
    change: &Change<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Release, ControlError> {
    let (newest, standing) = (store::releases::newest(tx, app)?, store::releases::standing(tx, app)?);
    let history = History { newest: newest.as_ref(), standing: standing.as_ref() };
    let release = Release::next(ReleaseId(Uuid::new_v4()), app, history, change, actor.clone(), now)?;
    store::releases::insert(tx, &release)?;
    if matches!(change, Change::Deploy { .. } | Change::Slug { .. } | Change::Rollback(_)) {
        store::apps::set_released_at(tx, app, now)?;
    }
    Ok(release)
}

/// The two lines that Heroku's log has for a new release.
pub(super) fn log(control: &Control, release: &Release) {
    let user = &release.actor.email;
    control.log(release.app, format!("{} by user {user}", release.description));
    control.log(release.app, format!("Release v{} created by user {user}", release.version));
}

/// Newest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<ReleaseView>, ControlError> {
    control
        .store
        .read(move |tx| {
            let current = store::releases::current(tx, app)?.map(|release| release.id);
            let releases = store::releases::list(tx, app)?;
            Ok(releases.into_iter().map(|release| view(release, current)).collect())
        })
        .await
}

/// By `12`, `v12`, UUID or `current`.
///
/// # Errors
/// When the app has no such release.
pub async fn find(control: &Control, app: AppId, which: &str) -> Result<ReleaseView, ControlError> {
    let which = which.to_owned();
    control
        .store
        .read(move |tx| {
            let current = store::releases::current(tx, app)?.map(|release| release.id);
            Ok(view(find_in(tx, app, &which)?, current))
        })
        .await
}

fn view(release: Release, current: Option<ReleaseId>) -> ReleaseView {
    ReleaseView { current: current == Some(release.id), release }
}

fn find_in(tx: &Tx<'_>, app: AppId, which: &str) -> Result<Release, ControlError> {
    let release = if which == "current" {
        store::releases::current(tx, app)?
    } else if let Ok(id) = which.parse() {
        store::releases::get(tx, id)?
    } else if let Ok(version) = which.strip_prefix('v').unwrap_or(which).parse() {
        store::releases::by_version(tx, app, version)?
    } else {
        None
    };
    release.filter(|release| release.app == app).ok_or(ControlError::NotFound(Resource::Release))
}

/// Back to an earlier release's code and settings.
///
/// # Errors
/// When there is no such release or one can't go back to it.
pub async fn rollback(control: &Control, actor: &Actor, app: AppId, which: &str) -> Result<ReleaseView, ControlError> {
    let (which, actor, slugs) = (which.to_owned(), actor.clone(), control.slugs.clone());
    make(control, app, move |tx, now| {
        let target = find_in(tx, app, &which)?;
        if let Some(slug) = target.slug {
            must_be_here(tx, &slugs, slug)?;
        }
        record(tx, app, &Change::Rollback(&target), &actor, now)
    })
    .await
}

/// Releases a slug of this app once more.
///
/// # Errors
/// When the app has no such slug, or it was not brought yet.
pub async fn release_slug(
    control: &Control,
    actor: &Actor,
    app: AppId,
    slug: SlugId,
    description: Option<String>,
) -> Result<ReleaseView, ControlError> {
    slugs::must_be_brought(control, app, slug)?;
    let (actor, slugs) = (actor.clone(), control.slugs.clone());
    // It becomes part of a log line.
    let description = description.map(|text| log::clean(text.as_bytes()).chars().take(200).collect::<String>());
    make(control, app, move |tx, now| {
        let owned = store::slugs::get(tx, slug)?.is_some_and(|slug| slug.app == app);
        if !owned {
            return Err(ControlError::NotFound(Resource::Slug));
        }
        must_be_here(tx, &slugs, slug)?;
        record(tx, app, &Change::Slug { slug, description: description.as_deref() }, &actor, now)
    })
    .await
}

/// Slugs of old releases are removed when the disk is nearly full.
fn must_be_here(tx: &Tx<'_>, slugs: &SlugStore, slug: SlugId) -> Result<(), ControlError> {
    match store::slugs::get(tx, slug)? {
        Some(slug) if !slugs.has(&slug.digest) => Err(ControlError::Invalid(
            "The slug of that release was removed to make room on the disk. Deploy its code again.".into(),
        )),
        _ => Ok(()),
    }
}

/// Waits until the release's command has begun, if it has one, so that its output can be read; not long, as another
/// release may be on its way before it.
pub async fn command_begun(control: &Control, release: &Release) {
    let Some(slug) = release.slug else { return };
    let slug: Result<_, StoreError> = control.store.read(move |tx| store::slugs::get(tx, slug)).await;
    let has_command =
        slug.is_ok_and(|slug| slug.is_some_and(|slug| slug.process_types.contains_key(&ProcessType::release())));
    let begun = Instant::now();
    while has_command && !control.outputs.exists(release.id.0) && begun.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn make(
    control: &Control,
    app: AppId,
    f: impl FnOnce(&Tx<'_>, Timestamp) -> Result<Release, ControlError> + Send + 'static,
) -> Result<ReleaseView, ControlError> {
    let made = control
        .store
        .write(move |tx| {
            let release = f(tx, Timestamp::now())?;
            let current = store::releases::current(tx, app)?.map(|release| release.id);
            Ok::<_, ControlError>(view(release, current))
        })
        .await?;
    log(control, &made.release);
    control.supervisor.wake(app);
    Ok(made)
}
