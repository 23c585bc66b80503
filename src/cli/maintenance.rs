//! `maintenance`: a page instead of the app.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use clap::Args;
use serde_json::{Value, json};

/// Show whether an app is in maintenance mode
#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn show(ctx: &Context, args: Show) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let app: Value = ctx.client()?.get(&Context::path(&app, "")).await?;
    ctx.out.line(if app["maintenance"] == true { "on" } else { "off" })
}

/// Put an app into maintenance mode
///
/// Its visitors see a maintenance page; its dynos go on running.
#[derive(Args, Debug)]
pub(super) struct On {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn on(ctx: &Context, args: On) -> Result<(), Failure> {
    switch(ctx, &args.app, "Enabling", true).await
}

/// Take an app out of maintenance mode
#[derive(Args, Debug)]
pub(super) struct Off {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn off(ctx: &Context, args: Off) -> Result<(), Failure> {
    switch(ctx, &args.app, "Disabling", false).await
}

async fn switch(ctx: &Context, app: &AppArgs, verb: &str, maintenance: bool) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(app)?);
    let progress = ctx.out.start(format_args!("{verb} maintenance mode for {}", ctx.out.app(&app)));
    client.patch::<Value>(&Context::path(&app, ""), &json!({ "maintenance": maintenance })).await?;
    progress.done("done");
    Ok(())
}
