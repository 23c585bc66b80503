//! What a pusher reads, and what the app's log says about a build.
#![forbid(unsafe_code)]

use super::{Inner, Ticket};
use crate::build::room::RoomError;
use crate::build::stage::StageError;
use crate::build::{BuildpackError, ChoiceError, ManifestError, OutcomeError};
use crate::domain::app::AppId;
use crate::domain::build::BuildStatus;
use crate::domain::log::{LogFilter, LogFrame, Source};
use crate::domain::release::{Release, ReleaseError, ReleaseStatus};
use crate::slug::SlugError;
use crate::stack::{LayersError, StackError};
use crate::store::{self, StoreError};
use crate::supervisor::LaunchFailure;
use jiff::Timestamp;
use std::io;

/// Lines of the app's log that are shown when its release failed.
const LAST_LINES: usize = 20;

/// Why there is no release. The text is for the pusher and becomes the build's reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("Build canceled.")]
    Cancelled,
    /// The dyno has said all there is to say.
    #[error("The buildpack failed to compile the app.")]
    Compile,
    #[error("The build ran out of memory: it may use {0} MB.")]
    Memory(u64),
    #[error(
        "The build was ended because apps and builds had all the memory that they may use together on this box. Scale something down and build again."
    )]
    BoxMemory,
    #[error("The build took longer than {0} min and was stopped.")]
    Time(u64),
    #[error(
        "The build was stopped because the disk is nearly full: it left less than {least} MB free below {place}. Remove something there and build again."
    )]
    Disk { least: u64, place: String },
    #[error("The build was stopped by signal {0}.")]
    Signal(i32),
    #[error("The compiled slug has {size}, more than the {limit} MB that are allowed.")]
    Large { size: String, limit: u64 },
    #[error("The build could not be started: {0}")]
    Launch(#[from] LaunchFailure),
    #[error("The source can't be unpacked: {}", chain(.0))]
    Source(#[source] SlugError),
    #[error("The slug can't be packed: {}", chain(.0))]
    Pack(#[source] SlugError),
    #[error(transparent)]
    Room(#[from] RoomError),
    #[error("{}", chain(.0))]
    Stage(#[from] StageError),
    #[error("{}", chain(.0))]
    Stack(#[from] StackError),
    #[error("{}", chain(.0))]
    Layers(#[from] LayersError),
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    #[error(transparent)]
    Buildpack(#[from] BuildpackError),
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("{}", chain(.0))]
    Store(#[from] StoreError),
    #[error("{}", chain(.0))]
    Io(#[from] io::Error),
    #[error("The app was destroyed during the build.")]
    NoApp,
    #[error("The build was interrupted.")]
    Interrupted,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

impl Ticket {
    pub(super) fn say(&self, line: &str) {
        self.output.write(format!("{line}\n").as_bytes());
    }
}

impl Inner {
    /// A line `app[api]: …`.
    pub(super) fn log(&self, app: AppId, line: impl Into<String>) {
        self.parts.hub.write(app, LogFrame::platform(Timestamp::now(), Source::App, "api", line));
    }

    /// Ends a build that made no release.
    pub(super) async fn fail(&self, ticket: &Ticket, failure: &Failure) {
        let reason = failure.to_string();
        if !matches!(failure, Failure::Compile) {
            ticket.say("");
            for line in reason.lines() {
                ticket.say(&format!(" !     {line}"));
            }
            ticket.say("");
        }
        let (id, status) = (ticket.build.id, BuildStatus::Failed { reason: reason.clone() });
        let settled = self.parts.store.write(move |tx| store::builds::settle(tx, id, &status, Timestamp::now()));
        if let Err(error) = settled.await {
            let error: StoreError = error;
            tracing::error!("can't record that build {id} failed: {error}");
        }
        if !matches!(failure, Failure::NoApp) {
            self.log(ticket.build.app, format!("Build failed -- {reason}"));
        }
    }

    /// Tells what became of the release.
    pub(super) fn tell_settled(&self, ticket: &Ticket, release: &Release) {
        let version = release.version;
        match release.status {
            ReleaseStatus::Succeeded => {
                ticket.say(&format!("       Released v{version}"));
                ticket.say(&format!("       {} deployed to hokku", self.settings.web_url(&ticket.request.app.name)));
            }
            ReleaseStatus::Failed => {
                let why = release.failure.as_deref().unwrap_or("it did not start");
                ticket.say("");
                ticket.say(&format!(" !     Release v{version} failed: {why}."));
                self.tell_last_lines(ticket, release);
                ticket.say(" !     The release before it goes on as it was.");
            }
            // The server is going down; the next one goes on with it.
            ReleaseStatus::Pending => ticket.say(&format!("       v{version} is still being released")),
        }
        ticket.say("");
    }

    fn tell_last_lines(&self, ticket: &Ticket, release: &Release) {
        let frames = self.parts.hub.recent(ticket.build.app, &LogFilter::default(), LAST_LINES);
        let since: Vec<_> = frames
            .iter()
            .filter(|frame| frame.at >= release.created_at && frame.process != "router" && frame.process != "api")
            .collect();
        if since.is_empty() {
            return;
        }
        ticket.say(" !     The last lines of its log:");
        for frame in since {
            ticket.say(&format!("       {}[{}]: {}", frame.source.word(), frame.process, frame.line));
        }
    }
}

/// `45.6M`, as Heroku shows the size of a slug.
pub(super) fn human_size(bytes: u64) -> String {
    const UNITS: [(u64, char); 3] = [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => {
            let tenths = bytes * 10 / unit;
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [5, 1024, 47_900_000, 3 << 30].map(human_size);
        assert_eq!(sizes, ["5B", "1.0K", "45.6M", "3.0G"]);
    }
}
