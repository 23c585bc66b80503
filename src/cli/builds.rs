//! `deploy`, `rebuild` and `builds`: from a directory to a running release, without git.
#![forbid(unsafe_code)]

use super::apps::{parse, size};
use super::archive::{ArchiveError, Ignoring, Sent, Source};
use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::plain;
use super::when::ago;
use crate::client::{self, Build, BuildRequest, Client};
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Deploy a directory without git
///
/// Packs the directory (without .git and what .gitignore names), uploads it, shows the build's output and waits until
/// the new release serves. Ends with status 1 when the build or the release fails; then the last good release goes on
/// serving. Ctrl-C cancels the build.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku deploy -a my-app
  $ hokku deploy ./site --version $(git rev-parse HEAD)
  $ git archive main | hokku deploy - -a my-app")]
pub(super) struct Deploy {
    /// The directory, or - for an archive (.tar, .tar.gz, .tar.zst) on stdin
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// What to call this version; a commit shows in the release's description
    #[arg(long, value_name = "TEXT")]
    version: Option<String>,
    /// Buildpack for this build only: a name, a URL or a path; may be given several times
    #[arg(short, long = "buildpack", value_name = "BUILDPACK")]
    buildpacks: Vec<String>,
    /// Take along what .gitignore names
    #[arg(long)]
    no_ignore: bool,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn deploy(ctx: &Context, args: Deploy) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let ignoring = if args.no_ignore { Ignoring::Nothing } else { Ignoring::GitIgnored };
    let source = Source::open(args.dir, ignoring).map_err(|error| archive_failure(&error))?;
    // Asked first, so that a misspelt name costs no upload.
    client.get::<Value>(&Context::path(&app, "")).await?;
    let progress = ctx.out.start("Uploading source");
    let (url, sent) = upload(&client, source).await?;
    progress.done(format_args!("done, {}", size(sent.bytes)));
    let request = BuildRequest {
        url,
        version: args.version,
        checksum: Some(sent.checksum),
        buildpacks: args.buildpacks,
        attached: true,
    };
    let build = client.create_build(&app, &request).await?;
    follow(ctx, &client, &app, build).await
}

/// Packs in one thread while the main one sends.
async fn upload(client: &Client, source: Source) -> Result<(String, Sent), Failure> {
    let (pieces, body) = client::pieces();
    let packing = tokio::task::spawn_blocking(move || source.send(pieces));
    let uploaded = client.upload_source(body).await;
    let packed = packing.await.map_err(|_| Failure::new("packing the source broke off"))?;
    match (packed, uploaded) {
        (Ok(sent), Ok(url)) => Ok((url, sent)),
        (Err(ArchiveError::Refused) | Ok(_), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(archive_failure(&error)),
    }
}

fn archive_failure(error: &ArchiveError) -> Failure {
    let failure = match std::error::Error::source(error) {
        Some(source) => Failure::new(format!("{error}: {source}")),
        None => Failure::new(error.to_string()),
    };
    match error {
        ArchiveError::Empty(_) => failure.hint("an app needs at least what a buildpack recognises it by"),
        ArchiveError::NotDirectory(_) => failure.hint("to deploy an archive, send it to stdin: hokku deploy - < FILE"),
        _ => failure,
    }
}

/// Build the app's last source again
///
/// For example after a change of buildpacks, of the stack, or of the host's runtimes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku rebuild -a my-app")]
pub(super) struct Rebuild {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn rebuild(ctx: &Context, args: Rebuild) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let build = client.rebuild(&app, true).await?;
    follow(ctx, &client, &app, build).await
}

/// Shows a build's output to its end, and tells by the status how it went. Ctrl-C cancels it.
async fn follow(ctx: &Context, client: &Client, app: &str, build: Build) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::local("signals", &error))?;
    tokio::select! {
        ended = watch(ctx, client, app, &build) => ended,
        _ = interrupt.recv() => cancel_build(ctx, client, app, &build.id).await,
    }
}

async fn watch(ctx: &Context, client: &Client, app: &str, build: &Build) -> Result<(), Failure> {
    let mut output = client.build_output(build).await?;
    // Whoever closed the pipe wants to see no more, but the build is to go on and its status to count.
    let mut heard = true;
    while let Some(bytes) = output.next().await? {
        heard = heard && ctx.out.bytes(&bytes).is_ok();
    }
    let build = client.settled(app, &build.id).await?;
    if build.status != "succeeded" {
        return Err(Failure::new("the build failed").hint("see its output above; the app is as it was before"));
    }
    if client.release_failed(app, &build).await? {
        return Err(Failure::new("the build succeeded, but its release failed")
            .hint("the last good release goes on serving; see: hokku releases, hokku logs"));
    }
    Ok(())
}

