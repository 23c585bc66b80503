//! Servers of a test on this machine.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that serves a directory; ended on drop.
pub(crate) struct Served {
    process: Child,
    pub(crate) port: u16,
}

impl Served {
    pub(crate) fn new(command: &mut Command, port: u16) -> Self {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nothing listens on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, port }
    }

    pub(crate) fn http(dir: &Path) -> Self {
        let port = free_port();
        let args = ["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()].map(str::to_owned);
        Self::new(Command::new("/usr/bin/python3").args(args).arg("--directory").arg(dir), port)
    }

    pub(crate) fn git(dir: &Path) -> Self {
        let port = free_port();
        let mut git = Command::new("git");
        git.args(["daemon", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")]);
        git.arg(format!("--base-path={}", dir.display())).arg(dir);
        Self::new(git.process_group(0), port)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The daemon forks one for each client.
        let _ = nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(self.process.id().cast_signed()),
            nix::sys::signal::SIGTERM,
        );
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
