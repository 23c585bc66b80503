//! The program from npm, with a home of its own and the environment that `hokku env` prints.

use crate::hokku::{Hokku, text};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The version that the server is made for; the minor one is whatever npm has.
const PACKAGE: &str = "heroku@11";

pub(crate) struct Heroku {
    home: TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

/// What one call said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    /// Data.
    pub(crate) out: String,
    /// Progress, warnings and errors, with the CLI's own line breaks taken out of errors.
    pub(crate) err: String,
}

impl Heroku {
    /// The CLI for that server. Where npm's registry can't be reached it says so and there is none.
    pub(crate) fn of(hokku: &Hokku) -> Option<Self> {
        let program = match installed() {
            Ok(program) => program.clone(),
            Err(reason) => {
                println!("skipped: {PACKAGE} can't be installed: {reason}");
                return None;
            }
        };
        let printed = hokku.json(&["env", "--json"]);
        let variables = printed.as_object().unwrap().iter();
        let variables = variables.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let home = tempfile::tempdir().unwrap();
        // Otherwise the first call warns that Heroku's terms of service have changed.
        fs::create_dir_all(home.path().join(".cache/heroku")).unwrap();
        fs::write(home.path().join(".cache/heroku/terms-of-service"), "").unwrap();
        Some(Self { home, program, variables })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The value of a variable that `hokku env` prints.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.variables.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Anything that is to have the CLI's environment, as git with its credential helper.
    pub(crate) fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let own = self.program.parent().unwrap().display();
        let path = format!("{own}:{}", std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path).env("HOME", self.home()).env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("TERM", "dumb").env("LANG", "C.UTF-8").env("NO_COLOR", "1");
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.environment(&mut command).args(args).current_dir(self.home());
        command
    }

    /// The same for a terminal: in a session of its own, which it controls.
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        self.environment(&mut command).env("TERM", "xterm").args(["--ctty", "--wait"]);
        command.arg(&self.program).args(args).current_dir(self.home());
        command
    }

    pub(crate) fn says(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    /// A call that has to succeed; what it printed on stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.done(args).out
    }

    /// A call that has to succeed.
    pub(crate) fn done(&self, args: &[&str]) -> Said {
        let said = self.says(args);
        assert_eq!(said.status, 0, "heroku {args:?}\n{}\n{}", said.out, said.err);
        said
    }

    /// A call that has to fail; what it printed on stderr.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let said = self.says(args);
        assert_ne!(said.status, 0, "heroku {args:?} succeeded\n{}\n{}", said.out, said.err);
        said.err
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let said = self.ok(args);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("heroku {args:?}: {error}\n{said}"))
    }
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let err = text(&output.stderr).replace("\n ›   ", " ").replace("  ", " ");
        Self { status: output.status.code().unwrap_or(-1), out: text(&output.stdout), err }
    }

    /// Fails unless `wanted` is somewhere in what was said.
    #[track_caller]
    pub(crate) fn with(self, wanted: &str) -> Self {
        assert!(self.out.contains(wanted) || self.err.contains(wanted), "no {wanted:?} in\n{}\n{}", self.out, self.err);
        self
    }
}

/// The path of the program, installed at first need and by one process only.
fn installed() -> &'static Result<PathBuf, String> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        let place = home.join(".cache/hokku-tests");
        fs::create_dir_all(&place).unwrap();
        let lock = File::create(place.join("heroku-11.lock")).unwrap();
        lock.lock().unwrap();
        let (made, program) = (place.join("heroku-11"), "node_modules/.bin/heroku");
        if !made.join(program).exists() {
            install(&place, &made)?;
        }
        Ok(made.join(program))
    })
}

fn install(place: &Path, made: &Path) -> Result<(), String> {
    let half_made = place.join("heroku-11.new");
    let _ = fs::remove_dir_all(&half_made); // what a killed run has left
    fs::create_dir_all(&half_made).unwrap();
    let output = Command::new("npm")
        .args(["install", PACKAGE, "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "."])
        .current_dir(&half_made)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm: {error}"))?;
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    fs::rename(&half_made, made).map_err(|error| error.to_string())
}
