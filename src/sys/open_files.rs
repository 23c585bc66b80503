//! How many files a process may have open.
#![forbid(unsafe_code)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the soft limit, often 1024, to what the process may have.
///
/// # Errors
/// That of `setrlimit(2)`; the limit is as it was.
pub fn allow_many() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Raises both limits to what the kernel gives a process of root, or, where this root may not, the soft limit only.
///
/// # Errors
/// That of `setrlimit(2)`; the limits are as they were.
pub fn allow_most() -> io::Result<()> {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|most| most.trim().parse().ok());
    match most.map(|most| setrlimit(Resource::RLIMIT_NOFILE, most, most)) {
        Some(Ok(())) => Ok(()),
        _ => allow_many(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        allow_many().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
