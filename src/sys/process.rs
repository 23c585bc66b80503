//! Processes: fork, clone3 with a pidfd, reaping, and what a process does to itself before it becomes another program.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::convert::Infallible;
use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Proof that this process has one thread. After a fork the child of a process with several may only make
/// async-signal-safe calls, because a lock can be held by a thread that does not exist there; a child of a process
/// with one may do anything. Whoever claims it must not start threads afterwards.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// # Errors
    /// When there are other threads, or `/proc` cannot be read.
    pub fn claim() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            n => Err(io::Error::other(format!("this process has {n} threads, forking needs one"))),
        }
    }
}

/// A child and the descriptor that names it: unlike its number it can never come to mean another process.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Where a process is after it was doubled.
#[derive(Debug)]
pub enum Fork {
    Parent(Child),
    Child,
}

/// `CLONE_INTO_CGROUP` of linux/sched.h, which does not fit into libc's type for it.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Doubles this process (`fork(2)` with a pidfd).
///
/// # Errors
/// `clone3(2)`.
pub fn fork(single: &SingleThreaded) -> io::Result<Fork> {
    clone3(single, 0, None)
}

/// Doubles this process with the namespaces in `flags` (`CLONE_NEW*`), the child directly in the given v2 cgroup.
///
/// # Errors
/// `clone3(2)`: EPERM or ENOSPC when a namespace is not to be had.
pub fn clone3(_single: &SingleThreaded, flags: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: i32 = -1;
    let mut flags = u64::from(flags.cast_unsigned()) | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    if cgroup.is_some() {
        flags |= INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd().cast_unsigned().into()),
    };
    // SAFETY: the arguments live across the call and name no stack and share no memory, so that this is a fork; the
    // token proves there is no other thread whose locks the child could miss.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD in the parent, so it put a fresh descriptor there.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent(Child { pid: i32::try_from(pid).map_err(io::Error::other)?, pidfd }))
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signalled(i32),
}

/// Where this process's arguments and environment are kept: what `ps` shows of it, and of the children it forks.
#[derive(Clone, Copy, Debug)]
pub struct Title {
    start: usize,
    length: usize,
}

impl Title {
    /// Takes the room of arguments and environment, which nothing in this process may read any more.
    ///
    /// # Errors
    /// When `/proc` can't be read, or is not as proc(5) says.
    pub fn claim(_single: &SingleThreaded) -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/stat")?;
        // Fields 48 to 51 of proc_pid_stat(5): arg_start, arg_end, env_start, env_end; the third follows the name.
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = after_name.split_whitespace().skip(48 - 3).map(|field| field.parse().unwrap_or(0));
        let [start, arguments_end, environment, end] = std::array::from_fn(|_| fields.next().unwrap_or(0));
        if start == 0 || arguments_end != environment || end <= start {
            return Err(io::Error::other("arguments and environment are not where they are expected"));
        }
        // SAFETY: there is one thread, so nobody reads the environment meanwhile.
        unsafe { libc::clearenv() };
        Ok(Self { start, length: end - start })
    }

    /// Shows `text` from now on, cut to the room there is.
    pub fn set(self, text: &str) {
        let mut bytes = vec![0; self.length];
        let length = text.len().min(self.length - 1);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        // SAFETY: the kernel put arguments and environment there, writable and without a gap; who claimed them
        // promised that nothing refers to them, and a forked child has the same at the same place.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start as *mut u8, bytes.len()) };
    }
}

/// Waits for a child that is named by its pidfd.
///
/// # Errors
/// `waitid(2)`.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Exited(code),
                    (None, signal) => Ended::Signalled(signal.unwrap_or(libc::SIGKILL)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal to the process that the pidfd names; one that has ended already is fine.
///
/// # Errors
/// `pidfd_send_signal(2)`.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: only a number with a meaning to the kernel; it refuses those that it does not know.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends this process at once: no destructors, no buffers flushed.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(status) }
}

