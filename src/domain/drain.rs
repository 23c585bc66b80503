//! Drains: where an app's log is sent beside being kept, and in which form.
#![forbid(unsafe_code)]

use super::app::AppId;
use super::log::{LogFrame, Source};
use jiff::Timestamp;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use uuid::Uuid;

/// A drain as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    pub id: Uuid,
    pub app: AppId,
    /// `d.` and a UUID: by this the receiver knows it.
    pub token: String,
    pub url: DrainUrl,
    pub created_at: Timestamp,
}

/// `syslog://HOST:PORT`, `syslog+tls://HOST:PORT`, `https://[USER:PASSWORD@]HOST[:PORT]/PATH`, or the same with `http`.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainUrl {
    written: String,
    pub way: Way,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// `USER:PASSWORD` as it was written.
    pub credentials: Option<String>,
    /// Path and query; `/` at least.
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Syslog { tls: bool },
    Http { tls: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; a drain is syslog://HOST:PORT, syslog+tls://HOST:PORT or https://HOST/PATH")]
pub struct DrainUrlError(&'static str);

const MAX: usize = 2000;

impl DrainUrl {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, DrainUrlError> {
        if text.len() > MAX {
            return Err(DrainUrlError("the URL is longer than 2000 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(DrainUrlError("the URL has characters that have to be written as %XX"));
        }
        let (scheme, rest) = text.split_once("://").ok_or(DrainUrlError("that is not a URL"))?;
        let (way, usual) = match scheme.to_ascii_lowercase().as_str() {
            "syslog" => (Way::Syslog { tls: false }, 514),
            "syslog+tls" => (Way::Syslog { tls: true }, 6514),
            "http" => (Way::Http { tls: false }, 80),
            "https" => (Way::Http { tls: true }, 443),
            _ => return Err(DrainUrlError("the URL has another scheme")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials.to_owned()), place),
            None => (None, authority),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| DrainUrlError("the URL's port is not one"))?)
            }
            _ => (place, usual),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
                inner.ok_or(DrainUrlError("the URL's host is no IPv6 address"))?
            }
            None => host,
        };
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(letter) || port == 0 {
            return Err(DrainUrlError("the URL has no host"));
        }
        let syslog = matches!(way, Way::Syslog { .. });
        if syslog && (credentials.is_some() || !matches!(path, "" | "/")) {
            return Err(DrainUrlError("a syslog URL has a host and a port only"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { written: text.to_owned(), way, host: host.to_ascii_lowercase(), port, credentials, path })
    }

    /// As it was written, with its password.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}:{}", self.way, self.host, self.port)
    }
}

impl FromStr for DrainUrl {
    type Err = DrainUrlError;
    fn from_str(text: &str) -> Result<Self, DrainUrlError> {
        Self::parse(text)
    }
}

/// One line as Heroku's drains send it, RFC 5424 without structured data, with its length in front (RFC 6587):
/// `64 <190>1 2026-11-22T17:02:45.259000+00:00 d.… app web.1 - text`.
pub fn syslog(frame: &LogFrame, host: &str) -> String {
    let at = frame.at.strftime("%Y-%m-%dT%H:%M:%S");
    let micros = frame.at.subsec_nanosecond() / 1000;
    let (priority, source) = (priority(frame), frame.source.word());
    let mut text = format!("<{priority}>1 {at}.{micros:06}+00:00 {host} {source} {} - ", frame.process);
    let _ = writeln!(text, "{}", frame.line);
    format!("{} {text}", text.len())
}

/// Facility and severity: local7, local3 and local0 are those that Heroku uses, all of them at `info`.
fn priority(frame: &LogFrame) -> u8 {
    const INFO: u8 = 6;
    let facility = match (frame.source, frame.process.as_str()) {
        (Source::App, "api") => 16,
        (Source::App, _) => 23,
        (Source::Heroku, "router") => 19,
        (Source::Heroku, _) => 16,
    };
    facility * 8 + INFO
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_ways_are_read() {
        let read = |text: &str| {
            let url = DrainUrl::parse(text).unwrap();
            assert_eq!(url.as_str(), text);
            (url.way, url.host, url.port, url.credentials, url.path)
        };
        let host = || "logs.example.com".to_owned();
        assert_eq!(
            read("syslog://logs.example.com:1234"),
            (Way::Syslog { tls: false }, host(), 1234, None, "/".into())
        );
        assert_eq!(read("syslog+tls://LOGS.example.com"), (Way::Syslog { tls: true }, host(), 6514, None, "/".into()));
        let secret = Some("u:p@ss".to_owned());
        assert_eq!(
            read("https://u:p@ss@logs.example.com/in?x=1#y"),
            (Way::Http { tls: true }, host(), 443, secret, "/in?x=1".into())
        );
        assert_eq!(read("http://[::1]:8080?a"), (Way::Http { tls: false }, "::1".into(), 8080, None, "/?a".into()));
    }

    #[test]
    fn other_texts_are_refused() {
        let long = format!("https://a/{}", "x".repeat(MAX));
        for bad in [
            "",
            "logs.example.com:514",
            "ftp://a",
            "syslog://",
            "syslog://a/path",
            "syslog://u:p@a",
            "https://a:b",
            "https://a:0",
            "https://a:70000",
            "https://[::1",
            "https://[x]:1",
            "https://a b/",
            "https://ä/",
            "https://@/",
            &long,
        ] {
            assert!(DrainUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", DrainUrl::parse("https://u:secret@a/secret").unwrap()).contains("secret"));
    }

    #[test]
    fn a_line_has_its_length_in_bytes_in_front() {
        let at = "2026-11-22T17:02:45.259Z".parse().unwrap();
        let line = |source, process: &str| syslog(&LogFrame::platform(at, source, process, "grüß"), "host");
        let text = line(Source::App, "web.1");
        assert_eq!(text, "64 <190>1 2026-11-22T17:02:45.259000+00:00 host app web.1 - grüß\n");
        assert_eq!(text.len(), "64 ".len() + 64);
        assert!(line(Source::Heroku, "router").contains("<158>1 ") && line(Source::App, "api").contains("<134>1 "));
    }

    proptest! {
        #[test]
        fn no_text_is_read_as_another(text in "\\PC{0,60}|(syslog|https?)(\\+tls)?://[a-z0-9.:@/?#\\[\\]-]{0,40}") {
            if let Ok(url) = DrainUrl::parse(&text) {
                prop_assert_eq!(url.as_str(), &text);
                prop_assert!(url.path.starts_with('/') && url.port > 0);
            }
        }
    }
}
