//! The platform's lines about an app's dynos, in Heroku's words, so that people and tools recognise them.
#![forbid(unsafe_code)]

use crate::domain::dyno::{DynoName, Exit};
use crate::domain::log::{LogFrame, Source};
use crate::dyno::Shortage;
use jiff::Timestamp;

/// `heroku[web.1]: …`
pub(super) fn of_dyno(name: &DynoName, line: impl Into<String>) -> LogFrame {
    LogFrame::platform(Timestamp::now(), Source::Heroku, name.to_string(), line)
}

/// `app[api]: …`
pub(super) fn of_api(line: impl Into<String>) -> LogFrame {
    LogFrame::platform(Timestamp::now(), Source::App, "api", line)
}

pub(super) fn changed(from: &str, to: &str) -> String {
    format!("State changed from {from} to {to}")
}

pub(super) fn exited(exit: &Exit) -> String {
    format!("Process exited with status {}", exit.code)
}

/// Behind it comes the router's line that says how many requests waited, and how long.
pub(super) const HOLDING: &str = "Holding requests while it is replaced";

/// Why an app's web dynos are swapped though nobody asked for it.
pub(super) fn no_room(shortage: &Shortage) -> String {
    const MIB: u64 = 1024 * 1024;
    let Shortage { needed, left } = shortage;
    format!(
        "Web dynos are stopped before they are replaced: a second copy takes {} MB of memory, {} MB are left",
        needed / MIB,
        left / MIB
    )
}

pub(super) fn in_memory(why: &str) -> String {
    format!("What it writes is kept in memory, and counts as that: {why}")
}

/// `Process running mem=527M(103.0%)`
pub(super) fn memory(bytes: u64, quota: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    // In thousandths, rounded, without a float.
    let share = (bytes * 1000 + quota / 2) / quota.max(1);
    format!("Process running mem={}M({}.{}%)", bytes / MIB, share / 10, share % 10)
}

pub(super) fn less_disk(bytes: u64, wanted: u64) -> String {
    let (bytes, wanted) = (bytes >> 20, wanted >> 20);
    format!("It may write {bytes} MB instead of {wanted} MB, because the disk of the box has no room for more")
}

pub(super) fn disk_full(bytes: u64) -> String {
    let megabytes = bytes >> 20;
    format!(
        "Stopping process with SIGKILL: the disk of the box is nearly full, and of all dynos this one has written most, {megabytes} MB"
    )
}

pub(super) const R10: &str =
    "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch";
pub(super) const R12: &str =
    "Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM";
pub(super) const R13: &str = "Error R13 (Attach error) -> Failed to attach to process";
pub(super) const R14: &str = "Error R14 (Memory quota exceeded)";
pub(super) const R15: &str = "Error R15 (Memory quota vastly exceeded)";
/// Not its own memory: that of all together.
pub(super) const BOX_FULL: &str = "Error R15 (Memory quota vastly exceeded) -> Not of the dyno but of the box: apps and builds had all the memory that they may use together, and this dyno had most of it";
pub(super) const STOPPING: &str = "Stopping all processes with SIGTERM";
pub(super) const EVICTED: &str = "Stopping: the access that it was started with has ended";
pub(super) const KILLING: &str = "Stopping remaining processes with SIGKILL";

/// Why a release failed, for people.
pub(super) fn did_not_boot(name: &DynoName, exit: Option<&Exit>, timed_out: bool, message: Option<&str>) -> String {
    match (exit, message) {
        _ if timed_out => format!("{name} did not listen on $PORT within 60 seconds (R10)"),
        (Some(exit), _) if exit.box_full => {
            format!("{name} was ended because the box has no memory left for apps (R15)")
        }
        (Some(exit), _) if exit.oom => format!("{name} used more memory than its size has (R15)"),
        (Some(exit), _) => {
            format!("{name} exited with status {} before it listened on $PORT{}", exit.code, of_the_shell(exit))
        }
        (None, Some(message)) => format!("{name} could not be started: {message}"),
        (None, None) => format!("{name} could not be started"),
    }
}

pub(super) fn phase_failed(exit: Option<&Exit>, message: Option<&str>) -> String {
    match (exit, message) {
        (Some(exit), _) => format!("the release command exited with status {}{}", exit.code, of_the_shell(exit)),
        (None, Some(message)) => format!("the release command could not be started: {message}"),
        (None, None) => "the release command could not be started".to_owned(),
    }
}

/// What a status stands for by which a shell says that it could not run something (POSIX, Shell Command Language 2.8.2).
fn of_the_shell(exit: &Exit) -> &'static str {
    match exit.code {
        127 => {
            ", which means that a command was not found: look for a typing error in the Procfile, and whether the app has that program"
        }
        126 => ", which means that a command can't be executed: make its file executable (git update-index --chmod=+x)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_as_heroku_does() {
        assert_eq!(memory(552_599_552, 536_870_912), "Process running mem=527M(102.9%)");
        assert_eq!(memory(1 << 30, 1 << 29), "Process running mem=1024M(200.0%)");
    }
}
