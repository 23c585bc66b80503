//! An app's repository as it is at one moment, while git may be writing to it.
//!
//! Git only ever adds objects, gives refs another value by renaming a file, and puts objects together into packs, which
//! are there before what is in them goes away. So refs are read first, then loose objects, then packs, and all that the
//! refs lead to is among it. Files that are not complete have other names.
#![forbid(unsafe_code)]

use super::capture::{Part, Spool};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use walkdir::WalkDir;

/// How often a repository that git puts in order is looked at again, and after which time.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// What is in the repository at `dir`, for members below `name`. Nothing when there is none, or none yet.
///
/// # Errors
/// Files that can't be read, or a repository that does not stay as it is for long enough.
pub(super) fn capture(dir: &Path, name: &str, spool: &mut Spool) -> io::Result<Vec<Part>> {
    if !dir.join("HEAD").is_file() {
        return Ok(Vec::new());
    }
    let mut parts = again(|| refs(dir, name))?;
    loose(dir, name, spool, &mut parts)?;
    parts.extend(again(|| packs(dir, name))?);
    Ok(parts)
}

/// Until no file vanishes between being found and being opened.
fn again(look: impl Fn() -> io::Result<Vec<Part>>) -> io::Result<Vec<Part>> {
    let mut tried = 0;
    loop {
        match look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tried < TRIES => {
                tried += 1;
                sleep(PAUSE);
            }
            found => return found,
        }
    }
}

/// A plain file that nobody has put a link in the place of.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no plain file", path.display())));
    }
    Ok((file, found.len()))
}

fn text(dir: &Path, name: &str, path: &Path) -> io::Result<Part> {
    let (file, _) = open(path)?;
    let inside = path.strip_prefix(dir).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &file, &mut bytes)?;
    Ok(Part::text(format!("{name}/{}", utf8(inside)?), bytes))
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{} is no UTF-8", path.display())))
}

/// Those that are files of their own before those that were packed: a ref that is packed meanwhile is in both.
fn refs(dir: &Path, name: &str) -> io::Result<Vec<Part>> {
    let mut parts = vec![text(dir, name, &dir.join("HEAD"))?, text(dir, name, &dir.join("config"))?];
    for path in files(&dir.join("refs"))? {
        // Git's own mark of one that is being written.
        if path.extension().is_none_or(|end| end != "lock") {
            parts.push(text(dir, name, &path)?);
        }
    }
    let packed = dir.join("packed-refs");
    if packed.exists() {
        parts.push(text(dir, name, &packed)?);
    }
    Ok(parts)
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = WalkDir::new(dir).into_iter().collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?;
    Ok(entries.into_iter().filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect())
}

fn is_hex(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Objects that are files of their own. They are small and may be many, so they are not held open.
fn loose(dir: &Path, name: &str, spool: &mut Spool, parts: &mut Vec<Part>) -> io::Result<()> {
    let objects = dir.join("objects");
    for entry in fs::read_dir(&objects)? {
        let entry = entry?;
        let Ok(two) = entry.file_name().into_string() else { continue };
        if two.len() != 2 || !is_hex(&two) || !entry.file_type()?.is_dir() {
            continue;
        }
        // Those of an empty directory may have gone into a pack meanwhile, and the directory with them.
        let Ok(inside) = fs::read_dir(entry.path()) else { continue };
        for object in inside {
            let Ok(rest) = object?.file_name().into_string() else { continue };
            if !is_hex(&rest) {
                continue;
            }
            match open(&objects.join(&two).join(&rest)) {
                Ok((file, _)) => parts.push(spool.keep(format!("{name}/objects/{two}/{rest}"), file)?),
                // It is in a pack now, and those come last.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Those that are whole: a pack is told by its index, which comes after it.
fn packs(dir: &Path, name: &str) -> io::Result<Vec<Part>> {
    let place = dir.join("objects/pack");
    let before = pack_files(&place)?;
    let mut parts = Vec::new();
    for file in &before {
        let (held, size) = open(&place.join(file))?;
        parts.push(Part::held(format!("{name}/objects/pack/{file}"), held, size));
    }
    if pack_files(&place)? == before {
        return Ok(parts);
    }
    // One may have been made of others while they were listed.
    Err(io::ErrorKind::NotFound.into())
}

fn pack_files(place: &Path) -> io::Result<Vec<String>> {
    let names = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().into_string().ok())).collect::<io::Result<Vec<_>>>()?,
    };
    let all: Vec<String> = names.into_iter().flatten().filter(|name| name.starts_with("pack-")).collect();
    let has = |stem: &str, end: &str| all.iter().any(|name| name.strip_suffix(end) == Some(stem));
    let mut whole: Vec<String> = all
        .iter()
        .filter(|name| {
            let Some((stem, end)) = name.split_once('.') else { return false };
            ["pack", "idx", "rev", "mtimes"].contains(&end) && has(stem, ".pack") && has(stem, ".idx")
        })
        .cloned()
        .collect();
    whole.sort_unstable();
    Ok(whole)
}
