//! Handing open files to another process: to a child across `exec`, to a stranger over a Unix socket (`SCM_RIGHTS`).

use rustix::io::{FdFlags, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Files that one message carries at most (the kernel's limit is 253).
pub const MAX_FDS: usize = 128;

/// Lets `command`'s process have exactly `fds` under their present numbers, besides its stdio; every other file it would
/// inherit, also those opened without close-on-exec by code not ours, is closed.
pub fn pass(command: &mut Command, fds: Vec<RawFd>) {
    let keep = move || {
        // SAFETY: a system call on numbers; CLOEXEC closes nothing in this process before its exec.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if marked != 0 {
            return Err(io::Error::last_os_error());
        }
        for &fd in &fds {
            // SAFETY: F_SETFD touches no memory; a wrong number gives EBADF.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls: no allocation, no lock.
    unsafe { command.pre_exec(keep) };
}

/// Takes ownership of the file that the parent left open under this number.
///
/// Call it once a number, early: nothing else in the process may think it owns that file.
///
/// # Errors
/// The number is not an open file, or one of stdio.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD touches no memory; a wrong number gives EBADF.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (just asked), and by the contract above nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Sends one byte together with `fds`.
///
/// # Errors
/// The socket's, `WouldBlock` included; nothing was sent then.
pub fn send_fds(socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(b"F")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives what [`send_fds`] sent, close-on-exec set.
///
/// # Errors
/// The socket's, `WouldBlock` included; `UnexpectedEof` when the peer has closed.
pub fn receive_fds(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

/// The numbers of `fds`, for [`pass`] and the child's command line.
pub fn numbers(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_file_sent_over_a_socket_is_the_same_file() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send_fds(&left, &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut got = receive_fds(&right).unwrap();
        let mut writer = io::PipeWriter::from(got.pop().unwrap());
        assert!(got.is_empty());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_child_gets_the_named_files_and_no_others() {
        let (_r1, wanted) = io::pipe().unwrap();
        let (_r2, unwanted) = io::pipe().unwrap();
        rustix::io::fcntl_setfd(&unwanted, FdFlags::empty()).unwrap();
        let mut command = Command::new("sh");
        let test =
            format!("[ -e /proc/self/fd/{} ] && ! [ -e /proc/self/fd/{} ]", wanted.as_raw_fd(), unwanted.as_raw_fd());
        command.args(["-c", &test]);
        pass(&mut command, vec![wanted.as_raw_fd()]);
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_number_that_is_no_open_file_is_refused() {
        assert_eq!(take(2).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(take(999_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
