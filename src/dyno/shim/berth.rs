//! A dyno's place on the host: its walls, its log ring and its pid 1, which waits there to be told what to run.
//!
//! Most of a start is the same for every dyno, and is done before anybody asks for one. Where a configuration wants
//! something else, the berth that waits is given up for one of that shape.
#![forbid(unsafe_code)]

use crate::domain::instance::Instance;
use crate::dyno::base::Base;
use crate::dyno::init::{self, Init};
use crate::dyno::protocol::{self, Request, Stdio};
use crate::dyno::record;
use crate::dyno::ring::Ring;
use crate::dyno::scratch::{Bounds, Kept, Layer};
use crate::dyno::shape::{self, Shape};
use crate::dyno::slot;
use crate::dyno::spec::{self, Config, Standard};
use crate::dyno::step::{StepError, step};
use crate::sys::cgroup::{Group, GroupLimits};
use crate::sys::fd;
use crate::sys::process::{self, Child, Fork, SingleThreaded};
use oci_spec::runtime::Spec;
use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A dyno whose program runs.
pub(super) struct Running {
    pub(super) walls: Walls,
    pub(super) layer: Kept,
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
    socket: Option<PathBuf>,
}

impl Walls {
    /// Ends what still runs and removes what was made. What can't be removed now, the server's next scan finds. The link
    /// is not waited for: it goes soon after its namespace.
    pub(super) fn take_down(&self) {
        let _ = self.group.kill();
        let _ = self.group.remove();
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Who a berth is for. Pid 1 must not have them: it would keep their lines open, and is none of their business.
pub(super) struct Callers {
    pub(super) launcher: OwnedFd,
    pub(super) connection: UnixStream,
}

/// A place with a pid 1 that waits.
pub(super) struct Berth {
    shape: Shape,
    limits: GroupLimits,
    bounds: Bounds,
    group: Group,
    kept: Kept,
    ring: Ring,
    /// Where the ring is until a dyno has the berth; `None` when it is where it belongs.
    ring_file: Option<PathBuf>,
    child: Child,
    /// What pid 1 says: nothing, when all went well.
    word: OwnedFd,
    /// What pid 1 is told: the request, then a byte to go on.
    orders: UnixStream,
    ends: [Option<OwnedFd>; 3],
}

impl Berth {
    /// For the next dyno in a slot, whatever it will be.
    pub(super) fn ahead(
        single: &SingleThreaded,
        base: &Base,
        instance: &Instance,
        slot: u16,
        bounds: Bounds,
        callers: Callers,
    ) -> Result<(Self, Callers), StepError> {
        let shape = Shape::of_slot(instance, slot);
        let file = slot::ring(instance, slot);
        let ring = step("make the log ring", file.display(), Ring::create(&file))?;
        let pipes = pipes(Stdio::Attach { tty: None }, shape.first_id() + spec::USER)?;
        let limits = (base.limits.clone(), bounds);
        let (berth, callers) = Self::build(single, base, instance, shape, limits, ring, pipes, [true, false], callers)?;
        Ok((Self { ring_file: Some(file), ..berth }, callers))
    }

    /// For one configuration.
    fn for_config(
        single: &SingleThreaded,
        base: &Base,
        instance: &Instance,
        bundle: &Path,
        spec: &Spec,
        stdio: Stdio,
    ) -> Result<Self, StepError> {
        let managed = stdio != Stdio::Inherit;
        let ring = if managed { Ring::create(&bundle.join(record::RING)) } else { Ring::anonymous() };
        let ring = step("make the log ring", bundle.display(), ring)?;
        let (shape, limits) = (Shape::of(spec)?, (shape::limits(spec)?, shape::bounds(spec)?));
        let pipes = pipes(stdio, shape.first_id() + spec::USER)?;
        let built = Self::build(single, base, instance, shape, limits, ring, pipes, [false, !managed], ());
        built.map(|(berth, ())| berth)
    }

    #[expect(clippy::too_many_arguments, reason = "the two above are the ways to call it")]
    fn build<C>(
        single: &SingleThreaded,
        base: &Base,
        instance: &Instance,
        shape: Shape,
        (limits, bounds): (GroupLimits, Bounds),
        ring: Ring,
        [ends, pipes]: [[Option<OwnedFd>; 3]; 2],
        [standard, by_hand]: [bool; 2],
        callers: C,
    ) -> Result<(Self, C), StepError> {
        let ahead = shape.make_ahead(single, instance)?;
        let Layer { mount, kept } = base.scratch.make(bounds)?;
        let (word, init_word) = step(
            "make a socket",
            "init",
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None),
        )?;
        let (orders, init_orders) = step("make a socket", "init", UnixStream::pair())?;
        let (parent, name) = &shape.group;
        // An instance that is taken away must not get a group again from a shim that was forked before.
        let create = if by_hand { Group::create } else { Group::create_below };
        let group = create(&base.hierarchy, parent, name, &limits);
        let group = group.map_err(|error| StepError::caused("make the cgroup", name, &error))?;
        let child = match process::clone3(single, shape.clone_flags, group.v2_dir()) {
            Ok(Fork::Child) => {
                drop((word, orders, ends, callers));
                let standard = standard.then_some(&base.standard);
                let (word, orders) = (init_word, init_orders);
                init::run(&Init {
                    single,
                    base,
                    shape: &shape,
                    group: &group,
                    ring: &ring,
                    standard,
                    ahead,
                    scratch: mount,
                    word,
                    orders,
                    pipes,
                })
            }
            Ok(Fork::Parent(child)) => child,
            Err(error) => {
                let _ = group.remove();
                return step("clone pid 1", "clone3", Err(error));
            }
        };
        let ring_file = None;
        Ok((Self { shape, limits, bounds, group, kept, ring, ring_file, child, word, orders, ends }, callers))
    }

    fn suits(&self, base: &Base, spec: &Spec) -> bool {
        Shape::of(spec).is_ok_and(|shape| shape == self.shape)
            && shape::bounds(spec).is_ok_and(|bounds| bounds == self.bounds)
            // Made on a full disk, for example, that has room again.
            && self.kept.instead.is_none()
            && Standard::of(spec) == base.standard
    }

    /// Gives it up, and all that was made for it.
    pub(super) fn give_up(self) {
        let _ = process::signal(&self.child.pidfd, libc::SIGKILL);
        let _ = process::wait(self.child.pidfd.as_fd());
        Walls { group: self.group, socket: None }.take_down();
        if let Some(file) = self.ring_file {
            let _ = fs::remove_file(file);
        }
    }

    fn tell(&self, bytes: &[u8]) {
        // A pid 1 that is gone has said why, or its end says it.
        let _ = (&self.orders).write_all(bytes);
    }
}

/// Makes the dyno, in a berth that waits if there is one. When a step fails, nothing is left.
pub(super) fn launch(
    single: &SingleThreaded,
    base: &Base,
    instance: &Instance,
    request: &Request,
    waiting: Option<Berth>,
) -> Result<Running, StepError> {
    let order = protocol::encode(request);
    if let Some(berth) = &waiting {
        // At once: it reads the configuration while this does.
        berth.tell(&order);
    }
    let Request { bundle, stdio, .. } = request;
    let config = step("read the configuration", bundle.display(), Config::read(bundle));
    let (config, waiting) = match (config, waiting) {
        (Ok(config), Some(berth)) if berth.suits(base, &config.spec) => (config, Some(berth)),
        (config, waiting) => {
            waiting.into_iter().for_each(Berth::give_up);
            (config?, None)
        }
    };
    base.show("hokku-shim", &config.spec);
    let berth = if let Some(berth) = waiting {
        berth
    } else {
        let berth = Berth::for_config(single, base, instance, bundle, &config.spec, *stdio)?;
        berth.tell(&order);
        berth
    };
    match occupy(&berth, &config.spec, bundle, *stdio) {
        Ok(occupied) => Ok(running(berth, &config.spec, bundle, *stdio, occupied)),
        Err(error) => {
            berth.give_up();
            let _ = fs::remove_file(bundle.join(record::SOCKET));
            Err(error)
        }
    }
}

/// Makes a berth this dyno's, and lets pid 1 start the program. Returns where others reach us, and the terminal.
fn occupy(
    berth: &Berth,
    spec: &Spec,
    bundle: &Path,
    stdio: Stdio,
) -> Result<(Option<UnixListener>, Option<OwnedFd>), StepError> {
    let limits = shape::limits(spec)?;
    if limits != berth.limits {
        let limited = berth.group.set_limits(&limits);
        limited.map_err(|error| StepError::caused("limit the dyno", &berth.shape.group.1, &error))?;
    }
    let listener = match stdio {
        Stdio::Inherit => None,
        _ => Some(listen(&bundle.join(record::SOCKET))?),
    };
    if let Some(file) = &berth.ring_file {
        step("place the log ring", bundle.display(), fs::rename(file, bundle.join(record::RING)))?;
    }
    berth.tell(&[init::GO]);
    Ok((listener, wait_for(&berth.word)?))
}

fn running(
    berth: Berth,
    spec: &Spec,
    bundle: &Path,
    stdio: Stdio,
    (listener, terminal): (Option<UnixListener>, Option<OwnedFd>),
) -> Running {
    let limit = spec::number(spec, spec::TIME_LIMIT).map(|millis| Instant::now() + Duration::from_millis(millis));
    let Berth { group, kept, ring, child, ends, .. } = berth;
    // A berth that waited has pipes for every case.
    let [input, output, errors] = match (stdio, ends) {
        (Stdio::Attach { tty: Some(_) }, _) => [None, None, None],
        (Stdio::Attach { tty: None }, ends) => ends,
        (Stdio::Log { .. } | Stdio::Inherit, [_, out, err]) => [None, out, err],
    };
    let socket = listener.is_some().then(|| bundle.join(record::SOCKET));
    Running {
        walls: Walls { group, socket },
        layer: kept,
        ring,
        stdio,
        listener,
        child,
        stdin: input,
        stdout: output,
        stderr: errors,
        terminal,
        limit,
    }
}

fn listen(path: &Path) -> Result<UnixListener, StepError> {
    // A shim that was killed left its own behind.
    let _ = fs::remove_file(path);
    let listener = step("listen", path.display(), UnixListener::bind(path))?;
    step("listen", path.display(), listener.set_nonblocking(true))?;
    Ok(listener)
}

/// The pipes for 0, 1 and 2: our ends, and the program's.
pub(super) fn pipes(stdio: Stdio, owner: u32) -> Result<[[Option<OwnedFd>; 3]; 2], StepError> {
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

/// Pid 1's word, which is none when all went well. Returns the terminal, if it was to have one.
fn wait_for(socket: &OwnedFd) -> Result<Option<OwnedFd>, StepError> {
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
