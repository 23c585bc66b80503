//! Pushes under way, and the socket that their hooks come to.
//!
//! `RUN/hook.sock` belongs to the helpers' uid and knows two requests, each with the token of a push in its path:
//! `POST /push/<token>?commit=…` with a source archive is answered by the lines of its build as they come, and then
//! `GET /push/<token>` by what became of it.
#![forbid(unsafe_code)]

use crate::control::builds::{self, NewBuild, NewSource};
use crate::control::grants::{self, Bearer, Grant, Held};
use crate::control::{Control, ControlError};
use crate::domain::access::Permission;
use crate::domain::actor::Actor;
use crate::domain::app::App;
use crate::domain::build::{BuildId, BuildStatus};
use crate::domain::release::ReleaseStatus;
use crate::logs::OutputReader;
use crate::store::{self, StoreError};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::stream;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UnixListener;

/// What hooks read when their push has deployed.
pub(super) const SUCCEEDED: &str = "succeeded";
const FAILED: &str = "failed";

#[derive(Clone, Debug)]
pub(super) struct Pushes {
    control: Control,
    socket: PathBuf,
    known: Arc<Mutex<HashMap<String, Push>>>,
}

#[derive(Clone, Debug)]
struct Push {
    pusher: Pusher,
    app: App,
    build: Option<BuildId>,
}

/// Who pushes, and by what.
#[derive(Clone, Debug)]
pub(super) struct Pusher {
    pub(super) actor: Actor,
    pub(super) bearer: Bearer,
}

/// The right to build one app, for as long as this lives.
#[derive(Debug)]
pub(super) struct Pass {
    token: String,
    known: Arc<Mutex<HashMap<String, Push>>>,
}

impl Pass {
    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.known).remove(&self.token);
    }
}

fn lock(known: &Mutex<HashMap<String, Push>>) -> MutexGuard<'_, HashMap<String, Push>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pushes {
    /// Makes the socket and serves it until the server goes down.
    pub(super) fn start(control: Control) -> io::Result<Self> {
        let instance = &control.place.instance;
        let socket = instance.run.join("hook.sock");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        chown(&socket, Some(instance.helper_uid()), Some(instance.helper_uid()))?;
        let pushes = Self { control, socket, known: Arc::default() };
        let routes = Router::new().route("/push/{token}", post(build).get(verdict)).with_state(pushes.clone());
        let closing = pushes.control.closing.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, routes).with_graceful_shutdown(closing.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!("can't serve the hooks of pushes: {error}");
            }
        });
        Ok(pushes)
    }

    pub(super) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Gives a git process the right to build `app` for `pusher`.
    pub(super) fn admit(&self, pusher: &Pusher, app: &App) -> io::Result<Pass> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let token = hex::encode(random);
        let push = Push { pusher: pusher.clone(), app: app.clone(), build: None };
        lock(&self.known).insert(token.clone(), push);
        Ok(Pass { token, known: Arc::clone(&self.known) })
    }

    fn find(&self, token: &str) -> Option<Push> {
        lock(&self.known).get(token).cloned()
    }

    /// Remembers the build of a push; false when it has one already: a token is good for one.
    fn begin(&self, token: &str, build: BuildId) -> bool {
        let mut known = lock(&self.known);
        let Some(push) = known.get_mut(token).filter(|push| push.build.is_none()) else { return false };
        push.build = Some(build);
        true
    }
}

#[derive(Debug, Deserialize)]
struct Wanted {
    commit: String,
}

async fn build(
    State(pushes): State<Pushes>,
    Path(token): Path<String>,
    Query(wanted): Query<Wanted>,
    request: Request,
) -> Response {
    let Some(push) = pushes.find(&token).filter(|push| push.build.is_none()) else {
        return refused(StatusCode::FORBIDDEN, "This push is over.");
    };
    match submit(&pushes.control, &push, wanted.commit, request.into_body()).await {
        Ok((id, reader, held)) if pushes.begin(&token, id) => {
            let following = Following { control: pushes.control, build: id, reader, held, ended: false };
            Body::from_stream(stream::unfold(Some(following), Following::next)).into_response()
        }
        Ok((id, ..)) => {
            pushes.control.supervisor.builds().cancel(id);
            refused(StatusCode::FORBIDDEN, "This push is over.")
        }
        Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

fn refused(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "id": "push", "message": text }))).into_response()
}

async fn submit(
    control: &Control,
    push: &Push,
    commit: String,
    archive: Body,
) -> Result<(BuildId, OutputReader, Held), ControlError> {
    let secret = control.sources.create(push.pusher.actor.id)?;
    control.sources.receive(&secret, None, archive.into_data_stream()).await?;
    // The pack may have taken its time.
    let grant = Grant { bearer: push.pusher.bearer, on: Some((push.app.id, Permission::Deploy)) };
    let held = grants::hold(control, grant).await?;
    let new = NewBuild {
        source: NewSource::Uploaded { secret, checksum: None },
        version: Some(commit),
        buildpacks: Vec::new(),
    };
    let build = builds::create(control, &push.pusher.actor, push.app.clone(), new).await?;
    let output = control.supervisor.builds().output(build.id);
    Ok((build.id, output.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?, held))
}

const ENDED: &str = "\n !     Your access to this app has ended, and with it this build.\n";

/// A build's lines on their way to its pusher. Whoever stops reading before the end, or may not any more, cancels it.
struct Following {
    control: Control,
    build: BuildId,
    reader: OutputReader,
    held: Held,
    ended: bool,
}

impl Following {
    async fn next(mut following: Option<Self>) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        let mut this = following.take()?;
        tokio::select! {
            biased;
            () = this.held.ended() => Some((Ok(Bytes::from_static(ENDED.as_bytes())), None)),
            piece = this.reader.next() => {
                this.ended = piece.is_none();
                Some((Ok(piece?), Some(this)))
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if !self.ended {
            // Has no effect once the release is made.
            self.control.supervisor.builds().cancel(self.build);
        }
    }
}

async fn verdict(State(pushes): State<Pushes>, Path(token): Path<String>) -> Response {
    let Some(id) = pushes.find(&token).and_then(|push| push.build) else {
        return refused(StatusCode::FORBIDDEN, "This push is over.");
    };
    let deployed: Result<bool, StoreError> = pushes
        .control
        .store
        .read(move |tx| {
            let Some(build) = store::builds::get(tx, id)? else { return Ok(false) };
            let BuildStatus::Succeeded { release: Some(release), .. } = build.status else { return Ok(false) };
            let release = store::releases::get(tx, release)?;
            Ok(release.is_some_and(|release| release.status == ReleaseStatus::Succeeded))
        })
        .await;
    match deployed {
        Ok(true) => SUCCEEDED.into_response(),
        Ok(false) => FAILED.into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
