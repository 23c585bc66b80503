//! Run as a dyno: says from inside what it is, and whether the attacks named as arguments succeed. One line each:
//! `NAME: VALUE`, for attacks `NAME: yes` or `NAME: no, WHY`.
//!
//! An attack that has got as far as the kernel's look at its arguments has got through, so arguments are mostly nonsense:
//! what would be done is never done.
#![expect(unsafe_code, reason = "attacks are system calls that no library offers")]
#![expect(clippy::unwrap_used, reason = "a probe that can't go on fails its test")]
#![expect(clippy::print_stdout, reason = "that is how it answers")]

#[path = "probe/view.rs"]
mod view;

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

/// What a victim keeps in its memory.
static SECRET: [u8; 16] = *b"secret of others";

fn main() {
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((argument.as_str(), ""));
        match name {
            "status" => status(),
            "mounts" => mounts(),
            // SAFETY: geteuid has no precondition.
            "euid" => println!("euid: {}", unsafe { libc::geteuid() }),
            "fds" => println!("fds: {}", names("/proc/self/fd").join(" ")),
            "dev" => println!("dev: {}", names("/dev").join(" ")),
            "root" => println!("root: {}", names("/").join(" ")),
            "pids" => println!("pids: {}", pids().join(" ")),
            "limits" => limits(),
            "links" => println!("links: {}", names_of_links().join(" ")),
            "cwd" => println!("cwd: {}", std::env::current_dir().unwrap().display()),
            "victim" => be_a_victim(),
            "view" => view::view(value),
            _ => {
                let label = argument.replace(':', ";");
                match attack(name, value) {
                    Ok(()) => println!("{label}: yes"),
                    Err(error) => println!("{label}: no, {error}"),
                }
            }
        }
    }
}

/// What `/proc/self/status` says of rights.
fn status() {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    for line in text.lines() {
        let (key, value) = line.split_once(':').unwrap();
        if key.starts_with("Cap") || ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp"].contains(&key) {
            println!("{key}: {}", value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
}

/// Each mount that allows set-uid programs, and each with devices, by its place.
fn mounts() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let with = |missing: &str| {
        let rows = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let places = rows.filter(|row| !row[5].split(',').any(|option| option == missing)).map(|row| row[4].to_owned());
        let mut places: Vec<String> = places.collect();
        places.sort();
        places.join(" ")
    };
    println!("suid: {}", with("nosuid"));
    println!("dev-mounts: {}", with("nodev"));
    println!("writable: {}", with("ro"));
}

fn limits() {
    for (name, resource) in [("nofile", libc::RLIMIT_NOFILE), ("core", libc::RLIMIT_CORE)] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure lives across the call.
        assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
        println!("{name}: {} {}", limit.rlim_cur, limit.rlim_max);
    }
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn pids() -> Vec<String> {
    names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).collect()
}

fn names_of_links() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    text.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect()
}

