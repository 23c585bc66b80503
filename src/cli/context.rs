//! What every command needs to know: which server, which app.
#![forbid(unsafe_code)]

use super::errors::Failure;
use super::output::Output;
use super::remotes;
use crate::client::{self, Client, Place, segment};
use clap::Args;
use std::cell::OnceCell;
use std::path::PathBuf;

/// Which server, for every command.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "host", help_heading = "Server")]
    #[arg(help = "Root directory of the instance [env: HOKKU_ROOT] [default: /var/lib/hokku]")]
    pub root: Option<PathBuf>,
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    #[arg(help = "Address of a server, http://HOST:PORT; its token is HOKKU_API_KEY [env: HOKKU_HOST]")]
    pub host: Option<String>,
}

/// Which app.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct AppArgs {
    #[arg(short, long, value_name = "APP", help = "App to run the command against [env: HOKKU_APP]")]
    pub(super) app: Option<String>,
    /// Git remote of the app to use
    #[arg(short, long, value_name = "REMOTE", conflicts_with = "app")]
    pub(super) remote: Option<String>,
}

/// What the commands work with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) out: Output,
    server: ServerArgs,
    place: OnceCell<Place>,
}

/// A variable of the environment that is set to something.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Context {
    pub(super) fn new(out: Output, server: ServerArgs) -> Self {
        Self { out, server, place: OnceCell::new() }
    }

    pub(super) fn server_args(&self) -> &ServerArgs {
        &self.server
    }

    /// The server's place; found once.
    pub(super) fn place(&self) -> Result<&Place, Failure> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = client::find(self.server.root.as_deref(), self.server.host.as_deref(), variable)?;
        Ok(self.place.get_or_init(|| place))
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        let (place, token) = (self.place()?, variable("HOKKU_API_KEY"));
        if token.is_none() && matches!(place, Place::Host { .. }) {
            return Err(Failure::not_logged_in());
        }
        Ok(place.client(token))
    }

    /// The app's name: by `--app`, `--remote`, `HOKKU_APP`, or the git remote of the current directory.
    pub(super) fn app(&self, args: &AppArgs) -> Result<String, Failure> {
        if let Some(app) = &args.app {
            return Ok(app.clone());
        }
        if let Some(remote) = &args.remote {
            return remotes::app_of(remote);
        }
        match variable("HOKKU_APP") {
            Some(app) => Ok(app),
            None => remotes::only_app(self.place()?),
        }
    }

    /// `/apps/APP` and what follows.
    pub(super) fn path(app: &str, rest: &str) -> String {
        format!("/apps/{}{rest}", segment(app))
    }

    /// The URL that git uses for an app.
    pub(super) fn git_url(&self, app: &str) -> Result<String, Failure> {
        let place = self.place()?;
        let scheme = if matches!(place, Place::Host { tls: true, .. }) { "https" } else { "http" };
        match place.authority() {
            Some(authority) => Ok(format!("{scheme}://{authority}/{app}.git")),
            None => Err(Failure::new("the server has not recorded the address its API listens at")
                .hint("start it anew with: hokku server --api 127.0.0.1:5000")),
        }
    }
}
