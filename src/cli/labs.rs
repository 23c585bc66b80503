//! `labs`: what can be switched on for an app.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};

/// List what can be switched on for an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku labs -a my-app
  [+]  runtime-dyno-metadata  Tells dynos about their app, release and code in HEROKU_ variables
  [ ]  hold-and-swap          Replaces web dynos one by one and holds requests meanwhile, to need no memory twice")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = ctx.client()?.list(&Context::path(&app, "/features")).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let cells = |row: &Value| {
        let on = if row["enabled"] == true { "[+]" } else { "[ ]" };
        vec![on.to_owned(), plain(text(row, "name")), plain(text(row, "description"))]
    };
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Switch something on for an app
///
/// Dynos have it that are started from then on; restart those that run with "hokku ps:restart".
#[derive(Args, Debug)]
pub(super) struct Enable {
    /// Its name, as labs lists it
    #[arg(value_name = "FEATURE")]
    feature: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn enable(ctx: &Context, args: Enable) -> Result<(), Failure> {
    set(ctx, &args.app, &args.feature, true).await
}

/// Switch something off for an app
///
/// Dynos are without it that are started from then on.
#[derive(Args, Debug)]
pub(super) struct Disable {
    /// Its name, as labs lists it
    #[arg(value_name = "FEATURE")]
    feature: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn disable(ctx: &Context, args: Disable) -> Result<(), Failure> {
    set(ctx, &args.app, &args.feature, false).await
}

async fn set(ctx: &Context, args: &AppArgs, feature: &str, on: bool) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(args)?);
    let verb = if on { "Enabling" } else { "Disabling" };
    let progress = ctx.out.start(format_args!("{verb} {} for {}", plain(feature), ctx.out.app(&app)));
    let path = Context::path(&app, &format!("/features/{}", segment(feature)));
    client.patch::<Value>(&path, &json!({ "enabled": on })).await?;
    progress.done("done");
    Ok(())
}
