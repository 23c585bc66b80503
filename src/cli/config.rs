//! `config`: an app's config vars.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::{Failure, status};
use super::output::plain;
use super::releases;
use crate::client::Client;
use clap::Args;
use serde_json::{Map, Value};

/// Show an app's config vars
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku config
  === my-app Config Vars

  DATABASE_URL: postgres://localhost/my-app

  $ hokku config --shell > .env")]
pub(super) struct List {
    #[command(flatten)]
    app: AppArgs,
    /// Print KEY=value lines, quoted for a shell
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
    /// Print the config vars as JSON
    #[arg(short, long)]
    json: bool,
}

pub(super) async fn list(ctx: &Context, args: List) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let vars: Map<String, Value> = ctx.client()?.get(&Context::path(&app, "/config-vars")).await?;
    if args.json {
        return ctx.out.json(&Value::Object(vars));
    }
    if args.shell {
        return vars.iter().try_for_each(|(key, value)| ctx.out.line(format_args!("{key}={}", quote(text(value)))));
    }
    if vars.is_empty() {
        ctx.out.say(format_args!("{} has no config vars.", ctx.out.app(&app)));
        return Ok(());
    }
    ctx.out.heading(format_args!("{} Config Vars", plain(&app)))?;
    ctx.out.pairs(vars.iter().map(|(key, value)| (key.as_str(), text(value).to_owned())))
}

/// Print the value of one config var
///
/// An unset one prints an empty line and ends with status 1.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku config:get RAILS_ENV
  production")]
pub(super) struct Get {
    /// Its name
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
    /// Print KEY=value, quoted for a shell
    #[arg(short, long, conflicts_with = "json")]
    shell: bool,
    /// Print the values as JSON
    #[arg(short, long)]
    json: bool,
}

pub(super) async fn get(ctx: &Context, args: Get) -> Result<(), Failure> {
    let app = ctx.app(&args.app)?;
    let vars: Map<String, Value> = ctx.client()?.get(&Context::path(&app, "/config-vars")).await?;
    if args.json {
        let picked = args.keys.iter().map(|key| (key.clone(), vars.get(key).cloned().unwrap_or_default()));
        ctx.out.json(&Value::Object(picked.collect()))?;
    } else {
        for key in &args.keys {
            let value = vars.get(key).map_or("", text);
            if args.shell {
                ctx.out.line(format_args!("{key}={}", quote(value)))?;
            } else {
                ctx.out.line(value)?;
            }
        }
    }
    if args.keys.iter().all(|key| vars.contains_key(key)) { Ok(()) } else { Err(Failure::silent(status::ERROR)) }
}

/// Set config vars and restart the app with them
///
/// All are set in one release. The dynos are replaced without a failed request; when the new ones do not boot, the old
/// ones go on serving and the release is marked failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku config:set RAILS_ENV=staging RACK_ENV=staging
  Setting RAILS_ENV, RACK_ENV and restarting ⬢ my-app... done, v10
  RAILS_ENV: staging
  RACK_ENV:  staging")]
pub(super) struct Set {
    /// What to set
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = assignment)]
    vars: Vec<(String, String)>,
    #[command(flatten)]
    app: AppArgs,
}

/// `KEY=VALUE`; the value may hold anything, the name is checked by the server.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be in the format KEY=VALUE".to_owned()),
    }
}

pub(super) async fn set(ctx: &Context, args: Set) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let patch = args.vars.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let keys: Vec<_> = args.vars.iter().map(|(key, _)| key.as_str()).collect();
    let vars = change(ctx, &client, &app, "Setting", &keys, patch).await?;
    let shown = |key: &&str| vars.get(*key).map(text).is_some_and(|value| !value.is_empty());
    ctx.out.pairs(keys.into_iter().filter(shown).map(|key| (key, vars.get(key).map_or("", text).to_owned())))
}

/// Unset config vars and restart the app without them
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku config:unset RAILS_ENV
  Unsetting RAILS_ENV and restarting ⬢ my-app... done, v11")]
pub(super) struct Unset {
    /// Their names
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn unset(ctx: &Context, args: Unset) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let patch = args.keys.iter().map(|key| (key.clone(), Value::Null)).collect();
    let keys: Vec<_> = args.keys.iter().map(String::as_str).collect();
    change(ctx, &client, &app, "Unsetting", &keys, patch).await.map(|_| ())
}

async fn change(
    ctx: &Context,
    client: &Client,
    app: &str,
    verb: &str,
    keys: &[&str],
    patch: Map<String, Value>,
) -> Result<Map<String, Value>, Failure> {
    let keys = keys.iter().map(|key| plain(key)).collect::<Vec<_>>().join(", ");
    let before = releases::newest(client, app).await?.map(|release| release.version);
    let progress = ctx.out.start(format_args!("{verb} {keys} and restarting {}", ctx.out.app(app)));
    let vars = client.patch(&Context::path(app, "/config-vars"), &Value::Object(patch)).await?;
    match releases::newest(client, app).await? {
        Some(release) if Some(release.version) == before => {
            progress.done(format_args!("nothing to change, v{} has it so", release.version));
        }
        Some(release) => releases::settle(client, app, progress, release).await?,
        None => progress.done("done"),
    }
    Ok(vars)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A word that a shell reads as exactly this text.
pub(super) fn quote(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "two words", "it's $HOME `id` \\ \"x\"", "a\nb", "ü;&|*"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn an_assignment_needs_a_name() {
        assert_eq!(assignment("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(assignment("A="), Ok(("A".into(), String::new())));
        assert!(assignment("A").is_err() && assignment("=b").is_err());
    }
}
