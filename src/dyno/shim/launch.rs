//! From a request to a running program.
#![forbid(unsafe_code)]

use crate::domain::instance::Instance;
use crate::dyno::init::{self, Init, LAYER, Targets};
use crate::dyno::protocol::{self, Request, Stdio};
use crate::dyno::ring::Ring;
use crate::dyno::step::{StepError, step};
use crate::dyno::{policy, record, spec};
use crate::sys::cgroup::{Group, GroupLimits, Hierarchy};
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, Child, Fork, SingleThreaded};
use crate::sys::userns::{self, Mapping};
use crate::sys::{fd, seccomp};
use oci_spec::runtime::{LinuxCpu, LinuxNamespaceType, Spec};
use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A dyno whose program runs.
pub(super) struct Running {
    pub(super) walls: Walls,
    pub(super) ring: Ring,
    pub(super) stdio: Stdio,
    /// For other servers to connect to; none when started by hand.
    pub(super) listener: Option<UnixListener>,
    pub(super) child: Child,
    /// Our ends of the program's pipes; none of them with a terminal.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    /// When it has to be killed.
    pub(super) limit: Option<Instant>,
}

/// What a dyno has on the host, besides its directory.
pub(super) struct Walls {
    pub(super) group: Group,
    instance: Instance,
    /// The slot whose link has to be removed.
    link: Option<u16>,
    bundle: PathBuf,
}

impl Walls {
    /// Ends what still runs and removes what was made. What can't be removed now, the server's next scan finds.
    pub(super) fn take_down(&self) {
        let _ = self.group.kill();
        let _ = self.group.remove();
        if let Some(slot) = self.link {
            let _ = crate::dyno::network::release(&self.instance, slot);
        }
        let _ = fs::remove_file(self.bundle.join(record::SOCKET));
    }
}

/// Makes the walls, then the dyno in them. When a step fails, what was made is taken down.
pub(super) fn launch(
    single: &SingleThreaded,
    instance: &Instance,
    request: &Request,
    network: Option<OwnedFd>,
) -> Result<Running, StepError> {
    let bundle = request.bundle.clone();
    let spec = step("read the configuration", bundle.display(), spec::read(&bundle))?;
    let filter = filter(&spec)?;
    let managed = request.stdio != Stdio::Inherit;
    let listener = if managed { Some(listen(&bundle.join(record::SOCKET))?) } else { None };
    let ring = if managed { Ring::create(&bundle.join(record::RING)) } else { Ring::anonymous() };
    let ring = step("make the log ring", bundle.display(), ring)?;
    let namespace = join(instance, &spec, network)?;
    let group = group(&spec)?;
    let link = namespace.is_some().then(|| spec::number(&spec, spec::SLOT)).flatten();
    let walls = Walls { group, instance: instance.clone(), link, bundle };
    match start(single, &walls.group, &spec, request, filter.as_ref(), &ring, namespace) {
        Ok(started) => {
            let limit =
                spec::number(&spec, spec::TIME_LIMIT).map(|millis| Instant::now() + Duration::from_millis(millis));
            let Started { child, stdin, stdout, stderr, terminal } = started;
            Ok(Running { walls, ring, stdio: request.stdio, listener, child, stdin, stdout, stderr, terminal, limit })
        }
        Err(error) => {
            walls.take_down();
            Err(error)
        }
    }
}

fn filter(spec: &Spec) -> Result<Option<seccomp::Program>, StepError> {
    let Some(policy) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else { return Ok(None) };
    let policy =
        policy::read(policy).map_err(|error| StepError::new("read the system call policy", "seccomp", error))?;
    Ok(Some(seccomp::compile(&policy)))
}

fn listen(path: &Path) -> Result<UnixListener, StepError> {
    // A shim that was killed left its own behind.
    let _ = fs::remove_file(path);
    let listener = step("listen", path.display(), UnixListener::bind(path))?;
    step("listen", path.display(), listener.set_nonblocking(true))?;
    Ok(listener)
}

/// The network namespace that the dyno is to be born into.
fn join(instance: &Instance, spec: &Spec, prepared: Option<OwnedFd>) -> Result<Option<OwnedFd>, StepError> {
    if spec::note(spec, spec::NETWORK) != Some("routed") {
        return Ok(None);
    }
    if prepared.is_some() {
        return Ok(prepared);
    }
    let slot = spec::number(spec, spec::SLOT);
    let slot = slot.ok_or_else(|| StepError::new("make the network", "slot", "the configuration names none"))?;
    let made = crate::dyno::network::prepare(instance, slot);
    made.map(Some).map_err(|error| StepError::new("make the network", instance.link(slot), chain(&error)))
}

