//! Descriptors sent from process to process, and names resolved below a directory without trusting what is in it.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The most descriptors the kernel takes in one message.
pub const MAX_FDS: usize = 253;

/// Sends a message with descriptors along.
///
/// # Errors
/// `sendmsg(2)`; EINVAL with more than [`MAX_FDS`].
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and the descriptors with it; no bytes mean that the other side has gone.
///
/// # Errors
/// `recvmsg(2)`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let iov = &mut [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket.as_fd(), iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((message.bytes, fds))
}

/// Opens `path` below `root`, following no link and never leaving it: what is in there belongs to others.
///
/// # Errors
/// `openat2(2)`: ELOOP for a link on the way.
pub fn open_below(root: impl AsFd, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve) {
            // Something was renamed meanwhile, says openat2(2).
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Makes the directory `path` below `root` with the missing ones on the way, following no link, and opens it.
///
/// # Errors
/// `openat2(2)`, `mkdirat(2)`.
pub fn make_dir_below(root: impl AsFd, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match open_below(&root, path, OFlags::PATH | OFlags::DIRECTORY, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        there => return there,
    }
    let mut here = open_below(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    for part in path.strip_prefix("/").unwrap_or(path).components() {
        let part = Path::new(part.as_os_str());
        match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        here = open_below(&here, part, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    }
    Ok(here)
}
