//! A dyno: one running thing. `web.1`, `run.4821`, `release.77` and `build.9` are the same mechanism.
//!
//! ```text
//!             Ready                Exited
//!  Starting ─────────▶ Up ─────────────────────┐
//!     │  │             │ StopAsked              │ formation dynos: Crashed
//!     │  └─────────────┼──────────▶ Stopping ───┤ one-off dynos:   Complete
//!     │  StopAsked     │               Exited   │ after Stopping:  Gone
//!     └────────────────┴───────────────────────▶┘
//!        Exited, LaunchFailed
//! ```
#![forbid(unsafe_code)]

use super::procfile::ProcessType;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

super::id! {
    /// One launch of a dyno; a restarted `web.1` has a new one.
    DynoId
}

/// `web.1`: process type and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DynoName {
    pub kind: ProcessType,
    pub number: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a dyno name; dynos are called like web.1 or run.4821")]
pub struct DynoNameError(pub String);

impl DynoName {
    pub fn new(kind: ProcessType, number: u32) -> Self {
        Self { kind, number }
    }
}

impl fmt::Display for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.number)
    }
}

impl FromStr for DynoName {
    type Err = DynoNameError;
    fn from_str(text: &str) -> Result<Self, DynoNameError> {
        let wrong = || DynoNameError(text.to_owned());
        let (kind, number) = text.rsplit_once('.').ok_or_else(wrong)?;
        let kind = ProcessType::parse(kind).map_err(|_| wrong())?;
        let number = number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        Ok(Self { kind, number })
    }
}

impl TryFrom<String> for DynoName {
    type Error = DynoNameError;
    fn try_from(text: String) -> Result<Self, DynoNameError> {
        text.parse()
    }
}

impl From<DynoName> for String {
    fn from(name: DynoName) -> Self {
        name.to_string()
    }
}

/// What a dyno is for; it decides what becomes of it when its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Part of the formation: kept running.
    Formation,
    /// `hokku run`.
    Run,
    /// The release phase of one release.
    Release,
    /// One build.
    Build,
}

/// How a dyno's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status; 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel ended it because memory was used up: the dyno's, or, if `box_full`, that of all dynos together.
    pub oom: bool,
    #[serde(default)]
    pub box_full: bool,
    pub at: Timestamp,
}

impl Exit {
    pub fn success(&self) -> bool {
        self.code == 0 && self.signal.is_none()
    }
}

/// Where a dyno is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum DynoState {
    Starting {
        since: Timestamp,
    },
    /// Web: the port accepts. Others: the process runs.
    Up {
        since: Timestamp,
    },
    /// Told to stop; no longer gets requests.
    Stopping {
        since: Timestamp,
    },
    /// Ended though it was wanted; restarted after a back-off that grows with `streak`.
    Crashed {
        at: Timestamp,
        streak: u32,
        exit: Option<Exit>,
    },
    /// A one-off dyno that ran to its end.
    Complete {
        exit: Exit,
    },
    /// Stopped as asked; only its record is left.
    Gone,
}

/// What happens to a dyno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynoEvent {
    Ready,
    StopAsked,
    Exited(Exit),
    LaunchFailed,
}

/// A dyno that ran this long before it crashed begins a new streak.
const STEADY_SECONDS: i64 = 300;

impl DynoState {
    /// The only way from one state to the next. `streak` is the number of crashes in a row before this launch.
    #[must_use]
    pub fn on(self, event: DynoEvent, purpose: Purpose, streak: u32, now: Timestamp) -> Self {
        match (self, event) {
            (Self::Starting { .. }, DynoEvent::Ready) => Self::Up { since: now },
            (Self::Starting { .. } | Self::Up { .. }, DynoEvent::StopAsked) => Self::Stopping { since: now },
            (Self::Stopping { .. }, DynoEvent::Exited(exit)) if purpose != Purpose::Formation => {
                Self::Complete { exit }
            }
            (Self::Stopping { .. }, DynoEvent::Exited(_) | DynoEvent::LaunchFailed) => Self::Gone,
            (Self::Starting { .. }, DynoEvent::LaunchFailed) => {
                Self::Crashed { at: now, streak: streak + 1, exit: None }
            }
            (Self::Starting { .. } | Self::Up { .. }, DynoEvent::Exited(exit)) if purpose == Purpose::Formation => {
                let steady = matches!(self, Self::Up { since } if (now - since).get_seconds() >= STEADY_SECONDS);
                Self::Crashed { at: now, streak: if steady { 1 } else { streak + 1 }, exit: Some(exit) }
            }
            (Self::Starting { .. } | Self::Up { .. }, DynoEvent::Exited(exit)) => Self::Complete { exit },
            (state, _) => state,
        }
    }

    /// There is a process, or soon will be.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Up { .. } | Self::Stopping { .. })
    }

    /// The word that `ps` and the API use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Up { .. } => "up",
            Self::Stopping { .. } | Self::Gone => "down",
            Self::Crashed { .. } => "crashed",
            Self::Complete { .. } => "complete",
        }
    }

    /// When it came into this state.
    pub fn since(self) -> Option<Timestamp> {
        match self {
            Self::Starting { since } | Self::Up { since } | Self::Stopping { since } => Some(since),
            Self::Crashed { at, .. } => Some(at),
            Self::Complete { exit } => Some(exit.at),
            Self::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exit(code: i32) -> Exit {
        Exit { code, signal: None, oom: false, box_full: false, at: at(9) }
    }

    #[test]
    fn names_are_type_and_number() {
        assert_eq!("web.1".parse::<DynoName>().unwrap().to_string(), "web.1");
        for bad in ["web", "web.", ".1", "web.0", "web.x", "we b.1"] {
            assert!(bad.parse::<DynoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_formation_dyno_that_ends_has_crashed_and_counts() {
        let up = DynoState::Starting { since: at(0) }.on(DynoEvent::Ready, Purpose::Formation, 2, at(1));
        assert_eq!(up, DynoState::Up { since: at(1) });
        let crashed = up.on(DynoEvent::Exited(exit(0)), Purpose::Formation, 2, at(9));
        assert_eq!(crashed, DynoState::Crashed { at: at(9), streak: 3, exit: Some(exit(0)) });
        let later = up.on(DynoEvent::Exited(exit(1)), Purpose::Formation, 2, at(400));
        assert_eq!(later, DynoState::Crashed { at: at(400), streak: 1, exit: Some(exit(1)) });
    }

    #[test]
    fn a_stopped_dyno_is_gone_and_a_one_off_is_complete() {
        let stopping = DynoState::Up { since: at(0) }.on(DynoEvent::StopAsked, Purpose::Formation, 0, at(1));
        assert_eq!(stopping.on(DynoEvent::Exited(exit(143)), Purpose::Formation, 0, at(2)), DynoState::Gone);
        let up = DynoState::Up { since: at(0) };
        assert_eq!(up.on(DynoEvent::Exited(exit(3)), Purpose::Run, 0, at(2)), DynoState::Complete { exit: exit(3) });
    }

    #[test]
    fn final_states_stay() {
        for state in [DynoState::Gone, DynoState::Complete { exit: exit(0) }] {
            for event in [DynoEvent::Ready, DynoEvent::StopAsked, DynoEvent::Exited(exit(1)), DynoEvent::LaunchFailed] {
                assert_eq!(state.on(event, Purpose::Run, 0, at(5)), state);
            }
        }
    }
}
