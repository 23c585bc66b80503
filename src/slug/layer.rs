//! Trees that are kept unpacked and named by the digest of what is in them: layers of a stack, runtimes.
//!
//! The digest is that of the tree's tar, before compression: it does not depend on a compressor's version, and names,
//! kinds, contents, link targets and the right to execute are all in it.
#![forbid(unsafe_code)]

use super::unpack::{Links, Order, Strip};
use super::{HalfMade, Hashed, Limits, OWNER, RATIO, SlugError, SlugStore, ZSTD_LEVEL, make_dir, open, pack};
use crate::domain::slug::Digest;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Bounds on one tree, and on all in one file: a stack with every language has 100,000 files and 2 GB.
const LIMITS: Limits = Limits { bytes: 16 << 30, files: 2_000_000, depth: 190 };

/// The digest of a tree.
///
/// # Errors
/// Files that cannot be read, or more of them than a layer may have.
pub fn digest_of_tree(tree: &Path) -> Result<Digest, SlugError> {
    let mut out = BufWriter::with_capacity(1 << 20, Hashed::new(io::sink()));
    pack::pack(tree, &mut out, LIMITS)?;
    let hashed = out.into_inner().map_err(|e| SlugError::io("digest", tree)(e.into_error()))?;
    Ok(hashed.finish().0)
}

/// Writes several trees, each below its name, as one `tar.zst`.
///
/// # Errors
/// Files that cannot be read, or an `out` that does not take them.
pub fn bundle(trees: &[(&str, &Path)], out: impl Write) -> Result<(), SlugError> {
    let failed = |e: io::Error| SlugError::io("write", Path::new("the archive"))(e);
    let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    encoder.multithread(u32::try_from(threads.clamp(1, 16)).unwrap_or(1)).map_err(failed)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, encoder);
    pack::pack_several(trees, &mut buffered, LIMITS)?;
    let encoder = buffered.into_inner().map_err(|e| failed(e.into_error()))?;
    encoder.finish().and_then(|mut out| out.flush()).map_err(failed)
}

impl SlugStore {
    /// Unpacks an archive of layers or of a runtime into `dest`, which must not exist, with all its links: they are only
    /// ever followed inside a dyno. Files belong to the dynos' user. `strip` takes away a single top-level directory.
    ///
    /// # Errors
    /// Anything [`super::Refusal`] names, a disk that is full. Nothing is left then.
    pub fn unpack_tree(&self, archive: &Path, dest: &Path, strip: bool) -> Result<(), SlugError> {
        let made = HalfMade::beside(dest);
        let order = Order {
            id: OWNER,
            bytes: LIMITS.bytes,
            files: LIMITS.files,
            ratio: RATIO,
            strip: if strip { Strip::Any } else { Strip::No },
            links: Links::Any,
            prune: false,
        };
        make_dir(&made.0, OWNER)?;
        self.unpack(open(archive)?, &made.0, &order)?;
        fs::rename(&made.0, dest).map_err(SlugError::io("put in place", dest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trees_digest_is_of_what_is_in_it_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |name: &str, text: &str| {
            let tree = dir.path().join(name);
            fs::create_dir_all(tree.join("usr/bin")).unwrap();
            fs::write(tree.join("usr/bin/tool"), text).unwrap();
            std::os::unix::fs::symlink("tool", tree.join("usr/bin/other")).unwrap();
            digest_of_tree(&tree).unwrap()
        };
        assert_eq!(tree("a", "one"), tree("b", "one"));
        assert_ne!(tree("c", "one"), tree("d", "two"));
    }

    #[test]
    fn several_trees_become_one_archive() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "1"), ("b", "2")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), text).unwrap();
        }
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut packed = Vec::new();
        bundle(&[("one", a.as_path()), ("two", b.as_path())], &mut packed).unwrap();
        let mut tar = tar::Archive::new(zstd::Decoder::new(&packed[..]).unwrap());
        let names: Vec<_> =
            tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["one/", "one/file", "two/", "two/file"]);
    }
}
