//! The nouns of hokku and the decisions made about them.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. Time and ids come in as arguments, decisions go
//! out as data ([`plan`], [`route`]), and a value that exists is a valid one (parse once at the edge, pass the type on).
#![forbid(unsafe_code)]

pub mod access;
pub mod actor;
pub mod addon;
pub mod app;
pub mod backoff;
pub mod build;
pub mod config_vars;
pub mod drain;
pub mod dyno;
pub mod egress;
pub mod feature;
pub mod formation;
pub mod hostname;
pub mod instance;
pub mod limits;
pub mod log;
pub mod oauth;
pub mod pipeline;
pub mod plan;
pub mod procfile;
pub mod release;
pub mod route;
pub mod scope;
pub mod slug;
pub mod sni_endpoint;
pub mod stack;

/// A UUID that says what it identifies, so that an app's id can never be passed for a release's.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}
pub(crate) use id;
