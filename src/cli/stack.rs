//! `stack`: what apps find around their code, and the layers that it is made of.
#![forbid(unsafe_code)]

use super::apps::{parse, size};
use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::plain;
use crate::client::{self, Build as Job, Client, segment};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// The stack that has layers.
const LAYERED: &str = "debian-13";

#[derive(Deserialize)]
struct Stack {
    name: String,
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    outdated_apps: Vec<String>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    size: u64,
    up_to_date: bool,
}

/// Show the stacks, and which one the app is built on
///
/// The stack with a star is what the app's next build uses.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack -a my-app
  === my-app Available Stacks

  * host
    debian-13  base 236.3 MB, compilers 391.0 MB, nodejs 101.2 MB")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print the stacks as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let client = ctx.client()?;
    // Without an app it is still of use.
    let app = match ctx.app(&args.app) {
        Ok(app) => Some(app),
        Err(_) if args.app.app.is_none() && args.app.remote.is_none() => None,
        Err(failure) => return Err(failure),
    };
    let used = match &app {
        Some(app) => client.get::<Value>(&Context::path(app, "")).await?["build_stack"]["name"].clone(),
        None => Value::Null,
    };
    let rows = client.list("/stacks").await?;
    if args.json {
        let marked = rows.into_iter().map(|mut row| {
            if app.is_some() {
                row["used"] = (row["name"] == used).into();
            }
            row
        });
        return ctx.out.json(&marked.collect());
    }
    match &app {
        Some(app) => ctx.out.heading(format_args!("{} Available Stacks", plain(app)))?,
        None => ctx.out.heading("Available Stacks")?,
    }
    let stacks = rows.iter().map(parse).collect::<Result<Vec<Stack>, _>>()?;
    let row = |stack: &Stack| {
        let mark = if used == stack.name.as_str() { "*" } else { " " };
        vec![format!("{mark} {}", stack.name), describe(stack)]
    };
    ctx.out.table(&stacks.iter().map(row).collect::<Vec<_>>())?;
    for stack in &stacks {
        warn_of_outdated(ctx, stack);
    }
    Ok(())
}

fn describe(stack: &Stack) -> String {
    if stack.name != LAYERED {
        return String::new();
    }
    let layer = |layer: &Layer| {
        let old = if layer.up_to_date { "" } else { " (of an older hokku)" };
        format!("{} {}{old}", layer.name, size(layer.size))
    };
    let layers: Vec<_> = stack.layers.iter().map(layer).collect();
    if layers.is_empty() { "no layers yet; made at first need".to_owned() } else { layers.join(", ") }
}

fn warn_of_outdated(ctx: &Context, stack: &Stack) {
    if !stack.outdated_apps.is_empty() {
        let apps: Vec<_> = stack.outdated_apps.iter().map(|app| plain(app)).collect();
        let text = "run on old layers until their next restart: hokku ps:restart -a APP";
        ctx.out.warn(&format!("{} {text}", apps.join(", ")));
    }
}

/// Choose the stack of an app
///
/// The app is built on it from the next build on; until then it runs as it is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack:set debian-13 -a my-app
  Setting the stack of ⬢ my-app to debian-13... done
  $ hokku rebuild -a my-app")]
pub(super) struct Set {
    /// host or debian-13; heroku-24 and heroku-22 mean debian-13
    #[arg(value_name = "STACK")]
    stack: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn set(ctx: &Context, args: Set) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Setting the stack of {} to {}", ctx.out.app(&app), plain(&args.stack)));
    let value: Value = client.patch(&Context::path(&app, ""), &json!({ "build_stack": args.stack })).await?;
    progress.done("done");
    if value["released_at"].is_string() && value["stack"]["name"] != value["build_stack"]["name"] {
        ctx.out.say(format_args!("Build {} again for this to take effect: hokku rebuild, or git push", plain(&app)));
    }
    Ok(())
}

