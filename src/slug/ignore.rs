//! Taking away what a source should not bring into a build: `.git` and what `.slugignore` names.
#![forbid(unsafe_code)]

use super::unpack::Failure;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a `.slugignore` that are read.
const LONGEST: u64 = 256 << 10;

/// Removes them below the current directory. Returns how many things were removed by `.slugignore`; a whole directory
/// counts as one.
pub(super) fn prune() -> Result<u64, Failure> {
    let mut removed = 0;
    prune_dir(Path::new("."), &patterns(), &mut removed)?;
    Ok(removed)
}

/// Heroku's rules: as in a `.gitignore`, but without the negation by `!`. A link is not followed for it.
fn patterns() -> Gitignore {
    let mut builder = GitignoreBuilder::new(".");
    let is_file = Path::new(".slugignore").symlink_metadata().is_ok_and(|meta| meta.is_file());
    let mut text = Vec::new();
    if is_file && let Ok(file) = File::open(".slugignore") {
        // What cannot be read ignores nothing.
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with('!')) {
        // A pattern that means nothing matches nothing, as in git.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

fn prune_dir(dir: &Path, patterns: &Gitignore, removed: &mut u64) -> Result<(), Failure> {
    let failed = |path: &Path, doing| Failure::at(doing, path.as_os_str().as_bytes());
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, "list")(e))? {
        let entry = entry.map_err(|e| failed(dir, "list")(e))?;
        let path = entry.path();
        let is_dir = entry.file_type().map_err(|e| failed(&path, "look at")(e))?.is_dir();
        let ignored = patterns.matched(&path, is_dir).is_ignore();
        if ignored || entry.file_name() == ".git" {
            *removed += u64::from(ignored);
            let result = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            result.map_err(|e| failed(&path, "remove")(e))?;
        } else if is_dir {
            prune_dir(&path, patterns, removed)?;
        }
    }
    Ok(())
}
