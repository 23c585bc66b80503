//! The disk: who has what of it, and making room. What serves, what is on its way, and what can be gone back to by the
//! newest releases is never removed.
#![forbid(unsafe_code)]

use super::{Control, ControlError, apps};
use crate::build::stage;
use crate::domain::app::{App, AppId};
use crate::domain::build::BuildStatus;
use crate::domain::release::{Release, ReleaseStatus};
use crate::domain::slug::{Digest, Slug};
use crate::dyno::roots;
use crate::store::{self, StoreError, Tx};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use uuid::Uuid;
use walkdir::WalkDir;

/// How often there is a look at how much is free.
const LOOK: Duration = Duration::from_secs(60);
/// Unpacked slugs that no dyno uses stay for that long, since going back is quicker with them.
const TREES: Duration = Duration::from_secs(24 * 3600);
/// The same when there is little room. A launch may have just taken one and not have begun.
const TREES_SHORT: Duration = Duration::from_secs(60);
/// A slug that was brought and has no release yet is waiting for one.
const UNRELEASED: SignedDuration = SignedDuration::from_hours(24);
/// Builds of an app whose output is kept, beside those under way.
const OUTPUTS: usize = 100;
/// Directories of ROOT, in the order in which they are shown.
const PARTS: [&str; 10] =
    ["slugs", "trees", "cache", "repos", "sources", "logs", "output", "stacks", "runtimes", "scratch"];

/// `[disk]`: what is kept while there is room, and how much room there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Bytes that are to stay free: below, no build begins; below twice that, room is made.
    pub reserve: u64,
    /// Bytes that the caches of all apps' builds have together at most.
    pub caches: u64,
    /// Slugs of an app, those of its newest releases, that are kept however little room there is.
    pub slugs: usize,
}

/// What an app has on the disk, in bytes.
#[derive(Clone, Debug)]
pub struct AppUsage {
    pub name: String,
    pub slugs: u64,
    pub cache: u64,
    pub repository: u64,
}

/// In bytes.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Of the file system that ROOT is on.
    pub total: u64,
    pub free: u64,
    pub keep: Keep,
    /// By directory of ROOT.
    pub parts: Vec<(&'static str, u64)>,
    pub apps: Vec<AppUsage>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub trees: usize,
    pub caches: usize,
    pub slugs: usize,
    pub outputs: usize,
    /// Bytes that are free now and were not before; others may have written meanwhile.
    pub freed: u64,
}

/// Counts the bytes of everything below ROOT, which takes a while where there is much.
///
/// # Errors
/// When the store or the file system can't be asked.
pub async fn usage(control: &Control) -> Result<Usage, ControlError> {
    let known = control
        .store
        .read(|tx| {
            let with_slugs = |app: App| Ok::<_, StoreError>((store::slugs::list(tx, app.id)?, app));
            store::apps::list(tx)?.into_iter().map(with_slugs).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let control = control.clone();
    let count = move || {
        let root = &control.place.instance.root;
        let (total, free) = space(root)?;
        let parts = PARTS.map(|part| (part, bytes_below(&root.join(part)))).into();
        let apps = known.into_iter().map(|(slugs, app)| {
            // The same slug may have been released many times.
            let slugs: BTreeMap<Digest, u64> = slugs.into_iter().map(|slug| (slug.digest, slug.size)).collect();
            let [repository, cache, _] = apps::folders(&control, app.id);
            AppUsage {
                name: app.name.to_string(),
                slugs: slugs.iter().filter(|(digest, _)| control.slugs.has(digest)).map(|(_, size)| size).sum(),
                cache: bytes_below(&cache),
                repository: bytes_below(&repository),
            }
        });
        let apps = apps.collect();
        Ok::<_, io::Error>(Usage { total, free, keep: control.place.keep, parts, apps })
    };
    Ok(tokio::task::spawn_blocking(count).await.map_err(io::Error::other)??)
}

/// Removes what nobody needs, now and for as long as the server runs: old trees and output, and, when the disk is nearly
/// full, old slugs.
pub async fn keep_collecting(control: Control) {
    let mut tick = tokio::time::interval(LOOK);
    let sizes = Sizes::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = control.closing.cancelled() => return,
        }
        match collect_with(&control, false, sizes.clone()).await {
            Ok(Collected { slugs: 0, caches: 0, .. }) => {}
            Ok(done) => tracing::warn!(
                "there is little room on the disk: {} caches and {} old slugs were removed and {} MB became free",
                done.caches,
                done.slugs,
                done.freed >> 20
            ),
            Err(error) => tracing::warn!("can't make room on the disk: {error}"),
        }
    }
}

