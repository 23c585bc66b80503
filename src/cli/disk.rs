//! `disk`: who has what of the box's disk, and making room.
#![forbid(unsafe_code)]

use super::apps::size;
use super::context::Context;
use super::errors::Failure;
use clap::Args;
use serde_json::{Value, json};

/// Show what is on the box's disk
///
/// Slugs are what releases run, trees the same unpacked, a cache what an app's builds keep for the next one. When less is
/// free than twice the reserve, caches are removed, then the slugs of old releases but for the newest ones of each app; below
/// the reserve no build begins ([disk] in hokku.toml).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku disk
  $ hokku disk --json")]
pub(super) struct Show {
    /// Print the bytes as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(ctx: &Context, args: Show) -> Result<(), Failure> {
    let usage: Value = ctx.client()?.get("/disk").await?;
    if args.json {
        return ctx.out.json(&usage);
    }
    let bytes = |value: &Value| size(value.as_u64().unwrap_or_default());
    let (free, total, reserve) = (bytes(&usage["free"]), bytes(&usage["total"]), bytes(&usage["reserve"]));
    ctx.out.line(format_args!("{free} of {total} are free; {reserve} are to stay so"))?;
    ctx.out.line("")?;
    let parts = usage["parts"].as_object().into_iter().flatten();
    let row = |(part, value): (&String, &Value)| vec![part.clone(), bytes(value), bound(part, &usage["keep"])];
    ctx.out.table(&parts.map(row).collect::<Vec<_>>())?;
    let apps = usage["apps"].as_array().map(Vec::as_slice).unwrap_or_default();
    if apps.is_empty() {
        return Ok(());
    }
    ctx.out.line("")?;
    let mut rows = vec![["App", "Slugs", "Cache", "Repository"].map(str::to_owned).to_vec()];
    rows.extend(apps.iter().map(|app| {
        let name = app["name"].as_str().unwrap_or_default().to_owned();
        vec![name, bytes(&app["slugs"]), bytes(&app["cache"]), bytes(&app["repository"])]
    }));
    ctx.out.table(&rows)
}

/// What keeps a directory of ROOT from growing for ever.
fn bound(part: &str, keep: &Value) -> String {
    let number = |key: &str| keep[key].as_u64().unwrap_or_default();
    match part {
        "slugs" => format!("the newest {} of an app stay, others as long as there is room", number("slugs")),
        "trees" => "a day after a dyno last used them".to_owned(),
        "cache" => format!("at most {}; the longest unused go, also when there is little room", size(number("caches"))),
        "logs" => "8 MB of an app".to_owned(),
        "output" => "100 builds of an app".to_owned(),
        "sources" => "the last of each app".to_owned(),
        "scratch" => "what dynos write, each up to its size's disk".to_owned(),
        _ => String::new(),
    }
}

/// Remove what nobody needs from the box's disk
///
/// Unpacked slugs that no dyno uses, the output of old builds, caches of builds beyond what they may have together, and, where
/// the disk is nearly full, all caches and the slugs of old releases. What serves, and what can be gone back to by the newest releases, stays.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku disk:collect
  Making room... done, 2 slugs, 1 cache, 5 trees and 12 outputs were removed, 412.0 MB became free")]
pub(super) struct Collect {}

pub(super) async fn collect(ctx: &Context, _: Collect) -> Result<(), Failure> {
    let client = ctx.client()?;
    let progress = ctx.out.start(format_args!("Making room"));
    let done: Value = client.post("/disk/actions/collect", &json!({})).await?;
    let count = |key: &str, one: &str| match done[key].as_u64().unwrap_or_default() {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    };
    progress.done(format_args!(
        "done, {}, {}, {} and {} were removed, {} became free",
        count("slugs", "slug"),
        count("caches", "cache"),
        count("trees", "tree"),
        count("outputs", "output"),
        size(done["freed"].as_u64().unwrap_or_default())
    ));
    Ok(())
}
