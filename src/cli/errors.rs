//! What a command says when it fails: what happened, and what to do. All wording for errors of the client is here.
#![forbid(unsafe_code)]

use crate::client::{ClientError, Refusal, Server, StatusCode};
use std::error::Error;
use std::io;

/// Exit statuses; the help text lists them too.
pub(super) mod status {
    pub(in crate::cli) const OK: u8 = 0;
    pub(in crate::cli) const ERROR: u8 = 1;
    pub(in crate::cli) const USAGE: u8 = 2;
    pub(in crate::cli) const NOT_LOGGED_IN: u8 = 100;
    pub(in crate::cli) const INTERRUPTED: u8 = 130;
}

/// Why a command ends early.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    /// `None` when everything has been said.
    text: Option<String>,
    hints: Vec<String>,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { status: status::ERROR, text: Some(text.into()), hints: Vec::new() }
    }

    /// The command was not written as it must be.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { status: status::USAGE, ..Self::new(text) }
    }

    /// Ends with `status` without a further word.
    pub(super) fn silent(status: u8) -> Self {
        Self { status, text: None, hints: Vec::new() }
    }

    pub(super) fn interrupted() -> Self {
        Self::silent(status::INTERRUPTED)
    }

    pub(super) fn not_logged_in() -> Self {
        Self { status: status::NOT_LOGGED_IN, ..Self::new("Not logged in: HOKKU_API_KEY is not set") }
            .hint("get a token on the server's box with: sudo hokku auth:token")
    }

    /// stdout can't be written. Whoever closed the pipe has seen enough; that is no error.
    pub(super) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(status::OK),
            _ => Self::new(format!("stdout can't be written: {error}")),
        }
    }

    /// Something on this machine, by what was tried.
    pub(super) fn local(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{what}: {error}"))
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(super) fn status(&self) -> u8 {
        self.status
    }

    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    pub(super) fn hints(&self) -> impl Iterator<Item = &str> {
        self.hints.iter().map(String::as_str)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(chain(&error));
        match &error {
            ClientError::Refused(refusal) => refused(refusal),
            ClientError::NoInstance { root } => failure
                .hint(format!("start one with: hokku server --root {}", root.display()))
                .hint("or say where it is, with --root DIR or HOKKU_ROOT, or HOKKU_HOST and HOKKU_API_KEY"),
            ClientError::NotListening { server: Server::Socket(_), .. } => {
                failure.hint("the instance is not running; start it with: hokku server --root DIR")
            }
            ClientError::NotListening { .. } | ClientError::Unreachable { .. } => {
                failure.hint("check the address in --host or HOKKU_HOST, and that the server runs")
            }
            ClientError::Denied { .. } => by_root(failure),
            ClientError::Record { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => by_root(failure),
            ClientError::Untrusted { .. } => {
                failure.hint("copy the server's ROOT/ca.pem here by a safe way and name the copy in HOKKU_CA")
            }
            ClientError::Broken(_) => failure.hint("the server may have been restarted; try again"),
            ClientError::Answer(_) => failure.hint("is that address a hokku server's, of the same version?"),
            ClientError::Header => failure.hint("look for odd characters in HOKKU_API_KEY"),
            _ => failure,
        }
    }
}

fn by_root(failure: Failure) -> Failure {
    failure.hint("only root may use the server's socket: use sudo, or set HOKKU_HOST and HOKKU_API_KEY")
}

fn refused(refusal: &Refusal) -> Failure {
    let failure = Failure::new(super::output::plain(&refusal.message));
    let failure = match &refusal.url {
        Some(url) => failure.hint(format!("see {}", super::output::plain(url))),
        None => failure,
    };
    match (refusal.status, refusal.resource.as_deref()) {
        // Every error of the API has an id.
        _ if refusal.id.is_empty() => failure
            .hint("that address does not answer like a hokku API; is it the router's port? hokku env tells the API's"),
        (StatusCode::UNAUTHORIZED, _) => Failure { status: status::NOT_LOGGED_IN, ..failure }
            .hint("the server does not know the token in HOKKU_API_KEY; get one there with: sudo hokku auth:token"),
        (StatusCode::NOT_FOUND, Some("app")) => failure.hint("list the apps with: hokku apps"),
        (StatusCode::NOT_FOUND, Some("dyno" | "process type" | "formation")) => {
            failure.hint("list the dynos with: hokku ps")
        }
        _ => failure,
    }
}

/// An error with all its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
