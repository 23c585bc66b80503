//! The terminal while it belongs to a dyno: every key goes through, and however this ends it is given back as it was.
#![forbid(unsafe_code)]

use super::errors::Failure;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, Write as _};
use std::panic;

/// Raw mode; dropping it restores the terminal.
#[derive(Debug)]
pub(super) struct Raw {
    saved: Termios,
}

impl Raw {
    /// # Errors
    /// When stdin is no terminal.
    pub(super) fn begin() -> io::Result<Self> {
        let saved = tcgetattr(stdin())?;
        restore_on_panic(saved.clone());
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // When even this fails the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.saved);
    }
}

/// What somebody types after `prompt`, a line.
///
/// # Errors
/// When stdin is at its end or can't be read.
pub(super) fn answer(prompt: &str) -> Result<String, Failure> {
    // Nobody has to see it for the answer to be right.
    let _ = io::stderr().write_all(prompt.as_bytes());
    line_of_stdin()
}

/// The same without showing it; from a pipe it is a line too.
///
/// # Errors
/// When stdin is at its end or can't be read.
pub(super) fn secret(prompt: &str) -> Result<String, Failure> {
    let Ok(saved) = tcgetattr(stdin()) else { return line_of_stdin() };
    let mut quiet = saved.clone();
    quiet.local_modes -= LocalModes::ECHO;
    let set = |modes: &Termios| {
        tcsetattr(stdin(), OptionalActions::Flush, modes)
            .map_err(|error| Failure::local("the terminal can't be told to show nothing", &error.into()))
    };
    set(&quiet)?;
    let line = answer(prompt);
    set(&saved)?;
    let _ = io::stderr().write_all(b"\n");
    line
}

/// # Errors
/// When stdin is at its end or can't be read.
pub(super) fn line_of_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(0) => Err(Failure::new("stdin has ended before anything was typed")),
        Ok(_) => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
        Err(error) => Err(Failure::local("stdin can't be read", &error)),
    }
}

/// The release build aborts on a panic without dropping anything.
fn restore_on_panic(saved: Termios) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &saved);
        before(info);
    }));
}

/// Columns and rows of the terminal on stdout.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
