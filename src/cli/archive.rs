//! A directory as a source archive: tar, compressed with zstd, made in a thread while it is being sent.
#![forbid(unsafe_code)]

use bytes::Bytes;
use ignore::{DirEntry, WalkBuilder};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufRead as _, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// The zstd level: fast, and as small as gzip's best.
const LEVEL: i32 = 3;

/// Pieces of this size go over the wire.
const PIECE: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    #[error("{} can't be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the directory can't be walked")]
    Walk(#[source] ignore::Error),
    #[error("there is nothing to deploy in {}", .0.display())]
    Empty(PathBuf),
    /// The server took no more; what it said about it is the better reason.
    #[error("the server took no more")]
    Refused,
    #[error("the archive could not be made")]
    Write(#[source] io::Error),
}

/// What went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    /// `SHA256:…`
    pub(super) checksum: String,
}

/// Which files go along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignoring {
    /// Not what `.gitignore` and `.git/info/exclude` name.
    GitIgnored,
    /// All but `.git`.
    Nothing,
}

/// The directory that everything in an archive is below. The server takes one away where it is the only thing there, as
/// archives of other tools have it, and so would take away the only directory of the app.
const TOP: &str = "source";

type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// Where an archive comes from, looked at before anything is sent.
#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf, Ignoring),
    /// A finished archive.
    Stdin,
}

impl Source {
    /// `-` is stdin.
    ///
    /// # Errors
    /// When there is no such directory, or nothing at all in it or on stdin.
    pub(super) fn open(path: PathBuf, ignoring: Ignoring) -> Result<Self, ArchiveError> {
        if path == Path::new("-") {
            let first = io::stdin().lock().fill_buf().map(|bytes| !bytes.is_empty());
            return match first {
                Ok(true) => Ok(Self::Stdin),
                Ok(false) => Err(ArchiveError::Empty("the input".into())),
                Err(source) => Err(ArchiveError::Read { path: "stdin".into(), source }),
            };
        }
        match path.metadata() {
            Err(source) => return Err(ArchiveError::Read { path, source }),
            Ok(metadata) if !metadata.is_dir() => return Err(ArchiveError::NotDirectory(path)),
            Ok(_) => {}
        }
        // The directory itself is the first entry.
        match walk(&path, ignoring).nth(1) {
            Some(_) => Ok(Self::Directory(path, ignoring)),
            None => Err(ArchiveError::Empty(path)),
        }
    }

    /// Sends the archive. Blocks, so it needs a thread of its own.
    ///
    /// # Errors
    /// When something can't be read or the receiver is gone; the receiver then sees the body break off.
    pub(super) fn send(self, pieces: Pieces) -> Result<Sent, ArchiveError> {
        let mut sender = Sender::new(pieces);
        let sent = match self {
            Self::Directory(dir, ignoring) => pack(&dir, ignoring, &mut sender),
            Self::Stdin => copy(io::stdin().lock(), &mut sender),
        };
        sender.finish(sent)
    }
}

fn copy(mut from: impl Read, sender: &mut Sender) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sender.write_all(&buffer[..n]).map_err(ArchiveError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ArchiveError::Read { path: "stdin".into(), source }),
        }
    }
}

fn pack(dir: &Path, ignoring: Ignoring, sender: &mut Sender) -> Result<(), ArchiveError> {
    let zstd = zstd::Encoder::new(BufWriter::with_capacity(PIECE, sender), LEVEL).map_err(ArchiveError::Write)?;
    let mut tar = tar::Builder::new(zstd);
    tar.follow_symlinks(false);
    for entry in walk(dir, ignoring) {
        let entry = entry.map_err(ArchiveError::Walk)?;
        match entry.path().strip_prefix(dir) {
            Ok(name) if !name.as_os_str().is_empty() => append(&mut tar, &entry, &Path::new(TOP).join(name))?,
            _ => {}
        }
    }
    let zstd = tar.into_inner().map_err(ArchiveError::Write)?;
    let mut buffer = zstd.finish().map_err(ArchiveError::Write)?;
    buffer.flush().map_err(ArchiveError::Write)
}

