//! The `hokku` binary: picks the role.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    hidden_role(&arguments).unwrap_or(ExitCode::SUCCESS)
}

/// The roles that other processes of ours start; they run before any thread exists.
fn hidden_role(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments.get(1)?.to_str()? {
        "router" => Some(hokku::router::process::main(&arguments[2..])),
        _ => None,
    }
}
