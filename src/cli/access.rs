//! `access`: who may do what with an app; joining and leaving, locking, and giving apps away.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use super::when::ago;
use crate::client::{Client, segment};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

fn path(app: &str, who: &str) -> String {
    format!("/teams/apps/{}/collaborators{who}", segment(app))
}

fn permissions(row: &Value) -> String {
    let words = row["permissions"].as_array().into_iter().flatten().map(|row| text(row, "name"));
    plain(&words.collect::<Vec<_>>().join(","))
}

/// Show who has access to an app
#[derive(Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let mut rows = ctx.client()?.list(&path(&app, "")).await?;
    rows.sort_by(|a, b| text(&a["user"], "email").cmp(text(&b["user"], "email")));
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let cells = |row: &Value| vec![plain(text(&row["user"], "email")), plain(text(row, "role")), permissions(row)];
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Give an account access to an app
///
/// With view one sees the app, its dynos, releases, builds and logs. With deploy one sees and changes its code and config
/// vars, and runs commands. With operate one scales, restarts and renames it, and configures what is around it: domains,
/// certificates, add-ons, drains, egress. With manage one says who else may, and destroys it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku access:add ann@example.com -a my-app
  Adding ann@example.com to my-app... done, view,deploy,operate

  $ hokku access:add ci@example.com -p deploy -a my-app")]
pub(super) struct Add {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: String,
    /// view, deploy, operate, manage; several separated by commas. View is always among them; without this option all
    /// but manage
    #[arg(short, long, value_name = "PERMISSIONS", value_delimiter = ',')]
    permissions: Option<Vec<String>>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Adding {} to {}", plain(&args.email), ctx.out.app(&app)));
    let body = json!({ "user": args.email, "permissions": args.permissions });
    let made: Value = client.post(&path(&app, ""), &body).await?;
    progress.done(format_args!("done, {}", permissions(&made)));
    Ok(())
}

/// Change what an account may do with an app
#[derive(Args, Debug)]
pub(super) struct Update {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: String,
    /// view, deploy, operate, manage; several separated by commas. View is always among them
    #[arg(short, long, value_name = "PERMISSIONS", value_delimiter = ',', required = true)]
    permissions: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Updating {} on {}", plain(&args.email), ctx.out.app(&app)));
    let path = path(&app, &format!("/{}", segment(&args.email)));
    let row: Value = client.patch(&path, &json!({ "permissions": args.permissions })).await?;
    progress.done(format_args!("done, {}", permissions(&row)));
    Ok(())
}

/// Take an account's access to an app away
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The account
    #[arg(value_name = "EMAIL")]
    email: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Removing {} from {}", plain(&args.email), ctx.out.app(&app)));
    client.delete::<Value>(&path(&app, &format!("/{}", segment(&args.email)))).await?;
    progress.done("done");
    Ok(())
}

async fn oneself(client: &Client) -> Result<String, Failure> {
    let account: Value = client.get("/account").await?;
    Ok(text(&account, "email").to_owned())
}

/// Add yourself to an app, as an administrator
///
/// It is then among your apps. A locked app is not joined: its owner has to add you.
#[derive(Args, Debug)]
pub(super) struct Join {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn join(ctx: &Context, args: Join) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Joining {}", ctx.out.app(&app)));
    client.post::<Value>(&path(&app, ""), &json!({ "user": oneself(&client).await? })).await?;
    progress.done("done");
    Ok(())
}

/// Give your access to an app up
#[derive(Args, Debug)]
pub(super) struct Leave {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn leave(ctx: &Context, args: Leave) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Leaving {}", ctx.out.app(&app)));
    client.delete::<Value>(&path(&app, &format!("/{}", segment(&oneself(&client).await?)))).await?;
    progress.done("done");
    Ok(())
}

/// Keep administrators from joining an app by themselves
#[derive(Args, Debug)]
pub(super) struct Lock {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn lock(ctx: &Context, args: Lock) -> Result<(), Failure> {
    set_lock(ctx, &args.app, true).await
}

/// Let administrators join an app by themselves again
#[derive(Args, Debug)]
pub(super) struct Unlock {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn unlock(ctx: &Context, args: Unlock) -> Result<(), Failure> {
    set_lock(ctx, &args.app, false).await
}

async fn set_lock(ctx: &Context, args: &AppArgs, on: bool) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(args)?);
    let verb = if on { "Locking" } else { "Unlocking" };
    let progress = ctx.out.start(format_args!("{verb} {}", ctx.out.app(&app)));
    client.patch::<Value>(&format!("/teams/apps/{}", segment(&app)), &json!({ "locked": on })).await?;
    progress.done("done");
    Ok(())
}

const TRANSFERS: &str = "/account/app-transfers";

/// Give an app to another owner
///
/// The recipient has to accept it, with apps:transfers:accept; an administrator's transfer takes effect at once. The owner
/// so far keeps access, but for managing it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku apps:transfer ann@example.com -a my-app
  Transferring my-app to ann@example.com... done, it waits for their answer")]
pub(super) struct Transfer {
    /// The account that is to own it
    #[arg(value_name = "EMAIL")]
    recipient: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn transfer(ctx: &Context, args: Transfer) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Transferring {} to {}", ctx.out.app(&app), plain(&args.recipient)));
    let made: Value = client.post(TRANSFERS, &json!({ "app": app, "recipient": args.recipient })).await?;
    progress.done(if made["state"] == "pending" { "done, it waits for their answer" } else { "done" });
    Ok(())
}

/// List the apps on their way to or from you
#[derive(Args, Debug)]
pub(super) struct Transfers {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn transfers(ctx: &Context, args: Transfers) -> Result<(), Failure> {
    let rows = ctx.client()?.list(TRANSFERS).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let now = Timestamp::now();
    let cells = |row: &Value| {
        let (app, state) = (plain(text(&row["app"], "name")), plain(text(row, "state")));
        let way = format!("{} → {}", text(&row["owner"], "email"), text(&row["recipient"], "email"));
        vec![app, plain(&way), state, ago(text(row, "updated_at"), now)]
    };
    ctx.out.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Take an app that somebody transfers to you
#[derive(Args, Debug)]
pub(super) struct Accept {
    /// The app
    #[arg(value_name = "APP")]
    app: String,
}

pub(super) async fn accept(ctx: &Context, args: Accept) -> Result<(), Failure> {
    answer(ctx, &args.app, "Accepting", "accepted").await
}

/// Refuse an app that somebody transfers to you
#[derive(Args, Debug)]
pub(super) struct Decline {
    /// The app
    #[arg(value_name = "APP")]
    app: String,
}

pub(super) async fn decline(ctx: &Context, args: Decline) -> Result<(), Failure> {
    answer(ctx, &args.app, "Declining", "declined").await
}

async fn answer(ctx: &Context, app: &str, verb: &str, state: &str) -> Result<(), Failure> {
    let progress = ctx.out.start(format_args!("{verb} {}", ctx.out.app(app)));
    let path = format!("{TRANSFERS}/{}", segment(app));
    ctx.client()?.patch::<Value>(&path, &json!({ "state": state })).await?;
    progress.done("done");
    Ok(())
}
