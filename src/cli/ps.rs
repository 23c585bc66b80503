//! `ps`: an app's dynos, how many there are, and restarting them.
#![forbid(unsafe_code)]

use super::apps::parse;
use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{Colour, plain};
use super::releases;
use super::when::ago;
use crate::client::segment;
use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Deserialize)]
struct Dyno {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: String,
    state: String,
    command: String,
    updated_at: String,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    quantity: u32,
    size: String,
}

/// Show the dynos of an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps
  === web (Basic): node server.js (2)

  web.1: up 2026/11/22 17:03:11 +0000 (~ 5s ago)
  web.2: up 2026/11/22 17:03:11 +0000 (~ 5s ago)

  $ hokku ps worker --json")]
pub(super) struct List {
    /// Only these process types
    #[arg(value_name = "TYPE")]
    kinds: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
    /// Print the dynos as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let mut rows = ctx.client()?.list(&Context::path(&app, "/dynos")).await?;
    let wanted = |row: &Value| args.kinds.iter().any(|kind| row["type"] == kind.as_str());
    rows.retain(|row| args.kinds.is_empty() || wanted(row));
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    let mut dynos: Vec<Dyno> = rows.iter().map(parse).collect::<Result<_, _>>()?;
    if dynos.is_empty() {
        let types = args.kinds.iter().map(|kind| plain(kind)).collect::<Vec<_>>().join(", ");
        let which = if types.is_empty() { "dynos".to_owned() } else { format!("{types} dynos") };
        ctx.out.say(format_args!("No {which} on {}", ctx.out.app(&app)));
        return Ok(());
    }
    dynos.sort_by_cached_key(|dyno| (dyno.kind.clone(), number(&dyno.name)));
    let (one_off, formation): (Vec<_>, Vec<_>) = dynos.into_iter().partition(|dyno| dyno.kind == "run");
    print_one_off(ctx, &one_off)?;
    for group in formation.chunk_by(|a, b| a.kind == b.kind && a.command == b.command && a.size == b.size) {
        print_group(ctx, group)?;
    }
    Ok(())
}

fn print_one_off(ctx: &Context, dynos: &[Dyno]) -> Result<(), Failure> {
    if dynos.is_empty() {
        return Ok(());
    }
    ctx.out.heading(format_args!("run: one-off processes ({})", dynos.len()))?;
    for dyno in dynos {
        let (name, size, command) = (plain(&dyno.name), plain(&dyno.size), plain(&dyno.command));
        ctx.out.line(format_args!("{name} ({size}): {}: {command}", state(ctx, dyno)))?;
    }
    ctx.out.line("")
}

/// Dynos that do the same, under one heading.
fn print_group(ctx: &Context, dynos: &[Dyno]) -> Result<(), Failure> {
    let Some(first) = dynos.first() else { return Ok(()) };
    let (kind, size, command) = (plain(&first.kind), plain(&first.size), plain(&first.command));
    ctx.out.heading(format_args!("{kind} ({size}): {command} ({})", dynos.len()))?;
    for dyno in dynos {
        ctx.out.line(format_args!("{}: {}", plain(&dyno.name), state(ctx, dyno)))?;
    }
    ctx.out.line("")
}

fn state(ctx: &Context, dyno: &Dyno) -> String {
    let colour = match dyno.state.as_str() {
        "up" => Colour::Green,
        "crashed" => Colour::Red,
        _ => Colour::Yellow,
    };
    let (paint, since) = (ctx.out.paint(), ago(&dyno.updated_at, Timestamp::now()));
    format!("{} {}", paint.with(colour, plain(&dyno.state)), paint.with(Colour::Dim, since))
}

fn number(name: &str) -> u32 {
    name.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// Scale process types, or show how they are scaled
///
/// Each change is TYPE=QUANTITY, TYPE+N or TYPE-N, with an optional size: TYPE=QUANTITY:SIZE.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps:scale web=2 worker+1
  Scaling dynos... done, now running web at 2:Basic, worker at 1:Basic

  $ hokku ps:scale web=1:Standard-2X
  $ hokku ps:scale
  web=1:Standard-2X worker=1:Basic")]
pub(super) struct Scale {
    /// What to change
    #[arg(value_name = "TYPE=QUANTITY[:SIZE]", value_parser = change)]
    changes: Vec<Change>,
    #[command(flatten)]
    app: AppArgs,
    /// Print the formation as JSON
    #[arg(long)]
    json: bool,
}

/// One change as it goes to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    kind: String,
    quantity: String,
    size: Option<String>,
}

