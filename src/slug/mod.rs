//! Placeholder.
#![forbid(unsafe_code)]
use crate::domain::slug::Digest;
use std::path::Path;
#[derive(Clone, Debug)]
pub struct SlugStore;
#[derive(Debug, thiserror::Error)]
#[error("placeholder")]
pub struct SlugError;
#[derive(Clone, Debug)]
pub struct Packed {
    pub digest: Digest,
    pub size: u64,
    pub unpacked: u64,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackLimits {
    pub strip_single_root: bool,
    pub bytes: u64,
}
impl SlugStore {
    pub fn pack(&self, _tree: &Path) -> Result<Packed, SlugError> {
        Err(SlugError)
    }
    pub fn unpack_source(&self, _archive: &Path, _dest: &Path, _limits: UnpackLimits) -> Result<(), SlugError> {
        Err(SlugError)
    }
}
