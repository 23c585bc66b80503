//! The `hokku` binary: picks the role.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(role) if role == "unpack" => hokku::slug::unpack::main(args),
        _ => ExitCode::FAILURE,
    }
}
