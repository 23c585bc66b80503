//! The loopback interface of a new network namespace, which is down at first.

use std::io;
use std::os::fd::AsRawFd;

/// Switches this network namespace's `lo` on, which gives it its addresses too. Needs `CAP_NET_ADMIN` in there.
///
/// # Errors
/// `socket(2)`, `ioctl(2)`.
pub fn up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: i16::try_from(libc::IFF_UP).unwrap_or(1) },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::try_from(from).unwrap_or(0);
    }
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of the request, which lives across the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
