//! `addons`: what apps use and do not bring themselves.
#![forbid(unsafe_code)]

use super::apps::confirm;
use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::{Map, Value, json};

/// List an app's add-ons, or all there are
///
/// With what the app calls them: DATABASE is found in the config var of that name with _URL behind it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons
  external-quiet-harbor-48213  external:url  as DATABASE
  $ hokku addons --all")]
pub(super) struct List {
    /// Of all apps
    #[arg(short = 'A', long)]
    all: bool,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let client = ctx.client()?;
    let app = if args.all { None } else { Some(ctx.app(&args.app)?) };
    let attachments = match &app {
        Some(app) => client.list(&Context::path(app, "/addon-attachments")).await?,
        None => client.list("/addon-attachments").await?,
    };
    // An app may use what was made for another.
    let mut addons = client.list("/addons").await?;
    let called = |addon: &Value| {
        let mine = attachments.iter().filter(|row| row["addon"]["id"] == addon["id"]);
        let name = |row: &Value| match &app {
            Some(_) => text(row, "name").to_owned(),
            None => format!("{}::{}", text(&row["app"], "name"), text(row, "name")),
        };
        mine.map(name).collect::<Vec<_>>().join(", ")
    };
    if let Some(app) = &app {
        addons.retain(|addon| text(&addon["app"], "name") == app || !called(addon).is_empty());
    }
    if args.json {
        return ctx.out.json(&addons.into());
    }
    if addons.is_empty() {
        ctx.out.say("There are no add-ons. Make one with: hokku addons:create external --url URL");
        return Ok(());
    }
    let row = |addon: &Value| {
        vec![text(addon, "name").to_owned(), text(&addon["plan"], "name").to_owned(), format!("as {}", called(addon))]
    };
    ctx.out.table(&addons.iter().map(row).collect::<Vec<_>>())
}

/// List the services that add-ons can be had of
#[derive(Args, Debug)]
pub(super) struct Services {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn services(ctx: &Context, args: &Services) -> Result<(), Failure> {
    let rows = ctx.client()?.list("/addon-services").await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let row = |row: &Value| vec![text(row, "name").to_owned(), text(row, "human_name").to_owned()];
    ctx.out.table(&rows.iter().map(row).collect::<Vec<_>>())
}

/// List the plans of a service
#[derive(Args, Debug)]
pub(super) struct Plans {
    /// The service's name
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn plans(ctx: &Context, args: &Plans) -> Result<(), Failure> {
    let rows = ctx.client()?.list(&format!("/addon-services/{}/plans", segment(&args.service))).await?;
    if args.json {
        return ctx.out.json(&rows.into());
    }
    let row = |row: &Value| vec![text(row, "name").to_owned(), text(row, "description").to_owned()];
    ctx.out.table(&rows.iter().map(row).collect::<Vec<_>>())
}

/// Make an add-on for an app
///
/// Service external makes one of the URL of something that is there already: a database, a queue, an API. The app finds
/// it in a config var, which makes a release.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons:create external --url postgres://shop:secret@10.0.0.5/shop
  Creating external on ⬢ shop... done
  Created external-quiet-harbor-48213 as DATABASE_URL
  $ hokku addons:create external --as SEARCH -- --url https://search.example.com")]
pub(super) struct Create {
    /// SERVICE or SERVICE:PLAN
    #[arg(value_name = "SERVICE")]
    service: String,
    /// A name for the add-on; invented when not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the app calls it; the config var has this name with _URL behind it
    #[arg(long = "as", value_name = "NAME")]
    attachment: Option<String>,
    /// Where the external service is
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Options of the service: --KEY VALUE or --KEY=VALUE
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

/// `--key value`, `--key=value`, or `--key` alone for true.
fn options(words: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut options = Map::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--").filter(|option| !option.is_empty()) else {
            return Err(Failure::usage("options of a service are written --KEY VALUE"));
        };
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => {
                (option, words.next_if(|next| !next.starts_with("--")).map_or_else(|| "true".into(), String::clone))
            }
        };
        options.insert(key.to_owned(), value.into());
    }
    Ok(options)
}

pub(super) async fn create(ctx: &Context, args: Create) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut config = options(&args.options)?;
    config.extend(args.url.map(|url| ("url".to_owned(), url.into())));
    let body = json!({
        "plan": args.service,
        "name": args.name,
        "attachment": { "name": args.attachment },
        "config": config,
    });
    let progress = ctx.out.start(format_args!("Creating {} on {}", plain(&args.service), ctx.out.app(&app)));
    let made: Value = client.post(&Context::path(&app, "/addons"), &body).await?;
    progress.done("done");
    let vars: Vec<&str> = made["config_vars"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ctx.out.say(format_args!("Created {} as {}", plain(text(&made, "name")), plain(&vars.join(", "))));
    if !text(&made, "provision_message").is_empty() {
        ctx.out.say(plain(text(&made, "provision_message")));
    }
    Ok(())
}

