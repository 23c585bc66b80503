//! Pipelines: apps in stages, and promoting the code of one to others.
#![forbid(unsafe_code)]

use super::access::{self, Subject, Visible};
use super::{Control, ControlError, Resource, releases};
use crate::domain::access::{Caller, Permission};
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::pipeline::{Coupling, Pipeline, PipelineName, Promotion, Stage, Target};
use crate::domain::release::{Change, Release, ReleaseStatus};
use crate::domain::slug::{Slug, SlugId};
use crate::store::{self, Tx};
use jiff::Timestamp;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Those that are one's own or have an app that one sees, by name.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, visible: &Visible) -> Result<Vec<Pipeline>, ControlError> {
    let visible = visible.clone();
    control
        .store
        .read(move |tx| {
            let couplings = store::pipelines::couplings(tx)?;
            let seen: BTreeSet<Uuid> =
                couplings.iter().filter(|row| visible.has(row.app)).map(|row| row.pipeline).collect();
            let mut rows = store::pipelines::list(tx)?;
            rows.retain(|row| visible.owns(row.owner) || seen.contains(&row.id));
            Ok(rows)
        })
        .await
}

/// By name or UUID.
///
/// # Errors
/// When there is none.
pub async fn find(control: &Control, which: &str) -> Result<Pipeline, ControlError> {
    let which = which.to_owned();
    control.store.read(move |tx| found(tx, &which)).await
}

pub(super) fn found(tx: &Tx<'_>, which: &str) -> Result<Pipeline, ControlError> {
    let found = match which.parse() {
        Ok(id) => store::pipelines::get(tx, id)?,
        Err(_) => store::pipelines::by_name(tx, which)?,
    };
    found.ok_or(ControlError::NotFound(Resource::Pipeline))
}

/// # Errors
/// When it is no name or taken.
pub async fn create(control: &Control, actor: &Actor, name: &str) -> Result<Pipeline, ControlError> {
    let (name, now) = (name.parse()?, Timestamp::now());
    let pipeline = Pipeline { id: Uuid::new_v4(), name, owner: actor.id.0, created_at: now, updated_at: now };
    let kept = pipeline.clone();
    control
        .store
        .write(move |tx| {
            must_be_free(tx, &kept.name)?;
            Ok::<_, ControlError>(store::pipelines::insert(tx, &kept)?)
        })
        .await?;
    Ok(pipeline)
}

fn must_be_free(tx: &Tx<'_>, name: &PipelineName) -> Result<(), ControlError> {
    match store::pipelines::by_name(tx, name.as_str())? {
        Some(_) => Err(ControlError::Invalid(format!("Name {name} is already taken"))),
        None => Ok(()),
    }
}

/// # Errors
/// When there is no such pipeline, or the new name is none or taken.
pub async fn rename(control: &Control, which: &str, name: &str) -> Result<Pipeline, ControlError> {
    let (pipeline, name) = (find(control, which).await?, name.parse::<PipelineName>()?);
    if pipeline.name == name {
        return Ok(pipeline);
    }
    let (now, fresh) = (Timestamp::now(), name.clone());
    control
        .store
        .write(move |tx| {
            must_be_free(tx, &fresh)?;
            Ok::<_, ControlError>(store::pipelines::rename(tx, pipeline.id, &fresh, now)?)
        })
        .await?;
    Ok(Pipeline { name, updated_at: now, ..pipeline })
}

/// Gives it to another account, by address or UUID; its apps stay whose they are. Returns it with the new owner, and the one
/// it had.
///
/// # Errors
/// When there is no such pipeline or account, or the caller may not manage it.
pub async fn transfer(
    control: &Control,
    caller: &Caller,
    which: &str,
    heir: &str,
) -> Result<(Pipeline, Uuid), ControlError> {
    let pipeline = find(control, which).await?;
    access::check(control, caller, Subject::Pipeline(pipeline.id.to_string()), Permission::Manage).await?;
    let heir = heir.to_owned();
    let id = pipeline.id;
    control
        .store
        .write(move |tx| {
            let before = store::pipelines::get(tx, id)?.ok_or(ControlError::NotFound(Resource::Pipeline))?;
            let heir = store::accounts::find(tx, &heir)?.ok_or(ControlError::NotFound(Resource::User))?;
            store::pipelines::set_owner(tx, id, heir.id.0, Timestamp::now())?;
            let after = store::pipelines::get(tx, id)?.ok_or(ControlError::NotFound(Resource::Pipeline))?;
            Ok((after, before.owner))
        })
        .await
}

