//! What `scripts/bench` starts in dynos and in other sandboxes: prints when it runs (`CLOCK_MONOTONIC`, nanoseconds), or,
//! with `PORT` set, accepts one connection on that port and ends soon after.
#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Long enough for whoever connected to have seen it before the program is gone.
const LINGER: Duration = Duration::from_millis(30);

fn main() -> io::Result<()> {
    let now = clock_gettime(ClockId::Monotonic);
    match std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()) {
        Some(port) => serve(port),
        None => writeln!(io::stdout(), "{}", i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)),
    }
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let connection = listener.accept()?;
    std::thread::sleep(LINGER);
    drop(connection);
    Ok(())
}
