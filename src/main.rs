//! The `hokku` binary: picks the role.
#![forbid(unsafe_code)]

use hokku::dyno::launcher;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("launcher") => launcher::main(args).map(|()| 0),
        Some("dyno") if args.next().as_deref() == Some("run") => launcher::run(args),
        _ => return ExitCode::from(2),
    };
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