/// Its apps stay.
///
/// # Errors
/// When there is no such pipeline.
pub async fn destroy(control: &Control, which: &str) -> Result<Pipeline, ControlError> {
    let pipeline = find(control, which).await?;
    let id = pipeline.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::pipelines::delete(tx, id)?)).await?;
    Ok(pipeline)
}

/// Of one pipeline, or of all.
///
/// # Errors
/// When the store can't be read.
pub async fn couplings(control: &Control, pipeline: Option<Uuid>) -> Result<Vec<Coupling>, ControlError> {
    control
        .store
        .read(move |tx| {
            Ok(match pipeline {
                Some(id) => store::pipelines::couplings_of(tx, id)?,
                None => store::pipelines::couplings(tx)?,
            })
        })
        .await
}

/// # Errors
/// When there is no such coupling.
pub async fn coupling(control: &Control, id: &str) -> Result<Coupling, ControlError> {
    let missing = || ControlError::NotFound(Resource::PipelineCoupling);
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let found: Result<_, ControlError> = control.store.read(move |tx| Ok(store::pipelines::coupling(tx, id)?)).await;
    found?.ok_or_else(missing)
}

/// The app's place, and in which pipeline.
///
/// # Errors
/// When the app is in none.
pub async fn coupling_of(control: &Control, app: AppId) -> Result<(Coupling, Pipeline), ControlError> {
    let found: Result<_, ControlError> = control
        .store
        .read(move |tx| {
            let Some(coupling) = store::pipelines::coupling_of(tx, app)? else { return Ok(None) };
            Ok(store::pipelines::get(tx, coupling.pipeline)?.map(|pipeline| (coupling, pipeline)))
        })
        .await;
    found?.ok_or(ControlError::NotFound(Resource::PipelineCoupling))
}

/// Puts an app into a pipeline.
///
/// # Errors
/// When app or pipeline are not there, or the app is in one already.
pub async fn couple(
    control: &Control,
    caller: &Caller,
    app: &str,
    pipeline: &str,
    stage: &str,
) -> Result<Coupling, ControlError> {
    let stage: Stage = stage.parse()?;
    let app = access::app(control, caller, app, Permission::Operate).await?;
    let pipeline = find(control, pipeline).await?;
    access::check(control, caller, Subject::Pipeline(pipeline.id.to_string()), Permission::Manage).await?;
    let now = Timestamp::now();
    let coupling =
        Coupling { id: Uuid::new_v4(), app: app.id, pipeline: pipeline.id, stage, created_at: now, updated_at: now };
    let kept = coupling.clone();
    control
        .store
        .write(move |tx| {
            if store::pipelines::coupling_of(tx, kept.app)?.is_some() {
                return Err(ControlError::Invalid(format!("{} is in a pipeline already.", app.name)));
            }
            Ok(store::pipelines::couple(tx, &kept)?)
        })
        .await?;
    Ok(coupling)
}

