//! Pipelines, the apps in them, and what was promoted.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::pipeline::{Coupling, Pipeline, PipelineName, Promotion, Stage, Target};
use jiff::Timestamp;
use rusqlite::{Params, Row};
use uuid::Uuid;

/// The name must not be taken; [`by_name`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, pipeline: &Pipeline) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO pipelines (id, name, owner, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        (text(pipeline.id), pipeline.name.as_str(), text(pipeline.owner), nanos(pipeline.created_at)),
    )?;
    Ok(())
}

/// By name.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Pipeline>, StoreError> {
    tx.all("SELECT * FROM pipelines ORDER BY name", (), pipeline)
}

pub fn get(tx: &Tx<'_>, id: Uuid) -> Result<Option<Pipeline>, StoreError> {
    tx.one("SELECT * FROM pipelines WHERE id = ?1", [text(id)], pipeline)
}

pub fn by_name(tx: &Tx<'_>, name: &str) -> Result<Option<Pipeline>, StoreError> {
    tx.one("SELECT * FROM pipelines WHERE name = ?1", [name], pipeline)
}

pub fn rename(tx: &Tx<'_>, id: Uuid, name: &PipelineName, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE pipelines SET name = ?2, updated_at = ?3 WHERE id = ?1", (text(id), name.as_str(), nanos(now)))?;
    Ok(())
}

pub fn set_owner(tx: &Tx<'_>, id: Uuid, owner: Uuid, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE pipelines SET owner = ?2, updated_at = ?3 WHERE id = ?1", (text(id), text(owner), nanos(now)))?;
    Ok(())
}

/// With its couplings and promotions.
pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM pipelines WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn pipeline(row: &Row<'_>) -> rusqlite::Result<Pipeline> {
    Ok(Pipeline {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        owner: parsed(row, "owner")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

pub fn couple(tx: &Tx<'_>, coupling: &Coupling) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO pipeline_couplings (id, app_id, pipeline_id, stage, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        (
            text(coupling.id),
            text(coupling.app),
            text(coupling.pipeline),
            coupling.stage.word(),
            nanos(coupling.created_at),
        ),
    )?;
    Ok(())
}

/// Of all pipelines, oldest first.
pub fn couplings(tx: &Tx<'_>) -> Result<Vec<Coupling>, StoreError> {
    some(tx, "", ())
}

pub fn couplings_of(tx: &Tx<'_>, pipeline: Uuid) -> Result<Vec<Coupling>, StoreError> {
    some(tx, "WHERE pipeline_id = ?1", [text(pipeline)])
}

pub fn coupling_of(tx: &Tx<'_>, app: AppId) -> Result<Option<Coupling>, StoreError> {
    Ok(some(tx, "WHERE app_id = ?1", [text(app)])?.pop())
}

pub fn coupling(tx: &Tx<'_>, id: Uuid) -> Result<Option<Coupling>, StoreError> {
    Ok(some(tx, "WHERE id = ?1", [text(id)])?.pop())
}

pub fn set_stage(tx: &Tx<'_>, id: Uuid, stage: Stage, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE pipeline_couplings SET stage = ?2, updated_at = ?3 WHERE id = ?1",
        (text(id), stage.word(), nanos(now)),
    )?;
    Ok(())
}

pub fn uncouple(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM pipeline_couplings WHERE id = ?1", [text(id)])?;
    Ok(())
}

fn some(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Vec<Coupling>, StoreError> {
    tx.all(&format!("SELECT * FROM pipeline_couplings {clause} ORDER BY created_at, id"), params, |row| {
        Ok(Coupling {
            id: parsed(row, "id")?,
            app: parsed(row, "app_id")?,
            pipeline: parsed(row, "pipeline_id")?,
            stage: parsed(row, "stage")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        })
    })
}

/// With its targets, whose releases must have been made.
pub fn promote(tx: &Tx<'_>, promotion: &Promotion, targets: &[Target]) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO promotions (id, pipeline_id, app_id, release_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            text(promotion.id),
            text(promotion.pipeline),
            text(promotion.app),
            text(promotion.release),
            nanos(promotion.created_at),
        ),
    )?;
    for target in targets {
        tx.execute(
            "INSERT INTO promotion_targets (id, promotion_id, app_id, release_id) VALUES (?1, ?2, ?3, ?4)",
            (text(target.id), text(promotion.id), text(target.app), text(target.release)),
        )?;
    }
    Ok(())
}

pub fn promotion(tx: &Tx<'_>, id: Uuid) -> Result<Option<(Promotion, Vec<Target>)>, StoreError> {
    let promotion = tx.one("SELECT * FROM promotions WHERE id = ?1", [text(id)], |row| {
        Ok(Promotion {
            id: parsed(row, "id")?,
            pipeline: parsed(row, "pipeline_id")?,
            app: parsed(row, "app_id")?,
            release: parsed(row, "release_id")?,
            created_at: time(row, "created_at")?,
        })
    })?;
    let Some(promotion) = promotion else { return Ok(None) };
    let mut targets =
        tx.all("SELECT * FROM promotion_targets WHERE promotion_id = ?1 ORDER BY rowid", [text(id)], |row| {
            Ok(Target {
                id: parsed(row, "id")?,
                promotion: id,
                app: parsed(row, "app_id")?,
                release: parsed(row, "release_id")?,
                status: None,
                failure: None,
            })
        })?;
    for target in &mut targets {
        if let Some(release) = super::releases::get(tx, target.release)? {
            (target.status, target.failure) = (Some(release.status), release.failure);
        }
    }
    Ok(Some((promotion, targets)))
}
