//! `egress`: where an app's dynos may connect to.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::plain;
use clap::Args;
use serde_json::{Value, json};

fn path(app: &str) -> String {
    Context::path(app, "/egress")
}

/// Show where the dynos of an app may connect to
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku egress
  === my-app Egress

  10.0.0.0/8
  192.0.2.7:5432
  tcp/443")]
pub(super) struct Show {
    #[command(flatten)]
    app: AppArgs,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(ctx: &Context, args: Show) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let egress: Value = ctx.client()?.get(&path(&app)).await?;
    if args.json {
        return ctx.out.json(&egress);
    }
    ctx.out.heading(format_args!("{} Egress", plain(&app)))?;
    lines(&egress).iter().try_for_each(|line| ctx.out.line(plain(line)))
}

/// What is listed, or the mode.
fn lines(egress: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match egress["allow"].as_array() {
        Some(allowed) if !allowed.is_empty() => allowed.iter().map(text).collect(),
        _ => vec![text(&egress["mode"])],
    }
}

/// Set where the dynos of an app may connect to
///
/// With internet an app reaches everything outside of this machine; it has that until told otherwise. With none it reaches
/// nothing, no name server either. With a list it reaches what is on it, by address, network, port or protocol, and name
/// servers; names can't be listed. A change holds at once, also for what is connected already; dynos go on running.
///
/// Requests that come in by the router are answered whatever is set. Other dynos, and this machine but for its router and
/// the ports that its configuration opens to dynos, stay closed whatever is listed. Builds have the Internet always: they
/// have to fetch what the app depends on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku egress:set none
  $ hokku egress:set 10.0.0.0/8 192.0.2.7:5432 tcp/443
  $ hokku egress:set tcp/[2001:db8::/32]:443 udp/123
  $ hokku egress:set internet")]
pub(super) struct Set {
    /// internet, none, or what is allowed: ADDRESS, NETWORK, either with :PORT, or tcp/PORT and udp/PORT
    #[arg(value_name = "ALLOW", required = true)]
    allow: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn set(ctx: &Context, args: Set) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let body = match args.allow.as_slice() {
        [mode] if mode == "internet" || mode == "none" => json!({ "mode": mode }),
        allow => json!({ "allow": allow }),
    };
    let progress = ctx.out.start(format_args!("Setting egress of {}", ctx.out.app(&app)));
    let egress: Value = client.patch(&path(&app), &body).await?;
    progress.done(lines(&egress).join(" "));
    Ok(())
}