/// Make the layers of a stack ahead of time
///
/// Layers are made once for a box and shared by all apps: the base, the compilers that only builds see, and one for each
/// language. Those that are there already stay as they are. Without this command a layer is made when a build first
/// needs it. Packages come from the server's own apt sources, by mmdebstrap.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack:build debian-13 --languages nodejs,python
  -----> Making the base layer of debian-13
         running apt-get update...
  ...")]
pub(super) struct Build {
    /// The stack
    #[arg(value_name = "STACK", default_value = LAYERED)]
    stack: String,
    /// Languages, separated by commas: clojure, go, java, nodejs, php, python, ruby, scala
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    languages: Vec<String>,
    #[command(flatten)]
    origin: Origin,
}

/// Where packages come from.
#[derive(Args, Debug)]
struct Origin {
    /// URL of a Debian archive to use instead of the server's apt sources, or a line of sources.list; may be given
    /// several times
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
}

pub(super) async fn build(ctx: &Context, args: Build) -> Result<(), Failure> {
    let languages: Vec<_> =
        args.languages.iter().filter(|language| !["", "none"].contains(&language.as_str())).collect();
    work(ctx, &args.stack, &json!({ "languages": languages, "mirrors": args.origin.mirrors })).await
}

/// Bring security updates into the layers of a stack
///
/// Layers whose packages have newer versions are made again. Dynos that run keep theirs until their next restart; the
/// command says which apps that are. Old layers are removed when nothing runs on them any more.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack:update debian-13
  $ hokku ps:restart -a my-app")]
pub(super) struct Update {
    /// The stack
    #[arg(value_name = "STACK", default_value = LAYERED)]
    stack: String,
    #[command(flatten)]
    origin: Origin,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    work(ctx, &args.stack, &json!({ "update": true, "mirrors": args.origin.mirrors })).await
}

fn path(stack: &str, rest: &str) -> String {
    format!("/stacks/{}{rest}", segment(stack))
}

/// Begins a job and shows its output to the end. Ctrl-C cancels it.
async fn work(ctx: &Context, stack: &str, body: &Value) -> Result<(), Failure> {
    let client = ctx.client()?;
    let job: Job = client.post(&path(stack, "/builds"), body).await?;
    let place = path(stack, &format!("/builds/{}", segment(&job.id)));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::local("signals", &error))?;
    tokio::select! {
        ended = watch(ctx, &client, &job, &place) => ended,
        _ = interrupt.recv() => {
            client.delete::<Value>(&place).await?;
            ctx.out.say("\nCancelled.");
            Err(Failure::interrupted())
        }
    }
}

async fn watch(ctx: &Context, client: &Client, job: &Job, place: &str) -> Result<(), Failure> {
    let mut output = client.build_output(job).await?;
    while let Some(bytes) = output.next().await? {
        ctx.out.bytes(&bytes)?;
    }
    match client.get::<Job>(place).await?.status.as_str() {
        "succeeded" => Ok(()),
        "failed" => Err(Failure::new("the stack is as it was before; see above for why")),
        _ => Err(Failure::new("the server is going down; what it had made by then is kept")),
    }
}

/// Write the layers of a stack to a file, for boxes without Internet
///
/// The file's digest is written beside it, to FILE.sha256.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack:export debian-13.tar.zst --languages nodejs
  Exporting debian-13... done, 212.4 MB
  3f0c…  debian-13.tar.zst")]
pub(super) struct Export {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Languages, separated by commas; without this all that are there
    #[arg(short, long, value_name = "LIST")]
    languages: Option<String>,
    /// The stack
    #[arg(long, value_name = "STACK", default_value = LAYERED)]
    stack: String,
}