fn attack(name: &str, value: &str) -> io::Result<()> {
    match name {
        "call" => reach(&numbers(value)),
        "int80" => by_another_machines_door(),
        "unshare" => call(libc::SYS_unshare, [numbers(value)[0]]),
        "clone" => clone(numbers(value)[0]),
        "mount" => mount(c"tmpfs", c""),
        "ptrace" => call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into()]),
        "perf" => count_events(),
        "bpf" => make_bpf_map(),
        // The session keyring, made if missing.
        "keyctl" => call(libc::SYS_keyctl, [0, -3, 1]),
        "io_uring" => {
            let parameters = [0u8; 120];
            call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as i64])
        }
        "userfaultfd" => call(libc::SYS_userfaultfd, [1]),
        "no-randomization" => call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE.into()]),
        "routes" => call(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 0]),
        "memory-of" => read_memory(&numbers(value)),
        "memory-file-of" => read_memory_file(&numbers(value)),
        "attach-to" => attach(numbers(value)[0]),
        "binary" => find_binary(&numbers(value)),
        "release-agent" => open_release_agent(value),
        "speak-as" => speak_as(value),
        "read" => {
            let mut text = Vec::new();
            File::open(value)?.take(64).read_to_end(&mut text)?;
            if text.is_empty() { Err(io::Error::other("empty")) } else { Ok(()) }
        }
        "list" => match fs::read_dir(value)?.next() {
            Some(_) => Ok(()),
            None => Err(io::Error::other("empty")),
        },
        "write" => OpenOptions::new().write(true).create(true).truncate(false).open(value).map(drop),
        "see" => fs::symlink_metadata(value).map(drop),
        "follow" => fs::read_link(value).map(drop),
        // A program that belongs to root and is marked to run as root: it says as whom it does.
        "suid" => {
            let said = std::process::Command::new(value).arg("euid").output()?.stdout;
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            if said == "euid: 0" { Ok(()) } else { Err(io::Error::other(said)) }
        }
        "unix" => UnixStream::connect(value).map(drop),
        "abstract" => UnixStream::connect_addr(&UnixAddress::from_abstract_name(value)?).map(drop),
        // A System V segment of somebody else's.
        "shm" => call(libc::SYS_shmat, [value.parse().unwrap(), 0, libc::SHM_RDONLY.into()]),
        "syslog" => {
            let buffer = [0u8; 64];
            call(libc::SYS_syslog, [3, buffer.as_ptr() as i64, 64])
        }
        "hostname" => call(libc::SYS_sethostname, [c"taken".as_ptr() as i64, 5]),
        "packets" => call(libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0]),
        "make-dir" => fs::create_dir(value).and_then(|()| fs::remove_dir(value)),
        "real" => open_what_it_says(value),
        "signal" => call(libc::SYS_kill, [value.parse().unwrap(), 0]),
        "connect" => {
            let address: SocketAddr = value.parse().unwrap();
            TcpStream::connect_timeout(&address, Duration::from_secs(2)).map(drop)
        }
        "fork" => fork_many(value.parse().unwrap()),
        "memory" => {
            let mut block = vec![0u8; value.parse::<usize>().unwrap() << 20];
            block.chunks_mut(4096).for_each(|page| page[0] = 1);
            Ok(())
        }
        "fill" => File::create("/app/filling")?.write_all(&vec![1; value.parse::<usize>().unwrap() << 20]),
        "device" => make_device(value),
        other => panic!("no attack is called {other}"),
    }
}

/// Numbers with commas between them.
fn numbers(text: &str) -> Vec<i64> {
    text.split(',').map(|number| number.parse().unwrap()).collect()
}

/// What is not given is zero.
fn call<const N: usize>(number: i64, given: [i64; N]) -> io::Result<()> {
    let mut arguments = [0; 6];
    arguments[..N].copy_from_slice(&given);
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: pointers among the arguments are to memory that lives across the call, and of the size the call reads or
    // writes, or to none at all; numbers are checked by the kernel.
    match unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A call with these arguments and nonsense after them: whether it does more than refuse.
fn reach(call_and_arguments: &[i64]) -> io::Result<()> {
    let mut arguments = [-1; 6];
    arguments[..call_and_arguments.len() - 1].copy_from_slice(&call_and_arguments[1..]);
    match call(call_and_arguments[0], arguments) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(()),
        other => other,
    }
}

/// A system call of the 32-bit machine that this one can also be: its numbers mean other calls.
fn by_another_machines_door() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut result: i32 = 20;
        // SAFETY: 20 is getpid there, which changes nothing but its result.
        unsafe { std::arch::asm!("int 0x80", inout("eax") result, options(nostack)) };
        if result > 0 {
            return Ok(());
        }
    }
    Err(io::ErrorKind::Unsupported.into())
}

