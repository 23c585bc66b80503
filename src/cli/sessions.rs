//! `sessions`: log-ins.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::Value;

const PATH: &str = "/oauth/sessions";

/// List your log-ins: the tokens that were had by your password
#[derive(Args, Debug)]
pub(super) struct List {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let rows = ctx.client()?.list(PATH).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let cells = |row: &Value| ["description", "id", "created_at"].map(|key| text(row, key).to_owned()).to_vec();
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// End a log-in, wherever it was made
#[derive(Args, Debug)]
pub(super) struct Destroy {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn destroy(ctx: &Context, args: Destroy) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("Destroying {}", plain(&args.id)));
    ctx.client()?.delete::<Value>(&format!("{PATH}/{}", segment(&args.id))).await?;
    progress.done("done");
    Ok(())
}
