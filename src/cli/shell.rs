//! Help, manual pages and completions: all made from the one definition of the commands.
#![forbid(unsafe_code)]

use super::errors::Failure;
use super::output::Output;
use clap::{Args, Command};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The commands by topic, in the order a beginner meets them. A test sees to it that each is here once.
pub(super) const TOPICS: [(&str, &[&str]); 23] = [
    ("Server", &["server", "install", "uninstall", "down", "backup", "restore", "doctor", "disk", "disk:collect"]),
    ("Apps", &["apps", "apps:create", "apps:info", "apps:rename", "apps:destroy"]),
    (
        "Access",
        &[
            "access",
            "access:add",
            "access:update",
            "access:remove",
            "apps:join",
            "apps:leave",
            "apps:lock",
            "apps:unlock",
            "apps:transfer",
            "apps:transfers",
            "apps:transfers:accept",
            "apps:transfers:decline",
        ],
    ),
    (
        "Accounts",
        &[
            "users",
            "users:create",
            "users:update",
            "users:password",
            "users:remove",
            "audit",
            "keys",
            "keys:add",
            "keys:remove",
            "keys:clear",
        ],
    ),
    ("Git and deploying", &["git:remote", "git:credentials", "deploy", "rebuild"]),
    ("Config vars", &["config", "config:get", "config:set", "config:unset", "config:edit"]),
    ("Dynos", &["ps", "ps:scale", "ps:type", "ps:restart", "ps:stop", "ps:wait"]),
    ("One-off dynos", &["run", "run:inside", "run:detached"]),
    ("Logs", &["logs", "drains", "drains:add", "drains:remove"]),
    ("Releases", &["releases", "releases:info", "releases:output", "releases:retry", "rollback"]),
    ("Builds", &["builds", "builds:output", "builds:cancel", "builds:cache:purge"]),
    (
        "Buildpacks",
        &[
            "buildpacks",
            "buildpacks:set",
            "buildpacks:add",
            "buildpacks:remove",
            "buildpacks:clear",
            "buildpacks:search",
            "buildpacks:info",
            "buildpacks:versions",
        ],
    ),
    ("Stacks", &["stack", "stack:set", "stack:build", "stack:update", "stack:export", "stack:import"]),
    ("Runtimes", &["runtime:list", "runtime:import", "runtime:remove"]),
    (
        "Add-ons",
        &[
            "addons",
            "addons:create",
            "addons:attach",
            "addons:detach",
            "addons:info",
            "addons:update",
            "addons:rename",
            "addons:destroy",
            "addons:services",
            "addons:plans",
        ],
    ),
    (
        "Pipelines",
        &[
            "pipelines",
            "pipelines:create",
            "pipelines:info",
            "pipelines:promote",
            "pipelines:add",
            "pipelines:update",
            "pipelines:remove",
            "pipelines:rename",
            "pipelines:destroy",
        ],
    ),
    ("Domains", &["domains", "domains:add", "domains:remove", "domains:clear"]),
    ("Certificates", &["certs", "certs:add", "certs:info", "certs:update", "certs:remove"]),
    ("Network", &["egress", "egress:set"]),
    ("Features", &["labs", "labs:enable", "labs:disable"]),
    ("Maintenance", &["maintenance", "maintenance:on", "maintenance:off"]),
    (
        "Tokens",
        &[
            "clients",
            "clients:create",
            "clients:info",
            "clients:update",
            "clients:rotate",
            "clients:destroy",
            "sessions",
            "sessions:destroy",
            "authorizations",
            "authorizations:create",
            "authorizations:info",
            "authorizations:revoke",
            "authorizations:rotate",
            "authorizations:update",
        ],
    ),
    (
        "You and your shell",
        &["auth:login", "auth:logout", "auth:token", "auth:whoami", "env", "completions", "man", "help", "version"],
    ),
];

/// What stands below the list of commands.
const NOTES: &str = "\
Environment:
  HOKKU_ROOT       root directory of the instance, used over its Unix socket (as root)
  HOKKU_HOST       address of a server, http://HOST:PORT or https://HOST:PORT; comes before HOKKU_ROOT
  HOKKU_CA         file with the authority to trust at https://, a copy of the server's ROOT/ca.pem
  HOKKU_API_KEY    the token for HOKKU_HOST
  HOKKU_APP        the app, where neither --app nor --remote nor a git remote names one
  NO_COLOR         no colours

Exit status:
  0    done
  1    it did not work; the last lines on stderr say why, and what to do
  2    the command was not written as it must be
  100  not logged in: no token, or one that the server does not know
  130  interrupted by Ctrl-C
  With run --exit-code it is the status of the command that ran.

Data goes to stdout, everything else to stderr. Lists have --json.
Run \"hokku help COMMAND\" for a command's options and examples.
";

/// Adds what `--help` of the program itself shows.
pub(super) fn with_overview(command: Command) -> Command {
    let overview = overview(&command);
    command
        .help_template("{about-with-newline}\n{usage-heading} {usage}\n\n{options}{after-help}")
        .override_usage("hokku [OPTIONS] <COMMAND>")
        .after_help(overview)
}

