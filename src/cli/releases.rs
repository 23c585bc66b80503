//! `releases`: what was released when and by whom, and going back.
#![forbid(unsafe_code)]

use super::apps::parse;
use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{Progress, plain};
use super::when::ago;
use crate::client::{Client, segment};
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[derive(Deserialize)]
pub(super) struct Release {
    id: String,
    pub(super) version: u32,
    description: String,
    status: String,
    #[serde(default)]
    current: bool,
    user: User,
    created_at: String,
    #[serde(default)]
    addon_plan_names: Vec<String>,
    output_stream_url: Option<String>,
    failure_message: Option<String>,
}

#[derive(Deserialize)]
struct User {
    email: String,
}

impl Release {
    /// What became of it, unless it is what one expects.
    fn trouble(&self) -> &str {
        if self.status == "succeeded" { "" } else { &self.status }
    }
}

/// An app's newest release.
pub(super) async fn newest(client: &Client, app: &str) -> Result<Option<Release>, Failure> {
    newest_first(client, app, 1).await?.first().map(parse).transpose()
}

/// Waits until the release has succeeded or failed, and completes what was announced with that. Who does not want to
/// wait may leave; the server goes on.
pub(super) async fn settle(
    client: &Client,
    app: &str,
    progress: Progress,
    mut release: Release,
) -> Result<(), Failure> {
    let path = Context::path(app, &format!("/releases/{}", release.version));
    let mut pause = Duration::from_millis(20);
    while release.status == "pending" {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
        release = client.get(&path).await?;
    }
    if release.status == "failed" {
        drop(progress);
        let why = plain(release.failure_message.as_deref().unwrap_or("it did not start"));
        return Err(Failure::new(format!("v{} failed: {why}", release.version))
            .hint(format!("the last good release goes on serving; what the app said: hokku logs -a {app}"))
            .hint(format!(
                "to go back, config vars included: hokku rollback -a {app}, with a version of hokku releases"
            )));
    }
    progress.done(format_args!("done, v{}", release.version));
    Ok(())
}

async fn newest_first(client: &Client, app: &str, count: u32) -> Result<Vec<Value>, Failure> {
    let range = format!("version ..; max={count}, order=desc");
    let (mut rows, _) = client.page(&Context::path(app, "/releases"), Some(&range)).await?;
    rows.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(rows)
}

/// Show the releases of an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku releases
  === my-app Releases - Current: v4

  v4  Set RAILS_ENV config vars  admin@localhost  2026/11/22 17:03:11 +0000 (~ 5s ago)
  v3  Deploy 1a2b3c4d            admin@localhost  2026/11/22 17:01:02 +0000 (~ 2m ago)")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// How many to show
    #[arg(short, long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    num: u32,
    /// Print the releases as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let rows = newest_first(&ctx.client()?, &app, args.num).await?;
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    let releases: Vec<Release> = rows.iter().map(parse).collect::<Result<_, _>>()?;
    if releases.is_empty() {
        ctx.out.say(format_args!("{} has no releases.", ctx.out.app(&app)));
        return Ok(());
    }
    let current = releases.iter().find(|release| release.current);
    let current = current.map_or_else(String::new, |release| format!(" - Current: v{}", release.version));
    ctx.out.heading(format_args!("{} Releases{current}", plain(&app)))?;
    let trouble = releases.iter().any(|release| !release.trouble().is_empty());
    let row = |release: &Release| {
        let mut cells = vec![format!("v{}", release.version), shorten(&release.description)];
        if trouble {
            cells.push(release.trouble().to_owned());
        }
        cells.extend([release.user.email.clone(), ago(&release.created_at, Timestamp::now())]);
        cells
    };
    ctx.out.table(&releases.iter().map(row).collect::<Vec<_>>())
}

/// Descriptions list every config var that was set, which can be many.
fn shorten(text: &str) -> String {
    const WIDTH: usize = 50;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// Show one release and its config vars
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku releases:info v10
  $ hokku releases:info --json")]
pub(super) struct Info {
    /// The release, v10 or 10; without it the newest
    #[arg(value_name = "RELEASE", value_parser = version)]
    release: Option<u32>,
    #[command(flatten)]
    app: AppArgs,
    /// Print the release as JSON
    #[arg(long)]
    json: bool,
    /// Print its config vars as KEY=value lines, quoted for a shell
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
}

/// `v10` or `10`.
fn version(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('v').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "is no release; releases are called like v10".to_owned())
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let value: Value = match args.release {
        Some(version) => client.get(&Context::path(&app, &format!("/releases/{version}"))).await?,
        None => newest_first(&client, &app, 1).await?.into_iter().next().ok_or_else(|| no_release(&app))?,
    };
    if args.json {
        return ctx.out.json(&value);
    }
    let release: Release = parse(&value)?;
    let path = Context::path(&app, &format!("/releases/{}/config-vars", segment(&release.version.to_string())));
    let vars: Map<String, Value> = client.get(&path).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if args.shell {
        let line = |(key, value): (&String, &Value)| format!("{key}={}", super::config::quote(&text(value)));
        return vars.iter().try_for_each(|var| ctx.out.line(line(var)));
    }
    ctx.out.heading(format_args!("Release v{}", release.version))?;
    ctx.out.pairs([
        ("Add-ons", plain(&release.addon_plan_names.join(", "))),
        ("Change", plain(&release.description)),
        ("By", plain(&release.user.email)),
        ("When", ago(&release.created_at, Timestamp::now())),
        ("Status", plain(&release.status)),
    ])?;
    ctx.out.line("")?;
    ctx.out.heading(format_args!("v{} Config vars", release.version))?;
    ctx.out.pairs(vars.iter().map(|(key, value)| (key.as_str(), text(value))))
}

