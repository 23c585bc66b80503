//! The audit log: who changed what, when, and from where.
#![forbid(unsafe_code)]

use super::column::{nanos, parsed, parsed_or_null, text, time};
use super::{StoreError, Tx};
use crate::domain::actor::{AccountId, Actor};
use crate::domain::app::AppId;
use jiff::Timestamp;
use rusqlite::Row;
use std::collections::BTreeSet;

/// Events that are kept. Of more, the oldest go of the account that has the most: nobody pushes another's out by making
/// many of his own.
const KEPT: i64 = 100_000;
/// How often, in events, it is looked whether there are more.
const TRIMMED_EVERY: i64 = 128;

/// What is known before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub actor: Actor,
    pub action: String,
    /// What it was done to, with the name that it had then.
    pub app: Option<(AppId, String)>,
    /// Whose app that was then.
    pub owner: Option<AccountId>,
    /// Of the request, without secrets.
    pub path: String,
    /// An address, or the Unix socket with its user.
    pub origin: String,
    pub request: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    pub at: Timestamp,
    pub attempt: Attempt,
    /// What exactly, in words for people.
    pub note: Option<String>,
    /// The HTTP status of the answer; none when the client or the server had gone before it.
    pub status: Option<u16>,
    /// How often it happened, within a minute: more than once only what was refused.
    pub count: u32,
}

/// Returns the event's number.
pub fn begin(tx: &Tx<'_>, attempt: &Attempt, at: Timestamp) -> Result<i64, StoreError> {
    let app = attempt.app.as_ref();
    tx.execute(
        "INSERT INTO audit (at, account_id, email, action, app_id, app, path, origin, request_id, owner_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        (
            nanos(at),
            text(attempt.actor.id),
            &attempt.actor.email,
            &attempt.action,
            app.map(|(id, _)| text(id)),
            app.map(|(_, name)| name),
            &attempt.path,
            &attempt.origin,
            &attempt.request,
            attempt.owner.map(text),
        ),
    )?;
    let id = tx.connection.last_insert_rowid();
    if id % TRIMMED_EVERY == 0 {
        trim(tx, KEPT)?;
    }
    Ok(id)
}

pub(super) fn trim(tx: &Tx<'_>, kept: i64) -> Result<(), StoreError> {
    let there: i64 = tx.one("SELECT COUNT(*) FROM audit", (), |row| row.get(0))?.unwrap_or(0);
    if there > kept {
        tx.execute(
            "DELETE FROM audit WHERE id IN (
                 SELECT id FROM audit
                 WHERE account_id = (SELECT account_id FROM audit GROUP BY account_id ORDER BY COUNT(*) DESC LIMIT 1)
                 ORDER BY id LIMIT ?1)",
            [there - kept],
        )?;
    }
    Ok(())
}

/// `app` is what it was done to, when that was not known before.
pub fn end(tx: &Tx<'_>, id: i64, status: u16, note: Option<&str>, app: Option<AppId>) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE audit SET status = ?2, note = ?3, app_id = COALESCE(app_id, ?4),
                app = COALESCE(app, (SELECT name FROM apps WHERE id = ?4)),
                owner_id = COALESCE(owner_id, (SELECT owner_id FROM apps WHERE id = ?4))
         WHERE id = ?1",
        (id, status, note, app.map(text)),
    )?;
    Ok(())
}

/// The event happened so many times more.
pub fn repeat(tx: &Tx<'_>, id: i64, more: u32) -> Result<(), StoreError> {
    tx.execute("UPDATE audit SET count = count + ?2 WHERE id = ?1", (id, more))?;
    Ok(())
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these apps, of apps that the account owned then, and what it did anywhere; all when not given.
    pub of: Option<(BTreeSet<AppId>, AccountId)>,
    pub app: Option<AppId>,
    pub email: Option<String>,
    pub action: Option<String>,
    /// At most so many, the newest.
    pub max: usize,
}

/// Newest first.
pub fn list(tx: &Tx<'_>, wanted: &Wanted) -> Result<Vec<Event>, StoreError> {
    let mut found = Vec::new();
    let mut before = i64::MAX;
    while found.len() < wanted.max {
        let params = (before, wanted.app.map(text), wanted.email.as_deref(), wanted.action.as_deref());
        let some = tx.all(&newest(wanted.app.is_some()), params, event)?;
        let Some(last) = some.last() else { break };
        before = last.id;
        let may_see = |event: &Event| {
            wanted.of.as_ref().is_none_or(|(apps, by)| {
                event.attempt.actor.id == *by
                    || event.attempt.owner == Some(*by)
                    || event.attempt.app.as_ref().is_some_and(|(app, _)| apps.contains(app))
            })
        };
        found.extend(some.into_iter().filter(may_see));
    }
    found.truncate(wanted.max);
    Ok(found)
}

/// Of one app by its index, which an app that may be missing would hide.
pub(super) fn newest(of_app: bool) -> String {
    let app = if of_app { "app_id = ?2" } else { "?2 IS NULL" };
    format!(
        "SELECT * FROM audit WHERE id < ?1 AND {app} AND (?3 IS NULL OR email = ?3 COLLATE NOCASE)
         AND (?4 IS NULL OR action = ?4 OR action LIKE ?4 || ':%') ORDER BY id DESC LIMIT 1000"
    )
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let app: Option<AppId> = parsed_or_null(row, "app_id")?;
    let name: Option<String> = row.get("app")?;
    Ok(Event {
        id: row.get("id")?,
        at: time(row, "at")?,
        attempt: Attempt {
            actor: Actor { id: parsed(row, "account_id")?, email: row.get("email")? },
            action: row.get("action")?,
            app: app.zip(name),
            owner: parsed_or_null(row, "owner_id")?,
            path: row.get("path")?,
            origin: row.get("origin")?,
            request: row.get("request_id")?,
        },
        note: row.get("note")?,
        status: row.get("status")?,
        count: row.get("count")?,
    })
}