fn group(spec: &Spec) -> Result<Group, StepError> {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref()).unwrap_or(Path::new("/"));
    let wrong = |what: &str| StepError::new("make the cgroup", path.display(), what);
    let parent = path.parent().and_then(|parent| parent.strip_prefix("/").ok()).and_then(Path::to_str);
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(parent), Some(name)) = (parent.filter(|parent| !parent.is_empty()), name) else {
        return Err(wrong("the path has to be /PARENT/NAME"));
    };
    let resources = linux.and_then(|linux| linux.resources().as_ref()).ok_or_else(|| wrong("there are no limits"))?;
    let memory = resources.memory().as_ref().and_then(|memory| memory.swap().or(memory.limit()));
    let cpu = resources.cpu().as_ref();
    let percent =
        |quota: i64, period: u64| u32::try_from(quota * 100 / i64::try_from(period).unwrap_or(i64::MAX).max(1)).ok();
    let limits = GroupLimits {
        memory_max: memory.and_then(|limit| u64::try_from(limit).ok()).ok_or_else(|| wrong("memory is not limited"))?,
        memory_high: None,
        cpu_shares: cpu.and_then(LinuxCpu::shares).unwrap_or(1024) * 100 / 1024,
        cpu_quota_percent: cpu.and_then(|cpu| cpu.quota().zip(cpu.period())).and_then(|(q, p)| percent(q, p)),
        pids: resources
            .pids()
            .as_ref()
            .and_then(|pids| u64::try_from(pids.limit()).ok())
            .ok_or_else(|| wrong("processes are not limited"))?,
    };
    let made = Hierarchy::detect().and_then(|hierarchy| Group::create(&hierarchy, parent, name, &limits));
    made.map_err(|error| StepError::new("make the cgroup", path.display(), chain(&error)))
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

struct Started {
    child: Child,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

/// Clones pid 1 into its namespaces, gives it its ids and mounts, and waits until its program runs.
fn start(
    single: &SingleThreaded,
    group: &Group,
    spec: &Spec,
    request: &Request,
    filter: Option<&seccomp::Program>,
    ring: &Ring,
    network: Option<OwnedFd>,
) -> Result<Started, StepError> {
    let mappings = mappings(spec);
    let owner = mappings.first().map_or(0, |mapping| mapping.outside) + spec::USER;
    let [ours, theirs] = pipes(request.stdio, owner)?;
    let (socket, init_socket) = step(
        "make a socket",
        "init",
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None),
    )?;
    let child = match clone(single, group, spec, network)? {
        Fork::Child => {
            drop((socket, ours));
            let (env, files, stdio) = (&request.env, &request.files, request.stdio);
            let socket = init_socket;
            init::run(&Init { single, spec, env, files, filter, group, ring, socket, stdio, pipes: theirs })
        }
        Fork::Parent(child) => child,
    };
    drop((init_socket, theirs));
    let [stdin, stdout, stderr] = ours;
    match bring_up(&child, spec, group, &mappings, &socket) {
        Ok(terminal) => Ok(Started { child, stdin, stdout, stderr, terminal }),
        Err(error) => {
            // It may wait for mounts that never come.
            let _ = process::signal(&child.pidfd, 9);
            let _ = process::wait(child.pidfd.as_fd());
            Err(error)
        }
    }
}

/// The pipes for 0, 1 and 2: our ends, and the program's.
fn pipes(stdio: Stdio, owner: u32) -> Result<[[Option<OwnedFd>; 3]; 2], StepError> {
    let pipe = || step("make a pipe", "standard stream", rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC));
    let ours = |fd: OwnedFd| -> Result<Option<OwnedFd>, StepError> {
        step("make a pipe", "non-blocking", rustix::io::ioctl_fionbio(&fd, true))?;
        Ok(Some(fd))
    };
    // So that the program can open /dev/stdout, which is checked like a file.
    let theirs = |fd: OwnedFd| -> Result<Option<OwnedFd>, StepError> {
        let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
        step("give a pipe away", owner, rustix::fs::fchown(&fd, user, group))?;
        Ok(Some(fd))
    };
    Ok(match stdio {
        Stdio::Attach { tty: Some(_) } => [[None, None, None], [None, None, None]],
        Stdio::Inherit => {
            let same = |fd: BorrowedFd<'_>| step("keep a standard stream", "stdio", fd.try_clone_to_owned());
            let theirs = [same(io::stdin().as_fd())?, same(io::stdout().as_fd())?, same(io::stderr().as_fd())?];
            [[None, None, None], theirs.map(Some)]
        }
        Stdio::Log { .. } | Stdio::Attach { tty: None } => {
            let (out, err) = (pipe()?, pipe()?);
            let (input, feed) = match stdio {
                Stdio::Attach { .. } => {
                    let (input, feed) = pipe()?;
                    (theirs(input)?, ours(feed)?)
                }
                _ => (None, None),
            };
            [[feed, ours(out.0)?, ours(err.0)?], [input, theirs(out.1)?, theirs(err.1)?]]
        }
    })
}

