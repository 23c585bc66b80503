//! Builds.
#![forbid(unsafe_code)]

use super::column::{from_json, json, nanos, parsed, parsed_or_null, text, time, unreadable};
use super::{StoreError, Tx};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::build::{Build, BuildId, BuildStatus};
use crate::domain::release::ReleaseId;
use crate::domain::slug::SlugId;
use crate::domain::stack::StackName;
use jiff::Timestamp;
use rusqlite::Row;

const SELECT: &str = "SELECT builds.*, accounts.email AS creator_email
                      FROM builds JOIN accounts ON accounts.id = builds.created_by";

pub fn insert(tx: &Tx<'_>, build: &Build) -> Result<(), StoreError> {
    let (slug, release, failure) = columns(&build.status);
    tx.execute(
        "INSERT INTO builds (id, app_id, created_by, status, slug_id, release_id, failure, source_version, buildpacks,
                             stack, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        (
            text(build.id),
            text(build.app),
            text(build.actor.id),
            build.status.word(),
            slug.map(text),
            release.map(text),
            failure,
            &build.source_version,
            json(&build.buildpacks),
            &build.stack,
            nanos(build.created_at),
            nanos(build.updated_at),
        ),
    )?;
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: BuildId) -> Result<Option<Build>, StoreError> {
    tx.one(&format!("{SELECT} WHERE builds.id = ?1"), [text(id)], build)
}

/// Newest first.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Build>, StoreError> {
    tx.all(&format!("{SELECT} WHERE app_id = ?1 ORDER BY builds.created_at DESC, builds.id DESC"), [text(app)], build)
}

/// Of all apps, oldest first: at start these are what a dead server left.
pub fn pending(tx: &Tx<'_>) -> Result<Vec<Build>, StoreError> {
    tx.all(&format!("{SELECT} WHERE status = 'pending' ORDER BY builds.created_at, builds.id"), (), build)
}

/// Ends a pending build; one that has ended stays as it is. Whether it was pending.
pub fn settle(tx: &Tx<'_>, id: BuildId, status: &BuildStatus, now: Timestamp) -> Result<bool, StoreError> {
    let (slug, release, failure) = columns(status);
    let changed = tx.execute(
        "UPDATE builds SET status = ?2, slug_id = ?3, release_id = ?4, failure = ?5, updated_at = ?6
         WHERE id = ?1 AND status = 'pending'",
        (text(id), status.word(), slug.map(text), release.map(text), failure, nanos(now)),
    )?;
    Ok(changed > 0)
}

/// What `app.json` chose.
pub fn set_stack(tx: &Tx<'_>, id: BuildId, stack: StackName) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE builds SET stack = ?2, updated_at = ?3 WHERE id = ?1",
        (text(id), stack.as_str(), nanos(Timestamp::now())),
    )?;
    Ok(())
}

/// What detection chose.
pub fn set_buildpacks(tx: &Tx<'_>, id: BuildId, urls: &[String]) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE builds SET buildpacks = ?2, updated_at = ?3 WHERE id = ?1",
        (text(id), json(&urls), nanos(Timestamp::now())),
    )?;
    Ok(())
}

fn columns(status: &BuildStatus) -> (Option<SlugId>, Option<ReleaseId>, Option<&str>) {
    match status {
        BuildStatus::Pending => (None, None, None),
        BuildStatus::Succeeded { slug, release } => (Some(*slug), *release, None),
        BuildStatus::Failed { reason } => (None, None, Some(reason)),
    }
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        actor: Actor { id: parsed(row, "created_by")?, email: row.get("creator_email")? },
        status: status(row)?,
        source_version: row.get("source_version")?,
        buildpacks: from_json(row, "buildpacks")?,
        stack: row.get("stack")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn status(row: &Row<'_>) -> rusqlite::Result<BuildStatus> {
    match row.get::<_, String>("status")?.as_str() {
        "pending" => Ok(BuildStatus::Pending),
        "succeeded" => {
            Ok(BuildStatus::Succeeded { slug: parsed(row, "slug_id")?, release: parsed_or_null(row, "release_id")? })
        }
        "failed" => Ok(BuildStatus::Failed { reason: row.get("failure")? }),
        word => Err(unreadable(row, "status", format!("unknown build status {word:?}"))),
    }
}
