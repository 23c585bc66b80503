//! From a release to what the engine is to launch: tree, environment, limits, command.
#![forbid(unsafe_code)]

use super::{Parts, Settings};
use crate::domain::actor::AccountId;
use crate::domain::app::{App, AppId};
use crate::domain::dyno::{DynoId, DynoName, Purpose};
use crate::domain::feature::Feature;
use crate::domain::limits::DynoSize;
use crate::domain::procfile::{ProcessType, ProcessTypes};
use crate::domain::release::Release;
use crate::domain::slug::Slug;
use crate::domain::stack::StackName;
use crate::dyno::{Body, Io, Labels, Launch, Mount, Ready};
use crate::slug::SlugError;
use crate::stack::{Bind, Stack, StackError};
use crate::store::{self, StoreError, Tx};
use jiff::Timestamp;
use std::time::Duration;

/// What to start, before it is known how.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub id: DynoId,
    pub app: AppId,
    pub name: DynoName,
    pub purpose: Purpose,
    pub version: u32,
    pub epoch: u64,
    pub streak: u32,
    pub size: DynoSize,
    /// The process type's command from the Procfile, or what `hokku run` was given.
    pub command: String,
    /// On top of the config vars, for `hokku run -e`.
    pub env: Vec<(String, String)>,
    /// Whose access it ends with.
    pub by: Option<AccountId>,
}

