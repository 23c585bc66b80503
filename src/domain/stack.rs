//! Stacks: what an app finds around its code, and the layers that a Debian stack is made of.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an app's owner chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StackName {
    /// The box's own programs.
    Host,
    /// Debian 13, in layers that are the same on every box.
    Debian13,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no stack {0:?}; the stacks are host and debian-13 (heroku-24 and heroku-22 mean debian-13)")]
pub struct StackNameError(pub String);

impl StackName {
    pub const ALL: [Self; 2] = [Self::Host, Self::Debian13];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Debian13 => "debian-13",
        }
    }

    /// The stack that a slug was compiled on, by the id it keeps: `host-debian-12`, `debian-13`.
    pub fn of_slug(id: &str) -> Self {
        if id == Self::Debian13.as_str() { Self::Debian13 } else { Self::Host }
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StackName {
    type Err = StackNameError;
    /// Takes Heroku's names too, so that an `app.json` or a script from there goes on working.
    fn from_str(text: &str) -> Result<Self, StackNameError> {
        match text {
            "host" => Ok(Self::Host),
            "debian-13" | "heroku-24" | "heroku-22" => Ok(Self::Debian13),
            _ => Err(StackNameError(text.to_owned())),
        }
    }
}

/// A language that a Debian stack has a layer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Clojure,
    Go,
    Java,
    Nodejs,
    Php,
    Python,
    Ruby,
    Scala,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no language {0:?}; there are {list}", list = Language::ALL.map(Language::as_str).join(", "))]
pub struct LanguageError(pub String);

impl Language {
    pub const ALL: [Self; 8] =
        [Self::Clojure, Self::Go, Self::Java, Self::Nodejs, Self::Php, Self::Python, Self::Ruby, Self::Scala];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clojure => "clojure",
            Self::Go => "go",
            Self::Java => "java",
            Self::Nodejs => "nodejs",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Scala => "scala",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = LanguageError;
    fn from_str(text: &str) -> Result<Self, LanguageError> {
        let known = Self::ALL.into_iter().find(|language| language.as_str() == text);
        known.ok_or_else(|| LanguageError(text.to_owned()))
    }
}

/// One part of a Debian stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Layer {
    /// Below all others.
    Base,
    /// In builds only.
    Compilers,
    Language(Language),
}

impl Layer {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Compilers => "compilers",
            Self::Language(language) => language.as_str(),
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Base, Self::Compilers].into_iter().chain(Language::ALL.into_iter().map(Self::Language))
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Layer {
    type Error = LanguageError;
    fn try_from(text: String) -> Result<Self, LanguageError> {
        match text.as_str() {
            "base" => Ok(Self::Base),
            "compilers" => Ok(Self::Compilers),
            language => language.parse().map(Self::Language),
        }
    }
}

impl From<Layer> for String {
    fn from(layer: Layer) -> Self {
        layer.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn herokus_names_mean_debian() {
        for name in ["debian-13", "heroku-24", "heroku-22"] {
            assert_eq!(name.parse(), Ok(StackName::Debian13), "{name}");
        }
        assert_eq!("host".parse(), Ok(StackName::Host));
        let error = "cedar".parse::<StackName>().unwrap_err().to_string();
        assert!(error.starts_with("There is no stack \"cedar\"; the stacks are host and debian-13"), "{error}");
    }

    #[test]
    fn layers_are_read_as_they_are_written() {
        for layer in Layer::all() {
            assert_eq!(Layer::try_from(layer.as_str().to_owned()), Ok(layer));
        }
        let error = Layer::try_from("cobol".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("There is no language \"cobol\"; there are clojure, go,"), "{error}");
    }

    #[test]
    fn a_slugs_stack_is_known_by_its_id() {
        assert_eq!(StackName::of_slug("host-debian-12"), StackName::Host);
        assert_eq!(StackName::of_slug("debian-13"), StackName::Debian13);
    }
}
