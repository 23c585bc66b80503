//! `run`: one-off dynos.
#![forbid(unsafe_code)]

use super::attach::{End, Mode, session};
use super::context::{AppArgs, Context, variable};
use super::errors::{Failure, status};
use super::output::plain;
use super::{logs, terminal};
use crate::client::segment;
use crate::wire::attach::PROTOCOL;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::IsTerminal;

#[derive(Deserialize)]
struct Dyno {
    name: String,
    attach_url: Option<String>,
}

/// What both ways of running share.
#[derive(Args, Debug)]
struct What {
    /// Environment for this dyno only; may be given several times
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = variables)]
    env: Vec<Vec<(String, String)>>,
    /// Size of the dyno, like Standard-2X
    #[arg(short, long, value_name = "SIZE")]
    size: Option<String>,
    /// The command; its own options follow it
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `A=1`, or several as Heroku's CLI takes them: `A=1;B=2`.
fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let name = |part: &str| {
        let name = part.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(';') {
        match parts.last_mut() {
            // A value may hold a semicolon too: only what looks like the next variable is one.
            Some(last) if !name(part) => *last = format!("{last};{part}"),
            _ => parts.push(part.to_owned()),
        }
    }
    parts.iter().map(|part| super::config::assignment(part)).collect()
}

impl What {
    /// The command as one line for the dyno's shell. A single argument is a line already; of several, those that a
    /// shell would take apart at a blank are quoted, and variables in them are still the dyno's to expand.
    fn line(&self) -> String {
        line(&self.command)
    }

    fn body(&self, attach: bool, mut env: Map<String, Value>) -> Value {
        env.extend(self.env.iter().flatten().map(|(key, value)| (key.clone(), json!(value))));
        let mut body = json!({ "command": self.line(), "attach": attach, "env": env });
        if let Some(size) = &self.size {
            body["size"] = json!(size);
        }
        body
    }
}

fn line(command: &[String]) -> String {
    match command {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '"') {
        format!("\"{}\"", word.replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

/// Run a one-off command in a new dyno
///
/// The dyno has the code and the config vars of the current release and goes away with the command. On a terminal the
/// command gets one too; Ctrl-C goes to the command, four within a second give up on it. With piped input or output it
/// gets plain streams, and stdin's end is passed on.
///
/// Ends with status 0 however the command ended, as Heroku's CLI does; with --exit-code it is the command's status.
///
/// Whatever follows the first word of the command belongs to the command, except --app and --remote; put -- before the
/// command when it has options of that name.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku run bash
  $ hokku run -x -- python manage.py check --deploy
  $ hokku run 'echo $DATABASE_URL | wc -c'
  $ pg_dump other | hokku run --no-tty 'psql $DATABASE_URL'")]
pub(super) struct Run {
    #[command(flatten)]
    app: AppArgs,
    /// End with the exit status of the command
    #[arg(short = 'x', long)]
    exit_code: bool,
    /// Give the command plain streams even on a terminal
    #[arg(long)]
    no_tty: bool,
    #[command(flatten)]
    what: What,
}

pub(super) async fn run(ctx: &Context, args: Run) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let doing = format!("Running {} on {}", plain(&args.what.line()), ctx.out.app(&app));
    attached(ctx, &app, "/dynos", &doing, args.exit_code, args.no_tty, |env| args.what.body(true, env)).await
}

/// Run a command inside of a dyno that runs
///
/// Beside the dyno's own program, with its files, its network, its rights and its limits: to look at what it does. It ends
/// with the dyno at the latest. The terminal is as with "hokku run".
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku run:inside web.1 bash
  $ hokku run:inside web.1 -x -- ls /tmp")]
pub(super) struct Inside {
    #[command(flatten)]
    app: AppArgs,
    /// End with the exit status of the command
    #[arg(short = 'x', long)]
    exit_code: bool,
    /// Give the command plain streams even on a terminal
    #[arg(long)]
    no_tty: bool,
    /// The dyno, like web.1
    #[arg(value_name = "DYNO")]
    dyno: String,
    /// The command; its own options follow it
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) async fn inside(ctx: &Context, args: Inside) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let line = line(&args.command);
    let doing = format!("Running {} inside {} of {}", plain(&line), plain(&args.dyno), ctx.out.app(&app));
    let place = format!("/dynos/{}", segment(&args.dyno));
    let body = |env| json!({ "command": line, "env": env });
    attached(ctx, &app, &place, &doing, args.exit_code, args.no_tty, body).await
}

/// Asks for something to attach to, and stays with it to its end.
async fn attached(
    ctx: &Context,
    app: &str,
    place: &str,
    doing: &str,
    exit_code: bool,
    no_tty: bool,
    body: impl FnOnce(Map<String, Value>) -> Value,
) -> Result<u8, Failure> {
    let client = ctx.client()?;
    let terminal = !no_tty && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mode = if terminal { Mode::Tty } else { Mode::Pipes };
    let mut body = body(environment(mode));
    body["attach_protocol"] = json!(PROTOCOL);
    body["tty"] = json!(mode == Mode::Tty);
    body["force_no_tty"] = json!(mode == Mode::Pipes);
    let progress = ctx.out.start(doing);
    let dyno: Dyno = client.post(&Context::path(app, place), &body).await?;
    let url = dyno.attach_url.ok_or_else(|| Failure::new("the server gave no way to attach to the dyno"))?;
    let stream = client.upgrade(&url, PROTOCOL).await?;
    progress.done(format_args!("up, {}", plain(&dyno.name)));
    match session(ctx.out, stream, mode).await? {
        End::Exit(code) if exit_code => Ok(u8::try_from(code & 0xff).unwrap_or(status::ERROR)),
        End::Exit(_) => Ok(status::OK),
        End::Left(code) => Ok(code),
        End::Error(text) => Err(Failure::new(format!("{} could not be run: {}", plain(&dyno.name), plain(&text)))
            .hint(format!("see: hokku logs --app {} --dyno {}", plain(app), plain(&dyno.name)))),
        End::Lost => Err(Failure::new(format!("the connection to {} was lost", plain(&dyno.name)))
            .hint(format!("whether it still runs tells: hokku ps --app {}", plain(app)))),
    }
}

/// What a program needs to know of the terminal here.
fn environment(mode: Mode) -> Map<String, Value> {
    let mut env = Map::new();
    if mode == Mode::Tty {
        env.insert("TERM".to_owned(), json!(variable("TERM").unwrap_or_else(|| "xterm".to_owned())));
        if let Some((columns, rows)) = terminal::size() {
            env.insert("COLUMNS".to_owned(), json!(columns));
            env.insert("LINES".to_owned(), json!(rows));
        }
    }
    env
}

/// Run a one-off command in a new dyno without waiting for it
///
/// Its output goes to the app's log.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku run:detached python import.py
  Running python import.py on ⬢ my-app... done, run.4821
  Run hokku logs --app my-app --dyno run.4821 to view the output.")]
pub(super) struct Detached {
    #[command(flatten)]
    app: AppArgs,
    /// Show its log until Ctrl-C
    #[arg(short, long)]
    tail: bool,
    #[command(flatten)]
    what: What,
}

pub(super) async fn detached(ctx: &Context, args: Detached) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let progress = ctx.out.start(format_args!("Running {} on {}", plain(&args.what.line()), ctx.out.app(&app)));
    let dyno: Dyno = client.post(&Context::path(&app, "/dynos"), &args.what.body(false, Map::new())).await?;
    progress.done(format_args!("done, {}", plain(&dyno.name)));
    if args.tail {
        let session = json!({ "dyno": dyno.name, "tail": true });
        return logs::show(ctx, &client, &app, &session, logs::Form::Text(ctx.out.paint())).await;
    }
    let (app, name) = (plain(&app), plain(&dyno.name));
    ctx.out.say(format_args!("Run hokku logs --app {app} --dyno {name} to view the output."));
    Ok(())
}

