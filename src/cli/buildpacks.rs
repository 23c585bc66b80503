//! `buildpacks`: what compiles an app.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::{Client, segment};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};

fn path(app: &str) -> String {
    Context::path(app, "/buildpack-installations")
}

/// URLs (or names, where we know them) in order.
fn urls(rows: &[Value]) -> Vec<String> {
    let url = |row: &Value| {
        let url = row["buildpack"]["url"].as_str().or_else(|| row["buildpack"]["name"].as_str())?;
        Some(url.strip_prefix("urn:buildpack:").unwrap_or(url).to_owned())
    };
    rows.iter().filter_map(url).collect()
}

async fn current(client: &Client, app: &str) -> Result<Vec<String>, Failure> {
    Ok(urls(&client.list(&path(app)).await?))
}

/// Replaces the whole list; answers with the new one.
pub(super) async fn put(client: &Client, app: &str, buildpacks: &[String]) -> Result<Vec<String>, Failure> {
    let updates: Vec<_> = buildpacks.iter().map(|buildpack| json!({ "buildpack": buildpack })).collect();
    let rows: Vec<Value> = client.put(&path(app), &json!({ "updates": updates })).await?;
    Ok(urls(&rows))
}

/// Show the buildpacks of an app, in the order they run in
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks
  === my-app Buildpacks

  1. heroku/nodejs
  2. https://github.com/someone/buildpack#v3")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print the buildpacks as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = ctx.client()?.list(&path(&app)).await?;
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    let urls = urls(&rows);
    if urls.is_empty() {
        ctx.out.say(format_args!("{} has no buildpacks set; the next build detects one.", ctx.out.app(&app)));
        return Ok(());
    }
    ctx.out.heading(format_args!("{} Buildpack{}", plain(&app), if urls.len() == 1 { "" } else { "s" }))?;
    print(ctx, &urls)
}

fn print(ctx: &Context, urls: &[String]) -> Result<(), Failure> {
    if let [url] = urls {
        return ctx.out.line(plain(url));
    }
    urls.iter().enumerate().try_for_each(|(n, url)| ctx.out.line(format_args!("{}. {}", n + 1, plain(url))))
}

/// Set the buildpack of an app
///
/// Replaces the buildpack at --index, or the only one there is. It is used from the next build on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:set heroku/python
  $ hokku buildpacks:set -i 1 https://github.com/someone/buildpack#v3
  $ hokku buildpacks:set /srv/buildpacks/mine")]
pub(super) struct Set {
    /// A name, a git URL (with #BRANCH or #TAG), a .tgz URL, or a path on the server
    #[arg(value_name = "BUILDPACK")]
    buildpack: String,
    /// Position, beginning with 1
    #[arg(short, long, value_name = "N", value_parser = position)]
    index: Option<usize>,
    #[command(flatten)]
    app: AppArgs,
}

fn position(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "must be a number from 1 on".to_owned())
}

pub(super) async fn set(ctx: &Context, args: Set) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut urls = current(&client, &app).await?;
    match args.index {
        Some(n) if n <= urls.len() => urls[n - 1] = args.buildpack,
        Some(_) => urls.push(args.buildpack),
        None if urls.len() > 1 => {
            return Err(Failure::usage(format!("{} has several buildpacks", plain(&app)))
                .hint("say which one to replace with --index N, or clear them with: hokku buildpacks:clear"));
        }
        None => urls = vec![args.buildpack],
    }
    let urls = put(&client, &app, &urls).await?;
    changed(ctx, &app, "set", &urls);
    Ok(())
}

/// Add a buildpack to an app
///
/// At --index, or at the end. It is used from the next build on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:add -i 1 heroku/nodejs
  Buildpack added. Next release on my-app will use:
  1. heroku/nodejs
  2. heroku/python")]
pub(super) struct Add {
    /// A name, a git URL (with #BRANCH or #TAG), a .tgz URL, or a path on the server
    #[arg(value_name = "BUILDPACK")]
    buildpack: String,
    /// Position, beginning with 1
    #[arg(short, long, value_name = "N", value_parser = position)]
    index: Option<usize>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut urls = current(&client, &app).await?;
    if urls.contains(&args.buildpack) {
        return Err(Failure::new(format!(
            "the buildpack {} is already set on {}",
            plain(&args.buildpack),
            plain(&app)
        )));
    }
    let at = args.index.map_or(urls.len(), |n| (n - 1).min(urls.len()));
    urls.insert(at, args.buildpack);
    let urls = put(&client, &app, &urls).await?;
    changed(ctx, &app, "added", &urls);
    Ok(())
}

/// Remove a buildpack from an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:remove heroku/nodejs
  $ hokku buildpacks:remove -i 2")]