fn change(text: &str) -> Result<Change, String> {
    let wrong = || "must be in the format TYPE=QUANTITY, TYPE+N or TYPE-N, optionally with :SIZE".to_owned();
    let (amount, size) = match text.split_once(':') {
        Some((amount, size)) if !size.is_empty() => (amount, Some(size.to_owned())),
        Some(_) => return Err(wrong()),
        None => (text, None),
    };
    // A process type may hold dashes, so the sign is looked for from the end.
    let digits = amount.len() - amount.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (front, digits) = amount.split_at(amount.len() - digits);
    let (kind, sign) = match front.split_at_checked(front.len().saturating_sub(1)) {
        Some((kind, "=")) => (kind, ""),
        Some((kind, sign @ ("+" | "-"))) if !kind.ends_with('=') => (kind, sign),
        _ => return Err(wrong()),
    };
    if kind.is_empty() || digits.is_empty() {
        return Err(wrong());
    }
    Ok(Change { kind: kind.to_owned(), quantity: format!("{sign}{digits}"), size })
}

pub(super) async fn scale(ctx: &Context, args: Scale) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let path = Context::path(&app, "/formation");
    if args.changes.is_empty() {
        let rows = client.list(&path).await?;
        return if args.json { ctx.out.json(&Value::Array(rows)) } else { print_scale(ctx, &app, &rows) };
    }
    for (index, change) in args.changes.iter().enumerate() {
        if args.changes[..index].iter().any(|earlier| earlier.kind == change.kind) {
            return Err(Failure::usage(format!("{} is there twice; give each process type once", plain(&change.kind))));
        }
    }
    let update = |change: &Change| {
        let mut row = json!({ "type": change.kind, "quantity": change.quantity });
        if let Some(size) = &change.size {
            row["size"] = json!(size);
        }
        row
    };
    let progress = ctx.out.start("Scaling dynos");
    let updates: Vec<_> = args.changes.iter().map(update).collect();
    let mut rows: Vec<Value> = client.patch(&path, &json!({ "updates": updates })).await?;
    rows.retain(|row| args.changes.iter().any(|change| row["type"] == change.kind.as_str()));
    let shown = rows.iter().map(parse::<Row>).collect::<Result<Vec<_>, _>>()?;
    let shown = shown.iter().map(|row| format!("{} at {}:{}", plain(&row.kind), row.quantity, plain(&row.size)));
    progress.done(format_args!("done, now running {}", shown.collect::<Vec<_>>().join(", ")));
    if args.json { ctx.out.json(&Value::Array(rows)) } else { Ok(()) }
}

fn print_scale(ctx: &Context, app: &str, rows: &[Value]) -> Result<(), Failure> {
    let rows: Vec<Row> = rows.iter().map(parse).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Failure::new(format!("No process types on {}.", ctx.out.app(app)))
            .hint("they come with the first deploy: git push hokku main"));
    }
    let shown = rows.iter().map(|row| format!("{}={}:{}", plain(&row.kind), row.quantity, plain(&row.size)));
    ctx.out.line(shown.collect::<Vec<_>>().join(" "))
}

/// Which dynos: one, all of a type, or all.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// A dyno (web.1) or a process type (web)
    #[arg(value_name = "DYNO")]
    target: Option<String>,
    /// A dyno
    #[arg(short, long = "dyno-name", value_name = "DYNO", conflicts_with = "target")]
    dyno: Option<String>,
    /// A process type
    #[arg(short, long, value_name = "TYPE", conflicts_with_all = ["target", "dyno"])]
    process_type: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

enum Target {
    Dyno(String),
    Type(String),
    All,
}

impl Which {
    fn target(&self) -> Target {
        match (&self.target, &self.dyno, &self.process_type) {
            (Some(target), _, _) if !target.contains('.') => Target::Type(target.clone()),
            (Some(dyno), _, _) | (_, Some(dyno), _) => Target::Dyno(dyno.clone()),
            (_, _, Some(kind)) => Target::Type(kind.clone()),
            (None, None, None) => Target::All,
        }
    }
}

/// Restart an app's dynos
///
/// All of them, those of one process type, or one. Web dynos are replaced without a failed request.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps:restart
  Restarting all dynos on ⬢ my-app... done

  $ hokku ps:restart web.1
  $ hokku ps:restart worker")]
pub(super) struct Restart {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn restart(ctx: &Context, args: Restart) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.which.app)?);
    let shown = ctx.out.app(&app);
    let (text, path) = match args.which.target() {
        Target::All => (format!("Restarting all dynos on {shown}"), "/dynos".to_owned()),
        Target::Type(kind) => {
            (format!("Restarting all {} dynos on {shown}", plain(&kind)), format!("/formations/{}", segment(&kind)))
        }
        Target::Dyno(dyno) => {
            (format!("Restarting dyno {} on {shown}", plain(&dyno)), format!("/dynos/{}", segment(&dyno)))
        }
    };
    let progress = ctx.out.start(text);
    client.delete::<Value>(&Context::path(&app, &path)).await?;
    progress.done("done");
    Ok(())
}

/// Stop dynos
///
/// Those of the formation are started again by the platform; to have fewer, use ps:scale. One-off dynos stay stopped.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps:stop run.4821
  Stopping dyno run.4821 on ⬢ my-app... done

  $ hokku ps:stop run")]
