//! Writing a backup.
#![forbid(unsafe_code)]

use super::capture::{Captured, Part, Wanted, capture};
use super::output::Output;
use super::{FORMAT, HEAD, Head, MANIFEST, Manifest, Progress, Sum, count, is_stdio, megabytes, require_root, say};
use crate::sys::open_files;
use anyhow::{Context as _, bail};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const ZSTD_LEVEL: i32 = 3;

/// What `hokku backup` is asked for.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    pub root: PathBuf,
    /// `-` is stdout.
    pub file: PathBuf,
    pub with_key: bool,
    pub with_stacks: bool,
    /// A file that is there may be replaced.
    pub force: bool,
}

/// Writes the whole box to a file, which is there when it is whole. Servers and apps go on.
///
/// # Errors
/// Without root; when there is no box in ROOT, something of it can't be read or is damaged, or the file can't be made.
pub fn backup(options: &BackupOptions) -> anyhow::Result<()> {
    require_root()?;
    let BackupOptions { root, file, .. } = options;
    if !root.join(crate::store::FILE).is_file() {
        bail!("there is nothing to back up in {}: it has no database; say by --root where the box is", root.display());
    }
    let output = Output::new(file, options.force)?;
    // Each slug is held open.
    open_files::allow_most().context("can't raise the limit of open files")?;
    let wanted = Wanted { key: options.with_key, stacks: options.with_stacks };
    let captured = capture(root, wanted, &output.dir())?;
    for warning in &captured.warnings {
        say(format_args!("warning: {warning}"));
    }
    let total = captured.parts.iter().map(|part| part.size).sum();
    let apps = count(captured.contents.apps.len(), "app");
    say(format_args!("Backing up {apps}, {}", megabytes(total)));
    let output = write(output, &head(options, &captured), &captured.parts, total)
        .with_context(|| format!("can't write the backup to {}", place(file)))?;
    output.finish()?;
    if !options.with_key {
        say(format_args!(
            "The key is not in it: keep {} elsewhere, it can't be restored without",
            root.join("key").display()
        ));
    }
    if !is_stdio(file) {
        say(format_args!("Written: {}", file.display()));
    }
    Ok(())
}

fn place(file: &Path) -> String {
    if is_stdio(file) { "stdout".to_owned() } else { file.display().to_string() }
}

fn head(options: &BackupOptions, captured: &Captured) -> Head {
    Head {
        format: FORMAT,
        hokku: env!("CARGO_PKG_VERSION").to_owned(),
        schema: captured.contents.schema,
        made_at: Timestamp::now(),
        root: options.root.display().to_string(),
        architecture: std::env::consts::ARCH.to_owned(),
        with_key: options.with_key,
        with_stacks: options.with_stacks,
        apps: captured.contents.apps.values().cloned().collect(),
    }
}

fn write(output: Output, head: &Head, parts: &[Part], total: u64) -> io::Result<Output> {
    let mut encoder = zstd::Encoder::new(output, ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, encoder));
    let mut manifest = Manifest::default();
    let mut progress = Progress::new(total);
    append(&mut tar, HEAD, &json(head)?)?;
    for part in parts {
        let sum = append_part(&mut tar, part, &mut progress)?;
        manifest.members.insert(part.name.clone(), sum);
    }
    append(&mut tar, MANIFEST, &json(&manifest)?)?;
    let encoder = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    encoder.finish()
}

fn json(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(value)?)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, text: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(text.len() as u64), name, text)
}

fn append_part(tar: &mut tar::Builder<impl Write>, part: &Part, progress: &mut Progress) -> io::Result<Sum> {
    let mut bytes = Summed { inner: part.reader(), hash: Sha256::new(), size: 0, progress };
    tar.append_data(&mut header(part.size), &part.name, &mut bytes)?;
    if bytes.size != part.size {
        return Err(io::Error::other(format!("{} has {} bytes instead of {}", part.name, bytes.size, part.size)));
    }
    Ok(Sum { size: part.size, sha256: hex::encode(bytes.hash.finalize()) })
}

struct Summed<'a, R> {
    inner: R,
    hash: Sha256,
    size: u64,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.size += read as u64;
        self.progress.add(read as u64);
        Ok(read)
    }
}
