//! Slugs. The archives themselves are files; here is what is known about them.
#![forbid(unsafe_code)]

use super::column::{from_json, json, nanos, parsed, parsed_or_null, text, time};
use super::{StoreError, Tx};
use crate::domain::app::AppId;
use crate::domain::slug::{Digest, Slug, SlugId};
use rusqlite::Row;

pub fn insert(tx: &Tx<'_>, slug: &Slug) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO slugs (id, app_id, digest, size, commit_id, stack, languages, process_types,
                            buildpack_description, created_at, commit_description, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        (
            text(slug.id),
            text(slug.app),
            slug.digest.as_str(),
            i64::try_from(slug.size).unwrap_or(i64::MAX),
            &slug.commit,
            &slug.stack,
            json(&slug.languages),
            json(&slug.process_types),
            &slug.buildpack_description,
            nanos(slug.created_at),
            &slug.commit_description,
            slug.checksum.as_ref().map(Digest::as_str),
        ),
    )?;
    Ok(())
}

pub fn get(tx: &Tx<'_>, id: SlugId) -> Result<Option<Slug>, StoreError> {
    tx.one("SELECT * FROM slugs WHERE id = ?1", [text(id)], slug)
}

/// Newest first.
pub fn list(tx: &Tx<'_>, app: AppId) -> Result<Vec<Slug>, StoreError> {
    tx.all("SELECT * FROM slugs WHERE app_id = ?1 ORDER BY created_at DESC, id", [text(app)], slug)
}

/// Whether any slug of any app is this archive.
pub fn digest_in_use(tx: &Tx<'_>, digest: &Digest) -> Result<bool, StoreError> {
    Ok(tx.one("SELECT 1 FROM slugs WHERE digest = ?1", [digest.as_str()], |_| Ok(()))?.is_some())
}

fn slug(row: &Row<'_>) -> rusqlite::Result<Slug> {
    Ok(Slug {
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        digest: parsed(row, "digest")?,
        size: u64::try_from(row.get::<_, i64>("size")?).unwrap_or(0),
        commit: row.get("commit_id")?,
        commit_description: row.get("commit_description")?,
        checksum: parsed_or_null(row, "checksum")?,
        stack: row.get("stack")?,
        languages: from_json(row, "languages")?,
        process_types: from_json(row, "process_types")?,
        buildpack_description: row.get("buildpack_description")?,
        created_at: time(row, "created_at")?,
    })
}
