//! `logs`: what an app and the platform say.
#![forbid(unsafe_code)]

use super::context::{AppArgs, Context};
use super::errors::Failure;
use super::output::{Colour, Paint};
use crate::client::Client;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

/// Show an app's log
///
/// The newest lines, and with --tail every line after them until Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku logs --tail
  $ hokku logs -n 1500 --dyno web.1
  $ hokku logs --source heroku --process-type router")]
pub(super) struct Logs {
    #[command(flatten)]
    app: AppArgs,
    /// How many lines to show
    #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1500))]
    num: u32,
    /// Go on with every new line
    #[arg(short, long)]
    tail: bool,
    /// Only lines of this dyno (web.1)
    #[arg(short, long = "dyno", visible_alias = "dyno-name", value_name = "DYNO")]
    dyno: Option<String>,
    /// Only lines of the dynos of this process type (web)
    #[arg(short, long, visible_alias = "ps", value_name = "TYPE", conflicts_with = "dyno")]
    process_type: Option<String>,
    /// Only lines of the app itself or of the platform
    #[arg(short, long, value_name = "SOURCE")]
    source: Option<LogSource>,
    /// Colour the lines even when stdout is no terminal
    #[arg(long)]
    force_colors: bool,
    /// Print each line as a JSON object
    #[arg(long, conflicts_with = "force_colors")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogSource {
    /// What the app's processes print, and what people do with the app
    App,
    /// Router and dyno manager
    Heroku,
}

pub(super) async fn logs(ctx: &Context, args: Logs) -> Result<(), Failure> {
    let (client, app) = (ctx.client()?, ctx.app(&args.app)?);
    let mut body = json!({ "lines": args.num, "tail": args.tail });
    if let Some(dyno) = args.dyno.or(args.process_type) {
        body["dyno"] = json!(dyno);
    }
    match args.source {
        Some(LogSource::App) => body["source"] = json!("app"),
        Some(LogSource::Heroku) => body["source"] = json!("heroku"),
        None => {}
    }
    let paint = if args.force_colors { Paint::new(true) } else { ctx.out.paint() };
    show(ctx, &client, &app, &body, if args.json { Form::Json } else { Form::Text(paint) }).await?;
    if args.tail {
        return Err(Failure::new("the server ended the log stream").hint("run the command again to go on"));
    }
    Ok(())
}

/// Opens a log session and prints its lines until it ends.
pub(super) async fn show(
    ctx: &Context,
    client: &Client,
    app: &str,
    session: &Value,
    form: Form,
) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Session {
        logplex_url: String,
    }
    let Session { logplex_url } = client.post(&Context::path(app, "/log-sessions"), session).await?;
    let mut stream = client.download(&logplex_url).await?;
    let mut lines = Lines::new(form);
    while let Some(bytes) = stream.next().await? {
        ctx.out.bytes(&lines.take(&bytes))?;
    }
    ctx.out.bytes(&lines.rest())
}

const COLOURS: [Colour; 5] = [Colour::Cyan, Colour::Yellow, Colour::Green, Colour::Magenta, Colour::Blue];

/// How lines are printed.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text(Paint),
    Json,
}

/// Lines as they are to be printed, each process in the next colour; they may come in pieces.
struct Lines {
    form: Form,
    seen: Vec<String>,
    partial: Vec<u8>,
}

impl Lines {
    fn new(form: Form) -> Self {
        Self { form, seen: Vec::new(), partial: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if matches!(self.form, Form::Text(paint) if !paint.is_on()) {
            return bytes.to_vec();
        }
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let lines: Vec<u8> = self.partial.drain(..=end).collect();
        lines.split_inclusive(|byte| *byte == b'\n').flat_map(|line| self.line(line)).collect()
    }

    /// A last line without an end.
    fn rest(&mut self) -> Vec<u8> {
        let partial = std::mem::take(&mut self.partial);
        if partial.is_empty() { partial } else { self.line(&partial) }
    }

    fn line(&mut self, line: &[u8]) -> Vec<u8> {
        match self.form {
            Form::Text(paint) => self.colour(paint, line),
            Form::Json => object(line),
        }
    }

    fn colour(&mut self, paint: Paint, line: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(line);
        let Some((head, process, rest)) = split_head(&text) else { return line.to_vec() };
        let kind = process.split('.').next().unwrap_or(process);
        let known = self.seen.iter().position(|seen| seen == kind);
        let index = known.unwrap_or_else(|| {
            self.seen.push(kind.to_owned());
            self.seen.len() - 1
        });
        let rest = if process == "router" && rest.contains("at=error") {
            rest.replacen("at=error", &paint.with(Colour::Red, "at=error"), 1)
        } else {
            rest.to_owned()
        };
        format!("{}{rest}", paint.with(COLOURS[index % COLOURS.len()], head)).into_bytes()
    }
}

/// A line without a head, which the server writes where lines are missing, is a message only.
fn object(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\n');
    let object = match split_head(text) {
        Some((head, process, rest)) => {
            let (time, source) = head[..head.find('[').unwrap_or(0)].split_once(' ').unwrap_or_default();
            let message = rest.strip_prefix(' ').unwrap_or(rest);
            json!({ "time": time, "source": source, "dyno": process, "message": message })
        }
        None => json!({ "time": null, "source": null, "dyno": null, "message": text }),
    };
    format!("{object}\n").into_bytes()
}

/// `2026-…Z app[web.1]:`, `web.1`, and the rest.
fn split_head(line: &str) -> Option<(&str, &str, &str)> {
    let open = line.find('[')?;
    let close = open + line[open..].find("]:")?;
    let plain_head = !line[..open].contains(|c: char| c.is_control());
    plain_head.then(|| (&line[..close + 2], &line[open + 1..close], &line[close + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(on: bool, pieces: &[&str]) -> String {
        let mut painter = Lines::new(Form::Text(Paint::new(on)));
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|piece| painter.take(piece.as_bytes())).collect();
        bytes.extend(painter.rest());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_kind_of_process_has_its_colour_however_the_lines_are_cut() {
        let text = painted(true, &["t app[web.1]: one\nt heroku[router]: at=err", "or code=H10\nt app[web.2]: two"]);
        assert_eq!(
            text,
            "\x1b[36mt app[web.1]:\x1b[0m one\n\x1b[33mt heroku[router]:\x1b[0m \x1b[31mat=error\x1b[0m code=H10\n\
             \x1b[36mt app[web.2]:\x1b[0m two"
        );
    }

    #[test]
    fn each_line_is_an_object() {
        let mut lines = Lines::new(Form::Json);
        let mut bytes = lines.take(b"2026-11-22T17:02:45Z app[web.1]: say [\"x\"]: y\n--- 3 li");
        bytes.extend(lines.take(b"nes are missing ---\n"));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            concat!(
                r#"{"time":"2026-11-22T17:02:45Z","source":"app","dyno":"web.1","message":"say [\"x\"]: y"}"#,
                "\n",
                r#"{"time":null,"source":null,"dyno":null,"message":"--- 3 lines are missing ---"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn without_colour_the_bytes_pass_as_they_are() {
        assert_eq!(painted(false, &["t app[web.1]: o", "ne\nno head\n"]), "t app[web.1]: one\nno head\n");
    }
}
