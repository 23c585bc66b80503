//! Slugs: those that builds made, and those that a client brings. The latter are asked for, put to a URL that is a secret,
//! and are in the store from then on.
#![forbid(unsafe_code)]

use super::{Control, ControlError, Resource, grants};
use crate::domain::actor::AccountId;
use crate::domain::app::{App, AppId};
use crate::domain::log;
use crate::domain::procfile::{ProcessType, ProcessTypes};
use crate::domain::slug::{Digest, DigestError, Slug, SlugId};
use crate::domain::stack::StackName;
use crate::slug::Packed;
use crate::store::{self, StoreError};
use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use uuid::Uuid;

/// Of an app that wait for their archive; with one more, the oldest is given up.
const MOST_WAITING: usize = 10;
/// What all commands together may have, in bytes; a Procfile may have as much.
const LONGEST_TYPES: usize = 256 << 10;

/// What a client says of a slug that it is going to bring.
#[derive(Clone, Debug, Default)]
pub struct NewSlug {
    pub process_types: BTreeMap<String, String>,
    pub commit: Option<String>,
    pub commit_description: Option<String>,
    pub buildpack_description: Option<String>,
    /// Of the archive, as `SHA256:…`.
    pub checksum: Option<String>,
    /// Instead of the app's own.
    pub stack: Option<StackName>,
}

/// A slug that waits for its archive.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: SlugId,
    pub app: AppId,
    /// Who brings it.
    pub whose: AccountId,
    pub process_types: ProcessTypes,
    pub commit: Option<String>,
    pub commit_description: Option<String>,
    pub buildpack_description: Option<String>,
    pub checksum: Option<Digest>,
    /// As [`Slug::stack`].
    pub stack: String,
    pub created_at: Timestamp,
}

/// By the secrets of their URLs. A restart forgets them, as it does [`super::sources`].
#[derive(Clone, Debug, Default)]
pub struct Drafts(Arc<Mutex<HashMap<String, (Instant, Draft)>>>);

impl Drafts {
    fn keep(&self, secret: &str, draft: &Draft) {
        let mut drafts = self.lock();
        let of_app = drafts.iter().filter(|(_, (_, other))| other.app == draft.app);
        let oldest = of_app.clone().min_by_key(|(_, (since, _))| *since).map(|(secret, _)| secret.clone());
        if of_app.count() >= MOST_WAITING
            && let Some(oldest) = oldest
        {
            drafts.remove(&oldest);
        }
        drafts.insert(secret.to_owned(), (Instant::now(), draft.clone()));
    }

    fn get(&self, secret: &str) -> Option<Draft> {
        self.lock().get(secret).map(|(_, draft)| draft.clone())
    }

    fn find(&self, app: AppId, id: SlugId) -> Option<Draft> {
        self.lock().values().map(|(_, draft)| draft).find(|draft| draft.app == app && draft.id == id).cloned()
    }

