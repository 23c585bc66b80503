//! The host names at which an app is reached.
#![forbid(unsafe_code)]

use super::app::AppId;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// A host name of DNS in lower case, with two labels or more; the first may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(String);

/// Why a text is no host name that an app could have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error(
        "{0:?} is not a host name: it has labels of letters, digits and dashes, separated by dots, like www.example.com \
         or *.example.com"
    )]
    Grammar(String),
    #[error("{0} is an address and not a host name")]
    Address(String),
}

/// So long may the name be that DNS has.
const MAX: usize = 253;

impl Hostname {
    /// Letters of other alphabets have to come in their ASCII form, `xn--…`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let name = text.to_ascii_lowercase();
        let grammar = || HostnameError::Grammar(text.chars().take(MAX).collect());
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(HostnameError::Address(name));
        }
        let rest = name.strip_prefix("*.").unwrap_or(&name);
        let label = |label: &str| {
            let fine = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            fine && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        // The last label of an address written in a way of its own would be a number.
        let number = rest.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > MAX || number || !rest.contains('.') || !rest.split('.').all(label) {
            return Err(grammar());
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `domain` or below it, or stands for names that are.
    pub fn is_of(&self, domain: &str) -> bool {
        let name = self.0.strip_prefix("*.").unwrap_or(&self.0);
        let below = |name: &str, domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let stands_for_it = name.len() != self.0.len() && below(domain, name);
        name == domain || below(name, domain) || stands_for_it
    }
}

/// The names with `*` that would stand for `host`, the nearest first.
pub fn wildcards(host: &str) -> impl Iterator<Item = String> + '_ {
    host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]))
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        Self::parse(text)
    }
}

/// A host name that an app was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub id: Uuid,
    pub app: AppId,
    pub hostname: Hostname,
    pub created_at: Timestamp,
    /// Whose certificate is shown for it; none: the instance's own.
    pub sni_endpoint: Option<Uuid>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_names_are_told_from_everything_else() {
        for good in ["www.example.com", "example.com", "*.example.com", "xn--bcher-kva.example", "a-1.b2.co"] {
            assert_eq!(Hostname::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Hostname::parse("WWW.Example.COM").unwrap().as_str(), "www.example.com");
        let long = format!("{}.com", "a.".repeat(130));
        for bad in [
            "",
            "com",
            "*",
            "*.com",
            ".example.com",
            "example.com.",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "bücher.de",
            "http://a.com",
            "a.com:80",
            "a.*.com",
            "www.*",
            "10.0.0.1",
            "1.2.3",
            "::1",
            "a b.com",
            "a.com\n",
            &long,
        ] {
            assert!(Hostname::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_the_platform_are_recognized() {
        let of = |name: &str| Hostname::parse(name).unwrap().is_of("apps.example.com");
        for own in
            ["apps.example.com", "shop.apps.example.com", "*.apps.example.com", "*.x.apps.example.com", "*.example.com"]
        {
            assert!(of(own), "{own}");
        }
        for other in ["example.com", "www.example.com", "myapps.example.com", "*.www.example.com", "apps.example.org"] {
            assert!(!of(other), "{other}");
        }
    }

    #[test]
    fn the_nearest_wildcard_comes_first() {
        let found: Vec<String> = wildcards("a.b.example.com").collect();
        assert_eq!(found, ["*.b.example.com", "*.example.com", "*.com"]);
        assert_eq!(wildcards("localhost").count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_stays_as_it_is(text in ".{0,40}") {
            if let Ok(name) = Hostname::parse(&text) {
                prop_assert_eq!(Hostname::parse(name.as_str()), Ok(name));
            }
        }
    }
}
