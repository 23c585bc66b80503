//! Puts the rules back whenever they are not what they were: a reload of the host's own firewall begins with
//! `flush ruleset`, and takes ours along.
#![forbid(unsafe_code)]

use super::{Firewall, FirewallError};
use crate::sys::netfilter::Monitor;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

/// After a failure, the next attempt.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Watches for as long as it lives, in the network namespace of the thread that started it.
#[derive(Debug)]
pub struct Watch {
    /// Hung up to tell the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// # Errors
    /// When changes can't be heard of, or no thread can be had.
    pub fn start(firewall: Arc<Firewall>) -> Result<Self, FirewallError> {
        let monitor = Monitor::open().map_err(FirewallError::Look)?;
        let (stop, stopped) = UnixStream::pair().map_err(FirewallError::Look)?;
        let run = move || watch(&firewall, monitor, &stopped);
        let thread = std::thread::Builder::new().name("firewall".into()).spawn(run).map_err(FirewallError::Look)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        // A thread that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn watch(firewall: &Firewall, mut monitor: Monitor, stopped: &UnixStream) {
    let table = firewall.table();
    // What happened before there was anybody to hear of it counts too.
    let mut heard = true;
    loop {
        let mended = if heard { firewall.mend() } else { Ok(false) };
        match &mended {
            Ok(true) => tracing::warn!(%table, "others removed or changed the dynos' firewall rules; they are back"),
            Ok(false) => {}
            Err(error) => tracing::error!(error = %told(error), "cannot put the dynos' firewall rules back"),
        }
        let again = if mended.is_err() { Some(&AGAIN) } else { None };
        let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
        if poll(&mut fds, again).is_err_and(|error| error != rustix::io::Errno::INTR) || !fds[0].revents().is_empty() {
            return;
        }
        // Where it can't be told what was said, it may have been about our table.
        heard = monitor.heard_of(&table).unwrap_or(true) || mended.is_err();
    }
}

fn told(error: &FirewallError) -> String {
    let source = std::error::Error::source(error).map(|cause: &(dyn std::error::Error + 'static)| cause.to_string());
    [Some(error.to_string()), source].into_iter().flatten().collect::<Vec<_>>().join(": ")
}