/// Those of a pipeline that somebody sees.
///
/// # Errors
/// When there is no such pipeline.
pub async fn apps(control: &Control, which: &str, visible: &Visible) -> Result<Vec<App>, ControlError> {
    let pipeline = find(control, which).await?;
    let visible = visible.clone();
    control
        .store
        .read(move |tx| {
            let mut couplings = store::pipelines::couplings_of(tx, pipeline.id)?;
            couplings.retain(|row| visible.has(row.app));
            let apps = couplings.iter().map(|row| Ok::<_, ControlError>(store::apps::get(tx, row.app)?));
            Ok(apps.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        })
        .await
}

/// # Errors
/// When there is no such coupling or stage.
pub async fn move_to(control: &Control, id: &str, stage: &str) -> Result<Coupling, ControlError> {
    let (coupling, stage) = (coupling(control, id).await?, stage.parse::<Stage>()?);
    let (id, now) = (coupling.id, Timestamp::now());
    control.store.write(move |tx| Ok::<_, ControlError>(store::pipelines::set_stage(tx, id, stage, now)?)).await?;
    Ok(Coupling { stage, updated_at: now, ..coupling })
}

/// # Errors
/// When there is no such coupling.
pub async fn uncouple(control: &Control, id: &str) -> Result<Coupling, ControlError> {
    let coupling = coupling(control, id).await?;
    let id = coupling.id;
    control.store.write(move |tx| Ok::<_, ControlError>(store::pipelines::uncouple(tx, id)?)).await?;
    Ok(coupling)
}

/// Releases the slug that serves one app on others of its pipeline, with each one's own config vars; all or none.
///
/// # Errors
/// When the source has no code, or a target is not in the pipeline, is the source, or is named twice.
pub async fn promote(
    control: &Control,
    caller: &Caller,
    pipeline: &str,
    source: &str,
    targets: &[String],
) -> Result<(Promotion, Vec<Target>), ControlError> {
    let pipeline = find(control, pipeline).await?;
    access::check(control, caller, Subject::Pipeline(pipeline.id.to_string()), Permission::View).await?;
    let source = access::app(control, caller, source, Permission::Deploy).await?;
    let mut found = Vec::new();
    for target in targets {
        found.push(access::app(control, caller, target, Permission::Deploy).await?);
    }
    if found.is_empty() {
        return Err(ControlError::Invalid("Give at least one app to promote to.".to_owned()));
    }
    let distinct: BTreeSet<AppId> = found.iter().map(|app| app.id).chain([source.id]).collect();
    if distinct.len() <= found.len() {
        return Err(ControlError::Invalid("An app is promoted to others, and to each of them once.".to_owned()));
    }
    let actor = caller.actor.clone();
    let (promotion, targets, made) = control
        .store
        .write(move |tx| {
            for app in found.iter().chain([&source]) {
                let place = store::pipelines::coupling_of(tx, app.id)?;
                if place.is_none_or(|coupling| coupling.pipeline != pipeline.id) {
                    return Err(ControlError::Invalid(format!(
                        "{} is not in the pipeline {}.",
                        app.name, pipeline.name
                    )));
                }
            }
            let nothing = || ControlError::Invalid(format!("{} has no code to promote yet.", source.name));
            let release = store::releases::current(tx, source.id)?.ok_or_else(nothing)?;
            let slug = release.slug.map(|id| store::slugs::get(tx, id)).transpose()?.flatten().ok_or_else(nothing)?;
            let now = Timestamp::now();
            let promotion = Promotion {
                id: Uuid::new_v4(),
                pipeline: pipeline.id,
                app: source.id,
                release: release.id,
                created_at: now,
            };
            let (mut targets, mut made) = (Vec::new(), Vec::new());
            for app in &found {
                let fresh = release_on(tx, app, &source, &release, &slug, &actor, now)?;
                targets.push(Target {
                    id: Uuid::new_v4(),
                    promotion: promotion.id,
                    app: app.id,
                    release: fresh.id,
                    status: Some(ReleaseStatus::Pending),
                    failure: None,
                });
                made.push(fresh);
            }
            store::pipelines::promote(tx, &promotion, &targets)?;
            Ok((promotion, targets, made))
        })
        .await?;
    for release in &made {
        releases::log(control, release);
        control.supervisor.wake(release.app);
    }
    Ok((promotion, targets))
}

/// The archive is kept once; each app has a slug of its own that names it, so that one app's end is not the other's.
fn release_on(
    tx: &Tx<'_>,
    app: &App,
    source: &App,
    release: &Release,
    slug: &Slug,
    actor: &Actor,
    now: Timestamp,
) -> Result<Release, ControlError> {
    let known = store::slugs::list(tx, app.id)?.into_iter().find(|known| {
        known.digest == slug.digest && known.stack == slug.stack && known.process_types == slug.process_types
    });
    let id = if let Some(known) = known {
        known.id
    } else {
        let own = Slug { id: SlugId(Uuid::new_v4()), app: app.id, created_at: now, ..slug.clone() };
        store::slugs::insert(tx, &own)?;
        own.id
    };
    let description = format!("Promote {} v{}", source.name, release.version);
    releases::record(tx, app.id, &Change::Slug { slug: id, description: Some(&description) }, actor, now)
}

/// # Errors
/// When there is no such promotion.
pub async fn promotion(control: &Control, id: &str) -> Result<(Promotion, Vec<Target>), ControlError> {
    let missing = || ControlError::NotFound(Resource::PipelinePromotion);
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let found: Result<_, ControlError> = control.store.read(move |tx| Ok(store::pipelines::promotion(tx, id)?)).await;
    found?.ok_or_else(missing)
}
