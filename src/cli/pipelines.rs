//! `pipelines`: apps in stages, and moving code along them.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use super::releases;
use crate::client::{Client, ClientError, segment};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// In the order in which code moves.
const STAGES: [&str; 5] = ["test", "review", "development", "staging", "production"];

fn path(pipeline: &str) -> String {
    format!("/pipelines/{}", segment(pipeline))
}

fn rank(stage: &str) -> usize {
    STAGES.iter().position(|known| *known == stage).unwrap_or(STAGES.len())
}

/// A stage's name.
fn stage(name: &str) -> Result<String, String> {
    if STAGES.contains(&name) { Ok(name.to_owned()) } else { Err(format!("is none of {}", STAGES.join(", "))) }
}

/// The app's place in its pipeline.
async fn place(client: &Client, app: &str) -> Result<Value, Failure> {
    match client.get(&Context::path(app, "/pipeline-couplings")).await {
        Err(ClientError::Refused(refusal)) if refusal.resource.as_deref() == Some("pipeline coupling") => {
            Err(Failure::new(format!("{} is in no pipeline", plain(app)))
                .hint("put it into one with: hokku pipelines:add PIPELINE --stage STAGE"))
        }
        other => Ok(other?),
    }
}

/// Each app's name by its id.
async fn names(client: &Client) -> Result<BTreeMap<String, String>, Failure> {
    let apps = client.list("/apps").await?;
    Ok(apps.iter().map(|app| (text(app, "id").to_owned(), text(app, "name").to_owned())).collect())
}

/// List the pipelines
#[derive(Args, Debug)]
pub(super) struct List {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: &List) -> Result<(), Failure> {
    let rows = ctx.client()?.list("/pipelines").await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    if rows.is_empty() {
        ctx.out.say("There are no pipelines. Make one with: hokku pipelines:create NAME --app APP --stage STAGE");
        return Ok(());
    }
    ctx.out.heading("My Pipelines")?;
    rows.iter().try_for_each(|row| ctx.out.line(plain(text(row, "name"))))
}

/// Make a pipeline, with an app as its first
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku pipelines:create shop -a shop-staging -s staging
  Creating shop pipeline... done
  Adding ⬢ shop-staging to shop pipeline as staging... done")]
pub(super) struct Create {
    /// A name for the pipeline: 2 to 30 of a-z, 0-9 and dashes
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// The app's stage: development, staging or production
    #[arg(short, long, value_name = "STAGE", value_parser = stage)]
    stage: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    // Before anything is made.
    client.get::<Value>(&Context::path(&app, "")).await?;
    let progress = ctx.out.start(format_args!("Creating {} pipeline", plain(&args.pipeline)));
    client.post::<Value>("/pipelines", &json!({ "name": args.pipeline })).await?;
    progress.done("done");
    couple(ctx, &client, &app, &args.pipeline, &args.stage).await
}

async fn couple(ctx: &Context, client: &Client, app: &str, pipeline: &str, stage: &str) -> Result<(), Failure> {
    let progress =
        ctx.out.start(format_args!("Adding {} to {} pipeline as {stage}", ctx.out.app(app), plain(pipeline)));
    let body = json!({ "app": app, "pipeline": pipeline, "stage": stage });
    client.post::<Value>("/pipeline-couplings", &body).await?;
    progress.done("done");
    Ok(())
}

/// Put an app into a pipeline
#[derive(Args, Debug)]
pub(super) struct Add {
    /// The pipeline's name
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// The app's stage: development, staging or production
    #[arg(short, long, value_name = "STAGE", value_parser = stage)]
    stage: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn add(ctx: &Context, args: Add) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    couple(ctx, &client, &app, &args.pipeline, &args.stage).await
}

/// Take an app out of its pipeline
#[derive(Args, Debug)]
pub(super) struct Remove {
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn remove(ctx: &Context, args: Remove) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let place = place(&client, &app).await?;
    let pipeline = plain(text(&place["pipeline"], "name"));
    let progress = ctx.out.start(format_args!("Removing {} from {pipeline} pipeline", ctx.out.app(&app)));
    client.delete::<Value>(&format!("/pipeline-couplings/{}", text(&place, "id"))).await?;
    progress.done("done");
    Ok(())
}

/// Move an app to another stage of its pipeline
#[derive(Args, Debug)]
pub(super) struct Update {
    /// The new stage: development, staging or production
    #[arg(short, long, value_name = "STAGE", value_parser = stage)]
    stage: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let place = place(&client, &app).await?;
    let progress = ctx.out.start(format_args!("Changing {} to {}", ctx.out.app(&app), args.stage));
    let path = format!("/pipeline-couplings/{}", text(&place, "id"));
    client.patch::<Value>(&path, &json!({ "stage": args.stage })).await?;
    progress.done("done");
    Ok(())
}

/// Show the apps of a pipeline and their stages
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku pipelines:info shop
  === shop

  shop-staging  staging
  shop          production")]