fn walk(dir: &Path, ignoring: Ignoring) -> ignore::Walk {
    let honour = ignoring == Ignoring::GitIgnored;
    WalkBuilder::new(dir)
        .standard_filters(false)
        .git_ignore(honour)
        .git_exclude(honour)
        .parents(honour)
        .require_git(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build()
}

/// Sockets, pipes and devices have no place in an archive and are passed over.
fn append(tar: &mut tar::Builder<impl Write>, entry: &DirEntry, name: &Path) -> Result<(), ArchiveError> {
    let path = entry.path();
    match entry.file_type() {
        Some(kind) if kind.is_dir() => tar.append_dir(name, path).map_err(ArchiveError::Write),
        Some(kind) if kind.is_symlink() => tar.append_path_with_name(path, name).map_err(ArchiveError::Write),
        Some(kind) if kind.is_file() => {
            let opened = File::open(path).map_err(|source| ArchiveError::Read { path: path.to_owned(), source });
            tar.append_file(name, &mut opened?).map_err(ArchiveError::Write)
        }
        _ => Ok(()),
    }
}

/// Counts and hashes what goes over the wire.
struct Sender {
    pieces: Pieces,
    hash: Sha256,
    bytes: u64,
    gone: bool,
}

impl Sender {
    fn new(pieces: Pieces) -> Self {
        Self { pieces, hash: Sha256::new(), bytes: 0, gone: false }
    }

    /// The end of the body; a broken one must not look whole to the server.
    fn finish(self, result: Result<(), ArchiveError>) -> Result<Sent, ArchiveError> {
        match result {
            Ok(()) => Ok(Sent { bytes: self.bytes, checksum: format!("SHA256:{}", hex::encode(self.hash.finalize())) }),
            Err(_) if self.gone => Err(ArchiveError::Refused),
            Err(error) => {
                // Nobody to tell when the request is gone too.
                let _ = self.pieces.blocking_send(Err(io::Error::other("the archive could not be made")));
                Err(error)
            }
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        if self.pieces.blocking_send(Ok(Bytes::copy_from_slice(bytes))).is_err() {
            self.gone = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn packed(dir: &Path, ignoring: Ignoring) -> Result<(Sent, Vec<u8>), ArchiveError> {
        let (sender, mut receiver) = mpsc::channel(8);
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| Source::open(dir.to_owned(), ignoring)?.send(sender));
            let mut bytes = Vec::new();
            while let Some(Ok(piece)) = receiver.blocking_recv() {
                bytes.extend_from_slice(&piece);
            }
            drop(receiver);
            packing.join().unwrap().map(|sent| (sent, bytes))
        })
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, (u32, String)> {
        let mut tar = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
        let entry = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().strip_prefix(TOP).unwrap().display().to_string();
            let mode = entry.header().mode().unwrap();
            let link = entry.link_name().unwrap().map(|link| format!("-> {}", link.display()));
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name, (mode & 0o777, link.unwrap_or(text)))
        };
        tar.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn a_directory_goes_along_without_what_git_ignores() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".git/config", "secret");
        write(".gitignore", "*.log\n/dist/\n");
        write(".env.example", "A=1");
        write("bin/start", "#!/bin/sh\n");
        write("deep/x.log", "noise");
        write("dist/out", "made");
        write("node_modules/a/index.js", "kept: it is not ignored");
        fs::set_permissions(dir.path().join("bin/start"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("start", dir.path().join("bin/link")).unwrap();

        let (sent, bytes) = packed(dir.path(), Ignoring::GitIgnored).unwrap();
        let found = entries(&bytes);
        let files: Vec<_> = found.keys().filter(|name| !name.ends_with('/')).map(String::as_str).collect();
        assert_eq!(
            files,
            [".env.example", ".gitignore", "bin", "bin/link", "bin/start", "deep", "node_modules", "node_modules/a"]
                .into_iter()
                .chain(["node_modules/a/index.js"])
                .collect::<Vec<_>>()
        );
        assert_eq!(found["bin/link"].1, "-> start");
        assert_eq!(found["bin/start"].0, 0o755);
        assert_eq!(sent.bytes, bytes.len() as u64);
        assert_eq!(sent.checksum, format!("SHA256:{}", hex::encode(Sha256::digest(&bytes))));

        let (_, bytes) = packed(dir.path(), Ignoring::Nothing).unwrap();
        let found = entries(&bytes);
        assert!(found.contains_key("dist/out") && !found.contains_key(".git/config"));
    }

    #[test]
    fn what_can_not_be_packed_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(packed(dir.path(), Ignoring::GitIgnored), Err(ArchiveError::Empty(_))));
        let missing = dir.path().join("missing");
        assert!(matches!(packed(&missing, Ignoring::GitIgnored), Err(ArchiveError::Read { .. })));
        fs::write(&missing, "a file").unwrap();
        assert!(matches!(packed(&missing, Ignoring::GitIgnored), Err(ArchiveError::NotDirectory(_))));
    }
}
