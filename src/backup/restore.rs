//! Restoring a backup: all of it beside its place first, and put there only when nothing is wrong with it.
#![forbid(unsafe_code)]

use super::{AUTHORITY_CONTEXT, Head, count, member, read, require_root, say};
use crate::domain::slug::Digest;
use crate::dyno::instances;
use crate::slug::SlugStore;
use crate::stack::{Debian, Origin};
use crate::store::copy::{Contents, Key};
use crate::store::{self};
use crate::sys::tree;
use anyhow::{Context as _, bail};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// In ROOT while a restore is under way, or after it was broken off: with what is not in its place yet.
const STAGE: &str = "restore.tmp";
const LOCK: &str = "lock";
/// In ROOT when all is in place, in this order: with the database it is a box.
const PLACES: [&str; 9] = [
    store::KEY_FILE,
    member::AUTHORITY,
    member::AUTHORITY_KEY,
    member::CONFIG,
    "repos",
    "sources",
    "slugs",
    "stacks",
    store::FILE,
];

/// What `hokku restore` is asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub root: PathBuf,
    /// `-` is stdin.
    pub file: PathBuf,
    /// Of a backup that is without.
    pub key: Option<PathBuf>,
    /// Only see whether it could be restored.
    pub check: bool,
}

/// Makes the box of a backup in an empty ROOT.
///
/// # Errors
/// Without root; when there is something in ROOT, or the backup is not whole, is of a newer hokku, or the key is not the
/// one it was made with. Then nothing is changed.
pub fn restore(options: &RestoreOptions) -> anyhow::Result<()> {
    require_root()?;
    if options.check {
        return check(options);
    }
    let root = &options.root;
    let made = !root.exists();
    let place = Place::take(root)?;
    let restored = place.fill(options);
    if restored.is_err() {
        place.clear(made);
    }
    let whole = restored?;
    tell(&whole);
    say(format_args!(
        "Restored to {}. What is of this box, such as addresses and the domain, is in its hokku.toml; then start it, with \
         hokku install or hokku server",
        root.display()
    ));
    Ok(())
}

fn check(options: &RestoreOptions) -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("hokku-restore-{}", uuid::Uuid::new_v4()));
    private(&dir).with_context(|| format!("can't make {}", dir.display()))?;
    let whole = unpack(options, &dir, true);
    let _ = tree::remove(&dir);
    tell(&whole?);
    say("The backup is whole, and its key is the right one");
    Ok(())
}

/// For a server that is to start: a ROOT that is only half a box is not one that it can begin anew in.
///
/// # Errors
/// When a restore is under way there, or was broken off.
pub fn require_restored(root: &Path) -> anyhow::Result<()> {
    if root.join(STAGE).exists() {
        bail!(
            "a restore to {} is under way or was broken off: wait for it, or run hokku restore again",
            root.display()
        );
    }
    Ok(())
}

/// A backup of which all was read and checked.
struct Whole {
    head: Head,
    contents: Contents,
    warnings: Vec<String>,
}

fn tell(whole: &Whole) {
    let Head { hokku, made_at, root, .. } = &whole.head;
    for warning in &whole.warnings {
        say(format_args!("warning: {warning}"));
    }
    let apps = count(whole.contents.apps.len(), "app");
    say(format_args!("{apps} of {root}, backed up at {made_at:.0} by hokku {hokku}"));
}

/// ROOT, for this restore alone.
struct Place {
    root: PathBuf,
    _lock: File,
}

impl Place {
    fn take(root: &Path) -> anyhow::Result<Self> {
        if let Some(instance) = instances::find(root)? {
            bail!(
                "the instance {} is in {}: restore to another --root, or end it first with hokku down --purge, which deletes \
                 all of its apps",
                instance.name,
                root.display()
            );
        }
        let cant = || format!("can't use {}", root.display());
        require_empty(root).with_context(cant)??;
        if !root.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(root).with_context(cant)?;
        }
        let lock = File::options().create(true).append(true).mode(0o600).open(root.join(LOCK)).with_context(cant)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another restore to {}, or a server, is at work", root.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cant),
        }
        let place = Self { root: root.canonicalize().with_context(cant)?, _lock: lock };
        place.remove_rest().with_context(cant)?;
        private(&place.stage()).with_context(cant)?;
        Ok(place)
    }

    fn stage(&self) -> PathBuf {
        self.root.join(STAGE)
    }

    fn fill(&self, options: &RestoreOptions) -> anyhow::Result<Whole> {
        let stage = self.stage();
        let whole = unpack(options, &stage, false)?;
        let put = || -> io::Result<()> {
            rustix::fs::syncfs(File::open(&stage)?)?;
            for name in PLACES.iter().filter(|name| stage.join(name).exists()) {
                fs::rename(stage.join(name), self.root.join(name))?;
            }
            tree::remove(&stage)?;
            File::open(&self.root)?.sync_all()
        };
        put().with_context(|| format!("can't put the backup into {}", self.root.display()))?;
        Ok(whole)
    }

    /// Of a restore that was broken off: there was nothing else in ROOT when it began, and no server has been there since.
    fn remove_rest(&self) -> io::Result<()> {
        if !self.stage().exists() {
            return Ok(());
        }
        for name in PLACES.iter().chain([&STAGE]).map(|name| self.root.join(name)).filter(|path| path.exists()) {
            if path_is_dir(&name) { tree::remove(&name)? } else { fs::remove_file(&name)? }
        }
        Ok(())
    }

    /// As it was before.
    fn clear(&self, made: bool) {
        // What can't be removed now is removed by the next restore.
        let _ = self.remove_rest();
        let _ = fs::remove_file(self.root.join(LOCK));
        if made {
            let _ = fs::remove_dir(&self.root);
        }
    }
}