    fn remove(&self, secret: &str) {
        self.lock().remove(secret);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Draft)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is there, or one that is waited for.
#[derive(Clone, Debug)]
pub enum SlugView {
    Made(Slug),
    Waiting(Draft),
}

/// # Errors
/// When the app has no such slug.
pub async fn find(control: &Control, app: AppId, id: &str) -> Result<SlugView, ControlError> {
    let missing = || ControlError::NotFound(Resource::Slug);
    let id: SlugId = id.parse().map_err(|_| missing())?;
    if let Some(draft) = control.drafts.find(app, id) {
        return Ok(SlugView::Waiting(draft));
    }
    let slug: Option<Slug> = control.store.read(move |tx| Ok::<_, ControlError>(store::slugs::get(tx, id)?)).await?;
    slug.filter(|slug| slug.app == app).map(SlugView::Made).ok_or_else(missing)
}

/// # Errors
/// When the slug's archive has not been brought yet.
pub(super) fn must_be_brought(control: &Control, app: AppId, id: SlugId) -> Result<(), ControlError> {
    match control.drafts.find(app, id) {
        Some(_) => Err(ControlError::Invalid("Nothing was put to that slug's blob.url yet.".into())),
        None => Ok(()),
    }
}

/// A place for a slug that `whose` brings: the secret of its URL.
///
/// # Errors
/// When the account has too many already, something that is said of it is not allowed, or its stack has no layers yet.
pub fn create(control: &Control, app: &App, whose: AccountId, new: NewSlug) -> Result<(String, Draft), ControlError> {
    let stack = new.stack.unwrap_or(app.stack);
    // A client's slug brings its language along.
    let stack = control.stacks.get(stack, &[], false).map_err(|error| ControlError::Invalid(format!("{error}.")))?;
    let checksum = new.checksum.filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
    let words = |text: Option<String>| text.map(|text| log::clean(text.as_bytes()).chars().take(200).collect());
    let draft = Draft {
        id: SlugId(Uuid::new_v4()),
        app: app.id,
        whose,
        process_types: process_types(new.process_types)?,
        commit: words(new.commit),
        commit_description: words(new.commit_description),
        buildpack_description: words(new.buildpack_description),
        checksum: checksum.map_err(|error: DigestError| ControlError::Invalid(format!("{error}.")))?,
        stack: stack.id.clone(),
        created_at: Timestamp::now(),
    };
    let secret = control.sources.create(whose)?;
    control.drafts.keep(&secret, &draft);
    Ok((secret, draft))
}

/// Under the rules that a Procfile has.
fn process_types(given: BTreeMap<String, String>) -> Result<ProcessTypes, ControlError> {
    let size: usize = given.iter().map(|(kind, command)| kind.len() + command.len()).sum();
    if size > LONGEST_TYPES {
        return Err(ControlError::Invalid("The process types have more than 256 KB.".into()));
    }
    let mut types = ProcessTypes::new();
    for (kind, command) in given {
        let kind = ProcessType::parse(&kind)?;
        let command = command.trim();
        if command.is_empty() || command.chars().any(char::is_control) {
            return Err(ControlError::Invalid(format!("The command of {kind} has to be one line of text.")));
        }
        types.insert(kind, command.to_owned());
    }
    Ok(types)
}

/// Takes in what is put to a slug's URL. `length` is what the client says it will be. Goes on when the client goes away
/// after its last byte.
///
/// # Errors
/// When there is no such place, or the archive is too large or none that could be run; then a new slug has to be asked
/// for. When the upload breaks off the place waits for another try.
pub async fn receive<E>(
    control: &Control,
    secret: &str,
    length: Option<u64>,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), ControlError> {
    let draft = control.drafts.get(secret).ok_or(ControlError::NotFound(Resource::Slug))?;
    control.sources.receive(secret, length, body).await?;
    let archive = control.sources.take(secret, None)?;
    let (control, secret) = (control.clone(), secret.to_owned());
    let taking = tokio::spawn(async move {
        let taken = take_in(&control, draft, archive.clone()).await;
        control.drafts.remove(&secret);
        // The next start removes what can't be removed now.
        let _ = std::fs::remove_file(archive);
        taken
    });
    taking.await.map_err(io::Error::other)?
}

async fn take_in(control: &Control, draft: Draft, archive: PathBuf) -> Result<(), ControlError> {
    let (packed, checksum) = control.supervisor.builds().take_in(archive, draft.checksum.clone()).await?;
    let digest = packed.digest.clone();
    let kept = keep(control, draft, packed, checksum).await;
    if kept.is_err() {
        // Nobody knows of it, unless another app has the same.
        let used = digest.clone();
        let used: Result<bool, StoreError> = control.store.read(move |tx| store::slugs::digest_in_use(tx, &used)).await;
        if used.is_ok_and(|used| !used) {
            control.slugs.remove(&digest)?;
        }
    }
    kept
}

async fn keep(control: &Control, draft: Draft, packed: Packed, checksum: Digest) -> Result<(), ControlError> {
    control.supervisor.builds().check_size(&packed)?;
    let slug = Slug {
        id: draft.id,
        app: draft.app,
        digest: packed.digest,
        size: packed.size,
        commit: draft.commit,
        commit_description: draft.commit_description,
        checksum: Some(checksum),
        stack: draft.stack,
        languages: Vec::new(),
        process_types: draft.process_types,
        buildpack_description: draft.buildpack_description,
        created_at: draft.created_at,
    };
    let kept = control.store.write(move |tx| {
        store::apps::get(tx, slug.app)?.ok_or(ControlError::NotFound(Resource::App))?;
        // The upload may have taken its time.
        grants::may_deploy(tx, draft.whose, slug.app).map_err(grants::hidden(Resource::Slug))?;
        Ok::<_, ControlError>(store::slugs::insert(tx, &slug)?)
    });
    kept.await
}
