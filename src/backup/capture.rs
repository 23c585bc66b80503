//! The whole box at one moment: what can change is copied or held open, so that it can be written out at leisure.
#![forbid(unsafe_code)]

use super::{member, repository};
use crate::domain::slug::Digest;
use crate::stack::Debian;
use crate::store::copy::{Contents, Key};
use crate::store::{self, StoreError};
use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One member, whose bytes stay what they are.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) size: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    /// Nobody writes into it any more, and it stays until it is closed, removed or not.
    Held(File),
    Spooled {
        file: Arc<File>,
        at: u64,
    },
    Text(Vec<u8>),
}

impl Part {
    pub(super) fn held(name: String, file: File, size: u64) -> Self {
        Self { name, size, bytes: Bytes::Held(file) }
    }

    pub(super) fn text(name: String, text: Vec<u8>) -> Self {
        Self { name, size: text.len() as u64, bytes: Bytes::Text(text) }
    }

    /// All of its bytes, from the first.
    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match &self.bytes {
            Bytes::Held(file) => Box::new(At { file, at: 0 }.take(self.size)),
            Bytes::Spooled { file, at } => Box::new(At { file, at: *at }.take(self.size)),
            Bytes::Text(text) => Box::new(&text[..]),
        }
    }
}

/// Reads on from a place of its own in the file.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A file without a name for what has to be copied.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    end: u64,
}

impl Spool {
    fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(nameless(dir)?), end: 0 })
    }

    pub(super) fn keep(&mut self, name: String, mut from: impl Read) -> io::Result<Part> {
        let size = io::copy(&mut from, &mut &*self.file)?;
        let at = self.end;
        self.end += size;
        Ok(Part { name, size, bytes: Bytes::Spooled { file: Arc::clone(&self.file), at } })
    }
}

/// A file in `dir` that is gone when it is closed.
pub(super) fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(file.into()),
        // Not every file system has such.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = scratch(dir);
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
            fs::remove_file(path)?;
            Ok(file.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// A name in `dir` that nobody has.
pub(super) fn scratch(dir: &Path) -> PathBuf {
    dir.join(format!(".hokku-backup-{}", uuid::Uuid::new_v4()))
}

/// What is to be captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) key: bool,
    pub(super) stacks: bool,
}

/// What was.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) contents: Contents,
    pub(super) parts: Vec<Part>,
    /// Sentences about what is not as it should be.
    pub(super) warnings: Vec<String>,
}

/// How often it is begun again when an app was destroyed in the middle of it.
const TRIES: usize = 3;

/// `dir` is where there is room for what has to be copied.
pub(super) fn capture(root: &Path, wanted: Wanted, dir: &Path) -> anyhow::Result<Captured> {
    let key_file = root.join(store::KEY_FILE);
    let database = root.join(store::FILE);
    let key =
        Key::read(&key_file)?.ok_or_else(|| StoreError::KeyMissing { key: key_file, database: database.clone() })?;
    let mut spool = Spool::new(dir).with_context(|| format!("can't write to {}", dir.display()))?;
    let mut tried = 0;
    loop {
        tried += 1;
        let mut slugs = BTreeMap::new();
        hold_slugs(root, &mut slugs)?;
        // Before the database: a repository must not be newer than it.
        let mut parts = repositories(root, &mut spool)?;
        let (contents, copied) = copy_database(&database, &key, dir)?;
        hold_slugs(root, &mut slugs)?;
        slugs.retain(|digest, _| contents.slugs.contains(digest));
        let lost: Vec<&String> =
            contents.serving.iter().filter(|(_, digest)| !slugs.contains_key(digest)).map(|(app, _)| app).collect();
        if !lost.is_empty() && tried < TRIES {
            continue;
        }
        let warnings = lost.iter().map(|app| format!("the slug of {app} is missing: deploy the app again")).collect();
        let known = |part: &Part| contents.apps.keys().any(|app| part.name.starts_with(&member::repository(*app)));
        parts.retain(known);
        let mut all = vec![copied];
        all.extend(secrets(root, &key, wanted.key)?);
        all.extend(parts);
        all.extend(sources(root, &contents)?);
        all.extend(slugs.into_iter().map(|(digest, (file, size))| Part::held(member::slug(&digest), file, size)));
        if wanted.stacks {
            all.extend(stacks(root, dir)?);
        }
        return Ok(Captured { contents, parts: all, warnings });
    }
}