fn path_is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Empty, but for what a file system has by itself and what a restore has left.
fn require_empty(root: &Path) -> io::Result<anyhow::Result<()>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    if names.iter().any(|name| name == STAGE) {
        return Ok(Ok(()));
    }
    let other = names.iter().find(|name| *name != "lost+found" && *name != LOCK);
    Ok(match other {
        Some(name) => Err(anyhow::anyhow!(
            "{} is not empty (there is {}): restore to a new --root, or move what is there away",
            root.display(),
            name.display()
        )),
        None => Ok(()),
    })
}

fn private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Reads all of the backup, writes it to `stage`, or only what is needed to judge it, and judges it.
fn unpack(options: &RestoreOptions, stage: &Path, only_judge: bool) -> anyhow::Result<Whole> {
    let key = options.key.as_deref().map(given_key).transpose()?;
    let mut slugs = BTreeSet::new();
    let mut made = BTreeSet::new();
    let begin = |head: &Head| match (head.with_key, &options.key) {
        (false, None) => bail!("the key is not in that backup: give it with --key FILE"),
        (true, Some(_)) => bail!("that backup has its key in it: leave --key away"),
        _ => Ok(()),
    };
    let head = read::read(read::open(&options.file)?, begin, |name, bytes| {
        let digest = name.strip_prefix("slugs/").and_then(|name| name.strip_suffix(".tar.zst")?.parse::<Digest>().ok());
        slugs.extend(digest);
        let judged = [store::FILE, store::KEY_FILE, member::AUTHORITY_SEALED].contains(&name);
        if only_judge && !judged {
            io::copy(bytes, &mut io::sink())?;
            return Ok(());
        }
        write(stage, name, bytes, &mut made).with_context(|| format!("can't write {name} below {}", stage.display()))
    })?;
    let key = match key {
        Some(key) => key,
        None => Key::read(&stage.join(store::KEY_FILE))?.context("the backup is damaged: it has no key")?,
    };
    let contents = store::copy::examine(&stage.join(store::FILE), &key).map_err(|error| match error {
        store::StoreError::KeyWrong { .. } if options.key.is_some() => {
            anyhow::anyhow!("that is not the key of this backup: give the one of the box that it was made of")
        }
        error => error.into(),
    })?;
    if options.key.is_some() {
        settle_key(stage, &key)?;
    }
    let mut warnings = lacking(&contents, &slugs);
    warnings.extend(settle_stacks(stage, &head)?);
    Ok(Whole { head, contents, warnings })
}

fn given_key(path: &Path) -> anyhow::Result<Key> {
    Key::read(path)?.with_context(|| format!("there is no key {}", path.display()))
}

fn write(stage: &Path, name: &str, bytes: &mut dyn Read, made: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let path = stage.join(name);
    let mut parts = name.split('/');
    parts.next_back();
    let mut dir = stage.to_owned();
    for part in parts {
        dir.push(part);
        if made.insert(dir.clone()) {
            private(&dir)?;
        }
    }
    // Git knows a repository by these.
    if let Some(("repos", rest)) = name.split_once('/')
        && let Some((repository, _)) = rest.split_once('/')
    {
        for needed in ["objects", "refs"].map(|needed| stage.join("repos").join(repository).join(needed)) {
            if made.insert(needed.clone()) {
                private(&needed)?;
            }
        }
    }
    let rights = if name == member::AUTHORITY { 0o644 } else { 0o600 };
    let mut file = File::options().write(true).create_new(true).mode(rights).open(&path)?;
    io::copy(bytes, &mut file)?;
    // Whatever the umask.
    file.set_permissions(fs::Permissions::from_mode(rights))?;
    Ok(())
}

/// Puts the key there that was not in the backup, and what was sealed with it.
fn settle_key(stage: &Path, key: &Key) -> anyhow::Result<()> {
    let put = |name: &str, bytes: &[u8]| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(stage.join(name))?;
        io::Write::write_all(&mut file, bytes)
    };
    put(store::KEY_FILE, key.bytes())?;
    let sealed = stage.join(member::AUTHORITY_SEALED);
    if sealed.exists() {
        let opened = key.open(&fs::read(&sealed)?, AUTHORITY_CONTEXT);
        put(member::AUTHORITY_KEY, &opened.context("the backup is damaged: its ca.key can't be unsealed")?)?;
        fs::remove_file(sealed)?;
    }
    Ok(())
}

fn lacking(contents: &Contents, slugs: &BTreeSet<Digest>) -> Vec<String> {
    let lost = contents.serving.iter().filter(|(_, digest)| !slugs.contains(digest));
    lost.map(|(app, _)| format!("the slug of {app} was not backed up: deploy the app again")).collect()
}

/// Takes the layers in that are there, if this machine can run them.
fn settle_stacks(stage: &Path, head: &Head) -> anyhow::Result<Vec<String>> {
    let own = std::env::consts::ARCH;
    let file = stage.join(member::STACKS);
    if head.architecture != own {
        if file.exists() {
            fs::remove_file(file)?;
        }
        let found = &head.architecture;
        return Ok(vec![format!(
            "it was made on {found} and this is {own}: build what is compiled again, with hokku rebuild"
        )]);
    }
    if file.exists() {
        Debian::open(stage, SlugStore::open(stage)?, Origin::default())?.import(&file)?;
        fs::remove_file(file)?;
    }
    Ok(Vec::new())
}
