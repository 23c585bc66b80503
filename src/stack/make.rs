//! Making a layer with mmdebstrap, from the host's own apt sources.
#![forbid(unsafe_code)]

use super::apt::{self, SourcesError};
use super::{recipe, seal};
use crate::domain::stack::Layer;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// What runs; see there.
pub(super) const SCRIPT: &str = include_str!("../../rootfs/make");

/// Room that a layer may take with everything that is downloaded for it.
const NEEDED_MB: u64 = 1500;

/// What mmdebstrap says that is worth showing: its steps that take time.
const STEPS: [&str; 5] = ["running apt-get update", "downloading", "extracting", "installing", "simulate installing"];

/// Lines of the tool's that are kept for the case that it fails.
const KEPT: usize = 200;

/// Files of a time are compared with it by nobody: what is compiled ahead (Python's bytecode) is tied to its source by
/// contents, so that it stays valid on the machine that a layer is imported to.
const SOURCE_DATE_EPOCH: &str = "1735689600";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a layer could not be made, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error(
        "mmdebstrap, which makes the layers of debian-13, is not installed: apt install mmdebstrap, or import the stack with hokku stack:import"
    )]
    NoTool,
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("There is not enough room on the disk to make a layer: {free} MB are free, {NEEDED_MB} MB are needed")]
    Room { free: u64 },
    #[error("The disk became full while the {0} layer was made")]
    DiskFull(Layer),
    #[error("The {layer} layer could not be made: {message}")]
    Tool { layer: Layer, message: String },
    #[error("can't {doing} the {layer} layer")]
    Io { doing: &'static str, layer: Layer, source: io::Error },
}

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Instead of the host's own sources.
    pub mirrors: Vec<String>,
}

/// One layer to be made.
pub(super) struct Order<'a> {
    pub(super) layer: Layer,
    /// The stack's directory; the tree and all else that is made lie there.
    pub(super) dir: &'a Path,
    /// Name of an empty directory below it.
    pub(super) tree: &'a str,
    /// Name of the base's tree, for a layer above one.
    pub(super) base: Option<&'a str>,
    pub(super) origin: &'a Origin,
}

/// Says a line of progress.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// Fills the order's tree. Returns the packages that it has, the base's included.
pub(super) async fn make(order: &Order<'_>, say: Say<'_>) -> Result<BTreeMap<String, String>, MakeError> {
    check_room(order)?;
    let mut command = command(order)?;
    command.args(options(order.layer, order.base.is_some()));
    run(order, command, say).await?;
    seal::installed(&order.dir.join(order.tree)).map_err(|source| failed("read", order.layer)(source))
}

