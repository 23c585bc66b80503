//! An app: a name, a stack, an owner.
#![forbid(unsafe_code)]

use super::actor::Actor;
use super::stack::StackName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

super::id! {
    /// An app's id; it stays when the app is renamed.
    AppId
}

/// An app's name: 3 to 30 lower-case letters, digits and dashes, beginning with a letter and not ending in a dash
/// (the pattern of Heroku's Platform API: `^[a-z][a-z0-9-]{1,28}[a-z0-9]$`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(String);

/// Why a text is no app name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppNameError {
    #[error("Name must have 3 to 30 characters, this one has {0}")]
    Length(usize),
    #[error(
        "Name must start with a letter, end with a letter or digit and can only contain lowercase letters, numbers, and dashes"
    )]
    Grammar,
    #[error("Name {0} is reserved")]
    Reserved(String),
}

/// Names that would hide the platform's own host names.
const RESERVED: [&str; 4] = ["api", "git", "www", "localhost"];

impl AppName {
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, AppNameError> {
        let length = text.chars().count();
        if !(3..=30).contains(&length) {
            return Err(AppNameError::Length(length));
        }
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        let last = text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let middle = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !(first && last && middle) {
            return Err(AppNameError::Grammar);
        }
        if RESERVED.contains(&text) {
            return Err(AppNameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// A name in Heroku's manner, `quiet-harbor-48213`, made from 64 random bits.
    pub fn invent(random: u64) -> Self {
        let pick = |words: &[&'static str], shift: u32| {
            words[usize::try_from((random >> shift) & 0xffff).unwrap_or(0) % words.len()]
        };
        Self(format!("{}-{}-{:05}", pick(&ADJECTIVES, 0), pick(&NOUNS, 16), (random >> 32) % 100_000))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const ADJECTIVES: [&str; 24] = [
    "ancient",
    "autumn",
    "blooming",
    "bold",
    "calm",
    "cold",
    "damp",
    "evening",
    "floating",
    "frosty",
    "gentle",
    "glacial",
    "hidden",
    "hollow",
    "late",
    "misty",
    "morning",
    "patient",
    "quiet",
    "silent",
    "snowy",
    "still",
    "wandering",
    "winter",
];
const NOUNS: [&str; 24] = [
    "bamboo", "brook", "cherry", "cicada", "cloud", "crane", "dawn", "dew", "field", "firefly", "frog", "harbor",
    "heron", "lantern", "leaf", "meadow", "moon", "mountain", "pine", "pond", "rain", "river", "temple", "willow",
];

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AppName {
    type Err = AppNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AppName {
    type Error = AppNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.0
    }
}

/// One app as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    pub id: AppId,
    pub name: AppName,
    pub owner: Actor,
    /// The stack that new builds use.
    pub stack: StackName,
    /// Its owner has chosen it; otherwise an `app.json` may, at the first deploy.
    pub stack_chosen: bool,
    pub maintenance: bool,
    /// No administrator joins it by himself.
    pub locked: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When code was released last.
    pub released_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_herokus_pattern() {
        for good in ["abc", "my-app", "a-1", "a234567890123456789012345678-0"] {
            assert!(AppName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "Abc", "1abc", "abc-", "-abc", "a_b", "über", "a.b", "a234567890123456789012345678901"] {
            assert!(AppName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(AppName::parse("git"), Err(AppNameError::Reserved("git".into())));
    }

    proptest! {
        #[test]
        fn invented_names_are_valid(random: u64) {
            let name = AppName::invent(random);
            prop_assert_eq!(AppName::parse(name.as_str()), Ok(name));
        }
    }
}
