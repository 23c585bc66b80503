//! `users`: the accounts of an instance, for its administrators; and one's own password.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use super::terminal;
use crate::client::segment;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

fn path(email: &str) -> String {
    format!("/accounts/{}", segment(email))
}

/// List the accounts
#[derive(Args, Debug)]
pub(super) struct List {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let rows = ctx.client()?.list("/accounts").await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let cells = |row: &Value| {
        let admin = if row["admin"] == true { "administrator" } else { "" };
        let password = if row["has_password"] == true { "" } else { "no password" };
        vec![plain(text(row, "email")), admin.to_owned(), password.to_owned()]
    };
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Make an account
///
/// Its password is made up and printed this once, unless it is given on stdin with --password-stdin. Whoever has it logs in
/// with "hokku auth:login" or "heroku login -i". A new account sees no app until it makes one or is given access.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku users:create ann@example.com
  Creating ann@example.com... done
  Password: 8f1c0a9d2b7e4c5d6a3f1e2b")]
pub(super) struct Create {
    /// A mail address; nothing is ever sent there
    #[arg(value_name = "EMAIL")]
    email: String,
    /// May do everything on this server
    #[arg(long)]
    admin: bool,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Print the account as JSON, with the password
    #[arg(long)]
    json: bool,
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let password = if args.password_stdin { Some(terminal::line_of_stdin()?) } else { None };
    let progress = ctx.out.start(format_args!("Creating {}", plain(&args.email)));
    let body = json!({ "email": args.email, "admin": args.admin, "password": password });
    let made: Value = ctx.client()?.post("/accounts", &body).await?;
    progress.done("done");
    if args.json { ctx.out.json(&made) } else { show_password(ctx, &made) }
}

/// One that the server made up.
fn show_password(ctx: &Context, row: &Value) -> Result<(), Failure> {
    match row["password"].as_str() {
        Some(password) => ctx.out.line(format_args!("Password: {}", plain(password))),
        None => Ok(()),
    }
}

/// Make an account an administrator, or none
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["admin", "no_admin"])))]
pub(super) struct Update {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: String,
    /// May do everything on this server
    #[arg(long)]
    admin: bool,
    /// May not any more
    #[arg(long)]
    no_admin: bool,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("Updating {}", plain(&args.email)));
    ctx.client()?.patch::<Value>(&path(&args.email), &json!({ "admin": args.admin })).await?;
    progress.done("done");
    Ok(())
}

/// Change a password
///
/// Without an address it is your own, and the one so far is asked for. With one, as an administrator, a new one is made up
/// and printed, unless it is given on stdin with --password-stdin. The account's tokens end, except the one
/// that this command uses.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ sudo hokku users:password admin@localhost
  Password: 8f1c0a9d2b7e4c5d6a3f1e2b")]
pub(super) struct Password {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: Option<String>,
    /// Read the new password from stdin
    #[arg(long, requires = "email")]
    password_stdin: bool,
}

pub(super) async fn password(ctx: &Context, args: Password) -> Result<(), Failure> {
    let client = ctx.client()?;
    let Some(email) = args.email else {
        let old = terminal::secret("Password so far: ")?;
        let new = terminal::secret("New password: ")?;
        if terminal::secret("New password again: ")? != new {
            return Err(Failure::new("the two new passwords differ; nothing was changed"));
        }
        client.patch::<Value>("/account", &json!({ "password": old, "new_password": new })).await?;
        ctx.out.say("Changed the password.");
        return Ok(());
    };
    let body = if args.password_stdin {
        json!({ "password": terminal::line_of_stdin()? })
    } else {
        json!({ "new_password": true })
    };
    let row: Value = client.patch(&path(&email), &body).await?;
    show_password(ctx, &row)
}

/// Remove an account
///
/// Its tokens are good for nothing from then on, and it has access to nothing. What it made stays. Apps that it owns have to
/// be transferred or destroyed first, or are given to another account with --transfer-to, in the same moment.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku users:remove ann@example.com --transfer-to bob@example.com")]
pub(super) struct Remove {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: String,
    /// Who gets the apps that it owns
    #[arg(long, value_name = "EMAIL")]
    transfer_to: Option<String>,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("Removing {}", plain(&args.email)));
    let client = ctx.client()?;
    match args.transfer_to {
        Some(heir) => client.delete_with::<Value>(&path(&args.email), &json!({ "transfer_to": heir })).await?,
        None => client.delete::<Value>(&path(&args.email)).await?,
    };
    progress.done("done");
    Ok(())
}
