//! Releases. Their config vars are sealed in [`insert`] and opened by whatever reads them.
#![forbid(unsafe_code)]

use super::column::{from_json, json, nanos, parsed, parsed_or_null, text, time, unreadable};
use super::{StoreError, Tx};
use crate::domain::actor::Actor;
use crate::domain::app::AppId;
use crate::domain::config_vars::ConfigVars;
use crate::domain::release::{Release, ReleaseId, ReleaseStatus};
use jiff::Timestamp;
use rusqlite::{Params, Row};

const SELECT: &str = "SELECT releases.*, accounts.email AS creator_email
                      FROM releases JOIN accounts ON accounts.id = releases.created_by";

pub fn insert(tx: &Tx<'_>, release: &Release) -> Result<(), StoreError> {
    let seal = |vars: &ConfigVars| tx.seal.seal(json(vars).as_bytes(), release.id.0.as_bytes());
    tx.execute(
        "INSERT INTO releases (id, app_id, version, slug_id, config, addons, description, created_by, status,
                               phase_passed, failure, created_at, updated_at, attached)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        (
            text(release.id),
            text(release.app),
            release.version,
            release.slug.map(text),
            seal(&release.config)?,
            json(&release.addons),
            &release.description,
            text(release.actor.id),
            release.status.word(),
            release.phase_passed,
            &release.failure,
            nanos(release.created_at),
            nanos(release.updated_at),
            seal(&release.attached)?,
        ),
    )?;
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: ReleaseId) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE releases.id = ?1", [text(id)])
}

/// The one with the highest version, whatever became of it.
pub fn newest(tx: &Tx<'_>, app: AppId) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE app_id = ?1 ORDER BY version DESC LIMIT 1", [text(app)])
}

/// The newest that succeeded.
pub fn current(tx: &Tx<'_>, app: AppId) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE app_id = ?1 AND status = 'succeeded' ORDER BY version DESC LIMIT 1", [text(app)])
}

/// The newest that has not failed: what a change builds on.
pub fn standing(tx: &Tx<'_>, app: AppId) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE app_id = ?1 AND status <> 'failed' ORDER BY version DESC LIMIT 1", [text(app)])
}

/// The next one to be decided.
pub fn oldest_pending(tx: &Tx<'_>, app: AppId) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE app_id = ?1 AND status = 'pending' ORDER BY version LIMIT 1", [text(app)])
}

pub fn by_version(tx: &Tx<'_>, app: AppId, version: u32) -> Result<Option<Release>, StoreError> {
    one(tx, "WHERE app_id = ?1 AND version = ?2", (text(app), version))
}

/// Newest first.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Release>, StoreError> {
    tx.all(&format!("{SELECT} WHERE app_id = ?1 ORDER BY version DESC"), [text(app)], row)?
        .into_iter()
        .map(|sealed| unseal(tx, sealed))
        .collect()
}

/// Decides a pending release; one that was decided stays as it is. Whether it was pending.
pub fn settle(
    tx: &Tx<'_>,
    id: ReleaseId,
    status: ReleaseStatus,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let changed = tx.execute(
        "UPDATE releases SET status = ?2, failure = ?3, updated_at = ?4 WHERE id = ?1 AND status = 'pending'",
        (text(id), status.word(), failure, nanos(now)),
    )?;
    Ok(changed > 0)
}

/// The release phase has passed; now its dynos may start.
pub fn pass_phase(tx: &Tx<'_>, id: ReleaseId, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE releases SET phase_passed = 1, updated_at = ?2 WHERE id = ?1", (text(id), nanos(now)))?;
    Ok(())
}

fn one(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Option<Release>, StoreError> {
    tx.one(&format!("{SELECT} {clause}"), params, row)?.map(|sealed| unseal(tx, sealed)).transpose()
}

/// A release whose config vars are still sealed.
type Sealed = (Release, Vec<u8>, Option<Vec<u8>>);

fn unseal(tx: &Tx<'_>, (release, config, attached): Sealed) -> Result<Release, StoreError> {
    let open = |sealed: Vec<u8>| {
        let plain = tx.seal.open(&sealed, release.id.0.as_bytes());
        let vars = plain.and_then(|json| serde_json::from_slice::<ConfigVars>(&json).ok());
        vars.ok_or(StoreError::Sealed(release.id))
    };
    let (config, attached) = (open(config)?, attached.map(open).transpose()?.unwrap_or_default());
    Ok(Release { config, attached, ..release })
}

fn row(row: &Row<'_>) -> rusqlite::Result<Sealed> {
    let release = Release {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        version: row.get("version")?,
        slug: parsed_or_null(row, "slug_id")?,
        config: ConfigVars::default(),
        attached: ConfigVars::default(),
        addons: from_json(row, "addons")?,
        description: row.get("description")?,
        actor: Actor { id: parsed(row, "created_by")?, email: row.get("creator_email")? },
        status: status(row)?,
        phase_passed: row.get("phase_passed")?,
        failure: row.get("failure")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    };
    Ok((release, row.get("config")?, row.get("attached")?))
}

fn status(row: &Row<'_>) -> rusqlite::Result<ReleaseStatus> {
    let word: String = row.get("status")?;
    [ReleaseStatus::Pending, ReleaseStatus::Succeeded, ReleaseStatus::Failed]
        .into_iter()
        .find(|status| status.word() == word)
        .ok_or_else(|| unreadable(row, "status", format!("unknown release status {word:?}")))
}
