//! Project quota: bounds what a directory tree holds, by an id that all its files carry.
//!
//! ext4 made with `-O quota,project` or xfs, mounted with `prjquota`. A directory is given to a project while it is
//! empty; what is made below it inherits the id, nothing can be moved or linked into it from other projects, and `df` in
//! there shows the project's limits. Processes with `CAP_SYS_RESOURCE` are not held up by a limit, so nobody who is to be
//! bounded may have it. ext4 answers EDQUOT where a limit is reached, xfs ENOSPC.
//!
//! Sources: quotactl(2), `ioctl_fsgetxattr(2)`, Linux's `uapi/linux/{quota,dqblk_xfs,fs}.h`.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What a project may hold at most, or holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// On the disk. Limits are kept in whole units of 1024, rounded up.
    pub bytes: u64,
    /// Files, directories, links and the rest.
    pub inodes: u64,
}

/// Whether the file system that `dir` is on refuses what is above a project's limit.
///
/// # Errors
/// `quotactl_fd(2)`, but for those that mean that it does not.
pub fn is_enforced(dir: impl AsFd) -> io::Result<bool> {
    let mut state = State { version: STATE_VERSION, ..State::default() };
    match control(dir.as_fd(), GET_STATE, 0, &raw mut state) {
        Ok(()) => Ok(state.flags & PROJECT_LIMITS_ENFORCED != 0),
        Err(error) => match error.raw_os_error() {
            // No quota on this file system, in this kernel, or before Linux 5.14.
            Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL | libc::ESRCH | libc::ENOTTY) => Ok(false),
            _ => Err(error),
        },
    }
}

/// Gives the empty directory `dir` to the project `id`, with all that will be made below it.
///
/// # Errors
/// `ioctl_fssetxattr(2)`: EOPNOTSUPP or ENOTTY where the file system knows no projects.
pub fn assign(dir: impl AsFd, id: NonZeroU32) -> io::Result<()> {
    let fd = dir.as_fd().as_raw_fd();
    let mut attributes = MaybeUninit::<Attributes>::zeroed();
    // SAFETY: the structure has the layout that the ioctl's number tells the kernel, and lives across the call.
    unsafe { get_attributes(fd, attributes.as_mut_ptr()) }?;
    // SAFETY: every pattern of bits, all zeroes among them, is a value of this structure of numbers.
    let mut attributes = unsafe { attributes.assume_init() };
    attributes.project = id.get();
    attributes.flags |= INHERIT_PROJECT;
    // SAFETY: as above.
    unsafe { set_attributes(fd, &raw const attributes) }?;
    Ok(())
}

/// Bounds the project `id` on the file system that `dir` is on. Zeroes lift a bound.
///
/// # Errors
/// `quotactl_fd(2)`: ESRCH when quota is off.
pub fn limit(dir: impl AsFd, id: NonZeroU32, most: Amount) -> io::Result<()> {
    // SAFETY: every pattern of bits, all zeroes among them, is a value of this structure of numbers.
    let mut wanted: libc::dqblk = unsafe { std::mem::zeroed() };
    wanted.dqb_bhardlimit = most.bytes.div_ceil(UNIT);
    wanted.dqb_ihardlimit = most.inodes;
    wanted.dqb_valid = libc::QIF_LIMITS;
    control(dir.as_fd(), command(libc::Q_SETQUOTA.cast_unsigned()), id.get(), &raw mut wanted)
}

/// What the project `id` holds on the file system that `dir` is on.
///
/// # Errors
/// `quotactl_fd(2)`: ESRCH when quota is off.
pub fn usage(dir: impl AsFd, id: NonZeroU32) -> io::Result<Amount> {
    // SAFETY: every pattern of bits, all zeroes among them, is a value of this structure of numbers.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    control(dir.as_fd(), command(libc::Q_GETQUOTA.cast_unsigned()), id.get(), &raw mut found)?;
    Ok(Amount { bytes: found.dqb_curspace, inodes: found.dqb_curinodes })
}

