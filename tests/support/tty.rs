//! A terminal that a test holds the other end of.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a program may take to show what it must.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Terminal {
    keys: File,
    /// Kept open, so that reading goes on while nobody else has it.
    slave: File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    pub(crate) fn open(columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let keys = File::from(master.try_clone().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || copy(master, &sender));
        let terminal = Self { keys, slave, output, seen: String::new() };
        terminal.resize(columns, rows);
        terminal
    }

    /// Starts hokku with this as its controlling terminal; `command` must run `setsid`.
    pub(crate) fn spawn(&self, mut command: Command, args: &str) -> Child {
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_hokku")]).args(args.split(' '));
        self.attach(command)
    }

    /// Starts `command` with this as its three streams.
    pub(crate) fn attach(&self, mut command: Command) -> Child {
        let end = || self.slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keys, size).unwrap();
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The line discipline's settings.
    pub(crate) fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.slave).unwrap())
    }

    /// Waits until `text` has been shown.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        while !self.seen.contains(text) {
            let left = DEADLINE.checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("{text:?} is not in {:?}", self.seen));
            if let Ok(bytes) = self.output.recv_timeout(left) {
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    pub(crate) fn seen(&self) -> String {
        self.seen.clone()
    }
}

fn copy(master: OwnedFd, sender: &std::sync::mpsc::Sender<Vec<u8>>) {
    let mut master = File::from(master);
    let mut buffer = [0; 4096];
    while let Ok(n) = master.read(&mut buffer) {
        if n == 0 || sender.send(buffer[..n].to_vec()).is_err() {
            return;
        }
    }
}
