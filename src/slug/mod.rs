//! Placeholder with the contract's signatures; replaced when the real module is merged.
#![forbid(unsafe_code)]

use crate::domain::slug::Digest;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct SlugStore(PathBuf);

impl SlugStore {
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self(root.to_owned()))
    }

    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        std::fs::remove_file(self.0.join("slugs").join(format!("{digest}.tar.zst")))
    }
}