/// Makes room. Caches go when they have too much together, caches and then old slugs when there is little; with `all` unpacked ones that no dyno uses go though there is enough.
///
/// # Errors
/// When the store can't be read, or files not be removed.
pub async fn collect(control: &Control, all: bool) -> Result<Collected, ControlError> {
    collect_with(control, all, Sizes::default()).await
}

/// Of caches that have not been used since: counting one takes a while. In bytes.
type Sizes = Arc<Mutex<BTreeMap<PathBuf, (SystemTime, u64)>>>;

async fn collect_with(control: &Control, all: bool, sizes: Sizes) -> Result<Collected, ControlError> {
    let keep = control.place.keep;
    let plan = control.store.read(move |tx| plan(tx, keep.slugs, Timestamp::now())).await?;
    let control = control.clone();
    Ok(tokio::task::spawn_blocking(move || carry_out(&control, all, &plan, &sizes))
        .await
        .map_err(io::Error::other)??)
}

#[derive(Debug, Default)]
struct Plan {
    /// Of what serves and what is on its way.
    needed: BTreeSet<Digest>,
    /// Slugs that are kept.
    kept: BTreeSet<Digest>,
    /// The others, oldest first.
    old: Vec<Digest>,
    outputs: Vec<Uuid>,
}

fn plan(tx: &Tx<'_>, keep: usize, now: Timestamp) -> Result<Plan, StoreError> {
    let mut plan = Plan::default();
    let mut old = Vec::new();
    for app in store::apps::list(tx)? {
        let slugs = store::slugs::list(tx, app.id)?;
        let digest = |release: &Release| Some(slugs.iter().find(|slug| Some(slug.id) == release.slug)?.digest.clone());
        let current = store::releases::current(tx, app.id)?;
        let releases = store::releases::list(tx, app.id)?;
        let pending = releases.iter().filter(|release| release.status == ReleaseStatus::Pending);
        plan.needed.extend(current.iter().chain(pending).filter_map(digest));
        plan.kept.extend(newest(&releases, keep, digest));
        let waiting = |slug: &Slug| now.duration_since(slug.created_at) < UNRELEASED;
        plan.kept
            .extend(slugs.iter().filter(|slug| waiting(slug) && unreleased(&releases, slug)).map(|s| s.digest.clone()));
        old.extend(slugs.into_iter().map(|slug| (slug.created_at, slug.digest)));
        plan.outputs.extend(old_outputs(tx, app.id)?);
    }
    plan.kept.extend(plan.needed.iter().cloned());
    old.sort_unstable();
    plan.old = old.into_iter().map(|(_, digest)| digest).filter(|digest| !plan.kept.contains(digest)).collect();
    plan.old.dedup();
    Ok(plan)
}

/// The slugs of the newest releases that one can go back to.
fn newest(releases: &[Release], keep: usize, digest: impl Fn(&Release) -> Option<Digest>) -> Vec<Digest> {
    let mut newest: Vec<Digest> = Vec::new();
    for found in releases.iter().filter(|release| release.status == ReleaseStatus::Succeeded).filter_map(digest) {
        if newest.len() == keep {
            break;
        }
        if !newest.contains(&found) {
            newest.push(found);
        }
    }
    newest
}

fn unreleased(releases: &[Release], slug: &Slug) -> bool {
    releases.iter().all(|release| release.slug != Some(slug.id))
}

fn old_outputs(tx: &Tx<'_>, app: AppId) -> Result<Vec<Uuid>, StoreError> {
    let mut builds = store::builds::list(tx, app)?;
    builds.sort_by_key(|build| std::cmp::Reverse(build.created_at));
    Ok(builds
        .into_iter()
        .skip(OUTPUTS)
        .filter(|build| build.status != BuildStatus::Pending)
        .map(|build| build.id.0)
        .collect())
}

