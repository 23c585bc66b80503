//! `audit`: who changed what.
#![forbid(unsafe_code)]

use super::context::Context;
use super::errors::Failure;
use super::output::{plain, text};
use crate::client::segment;
use clap::Args;
use serde_json::Value;

/// Show who changed what, when, and from where
///
/// Every request that changes something is written down before it is carried out, and again with the HTTP status of its
/// answer; the newest 100,000 are kept. Without --app you see what you did and what was done to the apps you own, an
/// administrator everything. Values of config vars, passwords and tokens are never in it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku audit -a my-app -n 2
  2026-11-27T10:02:11Z  ann@example.com  config-vars:update  my-app  200  Set TOKEN config vars  192.0.2.7
  2026-11-27T10:01:58Z  ann@example.com  git:push            my-app  200                         192.0.2.7

  $ hokku audit --user ann@example.com --action config-vars")]
pub(super) struct Show {
    /// Only what was done to this app
    #[arg(short, long, value_name = "APP")]
    app: Option<String>,
    /// Only what this account did
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// Only this action, or all of a kind: app:create, or app
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// At most so many, the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    num: u32,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(ctx: &Context, args: Show) -> Result<(), Failure> {
    let place = match args.app {
        Some(app) => Context::path(&app, "/audit-events"),
        None => "/audit-events".to_owned(),
    };
    let filter = |name: &str, value: Option<String>| value.map(|value| format!("&{name}={}", segment(&value)));
    let (user, action) = (filter("user", args.user), filter("action", args.action));
    let path = format!("{place}?max={}{}{}", args.num, user.unwrap_or_default(), action.unwrap_or_default());
    let rows: Value = ctx.client()?.get(&path).await?;
    if args.json {
        return ctx.out.json(&rows);
    }
    let cells = |row: &Value| {
        let times = row["count"].as_u64().filter(|count| *count > 1).map(|count| format!(" ({count} times)"));
        let status = row["status"].as_u64().map_or_else(|| "unfinished".to_owned(), |status| status.to_string());
        let status = status + &times.unwrap_or_default();
        vec![
            plain(text(row, "created_at")),
            plain(text(&row["actor"], "email")),
            plain(text(row, "action")),
            plain(text(&row["app"], "name")),
            status,
            plain(text(row, "note")),
            plain(text(row, "origin")),
        ]
    };
    ctx.out.table(&rows.as_array().into_iter().flatten().map(cells).collect::<Vec<_>>())
}
