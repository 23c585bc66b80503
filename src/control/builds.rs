//! Builds: from a source to a release, in the builder's hands once they are accepted.
#![forbid(unsafe_code)]

use super::grants::{self, Bearer, Grant, Held};
use super::{Control, ControlError, Resource};
use crate::build::stage;
use crate::domain::access::Permission;
use crate::domain::actor::Actor;
use crate::domain::app::{App, AppId};
use crate::domain::build::{Build, BuildId};
use crate::domain::log;
use crate::domain::release::ReleaseId;
use crate::logs::OutputReader;
use crate::store;
use crate::supervisor::builds::{BuildRequest, Source};
use std::io;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a client wants built.
#[derive(Clone, Debug)]
pub struct NewBuild {
    pub source: NewSource,
    /// What the client calls its source, for a push the commit.
    pub version: Option<String>,
    /// Instead of the app's own; empty for those.
    pub buildpacks: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum NewSource {
    /// An archive that was put to `/sources/<secret>`; `checksum` as `SHA256:…`.
    Uploaded { secret: String, checksum: Option<String> },
    /// The app's last source again.
    Last,
}

/// # Errors
/// When there is no such source, its checksum is another, or the builder refuses.
pub async fn create(control: &Control, actor: &Actor, app: App, new: NewBuild) -> Result<Build, ControlError> {
    let archive = match new.source {
        NewSource::Uploaded { secret, checksum } => Some(control.sources.take(&secret, checksum.as_deref())?),
        NewSource::Last => None,
    };
    let version = new.version.map(|text| log::clean(text.as_bytes()).chars().take(200).collect::<String>());
    let request = BuildRequest {
        app,
        actor: actor.clone(),
        source: archive.clone().map_or(Source::Last, Source::Archive),
        commit: version.clone().filter(|version| is_commit(version)),
        version,
        buildpacks: new.buildpacks,
    };
    let submitted = control.supervisor.builds().submit(request).await;
    if let (Err(_), Some(path)) = (&submitted, archive) {
        // Whatever the builder left of it.
        let _ = std::fs::remove_file(path);
    }
    Ok(submitted?)
}

fn is_commit(version: &str) -> bool {
    (7..=64).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Newest first.
///
/// # Errors
/// When the store can't be read.
pub async fn list(control: &Control, app: AppId) -> Result<Vec<Build>, ControlError> {
    control.store.read(move |tx| Ok(store::builds::list(tx, app)?)).await
}

/// # Errors
/// When the app has no such build.
pub async fn find(control: &Control, app: AppId, id: &str) -> Result<Build, ControlError> {
    let id: BuildId = id.parse().map_err(|_| ControlError::NotFound(Resource::Build))?;
    let build: Option<Build> = control.store.read(move |tx| Ok::<_, ControlError>(store::builds::get(tx, id)?)).await?;
    build.filter(|build| build.app == app).ok_or(ControlError::NotFound(Resource::Build))
}

/// # Errors
/// When it has ended already or made its release.
pub async fn cancel(control: &Control, app: AppId, id: &str) -> Result<Build, ControlError> {
    let build = find(control, app, id).await?;
    if build.status.is_final() || !control.supervisor.builds().cancel(build.id) {
        return Err(ControlError::Conflict("That build can't be canceled any more.".into()));
    }
    Ok(build)
}

/// Forgets what earlier builds kept for later ones.
///
/// # Errors
/// When the folder can't be removed.
pub async fn purge_cache(control: &Control, app: AppId) -> Result<(), ControlError> {
    let root = control.place.instance.root.clone();
    let purging = tokio::task::spawn_blocking(move || stage::purge_cache(&root, app));
    Ok(purging.await.map_err(io::Error::other)??)
}

/// The output of a build or release phase while it is read.
#[derive(Debug)]
pub struct Reading {
    reader: OutputReader,
    /// The build to cancel when this is dropped before its end.
    attached: Option<(BuildId, Control)>,
    held: Held,
}

impl Reading {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<bytes::Bytes> {
        let piece = self.reader.next().await;
        if piece.is_none() {
            self.attached = None;
        }
        piece
    }

    /// Cancelled when whoever reads it may no longer.
    pub fn ended(&self) -> CancellationToken {
        self.held.token()
    }

    /// The server goes down: that is no wish of the reader's.
    pub fn release(&mut self) {
        self.attached = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some((build, control)) = self.attached.take() {
            // Has no effect once the release is made.
            control.supervisor.builds().cancel(build);
        }
    }
}

/// What a URL of an output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A build's or a release phase's.
    App,
    /// That of a build which ends when its reader goes away before the release is made: for who began it.
    Attached,
    /// Of work on a stack, which everybody with an account sees.
    Box,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::App, Self::Attached, Self::Box];

    fn word(self) -> &'static str {
        match self {
            Self::App => "output",
            Self::Attached => "attached-output",
            Self::Box => "box-output",
        }
    }
}

/// The secret part of an output's URL.
pub fn output_secret(control: &Control, bearer: Bearer, (purpose, id): (Purpose, Uuid)) -> String {
    format!("{}{}", bearer.id().simple(), bearer.secret(control, purpose.word(), id))
}

/// The output of that id, by the secret that its URL has.
///
/// # Errors
/// When there is none, the secret is wrong, or whom it is for may not see it any more.
pub async fn read_output(control: &Control, id: Uuid, secret: &str) -> Result<Reading, ControlError> {
    let missing = || ControlError::NotFound(Resource::Output);
    let whose = secret.get(..32).and_then(|whose| whose.parse().ok()).ok_or_else(missing)?;
    let bearer = grants::bearer(control, whose).await.map_err(grants::hidden(Resource::Output))?;
    let is = |purpose: &Purpose| super::tokens::equal(&output_secret(control, bearer, (*purpose, id)), secret);
    let purpose = Purpose::ALL.into_iter().find(is).ok_or_else(missing)?;
    let on = if purpose == Purpose::Box { None } else { Some((app_of(control, id).await?, Permission::View)) };
    let held = grants::hold(control, Grant { bearer, on }).await.map_err(grants::hidden(Resource::Output))?;
    let build = BuildId(id);
    let reader = control.supervisor.builds().output(build).or_else(|| control.outputs.follow(id));
    let reader = reader.ok_or_else(missing)?;
    Ok(Reading { reader, attached: (purpose == Purpose::Attached).then(|| (build, control.clone())), held })
}

/// Whose build or release that is.
async fn app_of(control: &Control, id: Uuid) -> Result<AppId, ControlError> {
    let found = control.store.read(move |tx| {
        if let Some(build) = store::builds::get(tx, BuildId(id))? {
            return Ok(build.app);
        }
        let release = store::releases::get(tx, ReleaseId(id))?;
        release.map(|release| release.app).ok_or(ControlError::NotFound(Resource::Output))
    });
    found.await
}
