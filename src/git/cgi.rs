//! One HTTP request as a CGI program's, streaming both ways.
#![forbid(unsafe_code)]

use super::pushes::{Pass, Pusher};
use super::{Git, plain};
use crate::domain::app::App;
use crate::drains::Reach;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// The head of a CGI program's answer is a few lines.
const MAX_HEAD: u64 = 16 * 1024;

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");

/// What lives as long as git does for this request.
struct Held {
    child: Child,
    _slot: OwnedSemaphorePermit,
    _inside: OwnedRwLockReadGuard<()>,
    _pass: Pass,
}

impl Drop for Held {
    fn drop(&mut self) {
        // The whole group: receive-pack, the hook and what it started. The leader is not reaped yet while it has an id,
        // so the number is still this group's.
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended by itself just now.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Lets git answer the request.
pub(super) async fn run(git: &Git, pusher: &Pusher, app: &App, request: Request) -> io::Result<Response> {
    let Some(service) = service(&request) else {
        return Ok(plain(StatusCode::FORBIDDEN, "Please upgrade your git client: only the smart protocol is spoken."));
    };
    let slot = git.slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let pass = git.pushes.admit(pusher, app)?;
    let inside = git.control.repositories.enter(app.id).await;
    let repository = repository(git, app)?;
    let (parts, body) = request.into_parts();
    let mut command = Command::new(&git.program);
    command.arg("git-backend").arg(&repository).arg(git.pushes.socket());
    command.arg(git.control.place.instance.helper_uid().to_string());
    command.env_clear().envs(environment(&parts, service, app, &pass, git.control.drains.reach()));
    // Not `kill_on_drop`, which ends only the leader: see [`Held`].
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
    let mut child = command.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let held = Held { child, _slot: slot, _inside: inside, _pass: pass };

    let mut stdout = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?);
    if let Some(stdin) = stdin {
        tokio::spawn(feed(body, stdin));
    }
    let (status, headers) = head(&mut stdout).await?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(drain(stdout, sender, held));
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Whether it is part of a push.
pub(super) fn is_push(request: &Request) -> bool {
    service(request) == Some("git-receive-pack")
}

/// Which of git's two services is asked for; `None` for the dumb protocol.
fn service(request: &Request) -> Option<&'static str> {
    const SERVICES: [&str; 2] = ["git-receive-pack", "git-upload-pack"];
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    SERVICES.into_iter().find(|service| {
        path.ends_with(&format!("/{service}"))
            || (path.ends_with("/info/refs") && query.split('&').any(|pair| pair == format!("service={service}")))
    })
}

/// The app's repository, an empty directory at first; [`super::backend`] makes it one.
fn repository(git: &Git, app: &App) -> io::Result<PathBuf> {
    let instance = &git.control.place.instance;
    let (dir, helper) = (instance.root.join("repos").join(format!("{}.git", app.id)), instance.helper_uid());
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir.parent().unwrap_or(Path::new("/")))?;
        fs::DirBuilder::new().mode(0o700).create(&dir).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        chown(&dir, Some(helper), Some(helper))?;
    } else if fs::metadata(&dir)?.uid() != helper {
        // Of a backup, or from when this instance had another number. The directory itself comes last and says that it is done.
        for entry in walkdir::WalkDir::new(&dir).contents_first(true) {
            lchown(entry?.path(), Some(helper), Some(helper))?;
        }
    }
    Ok(dir)
}

/// How submodules are fetched: through which proxy, and by which authorities' word.
const PASSED: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "GIT_SSL_CAINFO", "SSL_CERT_FILE"];

/// What CGI and git's program want to know. Of the server's own environment only the way to other servers.
fn environment(
    parts: &axum::http::request::Parts,
    service: &str,
    app: &App,
    pass: &Pass,
    reach: &Reach,
) -> Vec<(&'static str, String)> {
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let end = if parts.uri.path().ends_with("/info/refs") { "info/refs" } else { service };
    let mut env = vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("GATEWAY_INTERFACE", "CGI/1.1".to_owned()),
        ("REQUEST_METHOD", parts.method.to_string()),
        ("QUERY_STRING", parts.uri.query().unwrap_or_default().to_owned()),
        ("CONTENT_TYPE", header(CONTENT_TYPE).to_owned()),
        ("PATH_INFO", format!("/{}/{end}", super::backend::REPOSITORY)),
        // Git lets only someone push whom the server has authenticated.
        ("REMOTE_USER", "hokku".to_owned()),
        ("HOKKU_APP", app.name.to_string()),
        ("HOKKU_PUSH", pass.token().to_owned()),
    ];
    let mut pass_on = |name: &'static str, from: HeaderName| {
        if parts.headers.contains_key(&from) {
            env.push((name, header(from).to_owned()));
        }
    };
    pass_on("CONTENT_LENGTH", CONTENT_LENGTH);
    pass_on("HTTP_CONTENT_ENCODING", CONTENT_ENCODING);
    pass_on("GIT_PROTOCOL", GIT_PROTOCOL);
    env.push((super::hook::OPEN_PORTS, reach.open.iter().map(u16::to_string).collect::<Vec<_>>().join(",")));
    env.extend(PASSED.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))));
    env
}

/// Sends the request's body to git. A body that breaks off ends like one that is complete; git knows how long a pack is.
async fn feed(body: Body, mut stdin: tokio::process::ChildStdin) {
    let mut pieces = body.into_data_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        if stdin.write_all(&piece).await.is_err() {
            // Git has heard enough: it reads no further than it needs.
            return;
        }
    }
}

async fn head(stdout: &mut BufReader<ChildStdout>) -> io::Result<(StatusCode, HeaderMap)> {
    let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
    let mut lines = stdout.take(MAX_HEAD);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "git gave no answer"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "git's answer has no proper head");
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            status = code.parse().map_err(|_| wrong())?;
        } else {
            let name: HeaderName = name.parse().map_err(|_| wrong())?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
    }
}

/// Sends git's answer on, until it ends or nobody reads it any more; then git ends too.
async fn drain(mut stdout: BufReader<ChildStdout>, sender: mpsc::Sender<io::Result<Bytes>>, mut held: Held) {
    loop {
        let mut piece = Vec::with_capacity(16 * 1024);
        tokio::select! {
            read = stdout.read_buf(&mut piece) => match read {
                Ok(0) => break,
                Ok(_) => if sender.send(Ok(piece.into())).await.is_err() { return },
                Err(error) => {
                    // Nobody may be left to hear of it.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            },
            () = sender.closed() => return,
        }
    }
    match held.child.wait().await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::debug!("git http-backend ended with {status}"),
        Err(error) => tracing::warn!("can't wait for git http-backend: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_smart_protocol_is_spoken() {
        let of = |uri: &str| service(&Request::builder().uri(uri).body(Body::empty()).unwrap());
        assert_eq!(of("/a.git/info/refs?service=git-receive-pack"), Some("git-receive-pack"));
        assert_eq!(of("/a.git/git-upload-pack"), Some("git-upload-pack"));
        assert_eq!(of("/a.git/info/refs"), None);
        assert_eq!(of("/a.git/info/refs?service=git-daemon"), None);
    }
}
