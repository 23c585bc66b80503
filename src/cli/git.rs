//! `git`: the remote that deploys, and the token git needs for it.
//!
//! No token is ever in a URL or in a file: git asks `hokku git:credentials` for it each time, through a credential
//! helper that is written into this one repository's configuration and knows which server it speaks for.
#![forbid(unsafe_code)]

use super::auth::make_token;
use super::config::quote;
use super::context::{AppArgs, Context, variable};
use super::errors::Failure;
use super::output::plain;
use super::remotes;
use crate::client::Place;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Long enough for a slow push, as git asks at its beginning only.
const TOKEN_SECONDS: u64 = 3600;

/// Nothing that git says to a helper is longer.
const MAX_REQUEST: u64 = 64 * 1024;

/// Connect the git repository of this directory with an app
///
/// Adds a git remote that leads to the app and a credential helper, both in this repository only.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku git:remote -a my-app
  set git remote hokku to http://127.0.0.1:5000/my-app.git

  $ git push hokku main")]
pub(super) struct Remote {
    /// The app
    #[arg(short, long, value_name = "APP")]
    app: Option<String>,
    /// Name of the git remote
    #[arg(short, long, value_name = "REMOTE", default_value = remotes::DEFAULT)]
    remote: String,
}

pub(super) async fn remote(ctx: &Context, args: Remote) -> Result<(), Failure> {
    let app = ctx.app(&AppArgs { app: args.app, remote: None })?;
    let found: Value = ctx.client()?.get(&Context::path(&app, "")).await?;
    let name = found["name"].as_str().unwrap_or(&app);
    if !remotes::in_work_tree() {
        return Err(Failure::new("this directory is not in a git repository").hint("make one with: git init"));
    }
    connect(ctx, name, &args.remote)
}

/// The same for a new app, but a remote that leads elsewhere stays: the next push must not surprise anyone.
pub(super) fn connect_new(ctx: &Context, app: &str, remote: &str) -> Result<(), Failure> {
    match remotes::url(remote) {
        Some(url) if url != ctx.git_url(app)? => {
            ctx.out.say(format_args!("git remote {} leads to {} and stays so", plain(remote), plain(&url)));
            ctx.out.say(format_args!("to change it: hokku git:remote -a {app}"));
            Ok(())
        }
        _ => connect(ctx, app, remote),
    }
}

/// Writes the remote and the credential helper.
pub(super) fn connect(ctx: &Context, app: &str, remote: &str) -> Result<(), Failure> {
    let url = ctx.git_url(app)?;
    let base = url.strip_suffix(&format!("/{app}.git")).unwrap_or(&url);
    remotes::set(remote, &url)?;
    remotes::set_helper(base, &helper(ctx)?)?;
    ctx.out.say(format_args!("set git remote {} to {}", plain(remote), plain(&url)));
    Ok(())
}

/// `!hokku git:credentials --root DIR`: what git runs through a shell, with the server baked in.
fn helper(ctx: &Context) -> Result<String, Failure> {
    let program = quote(&own_name().to_string_lossy());
    let args = ctx.server_args();
    let host = args.host.clone().or_else(|| variable("HOKKU_HOST"));
    let place = match (&args.root, host) {
        (None, Some(host)) => format!("--host {}", quote(&host)),
        _ => format!("--root {}", quote_path(&super::root(args))?),
    };
    Ok(format!("!{program} git:credentials {place}"))
}

/// git runs the helper in another directory.
fn quote_path(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path).map_err(|error| Failure::local(path.display(), &error))?;
    Ok(quote(&path.to_string_lossy()))
}

/// `hokku` when that is what the search path finds, else where this program is.
fn own_name() -> PathBuf {
    let name = PathBuf::from("hokku");
    let Ok(own) = std::env::current_exe() else { return name };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("hokku")).find(|file| file.is_file());
    match found.and_then(|file| file.canonicalize().ok()) {
        Some(file) if Some(&file) == own.canonicalize().ok().as_ref() => name,
        _ => own,
    }
}

/// Answer git's question for a password
///
/// git runs this as a credential helper; git:remote sets it up. It speaks for one server only and stores nothing.
#[derive(Args, Debug)]
#[command(after_help = "See git-credential(1) and gitcredentials(7) for what goes in and out.")]
pub(super) struct Credentials {
    /// What git wants
    #[arg(value_name = "OPERATION")]
    operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// A user name and a password
    Get,
    /// Keep them; done nothing about
    Store,
    /// Forget them; done nothing about
    Erase,
}

pub(super) async fn credentials(ctx: &Context, args: Credentials) -> Result<(), Failure> {
    if args.operation != Operation::Get {
        return Ok(());
    }
    let mut request = String::new();
    let read = std::io::stdin().lock().take(MAX_REQUEST).read_to_string(&mut request);
    read.map_err(|error| Failure::local("git's question can't be read", &error))?;
    let value = |key: &str| request.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let ours =
        matches!(value("protocol"), Some("http" | "https")) && value("host").is_some_and(|host| is_ours(ctx, host));
    if !ours {
        return Ok(());
    }
    ctx.out.line(format_args!("username=hokku\npassword={}", token(ctx).await?))
}

/// Root has the server make one; the token of the environment may be another server's, so it comes second.
async fn token(ctx: &Context) -> Result<String, Failure> {
    match (ctx.place()?, variable("HOKKU_API_KEY")) {
        (Place::Host { .. }, Some(token)) => Ok(token),
        (_, key) => match (make_token(&ctx.client()?, "git", TOKEN_SECONDS).await, key) {
            (Err(_), Some(token)) => Ok(token),
            (made, _) => made,
        },
    }
}

fn is_ours(ctx: &Context, host: &str) -> bool {
    ctx.place().is_ok_and(|place| place.is_at(host))
}
