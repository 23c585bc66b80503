//! The `hokku` binary: picks the role.
//!
//! The hidden roles are the processes of an instance. They are told apart before anything of the command line or of
//! tokio is started, as most of them are forked often or must stay small and single-threaded.
#![forbid(unsafe_code)]

use hokku::cli::{self, Invocation};
use hokku::server::{self, ServerOptions};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut rest = args.iter().skip(2).cloned();
    match args.get(1).and_then(|role| role.to_str()) {
        Some("launcher") => absent("launcher", &mut rest),
        Some("router") => absent("router", &mut rest),
        Some("unpack") => absent("unpack", &mut rest),
        Some("git-hook") => absent("git-hook", &mut rest),
        Some("dyno") if args.get(2).is_some_and(|word| word == "run") => absent("dyno run", &mut rest.skip(1)),
        _ => command_line(args),
    }
}

fn command_line(args: Vec<OsString>) -> ExitCode {
    match cli::parse(args) {
        Invocation::Server(at, options) => ended(server::run(ServerOptions {
            root: cli::root(&at),
            name: options.name,
            api: options.api,
            router: options.router,
            domain: options.domain,
        })),
        Invocation::Down(at, options) => ended(server::down(&cli::root(&at), options.name.as_ref(), options.purge)),
        Invocation::Client(client) => ExitCode::from(cli::run(*client)),
        Invocation::Ended(status) => ExitCode::from(status),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(cli::report(&error)),
    }
}

/// Placeholder for a role whose module is not there yet.
fn absent(role: &str, _args: &mut dyn Iterator<Item = OsString>) -> ExitCode {
    ExitCode::from(cli::report(&anyhow::anyhow!("the role {role} is not built in yet")))
}