/// Keeps every slug that is there from vanishing.
fn hold_slugs(root: &Path, held: &mut BTreeMap<Digest, (File, u64)>) -> anyhow::Result<()> {
    let dir = root.join("slugs");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("can't read {}", dir.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // Others are half-made.
        let Some(digest) = name.to_str().and_then(|name| name.strip_suffix(".tar.zst")?.parse::<Digest>().ok()) else {
            continue;
        };
        if held.contains_key(&digest) {
            continue;
        }
        match repository::open(&entry.path()) {
            Ok(found) => drop(held.insert(digest, found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("can't read {}", entry.path().display())),
        }
    }
    Ok(())
}

fn repositories(root: &Path, spool: &mut Spool) -> anyhow::Result<Vec<Part>> {
    let dir = root.join("repos");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("can't read {}", dir.display()))?,
    };
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        match repository::capture(&path, &format!("repos/{name}"), spool) {
            Ok(found) => parts.extend(found),
            // With its app.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {}
            Err(error) => return Err(error).with_context(|| format!("can't copy the repository {}", path.display())),
        }
    }
    Ok(parts)
}

fn copy_database(database: &Path, key: &Key, dir: &Path) -> anyhow::Result<(Contents, Part)> {
    let path = scratch(dir);
    let copied = || -> anyhow::Result<_> {
        store::copy::copy(database, &path)?;
        let contents = store::copy::examine(&path, key)?;
        let (file, size) = repository::open(&path)?;
        Ok((contents, Part::held(store::FILE.to_owned(), file, size)))
    };
    let copied = copied();
    // Held open from here on; there is none when it could not be made.
    let _ = fs::remove_file(&path);
    copied
}

/// The files of ROOT itself.
fn secrets(root: &Path, key: &Key, with_key: bool) -> anyhow::Result<Vec<Part>> {
    let read = |name: &str| match fs::read(root.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("can't read {}", root.join(name).display())),
    };
    let mut parts = Vec::new();
    for name in [member::CONFIG, member::AUTHORITY] {
        parts.extend(read(name)?.map(|text| Part::text(name.to_owned(), text)));
    }
    let authority = read(member::AUTHORITY_KEY)?;
    if with_key {
        parts.push(Part::text(store::KEY_FILE.to_owned(), key.bytes().to_vec()));
        parts.extend(authority.map(|text| Part::text(member::AUTHORITY_KEY.to_owned(), text)));
    } else if let Some(text) = authority {
        let sealed = key.seal(&text, super::AUTHORITY_CONTEXT)?;
        parts.push(Part::text(member::AUTHORITY_SEALED.to_owned(), sealed));
    }
    Ok(parts)
}

/// What apps were built from last.
fn sources(root: &Path, contents: &Contents) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for app in contents.apps.keys() {
        let name = member::source(*app);
        match repository::open(&root.join(&name)) {
            Ok((file, size)) => parts.push(Part::held(name, file, size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("can't read {}", root.join(&name).display())),
        }
    }
    Ok(parts)
}

/// The layers of `debian-13`, as `stack:export` has them; none where there are none.
fn stacks(root: &Path, dir: &Path) -> anyhow::Result<Option<Part>> {
    let debian = Debian::look(root)?;
    let layers: Vec<_> = debian.current().into_keys().collect();
    if layers.is_empty() {
        return Ok(None);
    }
    let file = nameless(dir)?;
    debian.export(&layers, io::BufWriter::new(&file)).context("can't copy the layers of debian-13; try again")?;
    let size = file.metadata()?.len();
    Ok(Some(Part::held(member::STACKS.to_owned(), file, size)))
}
