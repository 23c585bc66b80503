//! The shim: a dyno's parent on the host. It makes the walls, starts pid 1 in them, keeps what it says, tells how it
//! ended, and takes the walls down again. One process per dyno, no threads; when it dies, so does its dyno.
#![forbid(unsafe_code)]

mod launch;
mod lines;
mod watch;

use super::protocol::{self, News, Request, Stdio};
use super::record;
use super::step::StepError;
use crate::domain::dyno::Exit;
use crate::domain::instance::Instance;
use crate::sys::process::SingleThreaded;
use jiff::Timestamp;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Runs one dyno from its request to its end. Returns its exit status, for a shim that was started by hand.
pub(super) fn run(
    single: &SingleThreaded,
    instance: &Instance,
    request: &Request,
    network: Option<OwnedFd>,
    mut control: Option<UnixStream>,
) -> Result<i32, StepError> {
    let _ = rustix::thread::set_name(c"hokku-shim");
    let (bundle, managed) = (request.bundle.clone(), request.stdio != Stdio::Inherit);
    let mut running = match launch::launch(single, instance, request, network) {
        Ok(running) => running,
        Err(error) => {
            tell(&mut control, &News::Failed(error.clone()));
            return Err(error);
        }
    };
    tell(&mut control, &News::Started);
    let (ended, out_of_memory) = watch::watch(&mut running, control.as_ref());
    let oom = out_of_memory || running.walls.group.oom_killed().unwrap_or(false);
    let exit = exit(ended, oom);
    // First of all the word of how it ended: should this process be killed now, only rubbish stays.
    let left = if managed { record::leave_exit(&bundle, exit) } else { Ok(()) };
    running.walls.take_down();
    // The end of the control connections tells the server that everything is over.
    drop(control);
    match left {
        Ok(()) => Ok(exit.code),
        Err(error) => Err(StepError::new("leave the exit record", bundle.display(), error)),
    }
}

fn tell(control: &mut Option<UnixStream>, news: &News) {
    if let Some(control) = control {
        // A server that is gone will find out by itself.
        let _ = control.write_all(&protocol::encode(news));
    }
}

fn exit(ended: crate::sys::process::Ended, oom: bool) -> Exit {
    use crate::sys::process::Ended;
    let at = Timestamp::now();
    match ended {
        Ended::Exited(code) => Exit { code, signal: None, oom, at },
        Ended::Signalled(signal) => Exit { code: 128 + signal, signal: Some(signal), oom, at },
    }
}
