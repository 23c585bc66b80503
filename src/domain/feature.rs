//! What an owner can switch on for an app (Heroku's labs).
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Dynos are told their app, release and code by `HEROKU_…` variables.
    RuntimeDynoMetadata,
    /// Web dynos are replaced one by one, the old one first, however much memory there is.
    HoldAndSwap,
}

impl Feature {
    pub const ALL: [Self; 2] = [Self::RuntimeDynoMetadata, Self::HoldAndSwap];

    pub fn name(self) -> &'static str {
        match self {
            Self::RuntimeDynoMetadata => "runtime-dyno-metadata",
            Self::HoldAndSwap => "hold-and-swap",
        }
    }

    pub fn id(self) -> Uuid {
        match self {
            Self::RuntimeDynoMetadata => Uuid::from_u128(0x686f_6b6b_752d_6665_8001_6174_0000_0001),
            Self::HoldAndSwap => Uuid::from_u128(0x686f_6b6b_752d_6665_8001_6174_0000_0002),
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::RuntimeDynoMetadata => "Tells dynos about their app, release and code in HEROKU_ variables",
            Self::HoldAndSwap => "Replaces web dynos one by one and holds requests meanwhile, to need no memory twice",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no feature {0:?}")]
pub struct UnknownFeature(String);

impl FromStr for Feature {
    type Err = UnknownFeature;
    /// By name or id.
    fn from_str(text: &str) -> Result<Self, UnknownFeature> {
        let is_it = |feature: &Self| feature.name() == text || feature.id().to_string() == text;
        Self::ALL.into_iter().find(is_it).ok_or_else(|| UnknownFeature(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