pub(super) async fn export(ctx: &Context, args: Export) -> Result<(), Failure> {
    let client = ctx.client()?;
    let query = args.languages.as_ref().map(|list| format!("?languages={}", segment(list))).unwrap_or_default();
    let mut download = client.download(&path(&args.stack, &format!("/archive{query}"))).await?;
    let progress = ctx.out.start(format_args!("Exporting {}", plain(&args.stack)));
    let half_made = beside(&args.file, ".part");
    let written = write(&mut download, &half_made).await;
    let (bytes, digest) = match written {
        Ok(written) => written,
        Err(failure) => {
            let _ = std::fs::remove_file(&half_made);
            return Err(failure);
        }
    };
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let line = format!("{digest}  {name}");
    std::fs::write(checksum_file(&args.file), format!("{line}\n"))
        .and_then(|()| std::fs::rename(&half_made, &args.file))
        .map_err(|error| Failure::local(args.file.display(), &error))?;
    progress.done(format_args!("done, {}", size(bytes)));
    ctx.out.line(line)
}

async fn write(download: &mut client::Download, path: &Path) -> Result<(u64, String), Failure> {
    let failed = |error: std::io::Error| Failure::local(path.display(), &error);
    let mut file = File::create(path).map_err(failed)?;
    let (mut bytes, mut hash) = (0, Sha256::new());
    while let Some(piece) = download.next().await? {
        hash.update(&piece);
        bytes += piece.len() as u64;
        file.write_all(&piece).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok((bytes, hex::encode(hash.finalize())))
}

fn checksum_file(file: &Path) -> PathBuf {
    beside(file, ".sha256")
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Take in the layers of a stack from a file
///
/// The file has to have the digest that --sha256 says, or FILE.sha256 beside it; what is in it is checked in any case.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku stack:import debian-13.tar.zst
  Importing debian-13.tar.zst... done: base, compilers, nodejs")]
pub(super) struct Import {
    /// What stack:export wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The digest that the file has to have
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// The stack
    #[arg(long, value_name = "STACK", default_value = LAYERED)]
    stack: String,
}

pub(super) async fn import(ctx: &Context, args: Import) -> Result<(), Failure> {
    let client = ctx.client()?;
    let checksum = expected_checksum(&args.file, args.sha256)?;
    // Asked first, so that a misspelt name costs no upload.
    client.get::<Value>(&path(&args.stack, "")).await?;
    let progress = ctx.out.start(format_args!("Importing {}", args.file.display()));
    let blob = send_file(&client, &args.file, checksum).await?;
    let imported: Value = client.post(&path(&args.stack, "/imports"), &json!({ "source_blob": blob })).await?;
    let names = imported["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["name"].as_str());
    progress.done(format_args!("done: {}", plain(&names.collect::<Vec<_>>().join(", "))));
    Ok(())
}

/// By the option, or by the file that an export leaves beside its own.
pub(super) fn expected_checksum(file: &Path, given: Option<String>) -> Result<Option<String>, Failure> {
    let text = match given {
        Some(text) => text,
        None => match std::fs::read_to_string(checksum_file(file)) {
            Ok(text) => text.split_whitespace().next().unwrap_or_default().to_owned(),
            Err(_) => return Ok(None),
        },
    };
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(format!("{:?} is not a sha256 of 64 hex digits", plain(&text))));
    }
    Ok(Some(format!("SHA256:{text}")))
}

/// Uploads a file: `{url, checksum}` for what is to be done with it.
pub(super) async fn send_file(client: &Client, path: &Path, checksum: Option<String>) -> Result<Value, Failure> {
    let mut file = File::open(path).map_err(|error| Failure::local(path.display(), &error))?;
    let (pieces, body) = client::pieces();
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; 256 << 10];
            let read = file.read(&mut piece).map(|read| {
                piece.truncate(read);
                piece
            });
            match read {
                Ok(piece) if piece.is_empty() => return,
                read => {
                    let last = read.is_err();
                    if pieces.blocking_send(read.map(Into::into)).is_err() || last {
                        return;
                    }
                }
            }
        }
    });
    let url = client.upload_source(body).await?;
    // It has ended when the upload has.
    let _ = reading.await;
    Ok(json!({ "url": url, "checksum": checksum }))
}
