//! The `host` stack: what a dyno finds around its app when it lives on the box's own programs.
//!
//! ```text
//!  base   ROOT/stacks/host/<digest>/    mount points, links, an allow-list of /etc, made-up accounts   (lower layer)
//!  binds  /usr                          the host's programs and libraries, read-only
//!         /bin /lib …                   only where the host has not merged them into /usr
//!         paths the operator names      [stack.host] paths
//! ```
//!
//! The base is a pure function of the host's files, so its name is the digest of what is in it: an `apt upgrade` makes
//! another one beside the old, which running dynos go on using. Only files that every account of the host may read are
//! taken, so no secret gets in whatever the allow-list says.
#![forbid(unsafe_code)]

use super::skeleton::Skeleton;
use super::{Bind, Stack, StackError, etc, io_error, mount_points};
use crate::domain::stack::StackName;
use std::path::{Path, PathBuf};

/// What dynos get by mounts of their own; the operator cannot put something of the host there.
const OWN: [&str; 8] = ["app", "dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"];

/// Directories that a merged-usr host has as links into `/usr`.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// Makes the host stack as the host is now, or finds it made. `extra` are further host paths that dynos see at the same
/// place (`[stack.host] paths`).
///
/// # Errors
/// An extra path that is relative, missing, or would show dynos the platform's own state; a disk that is full.
pub fn host(root: &Path, extra: &[PathBuf]) -> Result<Stack, StackError> {
    let mut skeleton = Skeleton::default();
    mount_points(&mut skeleton);
    etc::copy(Path::new("/etc"), &mut skeleton)?;
    etc::invent(&mut skeleton);

    let mut binds = vec![Bind { source: "/usr".into(), target: "/usr".into() }];
    top_level(&mut skeleton, &mut binds)?;
    for path in extra {
        show(path, root, &mut skeleton, &mut binds)?;
    }
    let base = skeleton.write(&root.join("stacks/host"))?;
    Ok(Stack::new(StackName::Host, etc::stack_id(Path::new("/etc/os-release")), vec![base], binds))
}

/// `/bin` and its like: the same link as on the host, or, where they are directories of their own, those.
fn top_level(skeleton: &mut Skeleton, binds: &mut Vec<Bind>) -> Result<(), StackError> {
    for name in MERGED {
        let path = Path::new("/").join(name);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => {
                let target = path.read_link().map_err(io_error("read the link", &path))?;
                skeleton.link(name, target);
            }
            Ok(meta) if meta.is_dir() => {
                skeleton.dir(name);
                binds.push(Bind { source: path.clone(), target: path });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds a path the operator named.
fn show(path: &Path, root: &Path, skeleton: &mut Skeleton, binds: &mut Vec<Bind>) -> Result<(), StackError> {
    let refuse = |why| StackError::Path { path: path.to_owned(), why };
    let plain = |c: std::path::Component| matches!(c, std::path::Component::Normal(_) | std::path::Component::RootDir);
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(refuse("it is not an absolute path without `..`"));
    }
    let Ok(inside) = path.strip_prefix("/") else { return Err(refuse("it is not an absolute path")) };
    let real = path.canonicalize().map_err(io_error("find", path))?;
    let own_state = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if own_state.starts_with(&real) || real.starts_with(&own_state) {
        return Err(refuse("it holds the platform's own state"));
    }
    if inside.as_os_str().is_empty()
        || OWN.iter().any(|own| inside.starts_with(own) || Path::new(own).starts_with(inside))
    {
        return Err(refuse("dynos have something of their own there"));
    }
    if binds.iter().any(|bind| real.starts_with(&bind.source)) {
        // Seen already; another name for it only has to lead there.
        if real != path && !MERGED.iter().any(|merged| inside.starts_with(merged)) {
            skeleton.link(inside, real);
        }
        return Ok(());
    }
    if real.is_dir() {
        skeleton.dir(inside);
    } else {
        skeleton.file(inside, Vec::new());
    }
    binds.push(Bind { source: real, target: path.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn the_base_has_what_programs_look_for_and_no_secret() {
        let root = tempfile::tempdir().unwrap();
        let stack = host(root.path(), &[]).unwrap();
        for wanted in
            ["app", "proc", "usr", "tmp", "etc/passwd", "etc/nsswitch.conf", "etc/resolv.conf", "etc/ssl/certs"]
        {
            assert!(stack.layers[0].join(wanted).symlink_metadata().is_ok(), "{wanted}");
        }
        for unwanted in ["etc/shadow", "etc/gshadow", "etc/ssl/private", "etc/ssh", "etc/sudoers", "root/.ssh"] {
            assert!(stack.layers[0].join(unwanted).symlink_metadata().is_err(), "{unwanted}");
        }
        let passwd = std::fs::read_to_string(stack.layers[0].join("etc/passwd")).unwrap();
        assert!(passwd.contains("dyno:x:1000:1000::/app:/bin/bash"), "{passwd}");
        assert_eq!(stack.layers[0].join("bin").read_link().ok(), Path::new("/bin").read_link().ok());
        assert_eq!(stack.layers[0].join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn everything_in_the_base_is_roots_and_readable_by_all() {
        let root = tempfile::tempdir().unwrap();
        let stack = host(root.path(), &[]).unwrap();
        let mut seen = 0;
        for entry in walkdir::WalkDir::new(&stack.layers[0]) {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            seen += 1;
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", entry.path().display());
            let needed = if meta.is_dir() { 0o555 } else { 0o444 };
            assert!(meta.is_symlink() || meta.permissions().mode() & needed == needed, "{}", entry.path().display());
        }
        assert!(seen > 30);
    }

    #[test]
    fn the_same_host_gives_the_same_base_and_another_list_of_paths_another() {
        let root = tempfile::tempdir().unwrap();
        let shown = tempfile::tempdir_in("/opt").unwrap();
        let first = host(root.path(), &[]).unwrap();
        assert_eq!(first, host(root.path(), &[]).unwrap());
        let second = host(root.path(), &[shown.path().to_owned()]).unwrap();
        assert_ne!(first.layers[0], second.layers[0]);
        let bind = Bind { source: shown.path().to_owned(), target: shown.path().to_owned() };
        assert_eq!(second.binds.last(), Some(&bind));
        assert!(second.layers[0].join(shown.path().strip_prefix("/").unwrap()).is_dir());
        let left: Vec<_> = std::fs::read_dir(root.path().join("stacks/host")).unwrap().collect();
        assert_eq!(left.len(), 2, "no half-made base stays");
    }

    #[test]
    fn paths_that_would_open_the_platform_or_replace_a_dynos_own_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let refused = |path: &Path| host(root.path(), &[path.to_owned()]).unwrap_err().to_string();
        let why = "dynos have something of their own there";
        assert_eq!(refused(Path::new("/etc")), format!("/etc cannot be shown to dynos: {why}"));
        assert_eq!(refused(Path::new("/proc/1")), format!("/proc/1 cannot be shown to dynos: {why}"));
        assert_eq!(refused(Path::new("/var")), format!("/var cannot be shown to dynos: {why}"));
        assert!(refused(root.path()).ends_with("it holds the platform's own state"));
        assert!(refused(Path::new("/")).ends_with("it holds the platform's own state"));
        assert!(refused(Path::new("opt")).ends_with("it is not an absolute path without `..`"));
        assert_eq!(refused(Path::new("/opt/hokku-no-such")), "could not find /opt/hokku-no-such");
    }
}
