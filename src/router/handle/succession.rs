//! A router takes the place of another on the same listening sockets, after an upgrade.
//!
//! ```text
//!   router.sock ─▶ old                 one router
//!   router.sock ─▶ old, router-next.sock ─▶ new       both serve, once the new one has a table
//!   router.sock ─▶ new, retired-PID.sock ─▶ old       the old one is told to retire, and ends
//! ```
//!
//! Whenever a server ends in between, the next finds by these names who is who. The sockets that clients connect to are
//! in all processes and never closed, so that no connection in their queues is lost.
#![forbid(unsafe_code)]

use super::listeners::control_socket;
use super::{Driver, PATIENCE, Paths, Process, Sockets, send};
use crate::router::protocol::{FromRouter, FromServer};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tokio::time::timeout;

impl Driver {
    /// Starts a router and has it work by the newest table and certificates. On an error the one there is goes on.
    pub(super) async fn successor(&mut self, before: &Process) -> io::Result<Process> {
        let control = control_socket(&self.paths.next())?;
        let control = std::mem::replace(&mut self.sockets.control, control);
        let outcome = match Process::spawn(&self.paths, &self.options, &self.sockets, true).await {
            Ok(mut process) => match timeout(PATIENCE, self.initiate(&mut process)).await {
                Ok(Ok(())) => match take_name(&self.paths, before.pid) {
                    Ok(()) => Ok(process),
                    // It works by a table that nobody would renew.
                    Err(error) => process.end().await.and(Err(error)),
                },
                other => {
                    let error = other.map_or_else(|_| io::ErrorKind::TimedOut.into(), Result::unwrap_err);
                    process.end().await.and(Err(error))
                }
            },
            Err(error) => Err(io::Error::other(error)),
        };
        if outcome.is_err() {
            self.sockets.control = control;
        }
        outcome
    }

    /// Returns once it serves.
    async fn initiate(&mut self, process: &mut Process) -> io::Result<()> {
        let Some(table) = self.table.clone() else { return Err(io::Error::other("there is no table yet")) };
        let version = table.version;
        if let Some(certificates) = self.certificates.clone() {
            send(process, &FromServer::Certificates(certificates)).await?;
        }
        send(process, &FromServer::Table(table)).await?;
        loop {
            while let Some(line) = process.line() {
                if FromRouter::parse(&line) == Some(FromRouter::Installed { version }) {
                    return Ok(());
                }
                if let Some(number) = self.hear(&line) {
                    send(process, &FromServer::Seen { number }).await?;
                }
            }
            process.fill().await?;
        }
    }
}

/// From now on servers find the new one by the usual name, and the one before by its own.
fn take_name(paths: &Paths, before: i32) -> io::Result<()> {
    let retired = paths.retired(before);
    match std::fs::hard_link(paths.socket(), &retired) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::rename(paths.next(), paths.socket())
}

/// Starts a router at once, by the table that was written last, for one that can't be talked to about tables.
pub(super) async fn at_once(
    paths: &Paths,
    options: &super::Options,
    sockets: &mut Sockets,
    before: i32,
) -> Result<Process, super::RouterError> {
    let socket = |source| super::RouterError::Socket { path: paths.next(), source };
    sockets.control = control_socket(&paths.next()).map_err(socket)?;
    let process = Process::spawn(paths, options, sockets, false).await?;
    take_name(paths, before).map_err(socket)?;
    Ok(process)
}

/// Whether the process runs this very program: the same file, or one with the same bytes.
pub(super) fn runs(pid: i32, program: &Path) -> io::Result<bool> {
    let running = File::open(format!("/proc/{pid}/exe"))?;
    let wanted = File::open(program)?;
    let (one, other) = (running.metadata()?, wanted.metadata()?);
    if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
        return Ok(true);
    }
    Ok(one.len() == other.len() && same_bytes(&running, &wanted)?)
}

fn same_bytes(one: &File, other: &File) -> io::Result<bool> {
    const PIECE: u64 = 1 << 20;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    loop {
        here.clear();
        there.clear();
        one.take(PIECE).read_to_end(&mut here)?;
        other.take(PIECE).read_to_end(&mut there)?;
        if here != there {
            return Ok(false);
        }
        if here.is_empty() {
            return Ok(true);
        }
    }
}
