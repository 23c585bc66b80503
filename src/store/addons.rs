//! Add-ons and their attachments. The values are sealed by whatever writes them, and opened by whatever reads them.
#![forbid(unsafe_code)]

use super::column::{json, nanos, parsed, text, time};
use super::{StoreError, Tx};
use crate::domain::addon::{Addon, AddonName, Attachment};
use crate::domain::app::AppId;
use jiff::Timestamp;
use rusqlite::{Params, Row};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The name must not be taken; [`by_name`] tells in the same transaction.
pub fn insert(tx: &Tx<'_>, addon: &Addon) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(json(&addon.values).as_bytes(), addon.id.as_bytes())?;
    tx.execute(
        "INSERT INTO addons (id, app_id, name, plan, vals, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        (text(addon.id), text(addon.app), addon.name.as_str(), &addon.plan, sealed, nanos(addon.created_at)),
    )?;
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: Uuid) -> Result<Option<Addon>, StoreError> {
    Ok(addons(tx, "WHERE id = ?1", [text(id)])?.pop())
}

pub fn by_name(tx: &Tx<'_>, name: &str) -> Result<Option<Addon>, StoreError> {
    Ok(addons(tx, "WHERE name = ?1", [name])?.pop())
}

/// By name.
pub fn list(tx: &Tx<'_>) -> Result<Vec<Addon>, StoreError> {
    addons(tx, "ORDER BY name", ())
}

/// Those that were made for the app, by name.
pub fn of_app(tx: &Tx<'_>, app: AppId) -> Result<Vec<Addon>, StoreError> {
    addons(tx, "WHERE app_id = ?1 ORDER BY name", [text(app)])
}

pub fn rename(tx: &Tx<'_>, id: Uuid, name: &AddonName, now: Timestamp) -> Result<(), StoreError> {
    tx.execute("UPDATE addons SET name = ?2, updated_at = ?3 WHERE id = ?1", (text(id), name.as_str(), nanos(now)))?;
    Ok(())
}

/// Other values for its attachments' config vars.
pub fn set_values(tx: &Tx<'_>, addon: &Addon, now: Timestamp) -> Result<(), StoreError> {
    let sealed = tx.seal.seal(json(&addon.values).as_bytes(), addon.id.as_bytes())?;
    tx.execute("UPDATE addons SET vals = ?2, updated_at = ?3 WHERE id = ?1", (text(addon.id), sealed, nanos(now)))?;
    Ok(())
}

/// With its attachments.
pub fn delete(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM addons WHERE id = ?1", [text(id)])?;
    Ok(())
}

/// The app must not have one of that name.
pub fn attach(tx: &Tx<'_>, attachment: &Attachment) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO addon_attachments (id, addon_id, app_id, name, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            text(attachment.id),
            text(attachment.addon),
            text(attachment.app),
            attachment.name.as_str(),
            nanos(attachment.created_at),
        ),
    )?;
    Ok(())
}

pub fn detach(tx: &Tx<'_>, id: Uuid) -> Result<(), StoreError> {
    tx.execute("DELETE FROM addon_attachments WHERE id = ?1", [text(id)])?;
    Ok(())
}

pub fn attachment(tx: &Tx<'_>, id: Uuid) -> Result<Option<Attachment>, StoreError> {
    Ok(attachments_where(tx, "WHERE id = ?1", [text(id)])?.pop())
}

/// Of all apps, oldest first.
pub fn attachments(tx: &Tx<'_>) -> Result<Vec<Attachment>, StoreError> {
    attachments_where(tx, "ORDER BY created_at, id", ())
}

/// Oldest first.
pub fn attachments_of_app(tx: &Tx<'_>, app: AppId) -> Result<Vec<Attachment>, StoreError> {
    attachments_where(tx, "WHERE app_id = ?1 ORDER BY created_at, id", [text(app)])
}

/// Oldest first.
pub fn attachments_of(tx: &Tx<'_>, addon: Uuid) -> Result<Vec<Attachment>, StoreError> {
    attachments_where(tx, "WHERE addon_id = ?1 ORDER BY created_at, id", [text(addon)])
}

fn addons(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Vec<Addon>, StoreError> {
    let sealed = tx.all(&format!("SELECT * FROM addons {clause}"), params, addon)?;
    let open = |(addon, sealed): (Addon, Vec<u8>)| {
        let plain = tx.seal.open(&sealed, addon.id.as_bytes());
        let values = plain.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(Addon { values: values.ok_or(StoreError::SealedAddon(addon.id))?, ..addon })
    };
    sealed.into_iter().map(open).collect()
}

fn addon(row: &Row<'_>) -> rusqlite::Result<(Addon, Vec<u8>)> {
    let addon = Addon {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        name: parsed(row, "name")?,
        plan: row.get("plan")?,
        values: BTreeMap::new(),
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    };
    Ok((addon, row.get("vals")?))
}

fn attachments_where(tx: &Tx<'_>, clause: &str, params: impl Params) -> Result<Vec<Attachment>, StoreError> {
    tx.all(&format!("SELECT * FROM addon_attachments {clause}"), params, |row| {
        Ok(Attachment {
            id: parsed(row, "id")?,
            addon: parsed(row, "addon_id")?,
            app: parsed(row, "app_id")?,
            name: parsed(row, "name")?,
            created_at: time(row, "created_at")?,
        })
    })
}
