//! What happens on the box itself: starting a server, taking an instance away, and looking whether the box can do it.
#![forbid(unsafe_code)]

use super::context::{Context, ServerArgs, variable};
use super::errors::{Failure, status};
use super::output::{Colour, plain};
use crate::client::DEFAULT_ROOT;
use crate::doctor::{self, Check, Status};
use crate::domain::instance::InstanceName;
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Start a server
///
/// Everything that lasts is kept in the root directory. Needs root. When the server is stopped, or killed, the apps go
/// on running and the next server takes them over; to end an instance, use down.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "What is not given as an option comes from the environment, then from hokku.toml in the root directory.

Examples:
  # hokku server --root /var/lib/hokku
  # hokku server --root ./state --name try --api 127.0.0.1:5001 --router 127.0.0.1:8081"
)]
pub struct Server {
    /// Name of the instance, when several run on one box [default: default]
    #[arg(long, value_name = "NAME", env = "HOKKU_NAME", hide_env_values = true)]
    pub name: Option<InstanceName>,
    /// Where the API and git listen [default: 127.0.0.1:5000]
    #[arg(long, value_name = "IP:PORT", env = "HOKKU_API", hide_env_values = true)]
    pub api: Option<SocketAddr>,
    /// Where the apps are served [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT", env = "HOKKU_ROUTER", hide_env_values = true)]
    pub router: Option<SocketAddr>,
    /// Where the apps are served over TLS [default: nowhere]
    ///
    /// By the certificates that apps have (certs:add); for all other names by one of the instance's own authority,
    /// ROOT/ca.pem.
    #[arg(long, value_name = "IP:PORT", env = "HOKKU_ROUTER_TLS", hide_env_values = true)]
    pub router_tls: Option<SocketAddr>,
    /// Domain below which each app has its name [default: localhost]
    #[arg(long, value_name = "DOMAIN", env = "HOKKU_DOMAIN", hide_env_values = true)]
    pub domain: Option<String>,
}

/// Stop an instance and take away every trace of it on the box
///
/// Ends its dynos, router and server, and removes its cgroups, network and sockets. The root directory with the apps'
/// data stays unless --purge is given. Needs root.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  # hokku down --root ./state
  # hokku down --root ./state --purge")]
pub struct Down {
    /// Name of the instance, when its root directory no longer tells
    #[arg(long, value_name = "NAME", env = "HOKKU_NAME", hide_env_values = true)]
    pub name: Option<InstanceName>,
    /// Delete the root directory as well: all apps, releases and logs
    #[arg(long)]
    pub purge: bool,
}

/// Install hokku on this box as a service, or upgrade it
///
/// Looks whether the box can do it, puts this binary to /usr/local/bin and the configuration to /etc/hokku, and has systemd
/// start hokku, now and at every boot. To upgrade, run it again with the new binary: apps go on serving. Needs root.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  # ./hokku install --domain apps.example.com
  # ./hokku install --router 127.0.0.1:8080      behind a web server that is there already")]
pub struct Install {
    /// Where the API and git listen [default: 127.0.0.1:5000]
    #[arg(long, value_name = "IP:PORT")]
    pub api: Option<SocketAddr>,
    /// Where the apps are served [default: 0.0.0.0:80]
    #[arg(long, value_name = "IP:PORT")]
    pub router: Option<SocketAddr>,
    /// Where they are served over TLS [default: 0.0.0.0:443, unless --router is given]
    #[arg(long, value_name = "IP:PORT")]
    pub router_tls: Option<SocketAddr>,
    /// Domain below which each app has its name [default: localhost]
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
}

/// Stop hokku and take it off this box
///
/// Ends all apps and removes the service and the binary. The apps' data and the configuration stay unless --purge is
/// given. Needs root.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  # hokku uninstall
  # hokku uninstall --purge")]
pub struct Uninstall {
    /// Delete the configuration and the root directory as well: all apps, releases and logs
    #[arg(long)]
    pub purge: bool,
}

/// Write the whole box to a file, while it runs
///
/// With it the box can be made anew, here or elsewhere, by restore: apps, releases, config vars, slugs, repositories, last
/// sources, accounts, certificates, the key and hokku.toml. Not in it are logs, output of builds, caches, what apps have
/// written, runtimes, and the layers of debian-13 unless --with-stacks is given. Apps and deploys go on meanwhile. Needs root.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Whoever reads a backup reads every config var: the key is in it, unless --without-key is given.

Examples:
  # hokku backup /mnt/hokku.backup
  # hokku backup - --without-key | ssh elsewhere 'cat > hokku.backup'"
)]
pub struct Backup {
    /// Where to write it, readable for root only; - is stdout
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Leave the key out, to be kept elsewhere: ROOT/key
    #[arg(long)]
    pub without_key: bool,
    /// Put the layers of debian-13 in as well
    #[arg(long)]
    pub with_stacks: bool,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// Make a box of a backup
///
/// In an empty root directory, that is new or where there is nothing yet. A backup that is damaged, incomplete or of a newer
/// hokku changes nothing. Needs root.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  # hokku restore /mnt/hokku.backup && ./hokku install
  # hokku restore /mnt/hokku.backup --check")]
pub struct Restore {
    /// The backup; - is stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The key, when it is not in the backup
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Only see whether the backup is whole and has its key; nothing is restored
    #[arg(long)]
    pub check: bool,
}

/// The root directory by flag, environment or default.
pub fn root(server: &ServerArgs) -> PathBuf {
    let root = server.root.clone().or_else(|| variable("HOKKU_ROOT").map(PathBuf::from));
    root.unwrap_or_else(|| DEFAULT_ROOT.into())
}

/// Check whether this box has what hokku needs
///
/// As root, it launches a dyno for a trial too. Ends with status 1 when something is missing.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  # hokku doctor
  # hokku doctor --json")]
pub(super) struct Doctor {
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(ctx: &Context, args: &Doctor) -> Result<u8, Failure> {
    let root = root(ctx.server_args());
    let checks = doctor::examine(&root, Path::new("/proc/self/exe"));
    let missing = checks.iter().any(|check| check.status == Status::Missing);
    if args.json {
        let row = |check: &Check| {
            json!({
                "name": check.name, "status": word(check.status), "found": check.found, "advice": check.advice,
            })
        };
        ctx.out.json(&checks.iter().map(row).collect())?;
    } else {
        print_checks(ctx, &checks)?;
    }
    Ok(if missing { status::ERROR } else { status::OK })
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Missing => "missing",
    }
}

fn print_checks(ctx: &Context, checks: &[Check]) -> Result<(), Failure> {
    let paint = ctx.out.paint();
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in checks {
        let colour = match check.status {
            Status::Ok => Colour::Green,
            Status::Warning => Colour::Yellow,
            Status::Missing => Colour::Red,
        };
        let state = paint.with(colour, format_args!("{:7}", word(check.status)));
        ctx.out.line(format_args!("{state}  {:width$}  {}", check.name, plain(&check.found)).to_string().trim_end())?;
        for line in check.advice.iter().flat_map(|advice| advice.lines()) {
            ctx.out.line(format_args!("{:9}{:width$}  → {}", "", "", plain(line)))?;
        }
    }
    Ok(())
}