pub(super) struct Info {
    /// The pipeline's name
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// Print the apps as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let client = ctx.client()?;
    let pipeline: Value = client.get(&path(&args.pipeline)).await?;
    let mut couplings = client.list(&format!("{}/pipeline-couplings", path(&args.pipeline))).await?;
    let names = names(&client).await?;
    for row in &mut couplings {
        let name = names.get(text(&row["app"], "id")).cloned();
        row["app"]["name"] = name.into();
    }
    couplings.sort_by_key(|row| (rank(text(row, "stage")), text(&row["app"], "name").to_owned()));
    if args.json {
        return ctx.out.json(&couplings.into());
    }
    ctx.out.heading(plain(text(&pipeline, "name")))?;
    ctx.out.line("")?;
    let cells = |row: &Value| vec![plain(text(&row["app"], "name")), plain(text(row, "stage"))];
    ctx.out.table(&couplings.iter().map(cells).collect::<Vec<_>>())
}

/// Give a pipeline another name
#[derive(Args, Debug)]
pub(super) struct Rename {
    /// The pipeline's name
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// Its new name
    #[arg(value_name = "NEW-NAME")]
    name: String,
}

pub(super) async fn rename(ctx: &Context, args: Rename) -> Result<(), Failure> {
    let client = ctx.client()?;
    let progress = ctx.out.start(format_args!("Renaming {} pipeline to {}", plain(&args.pipeline), plain(&args.name)));
    client.patch::<Value>(&path(&args.pipeline), &json!({ "name": args.name })).await?;
    progress.done("done");
    Ok(())
}

/// Remove a pipeline; its apps stay
#[derive(Args, Debug)]
pub(super) struct Destroy {
    /// The pipeline's name
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
}

pub(super) async fn destroy(ctx: &Context, args: Destroy) -> Result<(), Failure> {
    let client = ctx.client()?;
    let progress = ctx.out.start(format_args!("Destroying {} pipeline", plain(&args.pipeline)));
    client.delete::<Value>(&path(&args.pipeline)).await?;
    progress.done("done");
    Ok(())
}

/// Release an app's code on the next apps of its pipeline
///
/// The code is not built again: the slug that serves the app is released on all apps of the next stage that has any, or on
/// those named by --to, with each one's own config vars.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku pipelines:promote -a shop-staging
  Promoting ⬢ shop-staging to ⬢ shop... done, v7
  $ hokku pipelines:promote -a shop-staging --to shop-eu,shop-us")]
pub(super) struct Promote {
    #[command(flatten)]
    app: AppArgs,
    /// Apps to promote to
    #[arg(short, long, value_name = "APP", value_delimiter = ',')]
    to: Vec<String>,
}

pub(super) async fn promote(ctx: &Context, args: Promote) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let place = place(&client, &app).await?;
    let pipeline = text(&place["pipeline"], "id");
    let names = names(&client).await?;
    let to = if args.to.is_empty() { downstream(&client, &place, &names).await? } else { args.to };
    let listed: Vec<_> = to.iter().map(|name| ctx.out.app(name)).collect();
    let progress = ctx.out.start(format_args!("Promoting {} to {}", ctx.out.app(&app), listed.join(", ")));
    let ends: Vec<Value> = to.iter().map(|name| json!({ "app": { "name": name } })).collect();
    let body = json!({ "pipeline": { "id": pipeline }, "source": { "app": { "name": app } }, "targets": ends });
    let promotion: Value = client.post("/pipeline-promotions", &body).await?;
    let targets = client.list(&format!("/pipeline-promotions/{}/promotion-targets", text(&promotion, "id"))).await?;
    progress.done("started");
    for target in &targets {
        let name = names.get(text(&target["app"], "id")).cloned().unwrap_or_default();
        let progress = ctx.out.start(format_args!("Releasing on {}", ctx.out.app(&name)));
        let path = Context::path(&name, &format!("/releases/{}", text(&target["release"], "id")));
        releases::settle(&client, &name, progress, client.get(&path).await?).await?;
    }
    Ok(())
}

/// The apps of the next stage that has any.
async fn downstream(client: &Client, place: &Value, names: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    let pipeline = text(&place["pipeline"], "id");
    let couplings = client.list(&format!("{}/pipeline-couplings", path(pipeline))).await?;
    let own = rank(text(place, "stage"));
    let next = couplings.iter().map(|row| rank(text(row, "stage"))).filter(|rank| *rank > own).min();
    let Some(next) = next else {
        return Err(Failure::new(format!(
            "no app of the pipeline {} is in a later stage",
            text(&place["pipeline"], "name")
        ))
        .hint("add one with hokku pipelines:add, or name the apps by --to"));
    };
    let there = couplings.iter().filter(|row| rank(text(row, "stage")) == next);
    Ok(there.filter_map(|row| names.get(text(&row["app"], "id")).cloned()).collect())
}
