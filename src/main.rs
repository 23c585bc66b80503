//! The `hokku` binary: picks the role.
#![forbid(unsafe_code)]

use hokku::dyno::launcher::{self, LauncherError};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|role| role.to_str()) {
        Some("launcher") => done(launcher::main(args).map(|()| 0)),
        Some("dyno") if args.next().is_some_and(|verb| verb == "run") => done(launcher::run(args)),
        Some("unpack") => hokku::slug::unpack::main(args),
        _ => ExitCode::FAILURE,
    }
}

fn done(result: Result<i32, LauncherError>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(255)),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the end of the program")]
            {
                eprintln!("hokku: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
