//! A slug that a client has packed, under the bounds that builds have.
#![forbid(unsafe_code)]

use super::report::human_size;
use super::{BuildError, Builder};
use crate::build::room;
use crate::domain::slug::Digest;
use crate::slug::{Packed, SlugError};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::spawn_blocking;

impl Builder {
    /// Puts an archive among the slugs; says too what the archive's own digest is, which must be `expected`. Waits for a
    /// slot, as reading a hostile one takes as much as building.
    ///
    /// # Errors
    /// No room; what is wrong with the archive.
    pub async fn take_in(&self, archive: PathBuf, expected: Option<Digest>) -> Result<(Packed, Digest), BuildError> {
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(io::Error::other)?;
        let inner = Arc::clone(&self.0);
        let work = move || {
            let _slot = slot;
            let settings = &inner.settings;
            room::check(settings, fs::metadata(&archive)?.len())?;
            // It is unpacked, and packed again.
            let most = room::free_disk(&settings.root)?.saturating_sub(settings.reserve_mb << 20) / 2;
            Ok(inner.parts.slugs.import(File::open(&archive)?, expected.as_ref(), most)?)
        };
        spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// # Errors
    /// When the slug is larger than `[build] slug_mb`.
    pub fn check_size(&self, packed: &Packed) -> Result<(), BuildError> {
        let limit = self.0.settings.slug_mb;
        if packed.size <= limit << 20 {
            return Ok(());
        }
        Err(BuildError::Large { size: human_size(packed.size), limit })
    }
}

impl BuildError {
    /// Whether it is the machine that is at fault, not what was sent.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Store(_) | Self::Io(_) => true,
            Self::Slug(error) => matches!(
                error,
                SlugError::Io { .. } | SlugError::Missing(_) | SlugError::Unpack(_) | SlugError::Reader(_)
            ),
            _ => false,
        }
    }
}
