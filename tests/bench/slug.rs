//! `bench pack` and `bench unpack`: one slug each, timed from call to return.
#![forbid(unsafe_code)]

use super::answer;
use hokku::slug::SlugStore;
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

pub(super) fn pack(hokku: &Path, root: &Path, tree: &Path) -> Result<(), Box<dyn Error>> {
    let store = SlugStore::open(root)?.with_program(hokku.to_owned());
    let start = Instant::now();
    let packed = store.pack(tree)?;
    let seconds = start.elapsed().as_secs_f64();
    answer(&json!({"seconds": seconds, "digest": packed.digest, "bytes": packed.size, "unpacked": packed.unpacked}))?;
    Ok(())
}

/// The slug is in the store already: taking one in unpacks it, too.
pub(super) fn unpack(hokku: &Path, root: &Path, digest: &str) -> Result<(), Box<dyn Error>> {
    let store = SlugStore::open(root)?.with_program(hokku.to_owned());
    let digest = digest.parse()?;
    let start = Instant::now();
    let tree = store.tree(&digest)?;
    let seconds = start.elapsed().as_secs_f64();
    answer(&json!({"seconds": seconds, "tree": tree}))?;
    Ok(())
}
