//! What a token is good for: Heroku's scopes.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// `read` and `write` leave out what is protected: config vars, what shows them, and what may hold passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Global,
    Identity,
    Read,
    ReadProtected,
    Write,
    WriteProtected,
}

impl Scope {
    pub const ALL: [Self; 6] =
        [Self::Global, Self::Identity, Self::Read, Self::ReadProtected, Self::Write, Self::WriteProtected];

    pub fn word(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Identity => "identity",
            Self::Read => "read",
            Self::ReadProtected => "read-protected",
            Self::Write => "write",
            Self::WriteProtected => "write-protected",
        }
    }

    /// Whoever may write may read, and whoever may anything may know who he is.
    fn includes(self, needed: Self) -> bool {
        match self {
            Self::Global => true,
            Self::WriteProtected => needed != Self::Global,
            Self::Write => matches!(needed, Self::Write | Self::Read | Self::Identity),
            Self::ReadProtected => matches!(needed, Self::ReadProtected | Self::Read | Self::Identity),
            Self::Read => matches!(needed, Self::Read | Self::Identity),
            Self::Identity => needed == Self::Identity,
        }
    }
}

/// The scopes of one token, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}; use global, identity, read, write, read-protected or write-protected")]
pub struct UnknownScope(String);

impl Default for Scopes {
    fn default() -> Self {
        Self(vec![Scope::Global])
    }
}

impl Scopes {
    /// None at all are all.
    ///
    /// # Errors
    /// When a word is no scope.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownScope> {
        let known = |word: &str| Scope::ALL.into_iter().find(|scope| scope.word() == word);
        let found =
            words.into_iter().map(|word| known(word).ok_or_else(|| UnknownScope(word.chars().take(40).collect())));
        let mut scopes = found.collect::<Result<Vec<_>, _>>()?;
        scopes.sort_unstable();
        scopes.dedup();
        Ok(if scopes.is_empty() { Self::default() } else { Self(scopes) })
    }

    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|scope| scope.word())
    }

    pub fn permit(&self, needed: Scope) -> bool {
        self.0.iter().any(|scope| scope.includes(needed))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::parse(text.split(','))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_permits_what_it_says() {
        let permits = |words: &str| {
            let scopes: Scopes = words.parse().unwrap();
            Scope::ALL
                .into_iter()
                .filter(|needed| scopes.permit(*needed))
                .map(Scope::word)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(permits("global"), "global identity read read-protected write write-protected");
        assert_eq!(permits("identity"), "identity");
        assert_eq!(permits("read"), "identity read");
        assert_eq!(permits("read-protected"), "identity read read-protected");
        assert_eq!(permits("write"), "identity read write");
        assert_eq!(permits("write-protected"), "identity read read-protected write write-protected");
        assert_eq!(permits("write,read-protected"), "identity read read-protected write");
    }

    #[test]
    fn scopes_are_words_and_none_are_all() {
        assert_eq!("write,read,write".parse::<Scopes>().unwrap().to_string(), "read,write");
        assert_eq!(Scopes::parse([]).unwrap(), Scopes::default());
        assert!("read,everything".parse::<Scopes>().is_err() && "".parse::<Scopes>().is_err());
    }
}
