//! The shim: a dyno's parent on the host. It makes the walls, starts pid 1 in them, keeps what it says, tells how it
//! ended, and takes the walls down again. One process per dyno, no threads; when it dies, so does its dyno.
#![forbid(unsafe_code)]

mod berth;
mod inside;
mod lines;
mod watch;

use super::base::Base;
use super::launcher::TAKEN;
use super::protocol::{self, News, Request, Stdio};
use super::record;
use super::scratch::Bounds;
use super::step::{StepError, step};
use crate::domain::dyno::Exit;
use crate::domain::instance::Instance;
use crate::sys::process::{self, SingleThreaded};
use berth::{Berth, Callers};
use inside::House;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::net::SendFlags;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Makes all that can be made before a dyno in this slot is asked for, and waits until it is, by `connection`. The end of
/// that, which is the server's, or of `launcher` ends this.
pub(super) fn wait(
    single: &SingleThreaded,
    base: &Base,
    instance: &Instance,
    slot: u16,
    bounds: Bounds,
    launcher: OwnedFd,
    connection: UnixStream,
) {
    // Until there is a dyno, it is part of the launcher.
    if process::die_with_parent().is_err() {
        return;
    }
    base.show_waiting("hokku-shim, waiting");
    // When it can't be made now, the launch will say why.
    let callers = Callers { launcher, connection };
    let Ok((berth, callers)) = Berth::ahead(single, base, instance, slot, bounds, callers) else { return };
    base.practise();
    let Some(request) = await_request(&callers) else { return berth.give_up() };
    if process::outlive_parent().is_err() {
        return berth.give_up();
    }
    // The launcher may be gone, and then asks for nothing.
    let _ = rustix::net::send(&callers.launcher, TAKEN, SendFlags::NOSIGNAL);
    drop(callers.launcher);
    // What goes wrong is told to the server.
    let _ = run(single, base, instance, &request, Some(berth), Some(callers.connection));
}

/// `None` when server or launcher are done with this.
fn await_request(Callers { launcher, connection }: &Callers) -> Option<Request> {
    let mut polled = [PollFd::new(connection, PollFlags::IN), PollFd::new(launcher, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    if polled[0].revents().is_empty() { None } else { read(connection).ok().flatten() }
}

/// The same for a launch that nothing was made ready for.
pub(super) fn serve(single: &SingleThreaded, base: &Base, instance: &Instance, connection: UnixStream) {
    // One that ends before it has said all shows to the server as a connection that ends without a word.
    if let Ok(Some(request)) = read(&connection) {
        let _ = run(single, base, instance, &request, None, Some(connection));
    }
}

/// A launch that was asked for by hand, with this process' own standard streams. Returns its exit status.
pub(super) fn by_hand(
    single: &SingleThreaded,
    base: &Base,
    instance: &Instance,
    bundle: PathBuf,
) -> Result<i32, StepError> {
    let request = Request { bundle, env: Vec::new(), files: Vec::new(), stdio: Stdio::Inherit };
    run(single, base, instance, &request, None, None)
}

fn read(mut connection: &UnixStream) -> io::Result<Option<Request>> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(request) = protocol::decode(&mut buffer)? {
            return Ok(Some(request));
        }
        match connection.read(&mut chunk)? {
            0 => return Ok(None),
            length => buffer.extend(&chunk[..length]),
        }
    }
}

/// Runs one dyno to its end. Returns its exit status.
fn run(
    single: &SingleThreaded,
    base: &Base,
    instance: &Instance,
    request: &Request,
    waiting: Option<Berth>,
    mut control: Option<UnixStream>,
) -> Result<i32, StepError> {
    let _ = rustix::thread::set_name(c"hokku-shim");
    let managed = request.stdio != Stdio::Inherit;
    let claimed = if managed { claim(request).map(Some) } else { Ok(None) };
    let (_claim, launched) = match claimed {
        Ok(claim) => (claim, berth::launch(single, base, instance, request, waiting)),
        Err(error) => {
            waiting.into_iter().for_each(Berth::give_up);
            (None, Err(error))
        }
    };
    let mut running = match launched {
        Ok(running) => running,
        Err(error) => {
            tell(&mut control, &News::Failed(error.clone()));
            return Err(error);
        }
    };
    if let Some(error) = running.layer.instead.take() {
        tell(&mut control, &News::InMemory(error));
    }
    tell(&mut control, &News::Started);
    let (ended, out_of_memory, controls) =
        watch::watch(&mut running, control.as_ref(), House { single, base, request });
    let oom = out_of_memory || running.walls.group.oom_killed().unwrap_or(false);
    let box_full = oom && !running.walls.group.was_at_its_limit().unwrap_or(true);
    let exit = Exit { oom, box_full, ..exit(ended) };
    // First of all the word of how it ended: should this process be killed now, only rubbish stays.
    let left = if managed { record::leave_exit(&request.bundle, exit) } else { Ok(()) };
    running.walls.take_down();
    // The end of the control connections tells the server that everything is over.
    drop((control, controls));
    match left {
        Ok(()) => Ok(exit.code),
        Err(error) => Err(StepError::new("leave the exit record", request.bundle.display(), error)),
    }
}

const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Its dyno is this shim's from now on. A request may come late, when the next server has given the launch up.
fn claim(request: &Request) -> Result<File, StepError> {
    let bundle = &request.bundle;
    let until = Instant::now() + CLAIMED_WITHIN;
    let claim = loop {
        match record::claim(bundle) {
            // Of a shim before this one, that was killed, something is just ending.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => break step("take the dyno's directory", bundle.display(), other)?,
        }
    };
    match step("look for its end", bundle.display(), record::exit(bundle))? {
        None => Ok(claim),
        Some(_) => Err(StepError::new("take the dyno's directory", bundle.display(), "its launch was given up")),
    }
}

fn tell(control: &mut Option<UnixStream>, news: &News) {
    if let Some(control) = control {
        // A server that is gone will find out by itself.
        let _ = control.write_all(&protocol::encode(news));
    }
}

fn exit(ended: crate::sys::process::Ended) -> Exit {
    use crate::sys::process::Ended;
    let (code, signal) = match ended {
        Ended::Exited(code) => (code, None),
        Ended::Signalled(signal) => (128 + signal, Some(signal)),
    };
    Exit { code, signal, oom: false, box_full: false, at: Timestamp::now() }
}