pub(super) struct Stop {
    #[command(flatten)]
    which: Which,
}

pub(super) async fn stop(ctx: &Context, args: Stop) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.which.app)?);
    let shown = ctx.out.app(&app);
    let (text, path) = match args.which.target() {
        Target::All => {
            return Err(Failure::usage("say which dynos to stop").hint("name a dyno (web.1) or a process type (web)"));
        }
        Target::Type(kind) => (
            format!("Stopping all {} dynos on {shown}", plain(&kind)),
            format!("/formations/{}/actions/stop", segment(&kind)),
        ),
        Target::Dyno(dyno) => {
            (format!("Stopping dyno {} on {shown}", plain(&dyno)), format!("/dynos/{}/actions/stop", segment(&dyno)))
        }
    };
    let progress = ctx.out.start(text);
    client.post::<Value>(&Context::path(&app, &path), &json!({})).await?;
    progress.done("done");
    Ok(())
}

/// Show or change the size of process types
///
/// One SIZE alone is for all of them. How much a size may use is told by the server's hokku.toml.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps:type
  web=2:Basic worker=1:Basic

  $ hokku ps:type web=standard-2x
  $ hokku ps:type basic")]
pub(super) struct Type {
    /// The size, or TYPE=SIZE
    #[arg(value_name = "[TYPE=]SIZE")]
    sizes: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn sizes(ctx: &Context, args: Type) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let path = Context::path(&app, "/formation");
    let mut rows = client.list(&path).await?;
    if !args.sizes.is_empty() {
        let updates = updates(&args.sizes, &rows)?;
        let progress = ctx.out.start(format_args!("Changing the dynos of {}", ctx.out.app(&app)));
        rows = client.patch(&path, &json!({ "updates": updates })).await?;
        progress.done("done");
    }
    print_scale(ctx, &app, &rows)
}

fn updates(sizes: &[String], rows: &[Value]) -> Result<Vec<Value>, Failure> {
    if let [size] = sizes
        && !size.contains('=')
    {
        return Ok(rows.iter().map(|row| json!({ "type": row["type"], "size": size })).collect());
    }
    let update = |text: &String| match text.split_once('=') {
        Some((kind, size)) if !kind.is_empty() && !size.is_empty() => Ok(json!({ "type": kind, "size": size })),
        _ => Err(Failure::usage(format!("{} must be in the format TYPE=SIZE", plain(text)))),
    };
    sizes.iter().map(update).collect()
}

/// Wait until all dynos run the newest release
///
/// Ends with an error when that release fails.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku ps:wait
  Waiting for every dyno to be running v12... 2 / 2, done")]
pub(super) struct Wait {
    /// Only dynos of this process type
    #[arg(short, long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// One-off dynos too
    #[arg(short = 'R', long, conflicts_with = "kind")]
    with_run: bool,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn wait(ctx: &Context, args: Wait) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let Some(release) = releases::newest(&client, &app).await? else {
        ctx.out.say(format_args!("{} has no releases.", ctx.out.app(&app)));
        return Ok(());
    };
    let version = release.version;
    let progress = ctx.out.start(format_args!("Waiting for every dyno to be running v{version}"));
    let counted = |row: &&Value| match &args.kind {
        Some(kind) => row["type"] == kind.as_str(),
        None => row["type"] != "release" && (args.with_run || row["type"] != "run"),
    };
    loop {
        let rows = client.list(&Context::path(&app, "/dynos")).await?;
        let new = |row: &&Value| row["release"]["version"].as_u64() >= Some(u64::from(version));
        let (all, ready) = rows
            .iter()
            .filter(counted)
            .fold((0, 0), |(all, ready), row| (all + 1, ready + usize::from(row["state"] == "up" && new(&row))));
        // Dynos from before may run on by themselves when the new release has failed.
        let status: Value = client.get(&Context::path(&app, &format!("/releases/{version}"))).await?;
        match status["status"].as_str() {
            Some("failed") => {
                drop(progress);
                return Err(Failure::new(format!("v{version} failed; the last good release goes on serving")));
            }
            Some("succeeded") if all == ready => {
                progress.done(format_args!("{ready} / {all}, done"));
                return Ok(());
            }
            _ => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_on_heroku() {
        let read = |text: &str| change(text).map(|c| (c.kind, c.quantity, c.size)).ok();
        let some = |kind: &str, quantity: &str, size: Option<&str>| {
            Some((kind.to_owned(), quantity.to_owned(), size.map(str::to_owned)))
        };
        assert_eq!(read("web=2"), some("web", "2", None));
        assert_eq!(read("web=2:standard-2x"), some("web", "2", Some("standard-2x")));
        assert_eq!(read("big-worker+1"), some("big-worker", "+1", None));
        assert_eq!(read("big-worker-1"), some("big-worker", "-1", None));
        for bad in ["web", "web=", "web=-1", "web=+1", "=2", "web=two", "web=1:", "+1", "web 2", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
