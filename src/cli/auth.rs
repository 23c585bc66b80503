//! `auth`: tokens, and the environment for Heroku's own clients.
#![forbid(unsafe_code)]

use super::config::quote;
use super::context::{Context, variable};
use super::errors::{Failure, status};
use super::output::plain;
use super::terminal;
use crate::client::{Client, Place};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

const DAY: u64 = 86_400;

#[derive(Deserialize)]
struct Authorization {
    access_token: AccessToken,
}

#[derive(Deserialize)]
struct AccessToken {
    token: String,
}

/// Has the server make a token.
///
/// Over the Unix socket the server makes one for root without a token.
pub(super) async fn make_token(client: &Client, description: &str, seconds: u64) -> Result<String, Failure> {
    let body = json!({ "description": description, "expires_in": seconds, "scope": ["global"] });
    let made: Authorization = client.post("/oauth/authorizations", &body).await?;
    Ok(made.access_token.token)
}

/// Print a token for the API
///
/// For a server that is found by HOKKU_HOST it is the one in HOKKU_API_KEY. As root on the server's box a new one is made;
/// whoever has it may do everything on this server, so keep it to yourself.
#[expect(clippy::doc_markdown, reason = "help is shown as it is written")]
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ export HOKKU_HOST=http://127.0.0.1:5000 HOKKU_API_KEY=$(sudo hokku auth:token)
  $ hokku apps")]
pub(super) struct Token {
    /// Days a new token lasts
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// What a new token is for
    #[arg(long, value_name = "TEXT", default_value = "hokku auth:token")]
    description: String,
    /// Print the token as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn token(ctx: &Context, args: Token) -> Result<(), Failure> {
    let client = ctx.client()?;
    let token = if let (Place::Host { .. }, Some(token)) = (ctx.place()?, variable("HOKKU_API_KEY")) {
        // Asked, so that a token the server does not know is not handed on as if it were one.
        client.get::<Value>("/account").await?;
        token
    } else {
        let token = make_token(&client, &args.description, args.days * DAY).await?;
        ctx.out.say(format_args!("This token gives full access to the server for {} days.", args.days));
        token
    };
    if args.json { ctx.out.json(&json!({ "token": token })) } else { ctx.out.line(token) }
}

/// Log in by mail address and password
///
/// Prints the variables that "hokku" needs to work against the server from here, with a new token in them: nothing is kept
/// on this machine but where you put them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ eval \"$(hokku auth:login --host https://paas.example.com:5000)\"
  Email: ann@example.com
  Password:
  Logged in as ann@example.com")]
pub(super) struct Login {
    /// The account; asked for when not given
    #[arg(short, long, value_name = "EMAIL")]
    email: Option<String>,
    /// Days the token lasts
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
}

pub(super) async fn login(ctx: &Context, args: Login) -> Result<(), Failure> {
    let place = ctx.place()?;
    let email = args.email.map_or_else(|| terminal::answer("Email: "), Ok)?;
    let password = terminal::secret("Password: ")?;
    let client = place.client(None).with_password(&email, &password);
    let token = match make_token(&client, "hokku auth:login", args.days * DAY).await {
        Err(failure) if failure.status() == status::NOT_LOGGED_IN => {
            return Err(Failure::new("the server knows no such address with that password"));
        }
        other => other?,
    };
    ctx.out.say(format_args!("Logged in as {}", plain(&email)));
    let base = ctx.git_url("x")?;
    let host = base.strip_suffix("/x.git").unwrap_or(&base);
    ctx.out.line(format_args!("export HOKKU_HOST={}", quote(host)))?;
    ctx.out.line(format_args!("export HOKKU_API_KEY={}", quote(&token)))
}

/// Take the token in HOKKU_API_KEY back
#[expect(clippy::doc_markdown, reason = "help is shown as it is written")]
#[derive(Args, Debug)]
pub(super) struct Logout {}

pub(super) async fn logout(ctx: &Context, _: Logout) -> Result<(), Failure> {
    if variable("HOKKU_API_KEY").is_none() {
        return Err(Failure::new("there is no token in HOKKU_API_KEY to log out with"));
    }
    ctx.client()?.delete::<Value>("/oauth/authorizations/~").await?;
    ctx.out.say("Logged out: the token in HOKKU_API_KEY is good for nothing any more.");
    Ok(())
}

/// Show who you are to the server
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku auth:whoami
  admin@localhost")]
pub(super) struct Whoami {
    /// Print the account as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn whoami(ctx: &Context, args: Whoami) -> Result<(), Failure> {
    let account: Value = ctx.client()?.get("/account").await?;
    if args.json {
        return ctx.out.json(&account);
    }
    ctx.out.line(plain(account["email"].as_str().unwrap_or_default()))
}

/// Print the environment for Heroku's own CLI
///
/// Heroku's CLI and other clients of its API then work against this server, unmodified. As root on the server's box a
/// token is made for it; elsewhere it is the one in HOKKU_API_KEY.
#[expect(clippy::doc_markdown, reason = "help is shown as it is written")]
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ eval \"$(sudo hokku env)\"
  $ heroku apps")]
pub(super) struct Env {
    /// Days a new token lasts
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Print the variables as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn env(ctx: &Context, args: Env) -> Result<(), Failure> {
    let base = ctx.git_url("x")?;
    let base = base.strip_suffix("/x.git").unwrap_or(&base).to_owned();
    let token = match (ctx.place()?, variable("HOKKU_API_KEY")) {
        (Place::Host { .. }, Some(token)) => token,
        _ => make_token(&ctx.client()?, "hokku env", args.days * DAY).await?,
    };
    let variables = variables(&base, &token, ctx.place()?);
    if args.json {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
        return ctx.out.json(&variables.collect());
    }
    for (name, value) in variables {
        ctx.out.line(format_args!("export {name}={}", quote(&value)))?;
    }
    Ok(())
}

/// What Heroku's CLI needs to know, and what keeps it from talking to Heroku.
fn variables(base: &str, token: &str, place: &Place) -> Vec<(&'static str, String)> {
    let git = base.split_once("://").map_or(base, |(_, rest)| rest);
    let host = git.rsplit_once(':').map_or(git, |(host, _)| host);
    let mut variables = vec![
        ("HEROKU_HOST", base.to_owned()),
        ("HEROKU_API_KEY", token.to_owned()),
        ("HEROKU_PARTICLEBOARD_URL", base.to_owned()),
        ("HEROKU_DATA_HOST", host.to_owned()),
        ("HEROKU_BUILDPACK_REGISTRY_URL", base.to_owned()),
        ("DISABLE_TELEMETRY", "true".to_owned()),
        ("HEROKU_NOTIFICATIONS", "0".to_owned()),
        ("HEROKU_SKIP_NEW_VERSION_CHECK", "true".to_owned()),
        ("HEROKU_DISABLE_AUTOUPDATE", "1".to_owned()),
    ];
    if let Place::Root { root, .. } = place {
        let authority = root.join("ca.pem");
        if authority.exists() {
            let file = authority.display().to_string();
            variables.push(("NODE_EXTRA_CA_CERTS", file.clone()));
            // For this server only: other ones that git talks to are vouched for by others.
            variables.push(("GIT_CONFIG_COUNT", "1".to_owned()));
            variables.push(("GIT_CONFIG_KEY_0", format!("http.https://{git}/.sslCAInfo")));
            variables.push(("GIT_CONFIG_VALUE_0", file));
        }
    }
    variables
}
