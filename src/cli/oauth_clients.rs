//! `clients`: OAuth clients.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

const PATH: &str = "/oauth/clients";

fn path(id: &str) -> String {
    format!("{PATH}/{}", segment(id))
}

fn show(ctx: &Context, row: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return ctx.out.json(row);
    }
    let lines = [
        ("ID", "id"),
        ("Name", "name"),
        ("Redirect URI", "redirect_uri"),
        ("Secret", "secret"),
        ("Updated at", "updated_at"),
    ];
    lines
        .iter()
        .try_for_each(|(name, key)| ctx.out.line(format_args!("{:14}{}", format!("{name}:"), plain(text(row, key)))))
}

/// List your OAuth clients
///
/// They are kept, with a secret each, for programs that look them up; nobody logs in by them here.
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
    let cells = |row: &Value| ["name", "id", "redirect_uri"].map(|key| text(row, key).to_owned()).to_vec();
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Register an OAuth client
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku clients:create Amazing https://amazing.example.com/auth/callback")]
pub(super) struct Create {
    /// What it is called
    #[arg(value_name = "NAME")]
    name: String,
    /// Where its users would come back to: https, or http to this machine or a private network
    #[arg(value_name = "URL")]
    redirect_uri: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let body = json!({ "name": args.name, "redirect_uri": args.redirect_uri });
    show(ctx, &ctx.client()?.post(PATH, &body).await?, args.json)
}

/// Show an OAuth client and its secret
#[derive(Args, Debug)]
pub(super) struct Info {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    show(ctx, &ctx.client()?.get(&path(&args.id)).await?, args.json)
}

/// Change an OAuth client's name or address
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["name", "url"])))]
pub(super) struct Update {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    /// What it is called
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Where its users would come back to
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let body = json!({ "name": args.name, "redirect_uri": args.url });
    show(ctx, &ctx.client()?.patch(&path(&args.id), &body).await?, false)
}

/// Give an OAuth client another secret
///
/// The old one is good for nothing any more.
#[derive(Args, Debug)]
pub(super) struct Rotate {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn rotate(ctx: &Context, args: Rotate) -> Result<(), Failure> {
    let path = format!("{}/actions/rotate-credentials", path(&args.id));
    show(ctx, &ctx.client()?.post(&path, &json!({})).await?, args.json)
}

/// Remove an OAuth client
#[derive(Args, Debug)]
pub(super) struct Destroy {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn destroy(ctx: &Context, args: Destroy) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("Destroying {}", plain(&args.id)));
    ctx.client()?.delete::<Value>(&path(&args.id)).await?;
    progress.done("done");
    Ok(())
}
