//! `drains`: where an app's log is sent.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};

/// List the log drains of an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku drains
  syslog+tls://logs.example.com:6514 (d.9173ea1f-6f14-4976-9cf0-7cd0dafdcdbc)")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = ctx.client()?.list(&Context::path(&app, "/log-drains")).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    if rows.is_empty() {
        ctx.out.say(format_args!("{} has no log drains.", ctx.out.app(&app)));
    }
    let line = |row: &Value| format!("{} ({})", plain(text(row, "url")), plain(text(row, "token")));
    rows.iter().try_for_each(|row| ctx.out.line(line(row)))
}

/// Send an app's log to a drain
///
/// Every line from now on goes there as well, in the syslog format of Heroku's drains: over TCP, over TLS, or in requests
/// of HTTP. What the drain does not take is kept for it as far as 2000 lines; how many are missing then is told in their
/// place (L10). A drain that fails is named in the app's log (L13, L14).
///
/// The drain can't be on this machine, except for the ports that its configuration opens to dynos ([network] allow_host).
#[expect(clippy::doc_markdown, reason = "help is shown as it is written")]
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku drains:add syslog+tls://logs.example.com:6514
  $ hokku drains:add https://user:password@logs.example.com/in")]
pub(super) struct Add {
    /// syslog://HOST:PORT, syslog+tls://HOST:PORT, or https://HOST/PATH
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let made: Value = client.post(&Context::path(&app, "/log-drains"), &json!({ "url": args.url })).await?;
    ctx.out.say(format_args!(
        "Successfully added drain {} ({})",
        plain(text(&made, "url")),
        plain(text(&made, "token"))
    ));
    Ok(())
}

/// Send an app's log to a drain no more
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The drain, by URL or token
    #[arg(value_name = "URL|TOKEN")]
    drain: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let path = Context::path(&app, &format!("/log-drains/{}", segment(&args.drain)));
    let gone: Value = client.delete(&path).await?;
    ctx.out.say(format_args!("Successfully removed drain {}", plain(text(&gone, "url"))));
    Ok(())
}
