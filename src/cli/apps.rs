//! `apps`: making, listing, renaming and destroying apps.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use super::{git, remotes};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

#[derive(Deserialize)]
struct App {
    name: String,
    web_url: Option<String>,
    git_url: Option<String>,
    maintenance: bool,
    owner: Owner,
    stack: Named,
    region: Named,
    slug_size: Option<u64>,
    repo_size: Option<u64>,
}

#[derive(Deserialize)]
struct Owner {
    email: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Create an app
///
/// Inside a git repository this also adds the git remote "hokku", so that "git push hokku main" deploys to the app.
/// Without a name the server invents one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku create
  Creating app... done, ⬢ quiet-harbor-48213
  http://quiet-harbor-48213.localhost:8080/ | http://127.0.0.1:5000/quiet-harbor-48213.git

  $ hokku create my-app --remote staging")]
pub(super) struct Create {
    /// Name of the app: 3 to 30 lower-case letters, digits and dashes
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Name of the app (instead of the argument)
    #[arg(short, long, value_name = "NAME", conflicts_with = "name")]
    app: Option<String>,
    /// Name of the git remote to add
    #[arg(short, long, value_name = "REMOTE", default_value = remotes::DEFAULT)]
    remote: String,
    /// Do not add a git remote
    #[arg(long)]
    no_remote: bool,
    /// Buildpack to use: a name, a URL or a path; may be given several times
    #[arg(short, long = "buildpack", value_name = "BUILDPACK")]
    buildpacks: Vec<String>,
    /// Print the app as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let client = ctx.client()?;
    let name = args.name.or(args.app);
    let progress = match &name {
        Some(name) => ctx.out.start(format_args!("Creating {}", ctx.out.app(name))),
        None => ctx.out.start("Creating app"),
    };
    let body = name.as_ref().map_or_else(|| json!({}), |name| json!({ "name": name }));
    let value: Value = client.post("/apps", &body).await?;
    let app: App = parse(&value)?;
    match name {
        Some(_) => progress.done("done"),
        None => progress.done(format_args!("done, {}", ctx.out.app(&app.name))),
    }
    if !args.buildpacks.is_empty() {
        super::buildpacks::put(&client, &app.name, &args.buildpacks).await?;
    }
    if !args.no_remote && remotes::in_work_tree() {
        git::connect_new(ctx, &app.name, &args.remote)?;
    }
    if args.json {
        return ctx.out.json(&value);
    }
    print_urls(ctx, &app)
}

fn print_urls(ctx: &Context, app: &App) -> Result<(), Failure> {
    let git_url = ctx.git_url(&app.name).ok().or_else(|| app.git_url.clone());
    let urls: Vec<_> = [app.web_url.clone(), git_url].into_iter().flatten().map(|url| plain(&url)).collect();
    ctx.out.line(urls.join(" | "))
}

/// List the apps
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku apps
  === admin@localhost Apps

