//! `keys`: public keys of SSH.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

const PATH: &str = "/account/keys";

/// List your public keys
///
/// Nothing is reached by SSH yet: they are kept for what will be.
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
    let cells = |row: &Value| vec![plain(text(row, "fingerprint")), plain(text(row, "comment"))];
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Add a public key
#[derive(Args, Debug)]
pub(super) struct Add {
    /// The key's file, ending in .pub
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let shown = args.file.display();
    let key = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::local(format!("{shown} can't be read"), &error))?;
    let progress = ctx.out.start(format_args!("Uploading {shown}"));
    let made: Value = ctx.client()?.post(PATH, &json!({ "public_key": key })).await?;
    progress.done(format_args!("done, {}", plain(text(&made, "fingerprint"))));
    Ok(())
}

/// Remove a public key
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The key, by its comment or fingerprint
    #[arg(value_name = "KEY")]
    key: String,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("Removing {}", plain(&args.key)));
    ctx.client()?.delete::<Value>(&format!("{PATH}/{}", segment(&args.key))).await?;
    progress.done("done");
    Ok(())
}

/// Remove all your public keys
#[derive(Args, Debug)]
pub(super) struct Clear {}

pub(super) async fn clear(ctx: &Context, _: Clear) -> Result<(), Failure> {
    let client = ctx.client()?;
    let progress = ctx.out.start("Removing all keys");
    for row in client.list(PATH).await? {
        client.delete::<Value>(&format!("{PATH}/{}", segment(text(&row, "id")))).await?;
    }
    progress.done("done");
    Ok(())
}