fn carry_out(control: &Control, all: bool, plan: &Plan, sizes: &Sizes) -> io::Result<Collected> {
    let root = &control.place.instance.root;
    let before = space(root)?.1;
    let is_short = || Ok::<_, io::Error>(space(root)?.1 < 2 * control.place.keep.reserve);
    let in_use: BTreeSet<String> = roots(&control.place.instance)?
        .into_iter()
        .flat_map(|root| root.layers)
        .filter_map(|layer| Some(layer.file_name()?.to_str()?.to_owned()))
        .collect();
    let in_use = |digest: &Digest| in_use.contains(digest.as_str()) || plan.needed.contains(digest);

    let mut done = Collected::default();
    let unused = if all || is_short()? { TREES_SHORT } else { TREES };
    for digest in control.slugs.unpacked()?.iter().filter(|digest| !in_use(digest)) {
        done.trees += usize::from(control.slugs.remove_tree(digest, unused)?);
    }
    for output in &plan.outputs {
        match control.outputs.remove(*output) {
            Ok(()) => done.outputs += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    done.caches = remove_caches(root, control.place.keep.caches, sizes, is_short)?;
    for digest in plan.old.iter().filter(|digest| !in_use(digest) && control.slugs.has(digest)) {
        if !is_short()? {
            break;
        }
        control.slugs.remove(digest)?;
        done.slugs += 1;
    }
    done.freed = space(root)?.1.saturating_sub(before);
    Ok(done)
}

/// Those that were not used for longest go, until the others have no more than `most` bytes and there is room. Without one a
/// build takes longer, and nothing is lost. How many went.
fn remove_caches(root: &Path, most: u64, sizes: &Sizes, is_short: impl Fn() -> io::Result<bool>) -> io::Result<usize> {
    let mut found = stage::caches(root)?;
    found.sort_by_key(|(_, used)| *used);
    let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
    sizes.retain(|path, (used, _)| found.iter().any(|(there, now)| there == path && now == used));
    for (path, used) in &found {
        sizes.entry(path.clone()).or_insert_with(|| (*used, bytes_below(path)));
    }
    let mut removed = 0;
    for (path, _) in &found {
        let together: u64 = sizes.values().map(|(_, bytes)| bytes).sum();
        if together <= most && !is_short()? {
            break;
        }
        if stage::remove_unused_cache(path)? {
            sizes.remove(path);
            removed += 1;
        }
    }
    Ok(removed)
}

/// Bytes of the file system, and those that are free for use.
fn space(place: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(place)?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// As they are on the disk; what goes away meanwhile counts nothing.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = WalkDir::new(dir).same_file_system(true).into_iter().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::actor::{AccountId, Actor};
    use crate::domain::release::ReleaseStatus::{Failed, Succeeded};
    use crate::domain::release::{Change, History, ReleaseId};

    #[test]
    fn slugs_of_the_newest_good_releases_are_kept_and_each_counts_once() {
        let digest = |number: u8| hex::encode([number; 32]).parse::<Digest>().unwrap();
        let release = |version: u32, status| {
            let actor = Actor { id: AccountId(Uuid::nil()), email: "admin@localhost".into() };
            let (id, app) = (ReleaseId(Uuid::nil()), AppId(Uuid::nil()));
            let history = History { newest: None, standing: None };
            let mut release = Release::next(id, app, history, &Change::Initial, actor, Timestamp::UNIX_EPOCH).unwrap();
            (release.version, release.status) = (version, status);
            release
        };
        let releases =
            [(6, Succeeded), (5, Failed), (4, Succeeded), (3, Succeeded), (2, Succeeded)].map(|(v, s)| release(v, s));
        // v6 went back to the code of v3; v2 only set a config var before there was code.
        let code = |release: &Release| match release.version {
            6 | 3 => Some(digest(3)),
            2 => None,
            version => Some(digest(u8::try_from(version).unwrap())),
        };
        assert_eq!(newest(&releases, 1, code), [digest(3)]);
        assert_eq!(newest(&releases, 2, code), [digest(3), digest(4)]);
        assert_eq!(newest(&releases, 9, code), [digest(3), digest(4)]);
        assert_eq!(newest(&releases, 0, code), []);
    }

    #[test]
    fn the_cache_that_was_not_used_for_longest_goes_first_and_one_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..3u64)
            .map(|age| {
                let cache = root.path().join("cache").join(age.to_string());
                std::fs::create_dir_all(&cache).unwrap();
                std::fs::write(cache.join("file"), vec![1; 1 << 20]).unwrap();
                let used = SystemTime::now() - Duration::from_secs(100 * age);
                std::fs::File::open(&cache).unwrap().set_modified(used).unwrap();
                cache
            })
            .collect();
        let there = || names.iter().map(|name| name.exists()).collect::<Vec<_>>();
        let sizes = Sizes::default();
        let remove = |most: u64, short: bool| remove_caches(root.path(), most, &sizes, || Ok(short)).unwrap();
        assert_eq!((remove(4 << 20, false), there()), (0, vec![true; 3]));
        assert_eq!((remove(3 << 20, false), there()), (1, vec![true, true, false]));
        let held = std::fs::File::open(&names[1]).unwrap();
        held.lock_shared().unwrap();
        assert_eq!((remove(3 << 19, false), there()), (1, vec![false, true, false]));
        drop(held);
        assert_eq!((remove(4 << 20, true), there()), (1, vec![false; 3]));
        assert_eq!(std::fs::read_dir(root.path().join("cache")).unwrap().count(), 0);
    }
}