async fn cancel_build(ctx: &Context, client: &Client, app: &str, id: &str) -> Result<(), Failure> {
    match client.cancel_build(app, id).await {
        Ok(()) => ctx.out.say("\nBuild cancelled."),
        Err(error) => ctx.out.say(format_args!("\nThe build was not cancelled: {}", plain(&error.to_string()))),
    }
    Err(Failure::interrupted())
}

#[derive(Deserialize)]
struct Row {
    id: String,
    status: String,
    user: User,
    source_blob: Option<SourceBlob>,
    created_at: String,
}

#[derive(Deserialize)]
struct User {
    email: String,
}

#[derive(Deserialize)]
struct SourceBlob {
    version: Option<String>,
}

/// Show the builds of an app, newest first
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku builds
  === my-app Builds

  0193b6a0-7c5e-7e3c-9a0b-2f1d4c5e6f70  succeeded  1a2b3c4d  admin@localhost  2026/11/22 17:01:02 +0000 (~ 2m ago)")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// How many to show
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    num: usize,
    /// Print the builds as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let mut rows = newest_first(&ctx.client()?, &app).await?;
    rows.truncate(args.num);
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    if rows.is_empty() {
        ctx.out.say(format_args!("{} has no builds. Make one with: git push hokku main", ctx.out.app(&app)));
        return Ok(());
    }
    let row = |value: &Value| {
        let row: Row = parse(value)?;
        let version = row.source_blob.and_then(|blob| blob.version).unwrap_or_default();
        let version: String = version.chars().take(8).collect();
        Ok(vec![row.id, row.status, version, row.user.email, ago(&row.created_at, Timestamp::now())])
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>, Failure>>()?;
    ctx.out.heading(format_args!("{} Builds", plain(&app)))?;
    ctx.out.table(&rows)
}

async fn newest_first(client: &Client, app: &str) -> Result<Vec<Value>, Failure> {
    let mut rows = client.list(&Context::path(app, "/builds")).await?;
    // Times are in whole seconds; ids rise with them.
    let when = |row: &Value| (text_of(row, "created_at"), text_of(row, "id"));
    rows.sort_by_key(|row| std::cmp::Reverse(when(row)));
    Ok(rows)
}

fn text_of(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

/// One build.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// The build's id
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

/// Show the output of a build, the newest one without an argument
///
/// A build that is still running is followed to its end.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku builds:output
  $ hokku builds:output 0193b6a0-7c5e-7e3c-9a0b-2f1d4c5e6f70")]
pub(super) struct Output {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn output(ctx: &Context, args: Output) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.which.app)?);
    let build = if let Some(id) = &args.which.id {
        client.get(&Context::path(&app, &format!("/builds/{}", client::segment(id)))).await?
    } else {
        let newest = newest_first(&client, &app).await?.into_iter().next();
        parse(&newest.ok_or_else(|| Failure::new(format!("{} has no builds", plain(&app))))?)?
    };
    let mut output = client.build_output(&build).await?;
    while let Some(bytes) = output.next().await? {
        ctx.out.bytes(&bytes)?;
    }
    Ok(())
}

/// Cancel a build, the running one without an argument
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku builds:cancel
  Cancelling build 0193b6a0-7c5e-7e3c-9a0b-2f1d4c5e6f70 of ⬢ my-app... done")]
pub(super) struct Cancel {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn cancel(ctx: &Context, args: Cancel) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.which.app)?);
    let id = match args.which.id {
        Some(id) => id,
        None => pending(&client, &app).await?,
    };
    let progress = ctx.out.start(format_args!("Cancelling build {} of {}", plain(&id), ctx.out.app(&app)));
    client.cancel_build(&app, &id).await?;
    progress.done("done");
    Ok(())
}

/// The oldest pending build: it is the one that runs, the others wait.
async fn pending(client: &Client, app: &str) -> Result<String, Failure> {
    let rows = newest_first(client, app).await?;
    let running = rows.iter().rev().find(|row| row["status"] == "pending").and_then(|row| row["id"].as_str());
    running.map(str::to_owned).ok_or_else(|| Failure::new(format!("no build of {} is running", plain(app))))
}

/// Throw away what buildpacks kept for the next build
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku builds:cache:purge
  Purging the build cache of ⬢ my-app... done")]
pub(super) struct Purge {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn purge(ctx: &Context, args: Purge) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Purging the build cache of {}", ctx.out.app(&app)));
    client.delete::<Value>(&Context::path(&app, "/build-cache")).await?;
    progress.done("done");
    Ok(())
}
