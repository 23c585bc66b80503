//! Log sessions: a URL that shows one app's log to whoever has it, for a while.
//!
//! The URL itself says what it shows, and is signed; so the server keeps nothing, and a session outlives a restart.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource, tokens};
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
    pub lines: usize,
    pub tail: bool,
    pub source: Option<Source>,
    /// A dyno or a process type.
    pub process: Option<String>,
    pub expires_at: Timestamp,
}

impl Session {
    pub fn new(app: AppId, filter: LogFilter, lines: Option<usize>, tail: bool, now: Timestamp) -> Self {
        let LogFilter { source, process } = filter;
        let lines = lines.unwrap_or(DEFAULT_LINES).min(MAX_LINES);
        let expires_at = now + jiff::SignedDuration::from_secs(LIFETIME_SECONDS);
        Self { app, lines, tail, source, process, expires_at }
    }

    fn filter(&self) -> LogFilter {
        LogFilter { source: self.source, process: self.process.clone() }
    }
}

/// The last part of the session's URL.
pub fn ticket(control: &Control, id: Uuid, session: &Session) -> String {
    let text = hex::encode(serde_json::to_vec(session).expect("a session is always JSON"));
    let secret = control.store.secret(&text, id);
    format!("{id}-{secret}-{text}")
}

/// The session of a ticket that is real and has not expired.
///
/// # Errors
/// Otherwise.
pub fn session(control: &Control, ticket: &str, now: Timestamp) -> Result<Session, ControlError> {
    let read = || -> Option<Session> {
        let (id, rest) = ticket.split_at_checked(36)?;
        let (secret, text) = rest.strip_prefix('-')?.split_once('-')?;
        if !tokens::equal(&control.store.secret(text, id.parse().ok()?), secret) {
            return None;
        }
        serde_json::from_slice(&hex::decode(text).ok()?).ok()
    };
    read().filter(|session| session.expires_at > now).ok_or(ControlError::NotFound(Resource::LogSession))
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