/// clone3 with the configuration's namespaces. The network's is entered before and left after, because it belongs to
/// the host's user namespace; the cgroup's is pid 1's own business, once it is in its group.
fn clone(single: &SingleThreaded, group: &Group, spec: &Spec, network: Option<OwnedFd>) -> Result<Fork, StepError> {
    let mut flags = 0;
    for namespace in spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
        flags |= match namespace.typ() {
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Network if network.is_none() => libc::CLONE_NEWNET,
            LinuxNamespaceType::Network | LinuxNamespaceType::Cgroup => 0,
            LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
        };
    }
    if flags & libc::CLONE_NEWNS == 0 || flags & libc::CLONE_NEWPID == 0 {
        return Err(StepError::new("clone pid 1", "namespaces", "mount and pid can't be left out"));
    }
    let Some(network) = network else {
        return step("clone pid 1", "clone3", process::clone3(single, flags, group.v2_dir()));
    };
    let enter = |namespace: &OwnedFd| nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET);
    let home: OwnedFd = step("open our network", "/proc/self/ns/net", File::open("/proc/self/ns/net"))?.into();
    step("enter the dyno's network", "setns", enter(&network))?;
    let cloned = process::clone3(single, flags, group.v2_dir());
    if !matches!(cloned, Ok(Fork::Child)) {
        step("leave the dyno's network", "setns", enter(&home))?;
    }
    step("clone pid 1", "clone3", cloned)
}

fn mappings(spec: &Spec) -> Vec<Mapping> {
    let mappings = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
    let mapping = |m: &oci_spec::runtime::LinuxIdMapping| Mapping {
        inside: m.container_id(),
        outside: m.host_id(),
        size: m.size(),
    };
    mappings.into_iter().flatten().map(mapping).collect()
}

/// What pid 1 can't do for itself, then its word. Returns the terminal, if it was to have one.
fn bring_up(
    child: &Child,
    spec: &Spec,
    group: &Group,
    mappings: &[Mapping],
    socket: &OwnedFd,
) -> Result<Option<OwnedFd>, StepError> {
    let namespace = if mappings.is_empty() {
        None
    } else {
        step("map ids", child.pid, userns::map(child.pid, mappings, mappings))?;
        Some(step("open the user namespace", child.pid, userns::open(child.pid))?)
    };
    let mounts = mounts(spec, group, namespace.as_ref().map(AsFd::as_fd))?;
    let targets: Targets = mounts.iter().map(|(target, _)| target.clone()).collect();
    let fds: Vec<BorrowedFd<'_>> = mounts.iter().map(|(_, mount)| mount.as_fd()).collect();
    step("hand over the mounts", "init", fd::send(socket, &protocol::encode(&targets), &fds))?;
    let mut terminal = None;
    loop {
        let mut buffer = vec![0; 8192];
        let (length, fds) = step("wait for pid 1", "init", fd::receive(socket, &mut buffer))?;
        buffer.truncate(length);
        if length == 0 {
            return Ok(terminal);
        } else if buffer == b"t" {
            terminal = fds.into_iter().next();
            if let Some(terminal) = &terminal {
                step("take the terminal", "non-blocking", rustix::io::ioctl_fionbio(terminal, true))?;
            }
        } else {
            let unclear = || StepError::new("wait for pid 1", "init", "it said something unclear");
            return Err(protocol::decode(&mut buffer).ok().flatten().unwrap_or_else(unclear));
        }
    }
}

/// Detached copies of everything of the host's that the dyno will see, each with where it belongs.
fn mounts(spec: &Spec, group: &Group, mapping: Option<BorrowedFd<'_>>) -> Result<Vec<(PathBuf, OwnedFd)>, StepError> {
    let mut made = Vec::new();
    for entry in spec.mounts().iter().flatten() {
        let options = entry.options().as_deref().unwrap_or_default();
        let has = |word: &str| options.iter().any(|option| option == word);
        let attributes =
            Attributes { read_only: has("ro"), nosuid: has("nosuid"), nodev: has("nodev"), noexec: has("noexec") };
        match (entry.typ().as_deref().unwrap_or("bind"), entry.source()) {
            ("overlay", _) => {
                let layers = options.iter().filter_map(|option| option.strip_prefix("lowerdir+="));
                for (index, layer) in layers.enumerate() {
                    // Under an overlay nothing is written to its layers; it refuses layers that say so themselves.
                    let attributes = Attributes { nosuid: true, nodev: true, ..Attributes::default() };
                    let copy = copy(Path::new(layer), attributes, mapping, false)?;
                    made.push((PathBuf::from(format!("{LAYER}{index}")), copy));
                }
            }
            ("bind", Some(source)) => {
                let mapping = mapping.filter(|_| has("idmap"));
                made.push((entry.destination().clone(), copy(source, attributes, mapping, has("rbind"))?));
            }
            ("cgroup", _) => {
                for (source, target) in group.view() {
                    let target = entry.destination().join(target);
                    made.push((target, copy(&source, attributes, None, false)?));
                }
            }
            _ => {}
        }
    }
    Ok(made)
}

fn copy(
    source: &Path,
    attributes: Attributes,
    mapping: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> Result<OwnedFd, StepError> {
    let copy = step("copy a mount", source.display(), mount::copy(rustix::fs::CWD, source, recursive))?;
    step("restrict a mount", source.display(), mount::restrict(copy.as_fd(), attributes, mapping, recursive))?;
    Ok(copy)
}