fn no_release(app: &str) -> Failure {
    Failure::new(format!("{} has no releases", plain(app)))
}

/// Go back to an earlier release
///
/// Makes a new release with the code and the config vars of the earlier one, without building anything. Without an
/// argument it goes back to the release before the current one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku rollback
  $ hokku rollback v7
  Rolling back ⬢ my-app to v7... done, v12")]
pub(super) struct Rollback {
    /// The release to go back to, v10 or 10
    #[arg(value_name = "RELEASE", value_parser = version)]
    release: Option<u32>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn rollback(ctx: &Context, args: Rollback) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let rows = newest_first(&client, &app, 200).await?;
    let target: Release = match args.release {
        Some(version) => client.get(&Context::path(&app, &format!("/releases/{version}"))).await?,
        None => previous(&rows)?,
    };
    let progress = ctx.out.start(format_args!("Rolling back {} to v{}", ctx.out.app(&app), target.version));
    let made: Release = client.post(&Context::path(&app, "/releases"), &json!({ "release": target.id })).await?;
    if let Some(url) = &made.output_stream_url {
        ctx.out.say("running its release command:");
        print_output(ctx, &client, url).await?;
    }
    settle(&client, &app, progress, made).await?;
    ctx.out.warn("Rollback affects code and config vars; it doesn't add or remove addons.");
    if let Some(before) = rows.iter().find(|row| row["current"] == true) {
        ctx.out.warn(&format!("To undo, run: hokku rollback v{}", before["version"]));
    }
    Ok(())
}

async fn print_output(ctx: &Context, client: &Client, url: &str) -> Result<(), Failure> {
    let mut output = client.download(url).await?;
    while let Some(bytes) = output.next().await? {
        ctx.out.bytes(&bytes)?;
    }
    Ok(())
}

/// Show what a release's command said
///
/// While it runs, all that it says until its end.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku releases:output
  $ hokku releases:output v10")]
pub(super) struct Output {
    /// The release, v10 or 10; without it the newest
    #[arg(value_name = "RELEASE", value_parser = version)]
    release: Option<u32>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn output(ctx: &Context, args: Output) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let release: Release = match args.release {
        Some(version) => client.get(&Context::path(&app, &format!("/releases/{version}"))).await?,
        None => newest(&client, &app).await?.ok_or_else(|| no_release(&app))?,
    };
    if let Some(url) = &release.output_stream_url {
        return print_output(ctx, &client, url).await;
    }
    ctx.out.warn(&format!("v{} has no output: its release had no command to run.", release.version));
    Ok(())
}

/// Run the command of the newest release again
///
/// Makes a new release with its code and the present config vars.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku releases:retry
  Retrying v10 on ⬢ my-app... done, v11")]
pub(super) struct Retry {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn retry(ctx: &Context, args: Retry) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let last = newest_first(&client, &app, 1).await?.into_iter().next().ok_or_else(|| no_release(&app))?;
    let release: Release = parse(&last)?;
    if last["slug"]["id"].is_null() {
        return Err(Failure::new(format!("v{} has no code to run", release.version)));
    }
    let progress = ctx.out.start(format_args!("Retrying v{} on {}", release.version, ctx.out.app(&app)));
    let description = format!("Retry of v{}: {}", release.version, release.description);
    let body = json!({ "slug": last["slug"]["id"], "description": description });
    let made: Release = client.post(&Context::path(&app, "/releases"), &body).await?;
    if let Some(url) = &made.output_stream_url {
        ctx.out.say("running its release command:");
        print_output(ctx, &client, url).await?;
    }
    settle(&client, &app, progress, made).await
}

/// The second newest release that one can go back to; the newest such is the current one.
fn previous(newest_first: &[Value]) -> Result<Release, Failure> {
    match newest_first.iter().filter(|row| row["eligible_for_rollback"] == true).nth(1) {
        Some(row) => parse(row),
        None => {
            Err(Failure::new("there is no earlier release to go back to")
                .hint("list the releases with: hokku releases"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_with_or_without_v() {
        assert_eq!((version("v10"), version("3")), (Ok(10), Ok(3)));
        for bad in ["", "v", "v0", "vv1", "-1", "latest"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_descriptions_are_cut() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"x".repeat(80)).chars().count(), 50);
    }
}
