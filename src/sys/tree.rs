//! Trees that strangers have filled: removed and measured whatever their shape.
//!
//! `std::fs::remove_dir_all` calls itself and holds a descriptor for each level, so a hundred thousand directories one
//! in the other end the process. Here nothing calls itself, at most [`HELD`] or [`Bounds::depth`] directories are open,
//! every name is looked up in an open directory (no path is too long), and no link or mount is gone through.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Directories that a removal has open at a time. What lies deeper is moved up to the tree's top before its turn comes.
const HELD: usize = 64;

/// What a tree may have at most to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Directories one in the other; as many are open while it is measured.
    pub depth: usize,
    /// Bytes of a path, from the tree's top.
    pub path: usize,
}

/// What a tree has too much of, or why it can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unmeasured {
    #[error("directories nested deeper than {0}")]
    Deep(usize),
    #[error("paths of more than {0} bytes")]
    Long(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An open directory and its name in the one above.
struct Level {
    dir: Dir,
    name: CString,
    /// Something of it was taken away since it was read from its beginning.
    changed: bool,
}

impl Level {
    fn open(above: impl AsFd, name: &CStr) -> io::Result<Self> {
        let dir = open(above.as_fd(), name)?;
        Ok(Self { dir: Dir::new(dir)?, name: name.to_owned(), changed: false })
    }

    fn next(&mut self) -> io::Result<Option<(CString, FileType)>> {
        loop {
            match self.dir.read() {
                None => return Ok(None),
                Some(entry) => {
                    let entry = entry?;
                    if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                        continue;
                    }
                    let name = entry.file_name().to_owned();
                    let kind = match entry.file_type() {
                        FileType::Unknown => match statat(self.dir.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) {
                            Ok(found) => FileType::from_raw_mode(found.st_mode),
                            Err(Errno::NOENT) => continue,
                            Err(error) => return Err(error.into()),
                        },
                        known => known,
                    };
                    return Ok(Some((name, kind)));
                }
            }
        }
    }
}

/// Removes what is at `path` and everything in it, as `rm -r` does, however deep, and though directories in it can't be
/// entered as they are. Something mounted in it is left alone.
///
/// # Errors
/// `openat2(2)`, `unlinkat(2)`: `NotFound` when there is nothing; `ENOTEMPTY` when somebody goes on filling it.
pub fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = CString::new(name.as_bytes())?;
    let above = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let above = rustix::fs::open(above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Ok(unlinkat(&above, &name, AtFlags::empty())?);
    }
    let top = Level::open(&above, &name)?;
    Removal { above, levels: vec![top], moved: 0 }.run()
}

struct Removal {
    above: OwnedFd,
    /// The tree's top and what is open below it.
    levels: Vec<Level>,
    /// For the names of what was moved up.
    moved: u64,
}

impl Removal {
    fn run(mut self) -> io::Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.next()? {
                Some((name, FileType::Directory)) => self.directory(&name)?,
                Some((name, _)) => {
                    gone(unlinkat(level.dir.fd()?, &name, AtFlags::empty()))?;
                    level.changed = true;
                }
                None => self.close()?,
            }
        }
        Ok(())
    }

    /// Goes into a directory of the lowest level, or puts it off when that is low enough.
    fn directory(&mut self, name: &CStr) -> io::Result<()> {
        if self.levels.len() < HELD {
            return self.enter(name);
        }
        let [top, .., lowest] = &mut self.levels[..] else { return self.enter(name) };
        lowest.changed = true;
        // Opened because an ordinary user may move only what they may change.
        let _ = open(lowest.dir.fd()?, name);
        loop {
            let aside = format!("moved-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat(lowest.dir.fd()?, name, top.dir.fd()?, &*aside) {
                Ok(()) | Err(Errno::NOENT) => {
                    top.changed = true;
                    return Ok(());
                }
                // There is something of that name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn enter(&mut self, name: &CStr) -> io::Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        level.changed = true;
        match Level::open(level.dir.fd()?, name) {
            Ok(below) => self.levels.push(below),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes the lowest level, which was read to its end.
    fn close(&mut self) -> io::Result<()> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        let above = match self.levels.last() {
            Some(above) => above.dir.fd()?,
            None => self.above.as_fd(),
        };
        match gone(unlinkat(above, &level.name, AtFlags::REMOVEDIR)) {
            // Things were moved here since, or added by somebody, or left out as directories are when they change.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && level.changed => {
                level.changed = false;
                level.dir.rewind();
                self.levels.push(level);
                Ok(())
            }
            other => other,
        }
    }
}

fn gone(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Opens a directory to list it and to change what is in it, for which an ordinary user may first have to be allowed.
fn open(above: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let through = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |how| rustix::fs::openat2(above, name, flags | how, Mode::empty(), through);
    let all = Mode::RWXU;
    let dir = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            let named = open(OFlags::PATH)?;
            let link = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&named)));
            rustix::fs::chmod(&link, all)?;
            open(OFlags::RDONLY)?
        }
        other => other?,
    };
    if !Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode).contains(all) {
        // The system's administrator needs no right; whoever does and can't have it hears so at the next step.
        let _ = rustix::fs::fchmod(&dir, all);
    }
    Ok(dir)
}

