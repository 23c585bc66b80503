//! Pseudo-terminals, from a devpts that is named by descriptor and not by path.

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens a new terminal of the devpts at `pts` below `root`: the master's side and the program's.
///
/// # Errors
/// Opening it, or the kernel's refusal to unlock it.
pub fn open(root: impl AsFd, pts: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = super::fd::open_below(root, &pts.join("ptmx"), OFlags::RDWR | OFlags::NOCTTY, 0)?;
    rustix::pty::unlockpt(&master)?;
    // Not by name: the path could lead elsewhere by now.
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((master, slave))
}

/// Tells the terminal its size; programs in front get SIGWINCH.
///
/// # Errors
/// `ioctl(2)`.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the terminal this session's own. The caller leads a session without one.
///
/// # Errors
/// `ioctl(2)`.
pub fn take(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}
