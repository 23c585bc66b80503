//! A build: one attempt to turn source into a slug.
#![forbid(unsafe_code)]

use super::actor::Actor;
use super::app::AppId;
use super::release::ReleaseId;
use super::slug::SlugId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

super::id! {
    /// A build's id.
    BuildId
}

/// Where a build is; the last two never change again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum BuildStatus {
    /// Accepted or running.
    Pending,
    Succeeded {
        slug: SlugId,
        release: Option<ReleaseId>,
    },
    /// `reason` is a sentence for people.
    Failed {
        reason: String,
    },
}

impl BuildStatus {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
        }
    }

    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Pending)
    }
}

/// One build as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    pub id: BuildId,
    pub app: AppId,
    pub actor: Actor,
    pub status: BuildStatus,
    /// What the client calls its source, for a push the commit.
    pub source_version: Option<String>,
    /// Buildpack URLs this build was asked for or detected.
    pub buildpacks: Vec<String>,
    pub stack: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
