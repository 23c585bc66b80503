//! Git LFS: what is in a commit instead of the large files themselves. The files are on another server, which a push
//! says nothing of, so they can't be fetched; an app that starts with pointers instead fails in strange ways.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// The first line of every pointer.
const SIGN: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

/// Bytes; pointers are shorter.
const LARGEST: u64 = 1024;

/// As many names as people read.
const NAMED: usize = 5;

/// A warning, when `source` has pointers.
pub(super) fn warning(source: &Path) -> Option<String> {
    let attributes = fs::read_to_string(source.join(".gitattributes")).unwrap_or_default();
    if !attributes.contains("filter=lfs") {
        return None;
    }
    let files = walkdir::WalkDir::new(source).sort_by_file_name().into_iter().filter_map(Result::ok);
    let pointers: Vec<String> = files
        .filter(|entry| entry.file_type().is_file() && is_pointer(entry.path()))
        .filter_map(|entry| Some(entry.path().strip_prefix(source).ok()?.display().to_string()))
        .collect();
    if pointers.is_empty() {
        return None;
    }
    let more = pointers.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = pointers.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(format!(
        " !     These files are kept in Git LFS, and only pointers to them were pushed: {names}{more}.\n \
         !     The build gets the pointers. Commit the files themselves (git lfs migrate export), or have the build\n \
         !     fetch them from where they are."
    ))
}

fn is_pointer(path: &Path) -> bool {
    let small = fs::symlink_metadata(path).is_ok_and(|found| found.len() <= LARGEST);
    let mut start = [0; SIGN.len()];
    small && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == SIGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_named_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1a2b\nsize 12345\n";
        fs::write(dir.path().join("model.bin"), pointer).unwrap();
        assert_eq!(warning(dir.path()), None, "nothing says that LFS is used");
        fs::write(dir.path().join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
        fs::write(dir.path().join("real.bin"), "real").unwrap();
        let text = warning(dir.path()).unwrap();
        assert!(text.contains("were pushed: model.bin.\n"), "{text}");
        for number in 0..9 {
            fs::write(dir.path().join(format!("{number}.bin")), pointer).unwrap();
        }
        assert!(warning(dir.path()).unwrap().contains("0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 5 more."));
    }
}
