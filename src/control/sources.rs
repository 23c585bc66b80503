//! Sources on their way in: a client asks for a place, puts an archive there, and names it in a build.
#![forbid(unsafe_code)]

use super::{ControlError, Resource};
use crate::domain::actor::AccountId;
use crate::domain::slug::Digest;
use crate::store::StoreError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;

/// A place that is not used is given up after this (as on Heroku).
const LIFETIME: Duration = Duration::from_secs(3600);

/// So many places an account may have at a time, and so many archives of the largest size may be in them together.
const PLACES: usize = 20;
const ARCHIVES: u64 = 4;

/// What must stay free for everything else.
const RESERVE: u64 = 64 << 20;

const PREFIX: &str = "upload-";

/// The archives that were or will be uploaded and belong to no build yet. A restart forgets them.
#[derive(Clone, Debug)]
pub struct Sources {
    folder: PathBuf,
    limit: u64,
    places: Arc<Mutex<HashMap<String, Place>>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    whose: AccountId,
    /// Bytes: as many as there may be until it is known how many there are.
    size: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Receiving,
    Received(Digest),
}

impl Sources {
    /// Removes what uploads a dead server left.
    pub(super) fn open(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder, limit, places: Arc::default() })
    }

    /// A place for one archive of an account: its secret.
    ///
    /// # Errors
    /// When the account has too many already, or the kernel has no random numbers.
    pub fn create(&self, whose: AccountId) -> Result<String, ControlError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(StoreError::Random)?;
        let secret = hex::encode(random);
        let mut places = self.lock();
        let expired = |place: &Place| place.since.elapsed() > LIFETIME && !matches!(place.state, State::Receiving);
        for (secret, _) in places.extract_if(|_, place| expired(place)) {
            // There is a file only if something was received.
            let _ = fs::remove_file(self.path(&secret));
        }
        if places.values().filter(|place| place.whose == whose).count() >= PLACES {
            return Err(ControlError::TooManySources);
        }
        let place = Place { since: Instant::now(), whose, size: 0, state: State::Waiting };
        places.insert(secret.clone(), place);
        Ok(secret)
    }

    /// Keeps what is uploaded. `length` is what the client says it will be.
    ///
    /// # Errors
    /// When there is no such place, it is taken, the archive is too large, or it breaks off; then the place waits for
    /// another try.
    pub async fn receive<E>(
        &self,
        secret: &str,
        length: Option<u64>,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), ControlError> {
        self.check_room(length.unwrap_or(0))?;
        let receiving = self.begin(secret, length.unwrap_or(self.limit))?;
        let received = self.write(&receiving.path, body).await?;
        receiving.finish(received);
        Ok(())
    }

    fn begin(&self, secret: &str, size: u64) -> Result<Receiving, ControlError> {
        let mut places = self.lock();
        let whose = places.get(secret).ok_or(ControlError::NotFound(Resource::Source))?.whose;
        let held: u64 = places.values().filter(|place| place.whose == whose).map(|place| place.size).sum();
        let place = places.get_mut(secret).ok_or(ControlError::NotFound(Resource::Source))?;
        match place.state {
            State::Waiting if held + size > ARCHIVES * self.limit => return Err(ControlError::TooManySources),
            State::Waiting => (place.state, place.size) = (State::Receiving, size),
            _ => return Err(ControlError::Conflict("Something was uploaded to this URL already.".into())),
        }
        Ok(Receiving { sources: self.clone(), secret: secret.to_owned(), path: self.path(secret), outcome: None })
    }

    fn check_room(&self, length: u64) -> Result<(), ControlError> {
        if length > self.limit {
            return Err(ControlError::SourceTooLarge { limit: self.limit });
        }
        let disk = rustix::fs::statvfs(&self.folder).map_err(io::Error::from)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < length + RESERVE {
            return Err(ControlError::DiskFull);
        }
        Ok(())
    }

    async fn write<E>(
        &self,
        path: &Path,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(Digest, u64), ControlError> {
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path).await.map_err(disk)?;
        let mut file = tokio::io::BufWriter::with_capacity(256 << 10, file);
        let (mut size, mut hash, mut body) = (0, Sha256::new(), pin!(body));
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| ControlError::BrokenUpload)?;
            size += piece.len() as u64;
            if size > self.limit {
                return Err(ControlError::SourceTooLarge { limit: self.limit });
            }
            hash.update(&piece);
            file.write_all(&piece).await.map_err(disk)?;
        }
        file.flush().await.map_err(disk)?;
        if size == 0 {
            return Err(ControlError::Invalid("The uploaded source is empty.".into()));
        }
        Ok((Digest::of(hash.finalize().into()), size))
    }

    /// Gives the archive out, once. `checksum`, as `SHA256:…`, must be its digest.
    ///
    /// # Errors
    /// When nothing was uploaded there, or something else.
    pub(super) fn take(&self, secret: &str, checksum: Option<&str>) -> Result<PathBuf, ControlError> {
        let mut places = self.lock();
        let place = places.get(secret).ok_or(ControlError::NotFound(Resource::Source))?;
        let State::Received(found) = &place.state else {
            return Err(ControlError::Invalid("Nothing was uploaded to the source's put_url yet.".into()));
        };
        if let Some(checksum) = checksum {
            let expected: Digest = checksum
                .parse()
                .map_err(|error: crate::domain::slug::DigestError| ControlError::Invalid(error.to_string()))?;
            if expected != *found {
                return Err(ControlError::Checksum { expected: expected.to_string(), found: found.to_string() });
            }
        }
        places.remove(secret);
        Ok(self.path(secret))
    }

    fn path(&self, secret: &str) -> PathBuf {
        self.folder.join(format!("{PREFIX}{secret}"))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disk(error: io::Error) -> ControlError {
    if error.kind() == io::ErrorKind::StorageFull { ControlError::DiskFull } else { error.into() }
}

/// An upload under way. Dropped before its end it leaves nothing, and the place can be used again.
struct Receiving {
    sources: Sources,
    secret: String,
    path: PathBuf,
    outcome: Option<(Digest, u64)>,
}

impl Receiving {
    fn finish(mut self, received: (Digest, u64)) {
        self.outcome = Some(received);
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let (state, size) = if let Some((digest, size)) = self.outcome.take() {
            (State::Received(digest), size)
        } else {
            // There is no file when making it was what failed.
            let _ = fs::remove_file(&self.path);
            (State::Waiting, 0)
        };
        if let Some(place) = self.sources.lock().get_mut(&self.secret) {
            (place.state, place.size) = (state, size);
        }
    }
}
