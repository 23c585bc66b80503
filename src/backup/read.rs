//! Reading a backup: every member in its order, and at the end the proof that it was all.
#![forbid(unsafe_code)]

use super::{FORMAT, HEAD, Head, MANIFEST, Manifest, Sum, is_stdio, member};
use crate::store;
use anyhow::{Context as _, anyhow, bail};
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// What every zstd frame begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes that `backup.json` and `manifest.json` may have.
const LONGEST: u64 = 256 << 20;

/// Opens what `file` names.
///
/// # Errors
/// When it can't be opened.
pub(super) fn open(file: &Path) -> anyhow::Result<Box<dyn Read>> {
    if is_stdio(file) {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(file).with_context(|| format!("can't read {}", file.display()))?))
}

/// Gives every member to `take`, which has to read it to its end, and checks that they are what the manifest says.
///
/// # Errors
/// When it is no backup, one of a newer hokku, or not whole; what `begin` and `take` return.
pub(super) fn read(
    input: impl Read,
    begin: impl FnOnce(&Head) -> anyhow::Result<()>,
    mut take: impl FnMut(&str, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<Head> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    if !input.fill_buf().context("can't read the backup")?.starts_with(&ZSTD) {
        return Err(foreign());
    }
    let failed = Rc::new(Cell::new(false));
    let decoder = Noted { inner: zstd::Decoder::with_buffer(input)?, failed: Rc::clone(&failed) };
    // What can't even be unpacked was a backup, for all that is known.
    let no_archive = |error: io::Error| if failed.get() { damaged(&error) } else { foreign() };
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, decoder));
    let mut entries = archive.entries().map_err(no_archive)?;
    let mut first = entries.next().ok_or_else(foreign)?.map_err(no_archive)?;
    if &*first.path_bytes() != HEAD.as_bytes() {
        return Err(foreign());
    }
    let head = head(&text(&mut first)?)?;
    begin(&head)?;
    let (mut found, mut manifest) = (Manifest::default(), None);
    for entry in entries {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| odd("a name that is no UTF-8"))?;
        if manifest.is_some() || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(odd(&name));
        }
        if name == MANIFEST {
            let read: Manifest = serde_json::from_slice(&text(&mut entry)?).map_err(|_| odd(MANIFEST))?;
            manifest = Some(read);
            continue;
        }
        if !member::is_known(&name) || found.members.contains_key(&name) {
            return Err(odd(&name));
        }
        let mut bytes = Summed { inner: entry, hash: Sha256::new(), size: 0, failed: None };
        let taken = take(&name, &mut bytes);
        if let Some(error) = bytes.failed {
            return Err(damaged(&error));
        }
        taken?;
        found.members.insert(name, Sum { size: bytes.size, sha256: hex::encode(bytes.hash.finalize()) });
    }
    // The rest of the stream has the checksum of all of it.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| damaged(&error))?;
    compare(&manifest.ok_or_else(|| anyhow!("the backup is incomplete: its end is missing"))?, &found)?;
    Ok(head)
}

fn compare(said: &Manifest, found: &Manifest) -> anyhow::Result<()> {
    for (name, sum) in &said.members {
        match found.members.get(name) {
            Some(there) if there == sum => {}
            Some(_) => bail!("the backup is damaged: {name} is not what was backed up"),
            None => bail!("the backup is damaged: {name} is missing"),
        }
    }
    match found.members.keys().find(|name| !said.members.contains_key(*name)) {
        Some(name) => Err(odd(name)),
        None => Ok(()),
    }
}

fn head(text: &[u8]) -> anyhow::Result<Head> {
    let parsed: serde_json::Value = serde_json::from_slice(text).map_err(|_| foreign())?;
    let hokku = parsed["hokku"].as_str().unwrap_or("?");
    let number = |key: &str| parsed[key].as_u64().ok_or_else(foreign);
    if number("format")? > u64::from(FORMAT) || number("schema")? > u64::from(store::copy::schema()) {
        bail!(
            "the backup was made by a newer hokku ({hokku}) than this one ({}): restore it with that version",
            env!("CARGO_PKG_VERSION")
        );
    }
    serde_json::from_value(parsed).map_err(|_| foreign())
}

fn text(entry: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    entry.take(LONGEST).read_to_end(&mut text).map_err(|error| damaged(&error))?;
    Ok(text)
}

fn foreign() -> anyhow::Error {
    anyhow!("that is no backup of hokku")
}

fn damaged(error: &io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return anyhow!("the backup is incomplete: its end is missing");
    }
    anyhow!("the backup is damaged: {error}")
}

fn odd(name: &str) -> anyhow::Error {
    anyhow!("the backup is damaged: {name:?} does not belong into it")
}

/// Notes that it was not the archive inside that was wrong.
struct Noted<R> {
    inner: R,
    failed: Rc<Cell<bool>>,
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.failed.set(self.failed.get() || read.is_err());
        read
    }
}

struct Summed<R> {
    inner: R,
    hash: Sha256,
    size: u64,
    /// That it was the backup, not the disk that it goes to.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.hash.update(&buffer[..read]);
                self.size += read as u64;
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}
