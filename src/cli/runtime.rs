//! `runtime`: versions of languages that the box keeps for its builds.
#![forbid(unsafe_code)]

use super::apps::size;
use super::context::Context;
use super::errors::Failure;
use super::output::plain;
use super::stack::{expected_checksum, send_file};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Show the runtimes that are kept for builds
///
/// A build looks for the version that an app asks for in its stack first, then here, then in the language's registry.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku runtime:list
  node    22.3.0  181.4 MB
  python  3.12.4  95.0 MB")]
pub(super) struct List {
    /// Print the runtimes as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let rows = ctx.client()?.list("/runtimes").await?;
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    if rows.is_empty() {
        ctx.out.say("No runtimes are kept here. Bring one with: hokku runtime:import FILE");
        return Ok(());
    }
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let row =
        |row: &Value| vec![text(row, "language"), text(row, "version"), size(row["size"].as_u64().unwrap_or_default())];
    ctx.out.table(&rows.iter().map(row).collect::<Vec<_>>())
}

/// Keep a runtime for builds, from the archive that its makers publish
///
/// A .tar.gz, .tgz, .tar.zst or .tar of a runtime that can be put anywhere: Node.js's, Go's, a JDK, a standalone Python.
/// The file's name tells what it is, or --language and --version do. It has to have the digest that --sha256 says, or
/// FILE.sha256 beside it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku runtime:import node-v22.3.0-linux-x64.tar.gz
  Importing node-v22.3.0-linux-x64.tar.gz... done, node 22.3.0, 181.4 MB")]
pub(super) struct Import {
    /// The archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is of: node, python, go, java, ruby, php
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The digest that the file has to have
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

pub(super) async fn import(ctx: &Context, args: Import) -> Result<(), Failure> {
    let client = ctx.client()?;
    let checksum = expected_checksum(&args.file, args.sha256)?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let progress = ctx.out.start(format_args!("Importing {}", plain(&name)));
    let blob = send_file(&client, &args.file, checksum).await?;
    let body = json!({ "source_blob": blob, "file": name, "language": args.language, "version": args.version });
    let kept: Value = client.post("/runtimes", &body).await?;
    let text = |key: &str| plain(kept[key].as_str().unwrap_or_default());
    let bytes = size(kept["size"].as_u64().unwrap_or_default());
    progress.done(format_args!("done, {} {}, {bytes}", text("language"), text("version")));
    Ok(())
}

/// Remove a runtime that is kept for builds
///
/// Apps that were built with it carry it in their slugs and go on as they are.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku runtime:remove node 22.3.0
  Removing node 22.3.0... done")]
pub(super) struct Remove {
    /// Its language
    #[arg(value_name = "LANGUAGE")]
    language: String,
    /// Its version
    #[arg(value_name = "VERSION")]
    version: String,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let Remove { language, version } = args;
    let progress = ctx.out.start(format_args!("Removing {} {}", plain(&language), plain(&version)));
    let path = format!("/runtimes/{}/{}", segment(&language), segment(&version));
    ctx.client()?.delete::<Value>(&path).await?;
    progress.done("done");
    Ok(())
}
