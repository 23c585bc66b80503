//! The directories one build works in: `ROOT/builds/<id>/`.
//!
//! ```text
//!  source/          the unpacked source, becomes the slug          seen at /app or /tmp/build_…
//!  work/cache/      a copy of the app's cache, replaces it when    seen at /build/cache
//!                   the build succeeded
//!  work/packs/<n>/  buildpacks, fresh: they write into themselves  seen at /build/packs
//!  work/result/     what driver.sh reports                         seen at /build/result
//!  work/tmp/        TMPDIR; on disk, not in the dyno's memory      seen at /build/tmp
//! ```
//!
//! `source` and `work` are mounts of the dyno and so can't be replaced from inside; what is in them can, by anything.
#![forbid(unsafe_code)]

use super::buildpack::{self, Buildpack, Source};
use super::reading::text_below;
use crate::domain::app::AppId;
use crate::domain::build::BuildId;
use crate::sys::tree::{self, Unmeasured};
use rustix::fs::{CWD, RenameFlags, ResolveFlags, renameat_with};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The dyno's user, who owns everything that it may write.
const USER: u32 = 1000;

/// A cache beyond this can't be copied for the next build: `cp` names files by their whole path.
const CACHE_BOUNDS: tree::Bounds = tree::Bounds { depth: 200, path: 3000 };

/// A local buildpack larger than this was not meant to be one.
const PACK_LIMIT: u64 = 200 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("can't use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("The buildpack {} is not a directory with bin/detect and bin/compile on this machine.", .0.display())]
    NotAPack(PathBuf),
    #[error("The buildpack {} can't be used: {} is not readable by everyone.", pack.display(), what.display())]
    Private { pack: PathBuf, what: PathBuf },
    #[error("The buildpack {} is larger than 200 MB.", .0.display())]
    Large(PathBuf),
    #[error("can't copy {}", .0.display())]
    Copy(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { path, source }
}

/// One build's directories.
#[derive(Clone, Debug)]
pub struct Stage {
    dir: PathBuf,
}

impl Stage {
    /// # Errors
    /// When they can't be made.
    pub fn create(root: &Path, build: BuildId) -> Result<Self, StageError> {
        let stage = Self { dir: root.join("builds").join(build.to_string()) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&stage.dir).map_err(at(&stage.dir))?;
        for dir in [stage.source(), stage.work()].into_iter().chain(stage.inside_work()) {
            fs::create_dir(&dir).map_err(at(&dir))?;
            lchown(&dir, Some(USER), Some(USER)).map_err(at(&dir))?;
        }
        Ok(stage)
    }

    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    fn cache(&self) -> PathBuf {
        self.work().join("cache")
    }

    fn inside_work(&self) -> [PathBuf; 4] {
        ["cache", "packs", "result", "tmp"].map(|name| self.work().join(name))
    }

    /// Puts the app's cache into the stage, as a copy: a build that fails must leave the old one as it was.
    ///
    /// # Errors
    /// When it can't be copied.
    pub fn take_cache(&self, root: &Path, app: AppId) -> Result<(), StageError> {
        let kept = kept_cache(root, app);
        // Whoever collects caches leaves this one alone meanwhile.
        let Some(_held) = held(&kept).map_err(at(&kept))? else { return Ok(()) };
        copy(&kept, &self.cache())?;
        mark_used(&kept).map_err(at(&kept))
    }

    /// Bytes of the files in the stage's cache; none when the build has put something else in its place.
    ///
    /// # Errors
    /// When it is nested too deep or has too long paths to be kept, or can't be read.
    pub fn cache_size(&self) -> Result<u64, Unmeasured> {
        if self.has_cache() { tree::size(&self.cache(), CACHE_BOUNDS) } else { Ok(0) }
    }

    /// The build may have put a link in its place.
    fn has_cache(&self) -> bool {
        fs::symlink_metadata(self.cache()).is_ok_and(|found| found.is_dir())
    }

    /// Makes the stage's cache the app's, in one step.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn keep_cache(&self, root: &Path, app: AppId) -> Result<(), StageError> {
        let (fresh, kept) = (self.cache(), kept_cache(root, app));
        if !self.has_cache() {
            return Ok(());
        }
        let parent = root.join("cache");
        fs::create_dir_all(&parent).map_err(at(&parent))?;
        match renameat_with(CWD, &fresh, CWD, &kept, RenameFlags::EXCHANGE) {
            Err(rustix::io::Errno::NOENT) => fs::rename(&fresh, &kept),
            other => other.map_err(Into::into),
        }
        .and_then(|()| mark_used(&kept))
        .map_err(at(&kept))
    }

    /// Lays the packs that are on this machine beside the source; others are fetched inside the dyno.
    ///
    /// # Errors
    /// When a local pack is none, is not for everyone's eyes, or can't be copied.
    pub fn lay_packs(&self, packs: &[Buildpack]) -> Result<(), StageError> {
        for (index, pack) in packs.iter().enumerate() {
            let dest = self.work().join("packs").join(index.to_string());
            match &pack.source {
                Source::Own(folder) => buildpack::write_own(folder, &dest).map_err(at(&dest))?,
                Source::Local(path) => {
                    check_local(path)?;
                    fs::create_dir(&dest).map_err(at(&dest))?;
                    copy(path, &dest)?;
                }
                Source::Git { .. } | Source::Archive { .. } | Source::Inline => continue,
            }
            give(&dest)?;
        }
        Ok(())
    }

    /// Whether the app brings its own buildpack: `bin/detect` and `bin/compile`.
    pub fn is_inline(&self) -> bool {
        let bin = self.source().join("bin");
        let real = |path: &Path| fs::symlink_metadata(path);
        real(&bin).is_ok_and(|found| found.is_dir())
            && ["detect", "compile"].iter().all(|name| real(&bin.join(name)).is_ok_and(|found| found.is_file()))
    }

    /// A text file of the source, which may be a link within it.
    ///
    /// # Errors
    /// When it is no file, longer than 256 KB, not UTF-8, or a link that leads out of the source.
    pub fn read_source(&self, name: &str) -> io::Result<Option<String>> {
        text_below(&self.source(), name, ResolveFlags::NO_MAGICLINKS)
    }

    /// A text file that the driver left.
    ///
    /// # Errors
    /// When it is no file, longer than 256 KB, or not UTF-8.
    pub(super) fn read_result(&self, name: &str) -> io::Result<Option<String>> {
        text_below(&self.work(), &format!("result/{name}"), ResolveFlags::NO_SYMLINKS)
    }

    /// # Errors
    /// When something can't be removed.
    pub fn remove(self) -> io::Result<()> {
        tree::remove(&self.dir)
    }
}