/// What block limits are counted in (`QIF_DQBLKSIZE`).
const UNIT: u64 = 1024;
const PROJECT_QUOTA: u32 = 2;

/// `QCMD(operation, PRJQUOTA)`
const fn command(operation: u32) -> u32 {
    (operation << 8) | PROJECT_QUOTA
}

fn control<T>(dir: BorrowedFd<'_>, command: u32, id: u32, argument: *mut T) -> io::Result<()> {
    // SAFETY: callers pass the structure that the command is about, which lives across the call.
    let done = unsafe { libc::syscall(libc::SYS_quotactl_fd, dir.as_raw_fd(), command, id, argument) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `Q_XGETQSTATV`, which every file system answers by the same kernel code.
const GET_STATE: u32 = command((b'X' as u32) << 8 | 8);
const STATE_VERSION: i8 = 1;
/// `FS_QUOTA_PDQ_ENFD`
const PROJECT_LIMITS_ENFORCED: u16 = 1 << 5;

/// `struct fs_quota_statv`
#[repr(C)]
#[derive(Default)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    in_core: u32,
    files: [[u64; 3]; 3],
    time_limits: [i32; 3],
    warnings: [u16; 4],
    more_pad: u32,
    reserved: [u64; 7],
}

const _: () = assert!(size_of::<State>() == 160 && size_of::<Attributes>() == 28);

/// `struct fsxattr`
#[repr(C)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// `FS_XFLAG_PROJINHERIT`
const INHERIT_PROJECT: u32 = 0x200;

nix::ioctl_read!(get_attributes, b'X', 31, Attributes);
nix::ioctl_write_ptr!(set_attributes, b'X', 32, Attributes);

#[cfg(test)]
mod tests {
    #![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tempfile::TempDir;

    const MIB: u64 = 1 << 20;
    const SMALL: Amount = Amount { bytes: 4 * MIB, inodes: 20 };
    /// Who has no right to go beyond a limit.
    const SOMEBODY: u32 = 12_345;

    /// A directory of a project of its own; without a limit when dropped.
    struct Project {
        dir: File,
        path: PathBuf,
        id: NonZeroU32,
        _place: TempDir,
    }

    impl Project {
        /// `None`, with the reason printed, where the temporary directory has no quota. `HOKKU_QUOTA=1` says that it has.
        fn new() -> Option<Self> {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let place = tempfile::tempdir().unwrap();
            fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let path = place.path().join("project");
            fs::create_dir(&path).unwrap();
            let dir = File::open(&path).unwrap();
            if !is_enforced(&dir).unwrap() {
                assert!(std::env::var_os("HOKKU_QUOTA").is_none(), "no project quota in {}", path.display());
                println!("skipped: {} is on a file system without project quota", path.display());
                return None;
            }
            let id = 0x2000_0000 + std::process::id() * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
            let id = NonZeroU32::new(id).unwrap();
            assign(&dir, id).unwrap();
            limit(&dir, id, SMALL).unwrap();
            chown(&path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
            Some(Self { dir, path, id, _place: place })
        }

        fn usage(&self) -> Amount {
            usage(&self.dir, self.id).unwrap()
        }

        /// Runs a shell command in it as somebody.
        fn shell(&self, script: &str) -> Output {
            shell(&self.path, SOMEBODY, script)
        }
    }

    impl Drop for Project {
        fn drop(&mut self) {
            limit(&self.dir, self.id, Amount::default()).unwrap();
        }
    }

    fn shell(dir: &Path, user: u32, script: &str) -> Output {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).current_dir(dir).uid(user).gid(user).output().unwrap()
    }

    fn refused(output: &Output) -> bool {
        let said = String::from_utf8_lossy(&output.stderr);
        !output.status.success() && ["quota exceeded", "No space left"].iter().any(|error| said.contains(error))
    }

    #[test]
    fn a_file_system_without_quota_is_told_apart() {
        assert!(!is_enforced(File::open("/proc").unwrap()).unwrap());
        assert!(!is_enforced(File::open("/dev/shm").unwrap()).unwrap());
        assign(File::open("/proc/self").unwrap(), NonZeroU32::MIN).unwrap_err();
    }

    #[test]
    fn bytes_are_bounded_and_counted() {
        let Some(project) = Project::new() else { return };
        assert!(project.shell("head -c 3145728 /dev/zero >fits").status.success());
        let output = project.shell("mkdir below; head -c 3145728 /dev/zero >below/more");
        assert!(refused(&output), "{output:?}");
        let held = project.usage();
        assert!((3 * MIB..=SMALL.bytes).contains(&held.bytes), "{held:?}");
        fs::remove_file(project.path.join("fits")).unwrap();
        assert!(project.usage().bytes < 2 * MIB);
    }

    #[test]
    fn inodes_are_bounded_and_counted() {
        let Some(project) = Project::new() else { return };
        let output = project.shell("for i in $(seq 40); do : >$i || exit 1; done");
        assert!(refused(&output), "{output:?}");
        // The directory itself is one.
        assert_eq!(project.usage().inodes, SMALL.inodes);
        assert_eq!(fs::read_dir(&project.path).unwrap().count(), 19);
    }

    #[test]
    fn a_limit_can_be_raised_and_lifted() {
        let Some(project) = Project::new() else { return };
        let big = "head -c 6291456 /dev/zero >big";
        assert!(refused(&project.shell(big)));
        limit(&project.dir, project.id, Amount { bytes: 8 * MIB, ..SMALL }).unwrap();
        assert!(project.shell(big).status.success());
        limit(&project.dir, project.id, Amount::default()).unwrap();
        assert!(project.shell("for i in 1 2 3; do head -c 4194304 /dev/zero >$i; done").status.success());
    }

    #[test]
    fn its_user_can_not_leave_the_project_and_sees_its_limits() {
        let Some(project) = Project::new() else { return };
        assert!(project.shell("mkdir mine").status.success());
        let mine = File::open(project.path.join("mine")).unwrap();
        assert_eq!(project_of(&mine), (project.id.get(), true));
        let shown = project.shell("df --output=size -B 1 . | tail -n 1");
        assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), SMALL.bytes.to_string());
        // What is outside has no project, and is not taken in.
        let outside = project.path.with_file_name("outside");
        fs::write(&outside, "").unwrap();
        let linked = fs::hard_link(&outside, project.path.join("linked")).unwrap_err();
        assert_eq!(linked.raw_os_error(), Some(libc::EXDEV));
    }

    fn project_of(file: &File) -> (u32, bool) {
        let mut attributes = MaybeUninit::<Attributes>::zeroed();
        // SAFETY: as in `assign`.
        unsafe { get_attributes(file.as_raw_fd(), attributes.as_mut_ptr()) }.unwrap();
        // SAFETY: as in `assign`.
        let attributes = unsafe { attributes.assume_init() };
        (attributes.project, attributes.flags & INHERIT_PROJECT != 0)
    }

    /// As a dyno's root is made: by somebody who could go beyond limits, for others.
    #[test]
    fn the_writable_layer_of_an_overlay_is_bounded_also_for_root() {
        let Some(project) = Project::new() else { return };
        let script = "mkdir ../lower upper work root && head -c 6291456 /dev/zero >../lower/big &&
             mount -t overlay none -o volatile,lowerdir=../lower,upperdir=upper,workdir=work root && cd root &&
             df --output=size -B 1 . | tail -n 1 && mkdir new && mv new moved && : >>big";
        let mut sh = Command::new("unshare");
        let output = sh.args(["-m", "sh", "-c", script]).current_dir(&project.path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), SMALL.bytes.to_string(), "{output:?}");
        assert!(refused(&output), "copied up: {output:?}");
        assert!(project.usage().bytes <= SMALL.bytes);
    }
}
