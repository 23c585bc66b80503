//! `authorizations`: tokens for others, and for less than everything.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Value, json};

const PATH: &str = "/oauth/authorizations";

fn path(id: &str) -> String {
    format!("{PATH}/{}", segment(id))
}

fn scope(row: &Value) -> String {
    let words = row["scope"].as_array().into_iter().flatten().filter_map(Value::as_str);
    plain(&words.collect::<Vec<_>>().join(","))
}

fn show(ctx: &Context, row: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return ctx.out.json(row);
    }
    let token = &row["access_token"];
    let mut lines = vec![
        ("ID", plain(text(row, "id"))),
        ("Description", plain(text(row, "description"))),
        ("Scope", scope(row)),
        ("Updated at", plain(text(row, "updated_at"))),
    ];
    lines.extend(token["token"].as_str().map(|token| ("Token", plain(token))));
    lines.extend(token["expires_in"].as_u64().map(|seconds| ("Expires in", format!("{seconds} s"))));
    lines.iter().try_for_each(|(name, value)| ctx.out.line(format_args!("{:13}{value}", format!("{name}:"))))
}

/// Those of somebody else, for administrators.
fn path_of(user: &str) -> String {
    format!("/accounts/{}/authorizations", segment(user))
}

/// List your tokens, or as an administrator those of an account
#[derive(Args, Debug)]
pub(super) struct List {
    /// Whose, if not your own
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let rows = ctx.client()?.list(&args.user.as_deref().map_or_else(|| PATH.to_owned(), path_of)).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let cells = |row: &Value| vec![text(row, "description").to_owned(), text(row, "id").to_owned(), scope(row)];
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Make a token
///
/// It is shown this once. With a scope it is good for less than everything: identity tells who you are; read and write
/// leave config vars, log drains and one-off dynos out; read-protected and write-protected have them too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku authorizations:create -d \"status page\" -s read
  $ hokku authorizations:create -d ci -s write -e 2592000 --short")]
pub(super) struct Create {
    /// What it is for
    #[arg(short, long, value_name = "TEXT")]
    description: Option<String>,
    /// global, identity, read, write, read-protected, write-protected; several separated by commas
    #[arg(short, long, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<String>,
    /// Seconds it lasts; for ever when not given
    #[arg(short, long, value_name = "SECONDS")]
    expires_in: Option<u32>,
    /// Print the token only
    #[arg(short = 'S', long, conflicts_with = "json")]
    short: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let body = json!({ "description": args.description, "scope": args.scope, "expires_in": args.expires_in });
    let made: Value = ctx.client()?.post(PATH, &body).await?;
    if args.short {
        return ctx.out.line(plain(text(&made["access_token"], "token")));
    }
    show(ctx, &made, args.json)
}

/// Show one of your tokens, but for its text
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

/// Take a token back
#[derive(Args, Debug)]
pub(super) struct Revoke {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    /// Whose it is, if not your own; for administrators
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
}

pub(super) async fn revoke(ctx: &Context, args: Revoke) -> Result<(), Failure> {
    let client = ctx.client()?;
    let progress = ctx.out.start("Revoking the token");
    let place = args.user.map_or_else(|| path(&args.id), |user| format!("{}/{}", path_of(&user), segment(&args.id)));
    let gone: Value = client.delete(&place).await?;
    progress.done(format_args!("done, revoked {}", plain(text(&gone, "description"))));
    Ok(())
}

/// Make a token anew; the old text is good for nothing any more
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
    let path = format!("{}/actions/regenerate-tokens", path(&args.id));
    show(ctx, &ctx.client()?.post(&path, &json!({})).await?, args.json)
}

/// Say anew what a token is for
#[derive(Args, Debug)]
pub(super) struct Update {
    /// Its ID
    #[arg(value_name = "ID")]
    id: String,
    /// What it is for
    #[arg(short, long, value_name = "TEXT")]
    description: String,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    show(ctx, &ctx.client()?.patch(&path(&args.id), &json!({ "description": args.description })).await?, false)
}