/// Where an app's cache lies between builds.
pub fn kept_cache(root: &Path, app: AppId) -> PathBuf {
    root.join("cache").join(app.to_string())
}

/// Forgets an app's cache. A build that runs puts its own there when it succeeds.
///
/// # Errors
/// When it can't be removed.
pub fn purge_cache(root: &Path, app: AppId) -> io::Result<()> {
    match tree::remove(&kept_cache(root, app)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A cache that is there, kept from [`remove_unused_cache`] for as long as the file is open.
fn held(kept: &Path) -> io::Result<Option<fs::File>> {
    let file = match fs::File::open(kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    file.lock_shared()?;
    // It may have been removed before it was locked.
    let same = fs::metadata(kept).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
    Ok(same.then_some(file))
}

fn mark_used(kept: &Path) -> io::Result<()> {
    fs::File::open(kept)?.set_modified(std::time::SystemTime::now())
}

/// The apps' caches, with when each was last used.
///
/// # Errors
/// When it can't be looked.
pub fn caches(root: &Path) -> io::Result<Vec<(PathBuf, std::time::SystemTime)>> {
    let entries = match fs::read_dir(root.join("cache")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // One that is gone meanwhile is none.
        if let Ok(used) = entry.metadata().and_then(|found| found.modified()) {
            found.push((entry.path(), used));
        }
    }
    Ok(found)
}

/// Removes a cache unless a build is taking it right now. Whether it is gone.
///
/// # Errors
/// When it can't be removed.
pub fn remove_unused_cache(kept: &Path) -> io::Result<bool> {
    let file = match fs::File::open(kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    if file.try_lock().is_err() {
        return Ok(false);
    }
    // In one step, so that no build finds half of it.
    let aside = kept.with_extension("old");
    fs::rename(kept, &aside)?;
    tree::remove(&aside)?;
    Ok(true)
}

/// The directories of builds whose server died. Called before the first build of a server.
///
/// # Errors
/// When it can't be looked.
pub fn left_behind(root: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(root.join("builds")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Removes them, again and again for a while: a dyno that is being killed may still write.
pub fn remove_all(stages: Vec<PathBuf>) {
    let mut left = stages;
    for _ in 0..50 {
        left.retain(|stage| tree::remove(stage).is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
        if left.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    tracing::warn!("can't remove what unfinished builds left: {left:?}");
}

/// Copies the contents of a directory into another with modes, times and links as they are, sharing blocks where the
/// file system can.
fn copy(from: &Path, to: &Path) -> Result<(), StageError> {
    let status = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--"])
        .args([from, to])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .status()
        .map_err(at(from))?;
    if status.success() { Ok(()) } else { Err(StageError::Copy(from.to_owned())) }
}

fn give(tree: &Path) -> Result<(), StageError> {
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry.map_err(|error| at(tree)(error.into()))?;
        lchown(entry.path(), Some(USER), Some(USER)).map_err(at(entry.path()))?;
    }
    Ok(())
}

/// Whoever may choose a buildpack could otherwise read any directory of the machine through it.
fn check_local(pack: &Path) -> Result<(), StageError> {
    for script in ["bin/detect", "bin/compile"] {
        if !pack.join(script).is_file() {
            return Err(StageError::NotAPack(pack.to_owned()));
        }
    }
    let private = |what: &Path| StageError::Private { pack: pack.to_owned(), what: what.to_owned() };
    let real = pack.canonicalize().map_err(at(pack))?;
    for dir in real.ancestors() {
        if dir.metadata().map_err(at(dir))?.mode() & 0o001 == 0 {
            return Err(private(dir));
        }
    }
    let mut size = 0;
    for entry in walkdir::WalkDir::new(&real) {
        let entry = entry.map_err(|error| at(pack)(error.into()))?;
        let found = entry.metadata().map_err(|error| at(pack)(error.into()))?;
        let needed = if found.is_dir() { 0o005 } else { 0o004 };
        if !found.is_symlink() && found.mode() & needed != needed {
            return Err(private(entry.path()));
        }
        size += found.len();
    }
    if size > PACK_LIMIT { Err(StageError::Large(pack.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use uuid::Uuid;

    fn stage() -> (tempfile::TempDir, Stage) {
        let root = tempfile::tempdir().unwrap();
        let stage = Stage::create(root.path(), BuildId(Uuid::new_v4())).unwrap();
        (root, stage)
    }

    const APP: AppId = AppId(Uuid::nil());

    #[test]
    fn a_cache_is_replaced_only_when_it_is_kept() {
        let (root, first) = stage();
        first.take_cache(root.path(), APP).unwrap();
        fs::write(first.cache().join("file"), "one").unwrap();
        first.keep_cache(root.path(), APP).unwrap();
        let kept = kept_cache(root.path(), APP).join("file");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "one");

        let second = Stage::create(root.path(), BuildId(Uuid::new_v4())).unwrap();
        second.take_cache(root.path(), APP).unwrap();
        fs::write(second.cache().join("file"), "two").unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "one", "a build that fails leaves the old cache");
        second.keep_cache(root.path(), APP).unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "two");

        purge_cache(root.path(), APP).unwrap();
        purge_cache(root.path(), APP).unwrap();
        assert!(!kept.exists());
        assert_eq!(left_behind(root.path()).unwrap().len(), 2);
        remove_all(left_behind(root.path()).unwrap());
        assert_eq!(left_behind(root.path()).unwrap().len(), 0);
    }

    #[test]
    fn a_cache_that_could_not_be_copied_again_is_not_measured() {
        let (_root, stage) = stage();
        fs::create_dir_all(stage.cache().join("d/".repeat(200))).unwrap();
        fs::write(stage.cache().join("file"), "four").unwrap();
        assert_eq!(stage.cache_size().unwrap(), 4);
        fs::create_dir(stage.cache().join("d/".repeat(201))).unwrap();
        assert!(matches!(stage.cache_size(), Err(Unmeasured::Deep(200))));
        fs::remove_dir_all(stage.cache()).unwrap();
        fs::create_dir_all(stage.cache().join(format!("{}/", "n".repeat(250)).repeat(12))).unwrap();
        assert!(matches!(stage.cache_size(), Err(Unmeasured::Long(3000))));
    }

    #[test]
    fn a_link_in_place_of_the_cache_is_not_kept() {
        let (root, stage) = stage();
        fs::remove_dir(stage.cache()).unwrap();
        symlink("/etc", stage.cache()).unwrap();
        assert_eq!(stage.cache_size().unwrap(), 0);
        stage.keep_cache(root.path(), APP).unwrap();
        assert!(!kept_cache(root.path(), APP).exists());
    }

    #[test]
    fn local_packs_are_copied_when_everyone_may_read_them() {
        let (root, stage) = stage();
        let pack = root.path().join("pack");
        let local = [Buildpack::parse(pack.to_str().unwrap()).unwrap()];
        assert!(matches!(stage.lay_packs(&local), Err(StageError::NotAPack(_))));

        fs::create_dir_all(pack.join("bin")).unwrap();
        for script in ["detect", "compile"] {
            fs::write(pack.join("bin").join(script), "#!/bin/sh\n").unwrap();
        }
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(root.path(), 0o700);
        assert!(matches!(stage.lay_packs(&local), Err(StageError::Private { what, .. }) if what == root.path()));
        mode(root.path(), 0o755);
        mode(&pack.join("bin/compile"), 0o600);
        assert!(matches!(stage.lay_packs(&local), Err(StageError::Private { .. })));
        mode(&pack.join("bin/compile"), 0o644);
        stage.lay_packs(&local).unwrap();
        let copied = stage.work().join("packs/0/bin/compile").metadata().unwrap();
        assert_eq!((copied.uid(), copied.is_file()), (USER, true));
    }
}
