//! `domains`: host names of an app's own.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::plain;
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};

fn path(app: &str, domain: &str) -> String {
    Context::path(app, &format!("/domains/{}", segment(domain)))
}

async fn rows(ctx: &Context, app: &str) -> Result<Vec<Value>, Failure> {
    Ok(ctx.client()?.list(&Context::path(app, "/domains")).await?)
}

fn name(row: &Value) -> &str {
    row["hostname"].as_str().unwrap_or_default()
}

/// List the host names of an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku domains
  === my-app Heroku Domain

  my-app.apps.example.com

  === my-app Custom Domains

  www.example.com")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = rows(ctx, &app).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let (own, added): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["kind"] == "heroku");
    ctx.out.heading(format_args!("{} Heroku Domain", plain(&app)))?;
    own.iter().try_for_each(|row| ctx.out.line(plain(name(row))))?;
    if added.is_empty() {
        return Ok(());
    }
    ctx.out.line("")?;
    ctx.out.heading(format_args!("{} Custom Domains", plain(&app)))?;
    added.iter().try_for_each(|row| ctx.out.line(plain(name(row))))
}

/// Add a host name to an app
///
/// Requests for it go to the app at once; that they come to this server is up to DNS: a CNAME record that leads to the
/// app's own name, or an address record. A name like *.example.com stands for all below it that no app has by itself.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku domains:add www.example.com
  Adding www.example.com to ⬢ my-app... done
  Let DNS lead www.example.com to my-app.apps.example.com.")]
pub(super) struct Add {
    /// The host name
    #[arg(value_name = "HOSTNAME")]
    hostname: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Adding {} to {}", plain(&args.hostname), ctx.out.app(&app)));
    let body = json!({ "hostname": args.hostname, "sni_endpoint": null });
    let made: Value = client.post(&Context::path(&app, "/domains"), &body).await?;
    progress.done("done");
    let target = made["cname"].as_str().unwrap_or_default();
    ctx.out.say(format_args!("Let DNS lead {} to {}.", plain(name(&made)), plain(target)));
    Ok(())
}

/// Take a host name from an app
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The host name
    #[arg(value_name = "HOSTNAME")]
    hostname: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Removing {} from {}", plain(&args.hostname), ctx.out.app(&app)));
    client.delete::<Value>(&path(&app, &args.hostname)).await?;
    progress.done("done");
    Ok(())
}

/// Take all added host names from an app
#[derive(Args, Debug)]
pub(super) struct Clear {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn clear(ctx: &Context, args: Clear) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Removing all domains from {}", ctx.out.app(&app)));
    for row in rows(ctx, &app).await?.iter().filter(|row| row["kind"] == "custom") {
        client.delete::<Value>(&path(&app, name(row))).await?;
    }
    progress.done("done");
    Ok(())
}