/// The rest of a process's life with the standard streams and these descriptors: closes all others, does `work`, and
/// exits with what it returns.
pub fn with_only(keep: &[BorrowedFd<'_>], work: impl FnOnce() -> i32) -> ! {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    kept.push(u32::MAX);
    let mut first = 3;
    for fd in kept {
        if first < fd {
            // SAFETY: this function never returns, so no owner of a closed descriptor is ever used or dropped after
            // this, but for what `work` has; and what that has to use was named.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = first.max(fd.saturating_add(1));
    }
    exit_now(work())
}

/// Sends a signal to the process group that this child leads; one that has ended already is fine. The child must not have
/// been waited for: until then its number is its own.
///
/// # Errors
/// `kill(2)`.
pub fn signal_group(leader: &Child, signal: i32) -> io::Result<()> {
    // SAFETY: numbers, which the kernel checks.
    match unsafe { libc::kill(-leader.pid, signal) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// The rest of pid 1's life: closes every descriptor, then reaps whatever ends until `main` does; tells how that ended
/// and exits with its status (128 + n for a signal). The kernel then ends all that is left in the namespace.
pub fn reap_until(main: i32, report: impl FnOnce(Ended)) -> ! {
    // SAFETY: this function never returns, so no owner of a descriptor is ever used or dropped after this.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    let main = Pid::from_raw(main);
    loop {
        let Ok(status) = rustix::process::wait(rustix::process::WaitOptions::empty()) else { continue };
        let Some((pid, status)) = status else { continue };
        if Some(pid) != main {
            continue;
        }
        let ended = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, Some(signal)) => Ended::Signalled(signal),
            (None, None) => continue,
        };
        report(ended);
        exit_now(match ended {
            Ended::Exited(code) => code,
            Ended::Signalled(signal) => 128 + signal,
        });
    }
}

/// Lets this process be killed when its parent ends. To be set after the last change of ids, which clears it, and
/// followed by a look whether the parent is still there.
///
/// # Errors
/// `prctl(2)`.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Undoes [`die_with_parent`].
///
/// # Errors
/// `prctl(2)`.
pub fn outlive_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(None)?)
}

/// Starts a child that shares this process's memory, which waits until the child has become another program or ended
/// (`vfork(2)`): no page is copied, neither now nor when one of them writes. Returns the child's number.
///
/// It is made by the older call, `clone(2)`: the one that a system call filter can look into, and therefore allow.
///
/// # Errors
/// `clone(2)`, or `mmap(2)` for the child's stack.
pub fn spawn_sharing<F: FnOnce() -> Infallible>(_single: &SingleThreaded, child: F) -> io::Result<i32> {
    extern "C" fn enter<F: FnOnce() -> Infallible>(child: *mut c_void) -> c_int {
        // SAFETY: points to the closure below, in the frame of a process that waits; nobody else takes it out.
        let child = unsafe { (*child.cast::<Option<F>>()).take() };
        match child.map(|child| child()) {
            Some(never) => match never {},
            None => exit_now(127),
        }
    }
    const STACK: usize = 512 << 10;
    // Pages are had when they are touched. The lowest stays out of reach.
    const GUARD: usize = 64 << 10;
    let (all, none) = (ProtFlags::READ | ProtFlags::WRITE, MprotectFlags::empty());
    // SAFETY: a new mapping at an address of the kernel's choice.
    let stack = unsafe { mmap_anonymous(std::ptr::null_mut(), STACK, all, MapFlags::PRIVATE | MapFlags::STACK)? };
    // SAFETY: nothing is in there yet.
    unsafe { mprotect(stack, GUARD, none)? };
    let mut child = Some(child);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the end of the mapping.
    let top = unsafe { stack.add(STACK) };
    // SAFETY: the child gets a stack of its own and runs while this process, which has no other thread, is stopped; it
    // does not come back, so nothing of its frames is used after it. What it leaves in memory stays valid: it changes
    // what it captured only as any closure may. Descriptors, ids and signal handlers are its own.
    let pid = unsafe { libc::clone(enter::<F>, top, flags, (&raw mut child).cast()) };
    let error = io::Error::last_os_error();
    // SAFETY: the child runs in another program by now, or not at all.
    unsafe { munmap(stack, STACK)? };
    if pid == -1 { Err(error) } else { Ok(pid) }
}

/// No signal ignored that whoever started this process ignored. (SIGPIPE still is: Rust wants it so.)
pub fn forget_ignored_signals() {
    for number in (1..=64).filter(|number| *number != libc::SIGPIPE) {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: asks only, into room of the right size; unknown numbers are refused.
        let known = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) } == 0;
        // SAFETY: it was filled in when the call succeeded, and is plain data.
        if known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN {
            // SAFETY: SIG_DFL is no function, so nothing can be called.
            let _ = unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

/// No signal ignored or blocked: what a program expects to find when it starts. Handlers go with exec anyway; what is
/// ignored and blocked would stay, and that is what this code itself has changed since [`forget_ignored_signals`].
pub fn attend_to_signals() {
    for number in [libc::SIGPIPE, libc::SIGCHLD] {
        // SAFETY: SIG_DFL is no function, so nothing can be called.
        let _ = unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Lets children vanish when they end instead of waiting to be asked about.
pub fn forget_children() {
    // SAFETY: SIG_IGN is no function, so nothing can be called.
    let _ = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Undoes [`forget_children`].
pub fn remember_children() {
    // SAFETY: SIG_DFL is no function, so nothing can be called.
    let _ = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Marks all descriptors from `first` on to be closed by exec.
///
/// # Errors
/// `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: nothing is closed now, only flags are set.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes another program. Returns only when that fails.
pub fn exec(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(path, argv, env) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}
