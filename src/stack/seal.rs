//! Making a tree fit to be a layer: what belongs to one machine or one moment goes, what is left is root's and for
//! everyone's eyes, as it will be after an import.
#![forbid(unsafe_code)]

use crate::sys::tree;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

/// Gone from every layer. A `/*` at the end leaves the directory.
const DROPPED: [&str; 23] = [
    "dev/*",
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/hostname",
    "etc/machine-id",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow",
    "etc/shadow-",
    "proc/*",
    "run/*",
    "sys/*",
    "tmp/*",
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "var/tmp/*",
];

/// Gone from what is stacked upon a base: it would hide the base's own, or another layer's.
const DROPPED_ABOVE: [&str; 14] = [
    "dev",
    "etc/apt",
    "etc/dpkg",
    "etc/group",
    "etc/ld.so.cache",
    "etc/passwd",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/sbin/policy-rc.d",
    // mmdebstrap replaces it while it works.
    "usr/sbin/start-stop-daemon",
    "var/cache",
    "var/log",
];

/// Where dpkg keeps what is installed; a layer above has its own story about everything below it.
const DPKG: &str = "var/lib/dpkg";

/// Seals a tree. Returns the bytes of its files.
///
/// # Errors
/// What can't be changed or removed.
pub(super) fn seal(tree: &Path, above: bool) -> io::Result<u64> {
    let above = if above { &[&DROPPED_ABOVE[..], &[DPKG, "var/lib/apt"]].concat()[..] } else { &[] };
    for path in DROPPED.iter().chain(above) {
        let (path, emptied) = path.strip_suffix("/*").map_or((*path, false), |dir| (dir, true));
        let Some(path) = inside(tree, path) else { continue };
        if emptied { empty(&path)? } else { remove(&path)? }
    }
    normalise(tree)
}

/// Makes everything below root's and readable, without rights that go beyond. Returns the bytes of its files.
///
/// # Errors
/// What can't be changed.
pub(super) fn normalise(tree: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in walkdir::WalkDir::new(tree).contents_first(true) {
        let entry = entry?;
        let kind = entry.file_type();
        if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
            // Also overlayfs's own mark for what a layer takes away, which no archive holds.
            fs::remove_file(entry.path())?;
            continue;
        }
        make_plain(entry.path(), kind)?;
        if kind.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn make_plain(path: &Path, kind: fs::FileType) -> io::Result<()> {
    lchown(path, Some(0), Some(0))?;
    if kind.is_symlink() {
        return Ok(());
    }
    let executable = kind.is_dir() || path.symlink_metadata()?.permissions().mode() & 0o100 != 0;
    fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    forget_attributes(path)
}

/// Overlayfs marks new directories as hiding those of layers below, which is not so for the layers of others.
fn forget_attributes(path: &Path) -> io::Result<()> {
    let mut names = vec![0; 4096];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        rustix::fs::lremovexattr(path, name)?;
    }
    Ok(())
}

/// The path in the tree, unless a link on the way leads to somewhere else: a tree can be anybody's.
fn inside(tree: &Path, path: &str) -> Option<PathBuf> {
    let mut place = tree.to_owned();
    for name in Path::new(path) {
        place.symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
        place.push(name);
    }
    Some(place)
}

fn empty(dir: &Path) -> io::Result<()> {
    // A link would lead out of the tree.
    if !dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match tree::remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The installed packages and their versions, by dpkg's own list below `tree`; to be read before it is sealed.
///
/// # Errors
/// When there is no such list.
pub(super) fn installed(tree: &Path) -> io::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(tree.join(DPKG).join("status"))?;
    let field = |stanza: &str, key: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::to_owned)
    };
    let package = |stanza: &str| {
        let installed = field(stanza, "Status")?.ends_with(" installed");
        installed.then_some(())?;
        Some((field(stanza, "Package")?, field(stanza, "Version")?))
    };
    Ok(text.split("\n\n").filter_map(package).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        dir
    }

    fn files(tree: &Path) -> Vec<String> {
        let mut files: Vec<String> = walkdir::WalkDir::new(tree)
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(tree).unwrap().display().to_string())
            .collect();
        files.sort();
        files
    }

    #[test]
    fn what_belongs_to_one_machine_is_dropped() {
        let list =
            ["etc/shadow", "etc/passwd", "etc/apt/sources.list.d/0.list", "var/log/a/b", "usr/bin/x", "dev/null"];
        let base = tree(&list);
        assert_eq!(seal(base.path(), false).unwrap(), 2);
        assert_eq!(files(base.path()), ["etc/passwd", "usr/bin/x"]);
        assert!(base.path().join("var/log").is_dir());
        let above = tree(&[&list[..], &["var/lib/dpkg/status", "etc/ld.so.cache"]].concat());
        seal(above.path(), true).unwrap();
        assert_eq!(files(above.path()), ["usr/bin/x"]);
    }

    #[test]
    fn what_is_left_is_roots_and_readable_without_special_rights() {
        let made = tree(&["usr/bin/su", "etc/secret"]);
        let allow = |name: &str, mode| {
            fs::set_permissions(made.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        allow("usr/bin/su", 0o4755);
        allow("etc/secret", 0o600);
        allow("etc", 0o700);
        lchown(made.path().join("etc/secret"), Some(1000), Some(42)).unwrap();
        rustix::fs::lsetxattr(made.path().join("etc"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .ok();
        nix::unistd::mkfifo(&made.path().join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        seal(made.path(), false).unwrap();
        let meta = |name: &str| made.path().join(name).metadata().unwrap();
        assert_eq!(meta("usr/bin/su").mode() & 0o7777, 0o755);
        assert_eq!(
            (meta("etc/secret").mode() & 0o7777, meta("etc/secret").uid(), meta("etc/secret").gid()),
            (0o644, 0, 0)
        );
        assert_eq!(meta("etc").mode() & 0o7777, 0o755);
        assert_eq!(rustix::fs::llistxattr(made.path().join("etc"), &mut [0; 100][..]).unwrap_or(0), 0);
        assert_eq!(files(made.path()), ["etc/secret", "usr/bin/su"]);
    }

    #[test]
    fn links_in_a_tree_lead_nowhere() {
        let outside = tree(&["shadow", "log/kept"]);
        let made = tree(&["usr/x"]);
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, made.path().join(name)).unwrap();
        link(outside.path(), "etc");
        link(outside.path(), "var");
        seal(made.path(), true).unwrap();
        assert_eq!(files(outside.path()), ["log/kept", "shadow"]);
        assert_eq!(files(made.path()), ["etc", "usr/x", "var"]);
    }

    #[test]
    fn only_installed_packages_count() {
        let made = tree(&["var/lib/dpkg/status"]);
        let text = "Package: a\nStatus: install ok installed\nVersion: 1:2\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 3\n";
        fs::write(made.path().join("var/lib/dpkg/status"), text).unwrap();
        assert_eq!(installed(made.path()).unwrap().into_iter().collect::<Vec<_>>(), [("a".into(), "1:2".into())]);
    }
}
