//! What the roots of the dynos on this box are made of, by the records they were launched from: nothing that one of
//! them uses may be removed.
#![forbid(unsafe_code)]

use super::{Labels, record, spec};
use crate::domain::instance::Instance;
use std::io;
use std::path::PathBuf;

/// A dyno and the lower layers of its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub labels: Labels,
    pub layers: Vec<PathBuf>,
}

/// Of all dynos that run, start, or have just ended.
///
/// # Errors
/// When the records can't be listed.
pub fn roots(instance: &Instance) -> io::Result<Vec<Root>> {
    let all = record::all(&instance.run)?;
    // One that is gone by now uses nothing any more.
    let read = |dir: PathBuf| {
        Some(Root { labels: record::labels(&dir).ok()?, layers: spec::layers(&spec::Config::read(&dir).ok()?.spec) })
    };
    Ok(all.into_iter().filter_map(|(_, dir)| read(dir)).collect())
}