  my-app
  other-app")]
pub(super) struct List {
    /// Those of all accounts that you may see, not only those you own or have been given access to
    #[arg(short = 'A', long)]
    all: bool,
    /// Print the apps as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let client = ctx.client()?;
    let mut rows = client.list(if args.all { "/apps" } else { "/users/~/apps" }).await?;
    rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    if args.json {
        return ctx.out.json(&Value::Array(rows));
    }
    if rows.is_empty() {
        ctx.out.say("You have no apps. Make one with: hokku create");
        return Ok(());
    }
    let account: Owner = client.get("/account").await?;
    let (own, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| text(&row["owner"], "email") == account.email);
    let maintenance = |row: &Value| if row["maintenance"] == true { " (maintenance)" } else { "" };
    if !own.is_empty() {
        ctx.out.heading(format_args!("{} Apps", plain(&account.email)))?;
        for row in &own {
            ctx.out.line(format_args!("{}{}", plain(text(row, "name")), maintenance(row)))?;
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    if !own.is_empty() {
        ctx.out.line("")?;
    }
    ctx.out.heading(if args.all { "Apps of Others" } else { "Collaborated Apps" })?;
    let cells = |row: &Value| vec![plain(text(row, "name")) + maintenance(row), plain(text(&row["owner"], "email"))];
    ctx.out.table(&others.iter().map(cells).collect::<Vec<_>>())
}

/// Show what is known about an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku apps:info -a my-app
  $ hokku apps:info -a my-app --shell | grep web_url")]
pub(super) struct Info {
    #[command(flatten)]
    app: AppArgs,
    /// Print key=value lines
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
    /// Print the app and its dynos as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let (client, name) = (ctx.client()?, ctx.app(&args.app)?);
    let value: Value = client.get(&Context::path(&name, "")).await?;
    let dynos = client.list(&Context::path(&name, "/dynos")).await?;
    if args.json {
        return ctx.out.json(&json!({ "app": value, "dynos": dynos }));
    }
    let app: App = parse(&value)?;
    let git_url = ctx.git_url(&app.name).ok().or_else(|| app.git_url.clone()).unwrap_or_default();
    let web_url = app.web_url.clone().unwrap_or_default();
    if args.shell {
        let rows = [
            ("git_url", git_url),
            ("web_url", web_url),
            ("repo_size", app.repo_size.unwrap_or(0).to_string()),
            ("slug_size", app.slug_size.unwrap_or(0).to_string()),
            ("owner", app.owner.email),
            ("region", app.region.name),
            ("stack", app.stack.name),
            ("maintenance", app.maintenance.to_string()),
        ];
        return rows.iter().try_for_each(|(key, value)| ctx.out.line(format_args!("{key}={}", plain(value))));
    }
    ctx.out.heading(plain(&app.name))?;
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "none yet".to_owned(), size);
    ctx.out.pairs([
        ("Dynos", count_dynos(&dynos)),
        ("Git URL", plain(&git_url)),
        ("Maintenance", if app.maintenance { "on" } else { "off" }.to_owned()),
        ("Owner", plain(&app.owner.email)),
        ("Region", plain(&app.region.name)),
        ("Repo Size", size(app.repo_size)),
        ("Slug Size", size(app.slug_size)),
        ("Stack", plain(&app.stack.name)),
        ("Web URL", plain(&web_url)),
    ])
}

/// `web: 2, worker: 1`
fn count_dynos(dynos: &[Value]) -> String {
    let mut counts = BTreeMap::<&str, u32>::new();
    for kind in dynos.iter().filter_map(|dyno| dyno["type"].as_str()) {
        *counts.entry(kind).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{}: {count}", plain(kind))).collect();
    counts.join(", ")
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes.saturating_mul(10) + unit / 2) / unit;
    let show = |tenths: u64, unit: &str| format!("{}.{} {unit}", tenths / 10, tenths % 10);
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => show(tenths(1_000), "kB"),
        1_000_000..1_000_000_000 => show(tenths(1_000_000), "MB"),
        _ => show(tenths(1_000_000_000), "GB"),
    }
}

/// Rename an app
///
/// The app's URLs change with it; the git remotes of this directory are rewritten.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku apps:rename new-name -a old-name
  Renaming ⬢ old-name to ⬢ new-name... done")]
pub(super) struct Rename {
    /// The new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn rename(ctx: &Context, args: Rename) -> Result<(), Failure> {
    let (client, old) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Renaming {} to {}", ctx.out.app(&old), ctx.out.app(&args.name)));
    let value: Value = client.patch(&Context::path(&old, ""), &json!({ "name": args.name })).await?;
    let app: App = parse(&value)?;
    progress.done("done");
    for remote in remotes::of_server(ctx.place()?).iter().filter(|remote| remote.app == old) {
        remotes::set(&remote.name, &ctx.git_url(&app.name)?)?;
        ctx.out.say(format_args!("Git remote {} updated", plain(&remote.name)));
    }
    print_urls(ctx, &app)
}

/// Destroy an app with all its dynos, releases, logs and code
///
/// Asks for the app's name on a terminal; elsewhere it has to be given with --confirm.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku apps:destroy my-app --confirm my-app
  Destroying ⬢ my-app... done")]
pub(super) struct Destroy {
    /// The app
    #[arg(value_name = "APP", conflicts_with_all = ["app", "remote"])]
    target: Option<String>,
    #[command(flatten)]
    app: AppArgs,
    /// The app's name once more, instead of being asked for it
    #[arg(short, long, value_name = "APP")]
    confirm: Option<String>,
}

pub(super) async fn destroy(ctx: &Context, args: Destroy) -> Result<(), Failure> {
    let client = ctx.client()?;
    let name = args.target.map_or_else(|| ctx.app(&args.app), Ok)?;
    let app: App = client.get(&Context::path(&name, "")).await?;
    let loss = format!("delete {} with all its releases, logs and code", ctx.out.app(&app.name));
    confirm(ctx, &app.name, args.confirm, &loss)?;
    let progress = ctx.out.start(format_args!("Destroying {}", ctx.out.app(&app.name)));
    client.delete::<Value>(&Context::path(&app.name, "")).await?;
    progress.done("done");
    for remote in remotes::of_server(ctx.place()?).iter().filter(|remote| remote.app == app.name) {
        remotes::remove(&remote.name);
        ctx.out.say(format_args!("Git remote {} removed", plain(&remote.name)));
    }
    Ok(())
}

/// What is destroyed is gone, so the app's name has to be given twice.
pub(super) fn confirm(ctx: &Context, app: &str, given: Option<String>, loss: &str) -> Result<(), Failure> {
    let given = match given {
        Some(given) => given,
        None if std::io::stdin().is_terminal() => {
            ctx.out.warn(&format!(
                "WARNING: This will {loss}.\nTo proceed, type {app} or re-run this command with\n--confirm {app}"
            ));
            ask("> ").map_err(|error| Failure::local("stdin can't be read", &error))?
        }
        None => {
            return Err(Failure::usage(format!("destroying has to be confirmed by the name of the app, {app}"))
                .hint(format!("run it again with --confirm {app}")));
        }
    };
    if given == app {
        return Ok(());
    }
    Err(Failure::new(format!("Confirmation {} did not match {app}. Aborted.", plain(&given))))
}

fn ask(prompt: &str) -> std::io::Result<String> {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The part of an answer that is shown.
pub(super) fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| crate::client::ClientError::Answer(error).into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_rounded_as_people_read_them() {
        let shown: Vec<_> = [0, 999, 1_000, 21_349_000, 3_000_000_000].map(super::size).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "21.3 MB", "3.0 GB"]);
    }
}