/// The versions that all packages of these layers would have if they were made now.
pub(super) async fn candidates(
    dir: &Path,
    tree: &str,
    layers: &[Layer],
    origin: &Origin,
) -> Result<BTreeMap<String, String>, MakeError> {
    let order = Order { layer: Layer::Base, dir, tree, base: None, origin };
    let mut command = command(&order)?;
    let all: Vec<&str> = layers.iter().flat_map(|layer| recipe::packages(*layer)).collect();
    command.args(["--simulate", "--verbose", "--variant=minbase", NO_RECOMMENDS]);
    command.arg(format!("--include={}", all.join(",")));
    let output = run(&order, command, &|_| {}).await?;
    // `Inst libc6 (2.41-12 Debian:13/stable [amd64])`
    let version = |line: &String| {
        let (package, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        Some((package.split(' ').next()?.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    Ok(output.iter().filter_map(version).collect())
}

const NO_RECOMMENDS: &str = "--aptopt=APT::Install-Recommends \"false\"";

fn options(layer: Layer, above: bool) -> Vec<String> {
    let mut options: Vec<String> = vec![NO_RECOMMENDS.into()];
    let unread = ["man", "doc", "info", "locale", "lintian", "bug"];
    options.extend(unread.map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")));
    options.extend(
        ["doc/*/copyright", "locale/locale.alias"].map(|path| format!("--dpkgopt=path-include=/usr/share/{path}")),
    );
    if above {
        options.extend(["--variant=custom", "--skip=check/empty"].map(str::to_owned));
    } else {
        // openjdk's alternatives fail where the directory for their manual pages is missing.
        let manual = "--essential-hook=mkdir -p \"$1/usr/share/man/man1\"";
        options.extend(["--variant=minbase", manual].map(str::to_owned));
    }
    options.push(format!("--include={}", recipe::packages(layer).join(",")));
    options
}

/// The script in namespaces of its own, which end with this process whatever it dies of.
fn command(order: &Order<'_>) -> Result<Command, MakeError> {
    let tree = order.tree;
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let lines = apt::sources(Path::new("/etc/apt"), &os_release, recipe::SUITE, &order.origin.mirrors)?;
    let sources = format!("{tree}.list");
    fs::write(order.dir.join(&sources), lines).map_err(failed("prepare", order.layer))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "nice", "-n", "10"]);
    command.args(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args([
        "--",
        "bash",
        "-c",
        SCRIPT,
        "make",
        order.layer.as_str(),
        tree,
        order.base.unwrap_or("-"),
        recipe::SUITE,
        &sources,
    ]);
    command.args(host_options());
    command.current_dir(order.dir).env_clear();
    command.env("PATH", PATH).env("LANG", "C.UTF-8").env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/root");
    for name in [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "npm_config_registry",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// The host's proxies, certificates and credentials for fetching packages.
fn host_options() -> Vec<String> {
    let output = std::process::Command::new("apt-config").args(["dump", "--no-empty", "Acquire"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let of_transport =
        |line: &&str| ["Acquire::http::", "Acquire::https::"].iter().any(|start| line.starts_with(start));
    text.lines().filter(of_transport).map(|line| format!("--aptopt={}", line.trim_end_matches(';'))).collect()
}

fn check_room(order: &Order<'_>) -> Result<(), MakeError> {
    let free = free_mb(order.dir).map_err(failed("look for room for", order.layer))?;
    if free < NEEDED_MB { Err(MakeError::Room { free }) } else { Ok(()) }
}

fn free_mb(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_bavail * stat.f_frsize) >> 20)
}

fn failed(doing: &'static str, layer: Layer) -> impl FnOnce(io::Error) -> MakeError {
    move |source| MakeError::Io { doing, layer, source }
}

/// Runs to the end. Returns the last lines that were said.
async fn run(order: &Order<'_>, mut command: Command, say: Say<'_>) -> Result<VecDeque<String>, MakeError> {
    let layer = order.layer;
    if !tool_is_there() {
        return Err(MakeError::NoTool);
    }
    let (reader, writer) = io::pipe().map_err(failed("run the tool for", layer))?;
    let errors = writer.try_clone().map_err(failed("run the tool for", layer))?;
    command.stdout(writer).stderr(errors);
    let mut child = command.spawn().map_err(failed("run the tool for", layer))?;
    // Our own copies of the pipe's end would keep it open.
    drop(command);
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(failed("hear", layer))?;
    let mut lines = BufReader::new(reader).split(b'\n');
    let mut kept = VecDeque::new();
    while let Some(line) = lines.next_segment().await.map_err(failed("hear", layer))? {
        let line = crate::domain::log::clean(&line);
        say_step(&line, say);
        if kept.len() == KEPT && !line.starts_with("Inst ") {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    let status = child.wait().await.map_err(failed("wait for", layer))?;
    if status.success() {
        return Ok(kept);
    }
    let full = kept.iter().any(|line| line.contains("No space left on device"));
    if full || free_mb(order.dir).is_ok_and(|free| free < 32) {
        return Err(MakeError::DiskFull(layer));
    }
    Err(MakeError::Tool { layer, message: reason(&kept).unwrap_or_else(|| format!("mmdebstrap ended with {status}")) })
}

fn say_step(line: &str, say: Say<'_>) {
    if let Some(step) = line.strip_prefix("I: ").filter(|text| STEPS.iter().any(|step| text.starts_with(step))) {
        say(step);
    }
    if let Some(warning) = line.strip_prefix("W: npm ") {
        say(&format!("npm {warning}"));
    }
}

fn tool_is_there() -> bool {
    PATH.split(':').any(|dir| Path::new(dir).join("mmdebstrap").is_file())
}

/// The most telling line of a failure: apt's own error before mmdebstrap's.
fn reason(lines: &VecDeque<String>) -> Option<String> {
    let errors: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("E: ")).collect();
    let telling = errors.iter().find(|line| !line.contains("mmdebstrap") && !line.ends_with("failed"));
    let last = lines.iter().rev().find(|line| !line.trim().is_empty()).map(String::as_str);
    let text = telling.or(errors.first()).copied().or(last)?;
    Some(text.trim_end_matches('.').chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_apts_own() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let text = [
            "I: running apt-get update...",
            "E: Unable to locate package nope",
            "E: apt-get failed",
            "E: mmdebstrap failed to run",
        ];
        assert_eq!(reason(&lines(&text)).as_deref(), Some("Unable to locate package nope"));
        assert_eq!(reason(&lines(&["unshare: failed", ""])).as_deref(), Some("unshare: failed"));
        assert_eq!(reason(&lines(&[])), None);
    }

    #[test]
    fn layers_above_a_base_install_into_it() {
        let node = options(Layer::try_from("nodejs".to_owned()).unwrap(), true);
        assert!(
            node.contains(&"--variant=custom".to_owned()) && node.contains(&"--include=nodejs".to_owned()),
            "{node:?}"
        );
        assert!(options(Layer::Base, false).contains(&"--variant=minbase".to_owned()));
    }
}
