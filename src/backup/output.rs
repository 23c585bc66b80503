//! Where a backup goes: stdout, or a file that has its name only when it is whole.
#![forbid(unsafe_code)]

use super::capture::scratch;
use anyhow::{Context as _, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) enum Output {
    Stdout(io::Stdout),
    File(NewFile),
}

/// A file that is not there yet.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    /// Where the file system knows no files without a name; removed when it is dropped before its end.
    named: Option<PathBuf>,
    path: PathBuf,
    dir: PathBuf,
    force: bool,
}

impl Output {
    /// # Errors
    /// When the file is there already and `force` does not allow to replace it, or it can't be made.
    pub(super) fn new(path: &Path, force: bool) -> anyhow::Result<Self> {
        if super::is_stdio(path) {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                bail!("a backup is not for the terminal: send it to a file or through a pipe");
            }
            return Ok(Self::Stdout(stdout));
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => bail!("{} is a directory; give the backup a file's name", path.display()),
            Ok(_) if !force => return Err(taken(path)),
            _ => {}
        }
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let cant = || format!("can't write to {}", dir.display());
        let mode = Mode::from_raw_mode(0o600);
        let (file, named) = match rustix::fs::open(&dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let name = scratch(&dir);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                (rustix::fs::open(&name, flags, mode).with_context(cant)?, Some(name))
            }
            Err(error) => return Err(error).with_context(cant),
        };
        Ok(Self::File(NewFile { file: file.into(), named, path: path.to_owned(), dir, force }))
    }

    /// A directory with room for what has to be copied on the way.
    pub(super) fn dir(&self) -> PathBuf {
        match self {
            Self::Stdout(_) => std::env::temp_dir(),
            Self::File(file) => file.dir.clone(),
        }
    }

    /// The backup is whole.
    ///
    /// # Errors
    /// When it can't be put on the disk or into its place.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut stdout) => Ok(stdout.flush()?),
            Self::File(file) => file.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

impl NewFile {
    fn finish(mut self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("can't write {}", self.path.display()))?;
        let name = match self.named.take() {
            Some(name) => name,
            None => self.name()?,
        };
        let flags = if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let renamed = renameat_with(CWD, &name, CWD, &self.path, flags);
        if renamed.is_err() {
            let _ = fs::remove_file(&name);
        }
        match renamed {
            Err(Errno::EXIST) => return Err(taken(&self.path)),
            renamed => renamed.with_context(|| format!("can't make {}", self.path.display()))?,
        }
        Ok(File::open(&self.dir)?.sync_all()?)
    }

    /// A link can't replace a file, so there is a name of its own first.
    fn name(&self) -> anyhow::Result<PathBuf> {
        let name = scratch(&self.dir);
        let file = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        linkat(CWD, file, CWD, &name, AtFlags::SYMLINK_FOLLOW)
            .with_context(|| format!("can't make {}", self.path.display()))?;
        Ok(name)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            let _ = fs::remove_file(name);
        }
    }
}

fn taken(path: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is there already; choose another name, or replace it with --force", path.display())
}