fn clone(flags: i64) -> io::Result<()> {
    let flags = flags | i64::from(libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork; this program has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn mount(kind: &CStr, options: &CStr) -> io::Result<()> {
    let target = c"/tmp".as_ptr() as i64;
    call(libc::SYS_mount, [kind.as_ptr() as i64, target, kind.as_ptr() as i64, 0, options.as_ptr() as i64])
}

/// `perf_event_open(2)`: this program's own time on the processor, which anybody may count elsewhere.
fn count_events() -> io::Result<()> {
    const SOFTWARE: u32 = 1;
    const TASK_CLOCK: u64 = 1;
    const EXCLUDE_KERNEL: u64 = 1 << 5;
    let mut attributes = [0u64; 16];
    attributes[0] = u64::from(SOFTWARE) | 128 << 32;
    attributes[1] = TASK_CLOCK;
    attributes[5] = EXCLUDE_KERNEL;
    call(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, 0, -1, -1])
}

/// `bpf(2)`: an array of one number.
fn make_bpf_map() -> io::Result<()> {
    const MAP_CREATE: i64 = 0;
    // Kind array, keys of 4 bytes, values of 4 bytes, one entry.
    let attributes = [2u32, 4, 4, 1];
    call(libc::SYS_bpf, [MAP_CREATE, attributes.as_ptr() as i64, 16])
}

/// Says where its secret is and waits for the end of its input.
fn be_a_victim() {
    println!("secret: {}", SECRET.as_ptr() as usize);
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn is_secret(read: &[u8]) -> io::Result<()> {
    if read == SECRET { Ok(()) } else { Err(io::Error::other("something else is there")) }
}

fn read_memory(process_and_address: &[i64]) -> io::Result<()> {
    let mut read = [0u8; SECRET.len()];
    let here = libc::iovec { iov_base: read.as_mut_ptr().cast(), iov_len: read.len() };
    let there = libc::iovec { iov_base: process_and_address[1] as *mut _, iov_len: read.len() };
    let process = process_and_address[0];
    call(libc::SYS_process_vm_readv, [process, &raw const here as i64, 1, &raw const there as i64, 1])?;
    is_secret(&read)
}

fn read_memory_file(process_and_address: &[i64]) -> io::Result<()> {
    let mut read = [0u8; SECRET.len()];
    let file = File::open(format!("/proc/{}/mem", process_and_address[0]))?;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, process_and_address[1].unsigned_abs())?;
    is_secret(&read)
}

/// Only for as long as this takes: seizing does not stop it.
fn attach(process: i64) -> io::Result<()> {
    call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), process])
}

/// Looks for a file by device and inode wherever a process can be followed to what it runs and has open.
fn find_binary(device_and_inode: &[i64]) -> io::Result<()> {
    let mut ways = Vec::new();
    for process in pids() {
        ways.push(format!("/proc/{process}/exe"));
        for dir in ["fd", "map_files"] {
            let dir = format!("/proc/{process}/{dir}");
            let names = fs::read_dir(&dir).into_iter().flatten().flatten();
            ways.extend(names.map(|entry| format!("{dir}/{}", entry.file_name().to_string_lossy())));
        }
    }
    let wanted = |file: &File| {
        let status = file.metadata().unwrap();
        [status.dev(), status.ino()].map(u64::cast_signed) == device_and_inode
    };
    let found = ways.iter().find(|way| File::open(way).is_ok_and(|file| wanted(&file)));
    let way = found.ok_or_else(|| io::Error::other("nowhere"))?;
    // What is running can't be written by anybody.
    let error = OpenOptions::new().write(true).open(way).unwrap_err();
    if error.raw_os_error() == Some(libc::ETXTBSY) { Ok(()) } else { Err(error) }
}

/// Mounts a hierarchy of control groups of version 1 and opens what its kernel runs as root when a group gets empty.
fn open_release_agent(hierarchy: &str) -> io::Result<()> {
    mount(c"cgroup", &CString::new(hierarchy).unwrap())?;
    OpenOptions::new().write(true).open("/tmp/release_agent").map(drop)
}

/// Sends a datagram under an address that is not its own: `FROM-TO`, both with ports.
fn speak_as(from_and_to: &str) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let (from, to) = from_and_to.split_once('-').unwrap();
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // This lets anybody bind, but not send; the next is for the privileged only.
    sockopt::set_ip_freebind(&socket, true)?;
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpTransparent, &true);
    bind(&socket, &from.parse::<SocketAddr>().unwrap())?;
    UdpSocket::from(socket).send_to(b"spoken", to).map(drop)
}

/// Not something else in its place.
fn open_what_it_says(path: &str) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let is_device = file.metadata()?.file_type().is_char_device();
    if is_device { Err(io::Error::other("a device is in its place")) } else { Ok(()) }
}

/// The kernel's log as a device of its own, where `dir` is.
fn make_device(dir: &str) -> io::Result<()> {
    let path = format!("{dir}/kmsg");
    let name = CString::new(path.as_str()).unwrap();
    let number = i64::try_from(libc::makedev(1, 11)).unwrap();
    let mode = (libc::S_IFCHR | 0o666).into();
    call(libc::SYS_mknodat, [libc::AT_FDCWD.into(), name.as_ptr() as i64, mode, number])?;
    File::open(path).map(drop)
}

/// Children that stay until all are there.
fn fork_many(count: u32) -> io::Result<()> {
    for _ in 0..count {
        // SAFETY: this program has one thread, and the child does nothing but wait to be killed.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: pause has no precondition.
            0 => unsafe {
                libc::pause();
            },
            _ => {}
        }
    }
    Ok(())
}
