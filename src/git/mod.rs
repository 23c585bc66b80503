//! Git over HTTP: clone, fetch, and the push that deploys.
//!
//! ```text
//!  git push ─HTTP─▶ [`cgi`] ─stdin/stdout─▶ `hokku git-backend` ([`backend`]) ─exec─▶ git http-backend
//!                                           own mounts, uid of the helpers              └─ receive-pack
//!  [`pushes`] ◀──────── hook.sock: tar stream ─────── `hokku git-hook` ([`hook`]) ◀──────────┘ pre-receive
//!      └─ control::builds::create, lines of the build ─▶ hook ─▶ sideband ─▶ the pusher's terminal
//! ```
//!
//! Git parses what strangers send, so it never runs as root: it sees its one repository, the hook's program and the
//! hook's socket, and nothing of the instance beside them. The hook proves which push it belongs to by a token that is
//! made for that one request and is good for nothing but to build that one app while the request lasts.
//!
//! A push that goes away (Ctrl-C) ends git's processes, the hook's connection with them, and so the build, unless it has
//! made its release by then.
#![forbid(unsafe_code)]

pub mod backend;
mod cgi;
pub mod hook;
mod lfs;
mod pushes;

use crate::build::room;
use crate::control::access::{self, Subject};
use crate::control::audit;
use crate::control::tokens::Peer;
use crate::control::{Control, ControlError, Resource};
use crate::domain::access::{Need, Permission};
use crate::domain::app::App;
use crate::domain::scope::Scope;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pushes::{Pusher, Pushes};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Git processes at a time; more requests wait.
const AT_ONCE: usize = 8;

/// Below so many free bytes a push is refused before it is sent: of what git could not write then, it says no reason.
const ROOM: u64 = 8 << 20;

#[derive(Clone, Debug)]
struct Git {
    control: Control,
    pushes: Pushes,
    slots: Arc<Semaphore>,
    /// The executable that has the roles `git-backend` and `git-hook`.
    program: PathBuf,
}

/// The git routes, to be merged into the API's, and the socket that hooks come to, which is served from now on.
///
/// # Errors
/// When the socket can't be made.
pub fn routes(control: &Control) -> io::Result<Router> {
    routes_with(control, PathBuf::from("/proc/self/exe"))
}

/// The same with another executable than this process's own.
///
/// # Errors
/// When the socket can't be made.
pub fn routes_with(control: &Control, program: PathBuf) -> io::Result<Router> {
    let pushes = Pushes::start(control.clone())?;
    let git = Git { control: control.clone(), pushes, slots: Arc::new(Semaphore::new(AT_ONCE)), program };
    Ok(Router::new()
        .route("/{repository}/info/refs", get(answer))
        .route("/{repository}/git-upload-pack", post(answer))
        .route("/{repository}/git-receive-pack", post(answer))
        .with_state(git))
}

async fn answer(State(git): State<Git>, Path(repository): Path<String>, request: Request) -> Response {
    // The request itself can't be held over an await: its body is not to be shared between threads.
    let peer = request.extensions().get().copied().unwrap_or(Peer::Network);
    let token = authorization(request.headers()).map(str::to_owned);
    let push = cgi::is_push(&request);
    let (pusher, app) = match who_and_what(&git, &repository, peer, token.as_deref(), push).await {
        Ok(found) => found,
        Err(error) => {
            if let Some(action) = refused_action(&error, push, token.is_some()) {
                let (uri, extensions) = (request.uri().clone(), request.extensions().clone());
                let shown = (peer, token.as_deref());
                let (actor, app) = access::refused(&git.control, shown, &subject(&repository), &error).await;
                let attempt = audit::attempt(action, (&actor, app.as_ref()), uri.path(), peer, &extensions);
                audit::refused(&git.control, attempt, &error).await;
            }
            return refusal(&error);
        }
    };
    if push && !has_room(&git) {
        let text = "The disk of the server is full: nothing was pushed. Make room there and push again.";
        return plain(StatusCode::INSUFFICIENT_STORAGE, text);
    }
    // A push asks first what there is; it is the second request that changes something.
    let event = if push && request.method() == Method::POST {
        let attempt =
            audit::attempt("git:push", (&pusher.actor, Some(&app)), request.uri().path(), peer, request.extensions());
        match audit::begin(&git.control, attempt).await {
            Ok(event) => Some(event),
            Err(error) => return unavailable(&error),
        }
    } else {
        None
    };
    let response = cgi::run(&git, &pusher, &app, request).await.unwrap_or_else(|error| {
        tracing::error!("can't run git for {}: {error}", app.name);
        plain(StatusCode::INTERNAL_SERVER_ERROR, "Git could not be started on the server.")
    });
    if let Some(event) = event {
        // What became of the build is said by the build.
        audit::end(&git.control, event, response.status().as_u16(), None, None).await;
    }
    response
}

/// A disk that can't be asked is not a reason to refuse.
fn has_room(git: &Git) -> bool {
    room::free_disk(&git.control.place.instance.root).map_or(true, |free| free >= ROOM)
}

/// Code is seen by those who may deploy, too.
async fn who_and_what(
    git: &Git,
    repository: &str,
    peer: Peer,
    token: Option<&str>,
    push: bool,
) -> Result<(Pusher, App), ControlError> {
    let (scope, need) = (if push { Scope::Write } else { Scope::Read }, Need::On(Permission::Deploy));
    let entry = access::enter(&git.control, (peer, token), scope, need, subject(repository)).await?;
    let app = entry.app.ok_or(ControlError::NotFound(Resource::App))?;
    Ok((Pusher { actor: entry.caller.actor, bearer: entry.bearer }, app))
}

/// What a refusal is called in the audit log; git asks without a token first.
fn refused_action(error: &ControlError, push: bool, shown: bool) -> Option<&'static str> {
    match error {
        ControlError::Denied => shown.then_some(audit::FAILED_TOKEN),
        _ => Some(if push { "git:push" } else { audit::READ }),
    }
}

fn subject(repository: &str) -> Subject {
    Subject::App(repository.strip_suffix(".git").unwrap_or(repository).to_owned())
}

fn refusal(error: &ControlError) -> Response {
    match error {
        ControlError::Denied => unauthorized(),
        ControlError::Forbidden { has } => {
            plain(StatusCode::FORBIDDEN, &format!("This token is for {has} and does not permit that."))
        }
        ControlError::Lacks { need } => plain(StatusCode::FORBIDDEN, &format!("That needs {need}.")),
        ControlError::NotFound(_) => plain(StatusCode::NOT_FOUND, "Couldn't find that app."),
        error => unavailable(error),
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default())
}

fn unauthorized() -> Response {
    let text = "Invalid credentials provided.\n";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"hokku\"")], text).into_response()
}

fn unavailable(error: &ControlError) -> Response {
    tracing::error!("can't answer git: {error}");
    plain(StatusCode::INTERNAL_SERVER_ERROR, "The server could not answer; its log says why.")
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
