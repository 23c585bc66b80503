//! The role `git-hook`: turns a pushed commit into a source archive, has it built, and lets the push succeed only when
//! its code serves.
//!
//! Git runs it as `pre-receive`, with the new objects in quarantine: when it fails they are thrown away and no ref
//! moves. As `update` it keeps branches that don't deploy from being stored beside one that does.
//!
//! The source is what a checkout has: `read-tree` into an index of its own and `checkout-index`. (`git archive` would
//! leave out what `export-ignore` names, and know nothing of submodules.)
#![forbid(unsafe_code)]

use super::lfs;
use super::pushes::SUCCEEDED;
use crate::client::{self, Call, Client, ClientError, Method, Server};
use crate::drains::Reach;
use crate::sys::tree;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use tokio::sync::mpsc;

const ZERO: &[u8] = b"0";

/// Submodules within submodules, and how many in all.
const MAX_MODULES: usize = 64;

#[derive(Debug, thiserror::Error)]
enum HookError {
    /// The push is not one that can deploy.
    #[error("{0}")]
    Refused(String),
    /// The build has said why.
    #[error("Push rejected to {0}.")]
    Rejected(String),
    #[error("git {step} failed: {message}")]
    Git { step: &'static str, message: String },
    #[error("Can't fetch the submodule {path} from {url}: {message}")]
    Submodule { path: String, url: String, message: String },
    #[error(transparent)]
    Server(#[from] ClientError),
    #[error("the connection to the server broke: {0}")]
    Broken(hyper::Error),
    #[error("can't write the source: {0}")]
    Io(#[from] io::Error),
}

/// What becomes of the refs of a push.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// Deploy this commit of this branch.
    Deploy { branch: String, commit: String },
    /// Nothing to build: tags, or branches that go.
    Store,
}

/// `git-hook pre-receive`, with the refs on standard input, or `git-hook update REF`.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.into_iter().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["pre-receive"] => pre_receive(),
        ["update", reference] => update(reference),
        _ => Err(HookError::Refused("git-hook is run by git".to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\n !     {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// To the pusher's terminal, at once.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A pusher that has gone is noticed where it matters: when the build's lines are written.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn pre_receive() -> Result<(), HookError> {
    let mut refs = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.splitn(3, ' ');
        if let (Some(_), Some(new), Some(name)) = (words.next(), words.next(), words.next()) {
            refs.push((new.to_owned(), name.to_owned()));
        }
    }
    match wish(&refs)? {
        Wish::Store => Ok(()),
        Wish::Deploy { branch, commit } => deploy(&branch, &commit),
    }
}

fn deploys(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/heads/").filter(|branch| ["main", "master"].contains(branch))
}

fn update(reference: &str) -> Result<(), HookError> {
    if deploys(reference).is_some() || reference.starts_with("refs/tags/") {
        return Ok(());
    }
    Err(HookError::Refused(format!("{} is not kept: only main and master deploy.", short(reference))))
}

fn short(reference: &str) -> &str {
    reference.strip_prefix("refs/heads/").unwrap_or(reference)
}

/// `refs` are the new object and the name of each ref, as git tells a pre-receive hook.
fn wish(refs: &[(String, String)]) -> Result<Wish, HookError> {
    let refused = |text: String| Err(HookError::Refused(text));
    let gone = |new: &str| new.bytes().all(|byte| ZERO.contains(&byte));
    if let Some((_, name)) = refs.iter().find(|(new, name)| gone(new) && deploys(name).is_some()) {
        return refused(format!("{} can't be deleted: it is what the app runs.", short(name)));
    }
    let wanted: Vec<(&str, &String)> =
        refs.iter().filter_map(|(new, name)| deploys(name).map(|branch| (branch, new))).collect();
    match wanted.as_slice() {
        [(branch, commit)] => Ok(Wish::Deploy { branch: (*branch).to_owned(), commit: (*commit).clone() }),
        [_, _, ..] => refused("main and master were pushed at once. Push the one that is to be deployed.".to_owned()),
        [] => match refs.iter().find(|(new, name)| !gone(new) && !name.starts_with("refs/tags/")) {
            Some((_, name)) => {
                let branch = short(name);
                refused(format!(
                    "Only main and master deploy, {branch} does not. To deploy it: git push hokku {branch}:main"
                ))
            }
            None => Ok(Wish::Store),
        },
    }
}

fn deploy(branch: &str, object: &str) -> Result<(), HookError> {
    let app = std::env::var("HOKKU_APP").unwrap_or_default();
    let commit = git("rev-parse", ["rev-parse", "--verify", "--quiet", &format!("{object}^{{commit}}")])
        .map_err(|_| HookError::Refused(format!("{branch} does not point to a commit.")))?;
    let commit = commit.trim();
    let checkout = Checkout::make(Path::new("."))?;
    checkout.fill(commit)?;
    if let Some(warning) = lfs::warning(&checkout.source()) {
        say(&warning);
    }
    say("Compressing source files... done.\nBuilding source:\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if runtime.block_on(build(commit, checkout))? { Ok(()) } else { Err(HookError::Rejected(app)) }
}

/// Sends the source, prints the lines of its build as they come, and says whether its release serves.
async fn build(commit: &str, checkout: Checkout) -> Result<bool, HookError> {
    let variable = |name| std::env::var(name).map_err(|_| HookError::Refused(format!("{name} is not set")));
    let client = Client::new(Server::Socket(PathBuf::from(variable("HOKKU_SOCKET")?)), None);
    let path = format!("/push/{}", variable("HOKKU_PUSH")?);
    let (sender, body) = client::pieces();
    let packing = tokio::task::spawn_blocking(move || pack(&checkout, &sender));
    let call = Call::new(Method::POST, format!("{path}?commit={commit}")).body(body);
    let mut lines = client.send(call).await?.into_body();
    packing.await.map_err(io::Error::other)??;
    let mut out = io::stdout();
    while let Some(frame) = lines.frame().await {
        if let Ok(piece) = frame.map_err(HookError::Broken)?.into_data() {
            out.write_all(&piece)?;
            out.flush()?;
        }
    }
    let verdict = client.send(Call::new(Method::GET, path)).await?.into_body();
    let verdict = verdict.collect().await.map_err(HookError::Broken)?.to_bytes();
    Ok(verdict == SUCCEEDED.as_bytes())
}

/// The source as an archive, in pieces; what was checked out is removed afterwards.
fn pack(checkout: &Checkout, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let packed = (|| {
        let pieces = BufWriter::with_capacity(128 * 1024, Pieces(sender));
        let mut archive = tar::Builder::new(zstd::Encoder::new(pieces, 1)?);
        archive.follow_symlinks(false);
        archive.mode(tar::HeaderMode::Deterministic);
        archive.append_dir_all(".", checkout.source())?;
        archive.into_inner()?.finish()?.flush()
    })();
    if let Err(error) = &packed {
        // The upload must not end as if it were complete.
        let _ = sender.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
    }
    packed
}

struct Pieces<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A commit's files, in a directory beside the repository's own.
struct Checkout {
    dir: PathBuf,
}

const CHECKOUT: &str = "hokku-push-";

impl Checkout {
    fn make(repository: &Path) -> Result<Self, HookError> {
        sweep(repository);
        let repository = repository.canonicalize()?;
        let dir = repository.join(format!("{CHECKOUT}{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir)?;
        let checkout = Self { dir };
        fs::create_dir(checkout.source())?;
        Ok(checkout)
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn fill(&self, commit: &str) -> Result<(), HookError> {
        check_out(&self.dir, None, commit, &self.source())?;
        let mut modules = Modules { checkout: self, fetched: 0 };
        modules.fill(None, commit, &self.source())
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        // A later push sweeps what could not be removed.
        let _ = tree::remove(&self.dir);
    }
}

/// Removes what hooks left that were killed. A push takes minutes at most until its source is sent.
fn sweep(repository: &Path) {
    let Ok(entries) = fs::read_dir(repository) else { return };
    for entry in entries.flatten() {
        let old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > std::time::Duration::from_secs(3600)));
        if old && entry.file_name().to_string_lossy().starts_with(CHECKOUT) {
            let _ = tree::remove(&entry.path());
        }
    }
}

/// Writes the files of `commit` below `dest`; `repository` is the pushed one unless it is a submodule's.
fn check_out(scratch: &Path, repository: Option<&Path>, commit: &str, dest: &Path) -> Result<(), HookError> {
    let index = scratch.join(format!("index-{}", uuid::Uuid::new_v4().simple()));
    let run = |step: &'static str, args: &[&OsStr]| {
        let mut command = git_command(repository);
        command.env("GIT_INDEX_FILE", &index).arg("--work-tree").arg(dest).args(args);
        finish(step, command).map(|_| ())
    };
    run("read-tree", &["read-tree".as_ref(), commit.as_ref()])?;
    run("checkout-index", &["checkout-index".as_ref(), "--all".as_ref(), "--force".as_ref(), "--quiet".as_ref()])?;
    fs::remove_file(&index)?;
    Ok(())
}

fn git<const N: usize>(step: &'static str, args: [&str; N]) -> Result<String, HookError> {
    let mut command = git_command(None);
    command.args(args);
    finish(step, command)
}

/// Git on the pushed repository, whose objects are in quarantine (git told us by variables), or on a submodule's, where
/// those variables must not lead astray.
fn git_command(repository: Option<&Path>) -> Command {
    let mut command = Command::new("git");
    if let Some(repository) = repository {
        for name in ["GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"] {
            command.env_remove(name);
        }
        command.arg("--git-dir").arg(repository);
    }
    command.stdin(Stdio::null());
    command
}

fn finish(step: &'static str, mut command: Command) -> Result<String, HookError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(HookError::Git { step, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// The server's own ports that submodules may be fetched from, as dynos may connect to them: numbers with commas.
pub(super) const OPEN_PORTS: &str = "HOKKU_OPEN_PORTS";

/// What git is told of where the host of an `https` URL is: only these addresses, so that the name can't lead elsewhere
/// after it was looked at. Without an address of its own, a host is the proxy's to find.
fn pinned(url: &str) -> Result<Option<String>, String> {
    let uri: axum::http::Uri = url.parse().map_err(|_| "that is no URL".to_owned())?;
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
    let open = std::env::var(OPEN_PORTS).unwrap_or_default();
    let reach = Reach { open: open.split(',').filter_map(|port| port.parse().ok()).collect() };
    let proxied = ["https_proxy", "HTTPS_PROXY"].into_iter().any(|name| std::env::var_os(name).is_some());
    match reach.look_up(host.trim_start_matches('[').trim_end_matches(']'), port) {
        Ok(found) => {
            let text = |address: &SocketAddr| match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            let addresses = found.iter().map(text).collect::<Vec<_>>().join(",");
            Ok(Some(format!("http.curloptResolve={host}:{port}:{addresses}")))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.to_string()),
        Err(_) if proxied => Ok(None),
        Err(error) => Err(format!("its host can't be looked up: {error}")),
    }
}

/// The submodules of a commit, fetched over https only, and from where builds may connect to: the server's machine can
/// reach more than a pusher may.
struct Modules<'a> {
    checkout: &'a Checkout,
    fetched: usize,
}

impl Modules<'_> {
    fn fill(&mut self, repository: Option<&Path>, commit: &str, dest: &Path) -> Result<(), HookError> {
        let declared = dest.join(".gitmodules");
        if !fs::symlink_metadata(&declared).is_ok_and(|found| found.is_file()) {
            return Ok(());
        }
        let mut list = git_command(repository);
        list.args(["ls-tree", "-r", "-z", "--full-tree", commit]);
        let tree = finish("ls-tree", list)?;
        for (path, object) in tree.split('\0').filter_map(gitlink) {
            self.fetched += 1;
            if self.fetched > MAX_MODULES {
                return Err(HookError::Refused(format!("There are more than {MAX_MODULES} submodules.")));
            }
            let Some(url) = url_of(&declared, path)? else { continue };
            say(&format!("Fetching the submodule {path}"));
            let fetched = self.fetch(path, &url, object)?;
            let inside = dest.join(path);
            fs::create_dir_all(&inside)?;
            check_out(&self.checkout.dir, Some(&fetched), object, &inside)?;
            self.fill(Some(&fetched), object, &inside)?;
        }
        Ok(())
    }

    fn fetch(&self, path: &str, url: &str, object: &str) -> Result<PathBuf, HookError> {
        let failed = |message: String| HookError::Submodule { path: path.to_owned(), url: url.to_owned(), message };
        if !url.starts_with("https://") {
            return Err(failed("only https:// URLs are fetched".to_owned()));
        }
        let pinned = pinned(url).map_err(failed)?;
        let repository = self.checkout.dir.join(format!("module-{}", self.fetched));
        let said = |error: HookError| match error {
            HookError::Git { message, .. } => failed(message),
            other => other,
        };
        let mut init = git_command(Some(&repository));
        init.args(["init", "--quiet", "--bare", "--template="]).arg(&repository);
        finish("init", init).map_err(said)?;
        let fetch = |what: &[&str]| {
            let mut fetch = git_command(Some(&repository));
            fetch.args([
                "-c",
                "protocol.allow=never",
                "-c",
                "protocol.https.allow=always",
                "-c",
                "http.followRedirects=false",
            ]);
            fetch.args(pinned.iter().flat_map(|place| ["-c", place.as_str()]));
            fetch.args(["fetch", "--quiet", "--no-tags"]).args(what).env("GIT_TERMINAL_PROMPT", "0");
            finish("fetch", fetch)
        };
        // Most servers give out a commit by its name; others only whole branches.
        fetch(&["--depth=1", url, object]).or_else(|_| fetch(&[url, "+refs/heads/*:refs/heads/*"])).map_err(said)?;
        Ok(repository)
    }
}

/// Path and commit of a line of `ls-tree -z`, when it is a submodule.
fn gitlink(line: &str) -> Option<(&str, &str)> {
    let (facts, path) = line.split_once('\t')?;
    let mut facts = facts.split(' ');
    (facts.next()? == "160000").then_some(())?;
    Some((path, facts.nth(1)?))
}

fn url_of(declared: &Path, path: &str) -> Result<Option<String>, HookError> {
    let mut list = git_command(None);
    list.args(["config", "--file"]).arg(declared).args(["--null", "--get-regexp", r"^submodule\..*\.(path|url)$"]);
    let text = finish("config", list)?;
    let pairs: Vec<(&str, &str)> = text.split('\0').filter_map(|pair| pair.split_once('\n')).collect();
    let name = pairs.iter().find_map(|(key, value)| key.strip_suffix(".path").filter(|_| *value == path));
    let found = |name: &str| pairs.iter().find(|(key, _)| key.strip_suffix(".url") == Some(name));
    Ok(name.and_then(found).map(|(_, url)| (*url).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d1a2b3c4d";
    const GONE: &str = "0000000000000000000000000000000000000000";

    fn wished(refs: &[(&str, &str)]) -> Result<Wish, String> {
        let refs: Vec<_> = refs.iter().map(|(new, name)| ((*new).to_owned(), (*name).to_owned())).collect();
        wish(&refs).map_err(|error| error.to_string())
    }

    #[test]
    fn main_and_master_deploy() {
        let deploy = |branch: &str| Ok(Wish::Deploy { branch: branch.into(), commit: COMMIT.into() });
        assert_eq!(wished(&[(COMMIT, "refs/heads/main")]), deploy("main"));
        assert_eq!(wished(&[(COMMIT, "refs/heads/master"), (GONE, "refs/heads/old")]), deploy("master"));
        assert_eq!(wished(&[(COMMIT, "refs/heads/feature"), (COMMIT, "refs/heads/main")]), deploy("main"));
    }

    #[test]
    fn others_are_refused_with_a_sentence() {
        let error = |refs: &[(&str, &str)]| wished(refs).unwrap_err();
        assert_eq!(
            error(&[(COMMIT, "refs/heads/feature/x")]),
            "Only main and master deploy, feature/x does not. To deploy it: git push hokku feature/x:main"
        );
        assert!(error(&[(COMMIT, "refs/heads/main"), (COMMIT, "refs/heads/master")]).contains("at once"));
        assert!(error(&[(GONE, "refs/heads/main")]).contains("can't be deleted"));
        assert!(update("refs/heads/feature").unwrap_err().to_string().contains("feature is not kept"));
    }

    #[test]
    fn tags_and_branches_that_go_need_no_build() {
        assert_eq!(wished(&[(COMMIT, "refs/tags/v1"), (GONE, "refs/heads/feature")]), Ok(Wish::Store));
        assert!(update("refs/tags/v1").is_ok() && update("refs/heads/main").is_ok());
    }

    #[test]
    fn submodules_are_told_from_files() {
        assert_eq!(gitlink(&format!("160000 commit {COMMIT}\tlib/x y")), Some(("lib/x y", COMMIT)));
        assert_eq!(gitlink(&format!("100644 blob {COMMIT}\ta")), None);
    }
}
