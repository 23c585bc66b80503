//! The terminal while it belongs to a dyno: every key goes through, and however this ends it is given back as it was.
#![forbid(unsafe_code)]

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
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