pub(super) struct Remove {
    /// The buildpack as it is listed
    #[arg(value_name = "BUILDPACK", required_unless_present = "index", conflicts_with = "index")]
    buildpack: Option<String>,
    /// Its position, beginning with 1
    #[arg(short, long, value_name = "N", value_parser = position)]
    index: Option<usize>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut urls = current(&client, &app).await?;
    let at = match (&args.buildpack, args.index) {
        (_, Some(n)) => Some(n - 1).filter(|at| *at < urls.len()),
        (Some(wanted), None) => urls.iter().position(|url| url == wanted),
        (None, None) => None,
    };
    let Some(at) = at else {
        return Err(
            Failure::new(format!("{} has no such buildpack", plain(&app))).hint("list them with: hokku buildpacks")
        );
    };
    urls.remove(at);
    let urls = put(&client, &app, &urls).await?;
    changed(ctx, &app, "removed", &urls);
    Ok(())
}

/// Remove all buildpacks from an app
///
/// The next build then detects the fitting one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:clear
  Buildpacks cleared. Next release on my-app will detect buildpacks normally.")]
pub(super) struct Clear {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn clear(ctx: &Context, args: Clear) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    put(&client, &app, &[]).await?;
    ctx.out.say(format_args!("Buildpacks cleared. Next release on {} will detect buildpacks normally.", plain(&app)));
    Ok(())
}

/// Search the buildpacks that are known by name
///
/// They are part of the server. Those of others are used by their URL.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:search
  $ hokku buildpacks:search ruby")]
pub(super) struct Search {
    /// Part of a name or description
    #[arg(value_name = "TERM", default_value = "")]
    term: String,
}

pub(super) async fn search(ctx: &Context, args: Search) -> Result<(), Failure> {
    let rows: Vec<Value> = ctx.client()?.get("/buildpacks").await?;
    let term = args.term.to_lowercase();
    let found = rows.iter().map(|row| {
        let name = format!("{}/{}", text(row, "namespace"), text(row, "name"));
        vec![name, text(row, "category").to_owned(), text(row, "description").to_owned()]
    });
    let found: Vec<_> = found.filter(|row| row.iter().any(|field| field.to_lowercase().contains(&term))).collect();
    if found.is_empty() {
        ctx.out.say("No buildpacks found");
        return Ok(());
    }
    ctx.out.table(&found)?;
    ctx.out.say(format_args!("{} buildpack{} found", found.len(), if found.len() == 1 { "" } else { "s" }));
    Ok(())
}

fn registered(name: &str, rest: &str) -> String {
    format!("/buildpacks/{}{rest}", segment(name))
}

/// Show what a buildpack is for
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:info heroku/ruby")]
pub(super) struct Info {
    /// A name, as buildpacks:search prints it
    #[arg(value_name = "BUILDPACK")]
    buildpack: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let client = ctx.client()?;
    let mut row: Value = client.get(&registered(&args.buildpack, "")).await?;
    let versions: Vec<Value> = client.get(&registered(&args.buildpack, "/revisions")).await?;
    let readme: Value = client.get(&registered(&args.buildpack, "/readme")).await?;
    let readme = STANDARD.decode(text(&readme, "content")).unwrap_or_default();
    row["readme"] = String::from_utf8_lossy(&readme).trim().into();
    row["license"] = versions.first().map_or(Value::Null, |newest| newest["license"].clone());
    if args.json {
        return ctx.out.json(&row);
    }
    ctx.out.heading(plain(&args.buildpack))?;
    let pair = |(name, field): (&'static str, &str)| (name, plain(text(&row, field)));
    ctx.out.pairs([("Description", "description"), ("Category", "category"), ("License", "license")].map(pair))?;
    ctx.out.line("")?;
    row["readme"].as_str().unwrap_or_default().lines().try_for_each(|line| ctx.out.line(plain(line)))
}

/// List the versions of a buildpack
///
/// Those of the server have one, which is the server's own.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku buildpacks:versions heroku/ruby")]
pub(super) struct Versions {
    /// A name, as buildpacks:search prints it
    #[arg(value_name = "BUILDPACK")]
    buildpack: String,
}

pub(super) async fn versions(ctx: &Context, args: Versions) -> Result<(), Failure> {
    let rows: Vec<Value> = ctx.client()?.get(&registered(&args.buildpack, "/revisions")).await?;
    let line = |row: &Value| vec![text(row, "release").to_owned(), text(row, "status").to_owned()];
    ctx.out.table(&rows.iter().map(line).collect::<Vec<_>>())
}

fn changed(ctx: &Context, app: &str, verb: &str, urls: &[String]) {
    let app = plain(app);
    match urls {
        [] => ctx.out.say(format_args!("Buildpack {verb}. Next release on {app} will detect buildpacks normally.")),
        [url] => ctx.out.say(format_args!("Buildpack {verb}. Next release on {app} will use {}.", plain(url))),
        _ => {
            ctx.out.say(format_args!("Buildpack {verb}. Next release on {app} will use:"));
            for (n, url) in urls.iter().enumerate() {
                ctx.out.say(format_args!("{}. {}", n + 1, plain(url)));
            }
        }
    }
    if !urls.is_empty() {
        let these = if urls.len() == 1 { "this buildpack" } else { "these buildpacks" };
        ctx.out.say(format_args!("Run git push hokku main to create a new release using {these}."));
    }
}