/// Moves `--app` and `--remote` to the front of `run`'s arguments, so that they are understood behind the command too.
///
/// People are used to `run rake db:reset -a staging`. Handing `-a staging` to rake would run it against whatever app
/// the directory's remote leads to.
pub(super) fn hoist(args: Vec<OsString>) -> Vec<OsString> {
    let is_run = |word: &OsString| word == "run" || word == "run:detached" || word == "run:inside";
    let Some(start) = args.iter().position(is_run).filter(|start| only_server_args(&args[..*start])) else {
        return args;
    };
    let end = args.iter().position(|word| word == "--").filter(|end| *end > start).unwrap_or(args.len());
    let (mut front, mut rest) = (args[..=start].to_vec(), Vec::new());
    let mut words = args[start + 1..end].iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-a" | "--app" | "-r" | "--remote") => {
                front.push(word.clone());
                front.extend(words.next().cloned());
            }
            Some(text) if text.starts_with("--app=") || text.starts_with("--remote=") => front.push(word.clone()),
            _ => rest.push(word.clone()),
        }
    }
    front.extend(rest);
    front.extend_from_slice(&args[end..]);
    front
}

/// Whether what stands before a command can only be the options that say which server.
fn only_server_args(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--root" | "--host") => drop(words.next()),
            Some(text) if text.starts_with("--root=") || text.starts_with("--host=") => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hoisted(line: &str) -> String {
        let words = hoist(line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_app_may_be_named_behind_the_command() {
        assert_eq!(hoisted("hokku run rake db:reset -a staging"), "hokku run -a staging rake db:reset");
        assert_eq!(hoisted("hokku --root /x run ls -la --app=b"), "hokku --root /x run --app=b ls -la");
        assert_eq!(hoisted("hokku run -a b -- ls -a x"), "hokku run -a b -- ls -a x");
        assert_eq!(hoisted("hokku config:set run -a b"), "hokku config:set run -a b");
    }

    #[test]
    fn several_words_become_one_line_as_with_herokus_cli() {
        let line = |words: &[&str]| {
            let command = words.iter().map(|word| (*word).to_owned()).collect();
            What { env: Vec::new(), size: None, command }.line()
        };
        assert_eq!(line(&["echo $A; ls"]), "echo $A; ls");
        assert_eq!(line(&["sh", "-c", "exit 7"]), "sh -c \"exit 7\"");
        assert_eq!(line(&["echo", "$A", "say \"x\"", ""]), "echo $A \"say \\\"x\\\"\" \"\"");
    }

    #[test]
    fn several_variables_fit_in_one_option() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(variables("A=1;B=2"), Ok(vec![pair("A", "1"), pair("B", "2")]));
        assert_eq!(variables("A=x;y;z"), Ok(vec![pair("A", "x;y;z")]));
        assert!(variables("A").is_err());
    }
}