fn overview(command: &Command) -> String {
    let names = TOPICS.iter().flat_map(|(_, names)| names.iter());
    let width = names.map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (topic, names) in TOPICS {
        let _ = writeln!(text, "{topic}:");
        for name in names {
            let Some(sub) = command.find_subcommand(name) else { continue };
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let alias = sub.get_visible_aliases().next().map(|alias| format!(" [also: {alias}]")).unwrap_or_default();
            let _ = writeln!(text, "  {name:width$}  {about}{alias}");
        }
        text.push('\n');
    }
    text + NOTES
}

/// Show how to use hokku, or one of its commands
#[derive(Args, Debug)]
pub(super) struct Help {
    /// A command or a topic
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Print the help of all commands as one Markdown page
    #[arg(long, conflicts_with = "command")]
    markdown: bool,
}

/// `docs/cli.md`
fn markdown(program: Command) -> String {
    let mut program = program.term_width(100);
    program.build();
    let mut text =
        "# Commands\n\nMade by `hokku help --markdown`; `hokku help COMMAND` and `hokku man` say the same.\n"
            .to_owned();
    for (topic, names) in TOPICS {
        let _ = write!(text, "\n## {topic}\n");
        for name in names {
            if let Some(mut command) = program.find_subcommand(name).cloned() {
                let help = command.render_long_help().to_string();
                let _ = write!(text, "\n### {name}\n\n```text\n");
                for line in help.trim_end().lines() {
                    let _ = writeln!(text, "{}", line.trim_end());
                }
                text.push_str("```\n");
            }
        }
    }
    text
}

pub(super) fn help(out: Output, mut program: Command, args: &Help) -> Result<(), Failure> {
    if args.markdown {
        return out.bytes(markdown(program).as_bytes());
    }
    program.build();
    let Some(name) = &args.command else {
        return out.bytes(program.render_help().to_string().as_bytes());
    };
    let topic = format!("{name}:");
    let of_topic: Vec<_> = program.get_subcommands().filter(|sub| sub.get_name().starts_with(&topic)).collect();
    let mut text = String::new();
    for sub in &of_topic {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "  {:24}  {about}", sub.get_name());
    }
    let own = program.find_subcommand(name).cloned();
    match own {
        Some(mut command) => out.bytes(command.render_long_help().to_string().as_bytes())?,
        None if of_topic.is_empty() => {
            return Err(Failure::usage(format!("there is no command {name}")).hint("list them with: hokku help"));
        }
        None => {}
    }
    if text.is_empty() { Ok(()) } else { out.bytes(format!("\nCommands of {name}:\n{text}").as_bytes()) }
}

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku completions bash | sudo tee /etc/bash_completion.d/hokku
  $ hokku completions fish > ~/.config/fish/completions/hokku.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(super) fn completions(out: Output, mut program: Command, args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "hokku", &mut script);
    if args.shell == clap_complete::Shell::Bash {
        // bash takes a colon for the end of a word, so that apps:in<TAB> would be completed to apps:apps:info.
        out.bytes(b"COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n")?;
    }
    out.bytes(&script)
}

/// Print the manual page of hokku, or of one of its commands
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  $ hokku man | man -l -
  $ hokku man ps:scale | man -l -
  # hokku man --dir /usr/local/share/man/man1")]
pub(super) struct ManPage {
    /// The command
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn man(out: Output, mut program: Command, args: &ManPage) -> Result<(), Failure> {
    program.build();
    if let Some(dir) = &args.dir {
        return write_pages(program, dir);
    }
    let command = match &args.command {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Failure::usage(format!("there is no command {name}")).hint("list them with: hokku help"))?,
    };
    out.bytes(&page(command)?)
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let name = command.get_name();
    let title = if name == "hokku" { name.to_owned() } else { format!("hokku-{}", name.replace(':', "-")) };
    let mut roff = Vec::new();
    let rendered = clap_mangen::Man::new(command).title(title).render(&mut roff);
    rendered.map_err(|error| Failure::local("the manual page", &error))?;
    Ok(roff)
}

fn write_pages(program: Command, dir: &Path) -> Result<(), Failure> {
    let write = |name: String, roff: Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, roff).map_err(|error| Failure::local(path.display(), &error))
    };
    for sub in program.get_subcommands() {
        write(format!("hokku-{}.1", sub.get_name().replace(':', "-")), page(sub.clone())?)?;
    }
    write("hokku.1".to_owned(), page(program)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_in_the_overview_once() {
        let program = super::super::program();
        let listed: Vec<_> = TOPICS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let all: BTreeSet<_> = program.get_subcommands().map(Command::get_name).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), all);
        assert_eq!(listed.len(), all.len());
    }

    #[test]
    fn every_command_says_what_it_does() {
        let program = super::super::program();
        for command in program.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
        program.debug_assert();
    }
}
