//! OAuth clients: programs that somebody has registered, with a secret of their own.
#![forbid(unsafe_code)]

use super::actor::AccountId;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

const LONGEST_NAME: usize = 100;
const LONGEST_URI: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthClient {
    pub id: Uuid,
    pub account: AccountId,
    pub name: ClientName,
    pub redirect_uri: RedirectUri,
    pub secret: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OauthError {
    #[error("a client's name is a line of 1 to {LONGEST_NAME} characters")]
    Name,
    #[error("redirect_uri has to be a URL such as https://example.com/callback, without blanks, user or fragment")]
    RedirectUri,
    #[error("redirect_uri has to be https, unless it leads to localhost or a private network")]
    Insecure,
}

/// What people call it; not unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(String);

impl ClientName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = OauthError;
    fn from_str(text: &str) -> Result<Self, OauthError> {
        let text = text.trim();
        let fits = (1..=LONGEST_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(OauthError::Name) }
    }
}

/// Where a client's users would come back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(String);

impl RedirectUri {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RedirectUri {
    type Err = OauthError;
    /// By the rule that Heroku's CLI has too.
    fn from_str(text: &str) -> Result<Self, OauthError> {
        let (scheme, rest) = text.split_once("://").ok_or(OauthError::RedirectUri)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
        let fits = text.len() <= LONGEST_URI
            && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b))
            && !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
            && port.parse::<u16>().is_ok();
        match scheme {
            "https" if fits => Ok(Self(text.to_owned())),
            "http" if fits && is_near(host) => Ok(Self(text.to_owned())),
            "http" if fits => Err(OauthError::Insecure),
            _ => Err(OauthError::RedirectUri),
        }
    }
}

/// A host that is reached without leaving the machine or its network.
fn is_near(host: &str) -> bool {
    let private = || host.parse::<std::net::Ipv4Addr>().is_ok_and(|at| at.is_loopback() || at.is_private());
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.strip_suffix(".local").is_some_and(|name| !name.is_empty()) || private()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_to_come_back_to_are_closed_unless_they_are_near() {
        for good in [
            "https://example.com/auth/callback?a=b",
            "https://example.com:8443",
            "http://localhost:3000/x",
            "http://127.0.0.1/",
            "http://192.168.1.7:80/",
            "http://box.local/x",
        ] {
            assert_eq!(good.parse::<RedirectUri>().map(|uri| uri.to_string()), Ok(good.to_owned()));
        }
        for open in ["http://example.com/", "http://10.example.com/", "http://8.8.8.8/", "http://localhost.example.com"]
        {
            assert_eq!(open.parse::<RedirectUri>(), Err(OauthError::Insecure), "{open}");
        }
        let long = format!("https://a/{}", "x".repeat(LONGEST_URI));
        for wrong in [
            "",
            "example.com",
            "javascript://alert(1)",
            "https://",
            "https://:1/",
            "https://a:b@example.com/",
            "https://example.com/#x",
            "https://exa mple.com/",
            "https://a:99999/",
            "https://a/\n",
            "https://é.example/",
            &long,
        ] {
            assert_eq!(wrong.parse::<RedirectUri>(), Err(OauthError::RedirectUri), "{wrong}");
        }
        for wrong in ["", " ", "a\nb", &"x".repeat(101)] {
            assert!(wrong.parse::<ClientName>().is_err(), "{wrong:?}");
        }
        assert_eq!(" Amazing ".parse::<ClientName>().unwrap().as_str(), "Amazing");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept_as_it_is(text in "\\PC{0,60}|https?://[a-z0-9.:/?#@ -]{0,40}") {
            if let Ok(uri) = text.parse::<RedirectUri>() {
                prop_assert_eq!(uri.as_str(), text);
            }
        }
    }
}