impl Order {
    pub(super) fn labels(&self, app_name: &str, now: Timestamp) -> Labels {
        Labels {
            app: self.app,
            app_name: app_name.to_owned(),
            name: self.name.clone(),
            purpose: self.purpose,
            version: self.version,
            epoch: self.epoch,
            streak: self.streak,
            size: self.size,
            command: self.command.clone(),
            launched_at: now,
            by: self.by,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Slug(#[from] SlugError),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error("release v{0} does not exist any more")]
    NoRelease(u32),
    #[error("release v{0} has no code")]
    NoCode(u32),
    #[error("unpacking the slug was interrupted")]
    Interrupted,
}

/// A release with its app and its code.
pub(super) struct Deployed {
    pub app: App,
    pub release: Release,
    pub slug: Slug,
    /// Whether dynos are told all that.
    told: bool,
}

pub(super) fn deployed(tx: &Tx<'_>, app: AppId, version: u32) -> Result<Deployed, PrepareError> {
    let release = store::releases::by_version(tx, app, version)?.ok_or(PrepareError::NoRelease(version))?;
    let app = store::apps::get(tx, app)?.ok_or(PrepareError::NoRelease(version))?;
    let slug = release.slug.ok_or(PrepareError::NoCode(version))?;
    let slug = store::slugs::get(tx, slug)?.ok_or(PrepareError::NoCode(version))?;
    let told = store::features::get(tx, app.id)?.contains_key(&Feature::RuntimeDynoMetadata);
    Ok(Deployed { app, release, slug, told })
}

/// Makes the launch: unpacks the slug if this box has not yet, reads the release's config vars.
pub(super) async fn prepare(parts: &Parts, order: Order, io: Io) -> Result<Launch, PrepareError> {
    let (app, version) = (order.app, order.version);
    let deployed = parts.store.read(move |tx| deployed(tx, app, version)).await?;
    let told = if deployed.told { metadata(&deployed, &order, &parts.settings.domain) } else { Vec::new() };
    let Deployed { app, release, slug, .. } = deployed;
    let (slugs, digest) = (parts.slugs.clone(), slug.digest.clone());
    let tree =
        tokio::task::spawn_blocking(move || slugs.tree(&digest)).await.map_err(|_| PrepareError::Interrupted)??;
    // Last, as what is told here has to be used at once.
    let stack = parts.stacks.get(StackName::of_slug(&slug.stack), &slug.languages, false)?;
    let web = order.purpose == Purpose::Formation && order.name.kind.is_web();
    let ready =
        if web { Ready::Port { port: Settings::PORT, within: parts.settings.boot_timeout } } else { Ready::Started };
    let body = Body {
        layers: std::iter::once(tree).chain(stack.layers.iter().cloned()).collect(),
        binds: stack.binds.iter().map(mount).collect(),
        command: crate::dyno::shell::shell_command(&order.command),
        env: environment(&stack, told, &release, &order, web),
        files: Vec::new(),
        limits: parts.settings.sizes.of(order.size),
        hostname: order.id.to_string(),
        network: true,
        time_limit: (order.purpose == Purpose::Release).then_some(Settings::RELEASE_PHASE_LIMIT),
    };
    let labels = order.labels(app.name.as_str(), Timestamp::now());
    Ok(Launch { id: order.id, labels, body, ready, io })
}

fn mount(bind: &Bind) -> Mount {
    Mount { source: bind.source.clone(), target: bind.target.clone(), read_only: true }
}

/// The platform's own variables win over config vars only where an app could not run otherwise.
fn environment(
    stack: &Stack,
    told: Vec<(String, String)>,
    release: &Release,
    order: &Order,
    web: bool,
) -> Vec<(String, String)> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut env = stack.env.clone();
    env.extend(told);
    env.extend(release.vars().iter().map(|(key, value)| pair(key, value)));
    env.extend(order.env.iter().cloned());
    env.push(pair("HOME", "/app"));
    env.push(pair("DYNO", &order.name.to_string()));
    if web {
        env.push(pair("PORT", &Settings::PORT.to_string()));
    }
    // The last of equal names counts.
    let mut unique: Vec<(String, String)> = Vec::with_capacity(env.len());
    for (key, value) in env {
        match unique.iter_mut().find(|(known, _)| *known == key) {
            Some(slot) => slot.1 = value,
            None => unique.push((key, value)),
        }
    }
    unique
}

/// What [`Feature::RuntimeDynoMetadata`] tells, under Heroku's names; config vars of the same names come before it.
fn metadata(deployed: &Deployed, order: &Order, domain: &str) -> Vec<(String, String)> {
    let Deployed { app, release, slug, .. } = deployed;
    let mut told = vec![
        ("HEROKU_APP_ID", app.id.to_string()),
        ("HEROKU_APP_NAME", app.name.to_string()),
        ("HEROKU_APP_DEFAULT_DOMAIN_NAME", format!("{}.{domain}", app.name)),
        ("HEROKU_DYNO_ID", order.id.to_string()),
        ("HEROKU_RELEASE_CREATED_AT", release.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("HEROKU_RELEASE_VERSION", format!("v{}", release.version)),
        ("HEROKU_SLUG_DESCRIPTION", release.description.clone()),
    ];
    told.extend(slug.commit.clone().map(|commit| ("HEROKU_SLUG_COMMIT", commit)));
    told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `hokku run worker --once` runs what the Procfile calls `worker`, with the rest behind it (as on Heroku).
pub(super) fn expand(command: &str, types: &ProcessTypes) -> String {
    let (first, rest) = command.split_once(' ').unwrap_or((command, ""));
    match ProcessType::parse(first).ok().and_then(|kind| types.get(&kind)) {
        Some(declared) if rest.is_empty() => declared.clone(),
        Some(declared) => format!("{declared} {rest}"),
        None => command.to_owned(),
    }
}

impl Settings {
    /// Where every web dyno listens; each has a network of its own.
    pub const PORT: u16 = 5000;
    /// The release phase may take this long (Heroku's limit).
    pub const RELEASE_PHASE_LIMIT: Duration = Duration::from_secs(3600);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_expands_process_types() {
        let types: ProcessTypes = [(ProcessType::parse("worker").unwrap(), "python work.py".to_owned())].into();
        assert_eq!(expand("worker", &types), "python work.py");
        assert_eq!(expand("worker --once", &types), "python work.py --once");
        assert_eq!(expand("bash -c worker", &types), "bash -c worker");
    }
}