/// Bytes of the files in a tree.
///
/// # Errors
/// When it is beyond the bounds or can't be read.
pub fn size(tree: &Path, bounds: Bounds) -> Result<u64, Unmeasured> {
    let open = |above: BorrowedFd<'_>, name: &OsStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(above, name, flags, Mode::empty()).and_then(Dir::new)
    };
    let mut bytes = 0;
    // With the length of each directory's own path.
    let mut levels = vec![(open(CWD, tree.as_os_str()).map_err(io::Error::from)?, 0)];
    loop {
        let depth = levels.len();
        let Some((dir, length)) = levels.last_mut() else { return Ok(bytes) };
        let Some(entry) = dir.read() else {
            levels.pop();
            continue;
        };
        let entry = entry.map_err(io::Error::from)?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let path = *length + entry.file_name().count_bytes() + 1;
        if path > bounds.path {
            return Err(Unmeasured::Long(bounds.path));
        }
        let above = dir.fd().map_err(io::Error::from)?;
        let found = statat(above, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth > bounds.depth => return Err(Unmeasured::Deep(bounds.depth)),
            FileType::Directory => {
                let below = open(above, OsStr::from_bytes(entry.file_name().to_bytes())).map_err(io::Error::from)?;
                levels.push((below, path));
            }
            FileType::RegularFile => bytes += u64::try_from(found.st_size).unwrap_or(0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Directories one in the other, below `top`.
    fn dig(top: &Path, depth: usize) {
        let mut here = OwnedFd::from(fs::File::open(top).unwrap());
        for _ in 0..depth {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_is_removed_with_a_small_stack() {
        // In memory: a disk that others use needs minutes for so many.
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let top = place.path().join("top");
        fs::create_dir(&top).unwrap();
        dig(&top, 100_000);
        // Names that the removal would take for itself.
        fs::create_dir(top.join("moved-0")).unwrap();
        fs::write(top.join("moved-0/file"), "").unwrap();
        fs::write(top.join("moved-1"), "").unwrap();
        let removing = std::thread::Builder::new().stack_size(128 << 10).spawn({
            let top = top.clone();
            move || remove(&top)
        });
        removing.unwrap().join().unwrap().unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_are_removed_and_never_followed_and_modes_are_no_obstacle() {
        let place = tempfile::tempdir().unwrap();
        let (top, outside) = (place.path().join("top"), place.path().join("outside"));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        fs::write(top.join("a/b/file"), "").unwrap();
        symlink(&outside, top.join("a/link")).unwrap();
        symlink(outside.join("kept"), top.join("a/b/link")).unwrap();
        for dir in ["a/b", "a"] {
            fs::set_permissions(top.join(dir), fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove(&top).unwrap();
        symlink(&outside, &top).unwrap();
        remove(&top).unwrap();
        fs::write(&top, "").unwrap();
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
    }

    #[test]
    fn a_wide_tree_below_the_deepest_open_directory_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        let deep = top.join("d/".repeat(HELD - 2));
        for name in 0..300 {
            fs::create_dir_all(deep.join(format!("{name}/a/b"))).unwrap();
            fs::write(deep.join(format!("{name}/a/file")), "").unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_is_measured_within_its_bounds() {
        let place = tempfile::tempdir().unwrap();
        let bounds = Bounds { depth: 20, path: 100 };
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        fs::write(place.path().join("a/b/five"), "12345").unwrap();
        fs::write(place.path().join("three"), "123").unwrap();
        symlink("/etc/passwd", place.path().join("link")).unwrap();
        assert_eq!(size(place.path(), bounds).unwrap(), 8);
        fs::create_dir_all(place.path().join("long").join("n".repeat(40)).join("m".repeat(50))).unwrap();
        assert_eq!(size(place.path(), bounds).unwrap(), 8);
        fs::write(place.path().join("long").join("n".repeat(40)).join("m".repeat(50)).join("file"), "").unwrap();
        assert!(matches!(size(place.path(), bounds), Err(Unmeasured::Long(100))));
        fs::remove_dir_all(place.path().join("long")).unwrap();
        dig(place.path(), 20);
        assert_eq!(size(place.path(), bounds).unwrap(), 8);
        fs::create_dir(place.path().join("d/".repeat(20)).join("e")).unwrap();
        assert!(matches!(size(place.path(), bounds), Err(Unmeasured::Deep(20))));
    }
}
