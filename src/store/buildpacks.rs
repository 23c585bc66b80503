//! The buildpacks an app is pinned to.
#![forbid(unsafe_code)]

use super::column::text;
use super::{StoreError, Tx};
use crate::domain::app::AppId;

/// URLs or names in the order they run.
pub fn get(tx: &Tx<'_>, app: AppId) -> Result<Vec<String>, StoreError> {
    tx.all("SELECT url FROM buildpacks WHERE app_id = ?1 ORDER BY ordinal", [text(app)], |row| row.get("url"))
}

/// Replaces the whole list.
pub fn put(tx: &Tx<'_>, app: AppId, urls: &[String]) -> Result<(), StoreError> {
    tx.execute("DELETE FROM buildpacks WHERE app_id = ?1", [text(app)])?;
    for (ordinal, url) in (0_i64..).zip(urls) {
        tx.execute("INSERT INTO buildpacks (app_id, ordinal, url) VALUES (?1, ?2, ?3)", (text(app), ordinal, url))?;
    }
    Ok(())
}
