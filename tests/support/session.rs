//! A shell session with the CLI, as a transcript to be compared: what was typed, stdout, stderr, the exit status, and
//! what the server was asked.

use super::fake_api::FakeApi;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub(crate) struct Session {
    pub(crate) api: FakeApi,
    /// Working directory and home.
    pub(crate) dir: TempDir,
    transcript: String,
}

impl Session {
    pub(crate) fn new(api: FakeApi) -> Self {
        Self { api, dir: tempfile::tempdir().unwrap(), transcript: String::new() }
    }

    /// A command with nothing of the environment of whoever runs the tests.
    pub(crate) fn command(&self, program: &str) -> Command {
        let own = Path::new(env!("CARGO_BIN_EXE_hokku")).parent().unwrap();
        let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("HOME", self.dir.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("HOKKU_ROOT", self.api.root.path()).env("TERM", "xterm").current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a line of shell without noting it.
    pub(crate) fn quietly(&self, line: &str) -> Output {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        self.api.asked();
        output
    }

    /// Runs a line of shell and notes all there is to see.
    pub(crate) fn run(&mut self, line: &str) -> &mut Self {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        let asked = self.api.asked();
        let note = &mut self.transcript;
        let _ = writeln!(note, "$ {line}");
        note.push_str(&String::from_utf8(output.stdout).unwrap());
        for text in String::from_utf8(output.stderr).unwrap().lines() {
            let _ = writeln!(note, "2> {text}");
        }
        if !output.status.success() {
            let _ = writeln!(note, "[{}]", output.status);
        }
        for request in asked {
            let _ = writeln!(note, "   -> {request}");
        }
        note.push('\n');
        self
    }

    /// The transcript with everything that differs from run to run replaced.
    pub(crate) fn transcript(&self) -> String {
        let port = self.api.address.port().to_string();
        let own = Path::new(env!("CARGO_BIN_EXE_hokku")).display().to_string();
        self.transcript
            .replace(&self.api.root.path().display().to_string(), "/ROOT")
            .replace(&self.dir.path().display().to_string(), "/HOME")
            .replace(&own, "/BIN/hokku")
            .replace(&format!("127.0.0.1:{port}"), "127.0.0.1:5000")
            .replace(&format!("localhost:{port}"), "localhost:5000")
    }
}
