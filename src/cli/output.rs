//! The one place that prints: data to stdout, talk to stderr, colour only where someone looks at it.
//!
//! Nothing that came from a server reaches the terminal with control characters in it, except the logs and the
//! streams, which are the app's own output.
#![forbid(unsafe_code)]

use super::errors::Failure;
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};

/// Where a command writes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    out: Paint,
    err: Paint,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint {
    on: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Blue => "34",
            Self::Magenta => "35",
            Self::Cyan => "36",
        }
    }
}

impl Paint {
    pub(super) fn new(on: bool) -> Self {
        Self { on }
    }

    pub(super) fn with(self, colour: Colour, text: impl fmt::Display) -> String {
        if self.on { format!("\x1b[{}m{text}\x1b[0m", colour.code()) } else { text.to_string() }
    }

    pub(super) fn is_on(self) -> bool {
        self.on
    }
}

impl Output {
    /// Colour is off when the stream is no terminal, and where `NO_COLOR` or a dumb terminal say so.
    pub(super) fn of_process() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let wanted = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let paint = |terminal: bool| Paint::new(wanted && terminal);
        Self { out: paint(io::stdout().is_terminal()), err: paint(io::stderr().is_terminal()) }
    }

    /// The colours of stdout.
    pub(super) fn paint(self) -> Paint {
        self.out
    }

    /// A line of data.
    ///
    /// # Errors
    /// When stdout is closed or can't be written; so for all that writes data.
    pub(super) fn line(self, text: impl fmt::Display) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Bytes of data as they are.
    #[expect(clippy::unused_self, reason = "whoever prints holds an Output")]
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
    }

    /// `=== app Config Vars` and an empty line.
    pub(super) fn heading(self, text: impl fmt::Display) -> Result<(), Failure> {
        self.line(format_args!("{} {}\n", self.out.with(Colour::Dim, "==="), self.out.with(Colour::Bold, text)))
    }

    /// `KEY:    value` rows.
    pub(super) fn pairs<'a>(self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), Failure> {
        let rows: Vec<_> = pairs.into_iter().collect();
        let width = rows.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
        for (key, value) in rows {
            let key = format!("{:width$}", format!("{key}:"));
            self.line(format!("{} {value}", self.out.with(Colour::Cyan, key)).trim_end())?;
        }
        Ok(())
    }

    /// Rows in columns.
    pub(super) fn table(self, rows: &[Vec<String>]) -> Result<(), Failure> {
        self.bytes(columns(rows).as_bytes())
    }

    /// JSON as the server sent it, for programs.
    pub(super) fn json(self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{value:#}"))
    }

    /// A line of talk. That nobody can hear it is no reason to fail.
    #[expect(clippy::unused_self, reason = "whoever prints holds an Output")]
    pub(super) fn say(self, text: impl fmt::Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Bytes of talk as they are: the error output of a program that runs elsewhere.
    #[expect(clippy::unused_self, reason = "whoever prints holds an Output")]
    pub(super) fn say_bytes(self, bytes: &[u8]) {
        let _ = io::stderr().lock().write_all(bytes);
    }

    /// ` ▸    ` in front of each line, Heroku's way of warning.
    pub(super) fn warn(self, text: &str) {
        for line in text.lines() {
            self.say(format_args!(" {}    {line}", self.err.with(Colour::Yellow, "▸")));
        }
    }

    /// `Creating ⬢ app... `, to be completed by [`Progress::done`].
    pub(super) fn start(self, text: impl fmt::Display) -> Progress {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{text}... ");
        let _ = stderr.flush();
        Progress { output: self, open: true }
    }

    /// `⬢ app` for talk.
    pub(super) fn app(self, name: &str) -> String {
        self.err.with(Colour::Magenta, format_args!("⬢ {}", plain(name)))
    }

    /// What went wrong, and what to do about it.
    pub(super) fn failure(self, failure: &Failure) {
        if let Some(text) = failure.text() {
            self.say(format_args!("{} {text}", self.err.with(Colour::Red, "Error:")));
        }
        for hint in failure.hints() {
            self.say(format_args!("{} {hint}", self.err.with(Colour::Cyan, "hint:")));
        }
    }
}

/// An act that was announced; when it is dropped unfinished, the line ends with `!`.
#[derive(Debug)]
#[must_use]
pub(super) struct Progress {
    output: Output,
    open: bool,
}

impl Progress {
    pub(super) fn done(mut self, text: impl fmt::Display) {
        self.open = false;
        self.output.say(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.open {
            self.output.say(self.output.err.with(Colour::Red, "!"));
        }
    }
}

/// A field of an answer's row; empty when it is no text.
pub(super) fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Text without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Rows as left-aligned columns, two blanks apart. Colour codes would break the widths, so cells are plain.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{:width$}  ", plain(cell));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_letters() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(columns(&[row(&["v10", "ä", "x"]), row(&["v9", "longer", ""])]), "v10  ä       x\nv9   longer\n");
    }

    #[test]
    fn nothing_from_a_server_can_drive_the_terminal() {
        assert_eq!(plain("a\x1b]0;title\x07\nb"), "a\u{fffd}]0;title\u{fffd}\u{fffd}b");
    }
}