/// Let an app use an add-on of another app, or its own under another name
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons:attach external-quiet-harbor-48213 --as SHOP_DB -a reports
  Attaching external-quiet-harbor-48213 to ⬢ reports... done, as SHOP_DB")]
pub(super) struct Attach {
    /// The add-on's name
    #[arg(value_name = "ADDON")]
    addon: String,
    /// What the app calls it
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn attach(ctx: &Context, args: Attach) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Attaching {} to {}", plain(&args.addon), ctx.out.app(&app)));
    let body = json!({ "addon": args.addon, "app": app, "name": args.name });
    let made: Value = client.post("/addon-attachments", &body).await?;
    progress.done(format_args!("done, as {}", plain(text(&made, "name"))));
    Ok(())
}

/// Let an app no longer use an add-on, which stays
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons:detach SHOP_DB -a reports
  Detaching SHOP_DB from ⬢ reports... done")]
pub(super) struct Detach {
    /// What the app calls it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn detach(ctx: &Context, args: Detach) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let place = format!("{}/{}", Context::path(&app, "/addon-attachments"), segment(&args.name));
    let found: Value = client.get(&place).await?;
    let progress = ctx.out.start(format_args!("Detaching {} from {}", plain(text(&found, "name")), ctx.out.app(&app)));
    client.delete::<Value>(&format!("/addon-attachments/{}", segment(text(&found, "id")))).await?;
    progress.done("done");
    Ok(())
}

/// Show an add-on and which apps use it
#[derive(Args, Debug)]
pub(super) struct Info {
    /// The add-on's name, or what the app calls it
    #[arg(value_name = "ADDON")]
    addon: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn info(ctx: &Context, args: Info) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let addon: Value = client.get(&format!("{}/{}", Context::path(&app, "/addons"), segment(&args.addon))).await?;
    if args.json {
        return ctx.out.json(&addon);
    }
    let users = client.list(&format!("/addons/{}/addon-attachments", segment(text(&addon, "id")))).await?;
    let user = |row: &Value| format!("{}::{}", text(&row["app"], "name"), text(row, "name"));
    ctx.out.heading(plain(text(&addon, "name")))?;
    ctx.out.table(&[
        vec!["Plan:".to_owned(), text(&addon["plan"], "name").to_owned()],
        vec!["Made for:".to_owned(), text(&addon["app"], "name").to_owned()],
        vec!["Used as:".to_owned(), users.iter().map(user).collect::<Vec<_>>().join(", ")],
        vec!["Created:".to_owned(), text(&addon, "created_at").to_owned()],
    ])
}

/// Change what an add-on was made with
///
/// An external one gets another URL. Each app that uses it gets a release with it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons:update DATABASE --url postgres://shop:fresh@10.0.0.6/shop
  Updating DATABASE on ⬢ shop... done")]
pub(super) struct Update {
    /// The add-on's name, or what the app calls it
    #[arg(value_name = "ADDON")]
    addon: String,
    /// Where the external service is
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Options of the service: --KEY VALUE or --KEY=VALUE
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn update(ctx: &Context, args: Update) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut config = options(&args.options)?;
    config.extend(args.url.map(|url| ("url".to_owned(), url.into())));
    let progress = ctx.out.start(format_args!("Updating {} on {}", plain(&args.addon), ctx.out.app(&app)));
    let place = format!("{}/{}", Context::path(&app, "/addons"), segment(&args.addon));
    client.patch::<Value>(&place, &json!({ "config": config })).await?;
    progress.done("done");
    Ok(())
}

/// Rename an add-on
#[derive(Args, Debug)]
pub(super) struct Rename {
    /// The add-on's name, or what the app calls it
    #[arg(value_name = "ADDON")]
    addon: String,
    /// The new name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn rename(ctx: &Context, args: Rename) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Renaming {} to {}", plain(&args.addon), plain(&args.name)));
    let place = format!("{}/{}", Context::path(&app, "/addons"), segment(&args.addon));
    client.patch::<Value>(&place, &json!({ "name": args.name })).await?;
    progress.done("done");
    Ok(())
}

/// Take an add-on away from all apps
///
/// What is behind an external one stays as it is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku addons:destroy external-quiet-harbor-48213 --confirm shop
  Destroying external-quiet-harbor-48213 on ⬢ shop... done")]
pub(super) struct Destroy {
    /// The add-on's name, or what the app calls it
    #[arg(value_name = "ADDON")]
    addon: String,
    /// The app's name, so that it is not done by mistake
    #[arg(short, long, value_name = "APP")]
    confirm: Option<String>,
    /// Though other apps use it
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn destroy(ctx: &Context, args: Destroy) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let loss = format!("take {} away from all apps that use it", plain(&args.addon));
    confirm(ctx, &app, args.confirm, &loss)?;
    let progress = ctx.out.start(format_args!("Destroying {} on {}", plain(&args.addon), ctx.out.app(&app)));
    let place = format!("{}/{}", Context::path(&app, "/addons"), segment(&args.addon));
    client.delete_with::<Value>(&place, &json!({ "force": args.force })).await?;
    progress.done("done");
    Ok(())
}
