//! The `hokku` binary: picks the role.
//!
//! The hidden roles are the processes of an instance. They are told apart before anything of the command line or of
//! tokio is started, as most of them are forked often or must stay small and single-threaded.
#![forbid(unsafe_code)]

use hokku::backup::{self, BackupOptions, RestoreOptions};
use hokku::cli::{self, Invocation};
use hokku::dyno::launcher;
use hokku::git;
use hokku::install;
use hokku::router;
use hokku::server::{self, ServerOptions};
use hokku::slug;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let words = |from: usize| args.iter().skip(from).map(|word| word.to_string_lossy().into_owned());
    match args.get(1).and_then(|role| role.to_str()) {
        Some("launcher") => role(launcher::main(args.into_iter().skip(2)).map(|()| 0)),
        Some("dyno") if args.get(2).is_some_and(|word| word == "run") => role(launcher::run(args.into_iter().skip(3))),
        Some("router") => router::process::main(&args[2..]),
        Some("hold") => hold(args.into_iter().skip(2)),
        Some("unpack") => slug::unpack::main(args.into_iter().skip(2)),
        Some("git-backend") => git::backend::main(words(2)),
        Some("git-hook") => git::hook::main(words(2)),
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
            router_tls: options.router_tls,
            domain: options.domain,
        })),
        Invocation::Down(at, options) => ended(server::down(&cli::root(&at), options.name.as_ref(), options.purge)),
        Invocation::Install(at, options) => ended(install::install(&install::Options {
            root: cli::root(&at),
            api: options.api,
            router: options.router,
            router_tls: options.router_tls,
            domain: options.domain,
        })),
        Invocation::Uninstall(at, options) => ended(install::uninstall(&cli::root(&at), options.purge)),
        Invocation::Backup(at, options) => ended(backup::backup(&BackupOptions {
            root: cli::root(&at),
            file: options.file,
            with_key: !options.without_key,
            with_stacks: options.with_stacks,
            force: options.force,
        })),
        Invocation::Restore(at, options) => ended(backup::restore(&RestoreOptions {
            root: cli::root(&at),
            file: options.file,
            key: options.key,
            check: options.check,
        })),
        Invocation::Client(client) => ExitCode::from(cli::run(*client)),
        Invocation::Ended(status) => ExitCode::from(status),
    }
}

/// `hokku hold --root DIR`, of the unit that the dynos run in.
fn hold(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    match &args[..] {
        [flag, root] if flag == "--root" => ended(server::hold(root.as_ref())),
        _ => ExitCode::from(cli::report(&anyhow::anyhow!("usage: hokku hold --root DIR"))),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(cli::report(&error)),
    }
}

/// A hidden role has ended with a status or an error.
fn role(result: Result<i32, impl std::error::Error + Send + Sync + 'static>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(255)),
        Err(error) => ExitCode::from(cli::report(&error.into())),
    }
}
