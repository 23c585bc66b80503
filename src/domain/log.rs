//! A line of an app's log.
#![forbid(unsafe_code)]

use super::dyno::DynoId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Longer lines are cut into pieces of this many bytes (Heroku's limit).
pub const MAX_LINE: usize = 10_000;

/// Who wrote a line: the app's own processes and the API on its behalf, or the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    App,
    Heroku,
}

impl Source {
    pub fn word(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Heroku => "heroku",
        }
    }
}

/// One line with where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFrame {
    pub at: Timestamp,
    pub source: Source,
    /// `web.1`, `router`, `api`.
    pub process: String,
    /// Without the line's end.
    pub line: String,
    /// Which launch wrote it as its how-manieth line; what a restarted server goes on from without losing or doubling
    /// one. `None` for the platform's own lines.
    pub origin: Option<(DynoId, u64)>,
}

impl LogFrame {
    /// A line of the platform's own.
    pub fn platform(at: Timestamp, source: Source, process: impl Into<String>, line: impl Into<String>) -> Self {
        Self { at, source, process: process.into(), line: line.into(), origin: None }
    }
}

impl std::fmt::Display for LogFrame {
    /// Heroku's line: `2026-11-22T17:02:45.259000+00:00 app[web.1]: text`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let second = self.at.strftime("%Y-%m-%dT%H:%M:%S");
        let micros = self.at.subsec_nanosecond() / 1000;
        write!(f, "{second}.{micros:06}+00:00 {}[{}]: {}", self.source.word(), self.process, self.line)
    }
}

/// Which lines a reader wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    pub source: Option<Source>,
    /// A dyno (`web.1`) or all dynos of a type (`web`).
    pub process: Option<String>,
}

impl LogFilter {
    pub fn matches(&self, frame: &LogFrame) -> bool {
        let process = |wanted: &String| {
            frame.process == *wanted
                || frame.process.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        self.source.is_none_or(|source| source == frame.source) && self.process.as_ref().is_none_or(process)
    }
}

/// Makes a line out of what a program printed: no line end, no control bytes that would break a terminal or a frame,
/// and text only.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\n', '\r']).chars() {
        match c {
            '\t' | '\u{1b}' => line.push(c),
            c if c.is_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: Source, process: &str) -> LogFrame {
        LogFrame::platform("2026-11-22T17:02:45.259Z".parse().unwrap(), source, process, "hello")
    }

    #[test]
    fn prints_as_heroku_does() {
        assert_eq!(frame(Source::App, "web.1").to_string(), "2026-11-22T17:02:45.259000+00:00 app[web.1]: hello");
    }

    #[test]
    fn filters_by_source_dyno_and_type() {
        let matches = |source, process: Option<&str>, line: &LogFrame| {
            LogFilter { source, process: process.map(str::to_owned) }.matches(line)
        };
        let line = frame(Source::App, "web.1");
        assert!(matches(None, None, &line) && matches(Some(Source::App), Some("web"), &line));
        assert!(matches(None, Some("web.1"), &line));
        assert!(!matches(Some(Source::Heroku), None, &line) && !matches(None, Some("we"), &line));
        assert!(!matches(None, Some("web.1"), &frame(Source::App, "web.10")));
    }

    #[test]
    fn cleans_what_would_break_a_line() {
        assert_eq!(clean(b"a\x00b\tc\x1b[1m\xff\r\n"), "a\\x00b\tc\x1b[1m\u{fffd}");
    }
}
