//! `config`: an app's config vars.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context, variable};
use super::errors::{Failure, status};
use super::output::plain;
use super::releases;
use crate::client::Client;
use clap::Args;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;

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

/// Change config vars in an editor
///
/// Opens all of them, or one, in VISUAL or EDITOR; what is saved there is set, what is deleted there is unset. All of
/// them are lines KEY=VALUE, with values quoted as for a shell where they need it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ EDITOR=nano hokku config:edit
  $ hokku config:edit CERTIFICATE")]
pub(super) struct Edit {
    /// Only the value of this one
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    app: AppArgs,
}

pub(super) async fn edit(ctx: &Context, args: Edit) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let old: Map<String, Value> = client.get(&Context::path(&app, "/config-vars")).await?;
    let new = if let Some(key) = &args.key {
        let value = edited(old.get(key).map_or("", text))?;
        // Editors end the last line.
        let value = value.strip_suffix('\n').unwrap_or(&value);
        let mut new = old.clone();
        if value.is_empty() {
            new.remove(key);
        } else {
            new.insert(key.clone(), value.into());
        }
        new
    } else {
        let lines: Vec<_> = old.iter().map(|(key, value)| format!("{key}={}\n", quote(text(value)))).collect();
        unquoted(&edited(&lines.concat())?).map_err(Failure::new)?
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    let patch: Map<String, Value> = set.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect();
    if patch.is_empty() {
        ctx.out.say("Nothing was changed.");
        return Ok(());
    }
    let keys: Vec<String> = patch.keys().cloned().collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    change(ctx, &client, &app, "Changing", &keys, patch).await.map(|_| ())
}

/// `text` after somebody has changed it. It is in a file that nobody else can read, and gone afterwards.
fn edited(text: &str) -> Result<String, Failure> {
    let random =
        getrandom::u64().map_err(|error| Failure::new(format!("no random numbers from the kernel: {error}")))?;
    let file = Scratch(std::env::temp_dir().join(format!("hokku-{random:016x}.sh")));
    let wrong = |error: io::Error| Failure::local(file.0.display(), &error);
    let mut writing = File::options().write(true).create_new(true).mode(0o600).open(&file.0).map_err(wrong)?;
    writing.write_all(text.as_bytes()).map_err(wrong)?;
    let editor = variable("VISUAL").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // It may have arguments of its own.
    let ended = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(&file.0).status();
    let ended = ended.map_err(|error| Failure::local(&editor, &error))?;
    if !ended.success() {
        return Err(Failure::new(format!("the editor {} ended with an error; nothing was changed", plain(&editor)))
            .hint("choose another in EDITOR"));
    }
    std::fs::read_to_string(&file.0).map_err(wrong)
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // an editor may have moved it
    }
}

/// Lines `KEY=VALUE` as a shell reads them, without expanding anything.
fn unquoted(text: &str) -> Result<Map<String, Value>, String> {
    let mut vars = Map::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.lines().next().unwrap_or_default();
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            rest = rest.get(line.len() + 1..).unwrap_or_default();
            continue;
        }
        let wrong = || format!("{:?} is not in the format KEY=VALUE; nothing was changed", plain(line));
        let (key, after) = rest.split_once('=').ok_or_else(wrong)?;
        let key = key.trim_start().strip_prefix("export ").unwrap_or(key).trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (value, after) = word(after).ok_or_else(|| format!("the quotes of {} have no end", plain(key)))?;
        vars.insert(key.to_owned(), value.into());
        rest = after;
    }
    Ok(vars)
}

/// What is there up to the end of a line outside of quotes, and what comes after that; `None` when a quote has no end.
fn word(text: &str) -> Option<(String, &str)> {
    let (mut word, mut quote, mut letters) = (String::new(), None, text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            ('\n', None) => return Some((word, &text[at + 1..])),
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => word.push(letters.next()?.1),
            (letter, _) => word.push(letter),
        }
    }
    quote.is_none().then_some((word, ""))
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

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "two words", "it's $HOME `id` \\ \"x\"", "a\nb", "ü;&|*"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn what_was_quoted_is_read_back_and_what_is_no_line_refused() {
        let values = ["plain", "two words", "it's", "\"x\" \\ $HOME", "a\nb=c\n", "ü", ""];
        let lines: Vec<_> = values.iter().enumerate().map(|(n, value)| format!("K{n}={}\n", quote(value))).collect();
        let read = unquoted(&format!("# all\n\n{}", lines.concat())).unwrap();
        assert_eq!(read.values().map(text).collect::<Vec<_>>(), values);
        let read = unquoted("export A=\"x y\"z\nB=a\\ b").unwrap();
        assert_eq!((text(&read["A"]), text(&read["B"])), ("x yz", "a b"));
        for bad in ["A", "A='x", "A=\"x\n", "=x", "A B=x"] {
            assert!(unquoted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_assignment_needs_a_name() {
        assert_eq!(assignment("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(assignment("A="), Ok(("A".into(), String::new())));
        assert!(assignment("A").is_err() && assignment("=b").is_err());
    }
}
