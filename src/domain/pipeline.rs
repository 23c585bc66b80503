//! Pipelines: apps in stages, along which code moves from one to the next without being built again.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::release::{ReleaseId, ReleaseStatus};
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Where an app stands. What can be promoted goes to the next of the last three; `test` and `review` are known to clients
/// and lead to `staging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Test,
    Review,
    Development,
    Staging,
    Production,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    #[error("there is no stage {0:?}; use development, staging or production")]
    Stage(String),
    #[error("{0:?} is no name for a pipeline: it begins with a letter and has 2 to 30 of a-z, 0-9 and dashes")]
    Name(String),
}

impl Stage {
    pub const ALL: [Self; 5] = [Self::Test, Self::Review, Self::Development, Self::Staging, Self::Production];

    pub fn word(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Review => "review",
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Stage {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, PipelineError> {
        let known = Self::ALL.into_iter().find(|stage| stage.word() == text);
        known.ok_or_else(|| PipelineError::Stage(text.chars().take(40).collect()))
    }
}

/// A pipeline's name, by Heroku's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineName(String);

impl PipelineName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PipelineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PipelineName {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, PipelineError> {
        let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if letters && (2..=30).contains(&text.len()) && text.as_bytes()[0].is_ascii_lowercase() {
            return Ok(Self(text.to_owned()));
        }
        Err(PipelineError::Name(text.chars().take(40).collect()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    pub id: Uuid,
    pub name: PipelineName,
    pub owner: Uuid,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An app's place in a pipeline; an app is in one at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupling {
    pub id: Uuid,
    pub app: AppId,
    pub pipeline: Uuid,
    pub stage: Stage,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One slug sent to other apps of its pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    pub id: Uuid,
    pub pipeline: Uuid,
    /// The app that it came from, which may be gone by now.
    pub app: AppId,
    pub release: ReleaseId,
    pub created_at: Timestamp,
}

/// What a promotion made of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: Uuid,
    pub promotion: Uuid,
    pub app: AppId,
    pub release: ReleaseId,
    /// Of the release; none when the app is gone.
    pub status: Option<ReleaseStatus>,
    /// Why the release failed.
    pub failure: Option<String>,
}

impl Target {
    pub fn is_pending(&self) -> bool {
        self.status == Some(ReleaseStatus::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_stages_are_as_clients_know_them() {
        for name in ["ab", "my-shop-2"] {
            assert_eq!(name.parse::<PipelineName>().unwrap().as_str(), name);
        }
        for name in ["", "a", "A-b", "2ab", "-ab", "a b", "ä-pipeline", &"a".repeat(31)] {
            assert!(name.parse::<PipelineName>().is_err(), "{name}");
        }
        for stage in Stage::ALL {
            assert_eq!(stage.word().parse(), Ok(stage));
        }
        assert!("live".parse::<Stage>().is_err());
    }
}
