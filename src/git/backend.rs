//! The role `git-backend`: gives up everything but one repository and becomes `git http-backend`.
//!
//! Below the instance's RUN, in mounts of its own that nobody else sees, it finds
//!
//! ```text
//!  app.git     the repository, wherever ROOT is: git needs no right to pass through the directories above
//!  hokku       this program, for the hook
//!  hooks/      pre-receive and update, root's
//!  hook.sock   where the hook sends its source
//! ```
//!
//! and none of the instance's sockets and records.
#![forbid(unsafe_code)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What the repository is called inside.
pub(super) const REPOSITORY: &str = "app.git";

/// The largest file git may write: a pack of a source that is refused as too large later on.
const FILE_LIMIT: u64 = 4 << 30;

/// Where the hooks are run from: the hook's program tells its roles apart by the first argument.
const PRE_RECEIVE: &str = "#!/bin/sh\nexec \"$HOKKU_HOOK\" git-hook pre-receive\n";
const UPDATE: &str = "#!/bin/sh\nexec \"$HOKKU_HOOK\" git-hook update \"$1\"\n";

/// `git-backend REPOSITORY SOCKET UID`, with the CGI variables in the environment.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    match become_git(args.into_iter().collect::<Vec<_>>().as_slice()) {
        Ok(never) => match never {},
        Err(error) => {
            tracing::error!("{error}");
            answer_failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Standard error is the server's log; nobody has set up tracing in this role.
fn answer_failure(error: &io::Error) {
    use io::Write as _;
    // When the server does not listen any more there is nobody to tell.
    let _ = writeln!(io::stderr(), "git-backend: {error}");
    let _ = io::stdout().write_all(b"Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nGit could not be started on the server.\n");
}

fn become_git(args: &[String]) -> io::Result<Infallible> {
    let [repository, socket, uid] = args else { return Err(io::ErrorKind::InvalidInput.into()) };
    let uid: u32 = uid.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let place = Path::new(socket).parent().ok_or(io::ErrorKind::InvalidInput)?;
    // Git unpacks what is pushed in memory: where that is used up it ends, and neither the server, whose own this was, nor
    // an app.
    std::fs::write("/proc/self/oom_score_adj", "500")?;
    enclose(place, Path::new(repository), Path::new(socket))?;
    confine(uid)?;
    let repository = place.join(REPOSITORY);
    if !repository.join("HEAD").exists() {
        make(&repository)?;
    }
    let mut git = Command::new("git");
    git.arg("http-backend").envs(settings(place));
    Err(git.exec())
}

/// Covers `place` by a directory of our own with just what git needs.
fn enclose(place: &Path, repository: &Path, socket: &Path) -> io::Result<()> {
    // Taken along as mounts of their own: the way to them is covered next, and what is merely open belongs to the
    // mount namespace that is left.
    let repository = take(repository)?;
    let socket = take(socket)?;
    let program = take(Path::new("/proc/self/exe"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("unshare"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(step("make mounts private"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("mode=755,size=1m")).map_err(step("mount tmpfs"))?;
    fs::create_dir(place.join(REPOSITORY))?;
    put(&repository, &place.join(REPOSITORY))?;
    for (file, name) in [(&socket, "hook.sock"), (&program, "hokku")] {
        fs::write(place.join(name), "")?;
        put(file, &place.join(name))?;
    }
    fs::create_dir(place.join("hooks"))?;
    for (name, text) in [("pre-receive", PRE_RECEIVE), ("update", UPDATE)] {
        let path = place.join("hooks").join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A detached copy of the mount at `path`.
fn take(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(|error| io::Error::other(format!("open_tree {}: {error}", path.display())))
}

fn put(source: &OwnedFd, target: &Path) -> io::Result<()> {
    move_mount(source, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| io::Error::other(format!("move_mount {}: {error}", target.display())))
}

fn step(doing: &'static str) -> impl FnOnce(nix::Error) -> io::Error {
    move |error| io::Error::other(format!("{doing}: {error}"))
}

/// The order matters: what takes privileges away comes after what needs them.
fn confine(uid: u32) -> io::Result<()> {
    for (resource, value) in
        [(Resource::RLIMIT_FSIZE, FILE_LIMIT), (Resource::RLIMIT_NOFILE, 1024), (Resource::RLIMIT_CORE, 0)]
    {
        let (_, hard) = getrlimit(resource).map_err(step("getrlimit"))?;
        setrlimit(resource, value.min(hard), value.min(hard)).map_err(step("setrlimit"))?;
    }
    // Files in the repository are nobody else's business.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    chdir("/").map_err(step("chdir"))?;
    setgroups(&[]).map_err(step("setgroups"))?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group).map_err(step("setresgid"))?;
    setresuid(user, user, user).map_err(step("setresuid"))?;
    prctl::set_no_new_privs().map_err(step("no_new_privs"))?;
    // After the change of user, which resets it: git does not outlive the server.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(step("pdeathsig"))
}

fn make(repository: &Path) -> io::Result<()> {
    let status = Command::new("git")
        .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])
        .arg(repository)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/")
        .stdout(io::stderr())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("git init: {status}"))) }
}

/// Git's configuration comes from here, not from the repository, so that it changes with the program.
fn settings(place: &Path) -> Vec<(String, String)> {
    let path = |name: &str| place.join(name).display().to_string();
    let configuration = [
        ("core.hooksPath", path("hooks")),
        ("http.receivepack", "true".into()),
        ("http.getanyfile", "false".into()),
        ("receive.fsckObjects", "true".into()),
        ("receive.maxInputSize", "2g".into()),
        ("receive.denyDeleteCurrent", "ignore".into()),
        ("receive.advertisePushOptions", "false".into()),
        // Housekeeping while the pusher waits, not by a process that nobody knows of.
        ("gc.autoDetach", "false".into()),
        ("pack.threads", "1".into()),
        ("pack.windowMemory", "64m".into()),
        ("core.bigFileThreshold", "16m".into()),
    ];
    let mut env = vec![
        ("HOME".to_owned(), "/".to_owned()),
        ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
        ("GIT_PROJECT_ROOT".to_owned(), place.display().to_string()),
        ("GIT_HTTP_EXPORT_ALL".to_owned(), "1".to_owned()),
        ("HOKKU_HOOK".to_owned(), path("hokku")),
        ("HOKKU_SOCKET".to_owned(), path("hook.sock")),
        ("GIT_CONFIG_COUNT".to_owned(), configuration.len().to_string()),
    ];
    for (index, (key, value)) in configuration.into_iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{index}"), key.to_owned()));
        env.push((format!("GIT_CONFIG_VALUE_{index}"), value));
    }
    env
}
