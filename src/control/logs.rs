//! Log sessions: a URL that shows one app's log to whoever has it, for a while.
//!
//! The URL itself says what it shows and to whom, and is signed; so the server keeps nothing, and a session outlives a
//! restart.
#![forbid(unsafe_code)]

use super::grants::{self, Bearer, Grant, Held};
use super::{Control, ControlError, Resource, tokens};
use crate::domain::access::Permission;
use crate::domain::app::AppId;
use crate::domain::log::{LogFilter, LogFrame, Source};
use crate::logs::Tail;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use uuid::Uuid;

/// A session can be opened, and opened again, this long (as on Heroku, about).
const LIFETIME_SECONDS: i64 = 300;

/// Lines there are to be had at all (Heroku's buffer).
pub const MAX_LINES: usize = 1500;
pub const DEFAULT_LINES: usize = 100;

/// What a session shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub app: AppId,
    /// The token that it was opened with.
    by: Uuid,
    pub lines: usize,
    pub tail: bool,
    pub source: Option<Source>,
    /// A dyno or a process type.
    pub process: Option<String>,
    pub expires_at: Timestamp,
}

impl Session {
    pub fn new(
        (app, bearer): (AppId, Bearer),
        filter: LogFilter,
        lines: Option<usize>,
        tail: bool,
        now: Timestamp,
    ) -> Self {
        let LogFilter { source, process } = filter;
        let lines = lines.unwrap_or(DEFAULT_LINES).min(MAX_LINES);
        let expires_at = now + jiff::SignedDuration::from_secs(LIFETIME_SECONDS);
        Self { app, by: bearer.id(), lines, tail, source, process, expires_at }
    }

    fn filter(&self) -> LogFilter {
        LogFilter { source: self.source, process: self.process.clone() }
    }
}

/// The last part of the session's URL.
pub fn ticket(control: &Control, bearer: Bearer, id: Uuid, session: &Session) -> String {
    let text = hex::encode(serde_json::to_vec(session).expect("a session is always JSON"));
    let secret = bearer.secret(control, &text, id);
    format!("{id}-{secret}-{text}")
}

/// The session of a ticket that is real and has not expired, and is open to whom it was made for.
///
/// # Errors
/// Otherwise.
pub async fn session(control: &Control, ticket: &str, now: Timestamp) -> Result<(Session, Held), ControlError> {
    let missing = || ControlError::NotFound(Resource::LogSession);
    let read = || -> Option<(Uuid, &str, &str, Session)> {
        let (id, rest) = ticket.split_at_checked(36)?;
        let (secret, text) = rest.strip_prefix('-')?.split_once('-')?;
        Some((id.parse().ok()?, secret, text, serde_json::from_slice(&hex::decode(text).ok()?).ok()?))
    };
    let (id, secret, text, session) = read().ok_or_else(missing)?;
    let bearer = grants::bearer(control, session.by).await.map_err(grants::hidden(Resource::LogSession))?;
    if !tokens::equal(&bearer.secret(control, text, id), secret) || session.expires_at <= now {
        return Err(missing());
    }
    let grant = Grant { bearer, on: Some((session.app, Permission::View)) };
    let held = grants::hold(control, grant).await.map_err(grants::hidden(Resource::LogSession))?;
    Ok((session, held))
}

/// A session while it is read.
#[derive(Debug)]
pub enum Reading {
    Recent(VecDeque<LogFrame>),
    Tail(Tail),
}

impl Reading {
    /// The next line; `None` at the end, which a tail has only when the app goes.
    pub async fn next(&mut self) -> Option<LogFrame> {
        match self {
            Self::Recent(frames) => frames.pop_front(),
            Self::Tail(tail) => tail.next().await,
        }
    }
}

/// Begins to read; after a broken connection from behind the line that was seen last, written at `after`.
pub fn open(control: &Control, session: &Session, resumes: bool) -> Reading {
    let lines = if resumes { MAX_LINES } else { session.lines };
    if session.tail {
        Reading::Tail(control.hub.tail(session.app, session.filter(), lines))
    } else {
        Reading::Recent(control.hub.recent(session.app, &session.filter(), lines).into())
    }
}
