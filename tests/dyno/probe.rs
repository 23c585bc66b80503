//! Run as a dyno: says from inside what it is, and whether the attacks named as arguments succeed. One line each:
//! `NAME: VALUE`, for attacks `NAME: yes` or `NAME: no, WHY`.
#![expect(unsafe_code, reason = "attacks are system calls that no library offers")]
#![expect(clippy::unwrap_used, reason = "a probe that can't go on fails its test")]
#![expect(clippy::print_stdout, reason = "that is how it answers")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn main() {
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').unwrap_or((argument.as_str(), ""));
        match name {
            "status" => status(),
            "mounts" => mounts(),
            "fds" => println!("fds: {}", names("/proc/self/fd").join(" ")),
            "dev" => println!("dev: {}", names("/dev").join(" ")),
            "root" => println!("root: {}", names("/").join(" ")),
            "pids" => println!("pids: {}", pids().join(" ")),
            "limits" => limits(),
            "links" => println!("links: {}", names_of_links().join(" ")),
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
        "unshare-user" => call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]),
        "clone-user" => clone_user(),
        "clone3" => match call(libc::SYS_clone3, [0, 0, 0, 0, 0]) {
            // It came as far as to look at its arguments.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        },
        "mount" => {
            call(libc::SYS_unshare, [(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).into(), 0, 0, 0, 0])?;
            let (kind, target) = (CString::new("tmpfs").unwrap(), CString::new("/tmp").unwrap());
            call(libc::SYS_mount, [kind.as_ptr() as i64, target.as_ptr() as i64, kind.as_ptr() as i64, 0, 0])
        }
        "setns" => match call(libc::SYS_setns, [-1, 0, 0, 0, 0]) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            other => other,
        },
        "ptrace" => call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0, 0]),
        // The session keyring, made if missing.
        "keyctl" => call(libc::SYS_keyctl, [0, -3, 1, 0, 0]),
        "io_uring" => {
            let parameters = [0u8; 120];
            call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as i64, 0, 0, 0])
        }
        "userfaultfd" => call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        "no-randomization" => call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE.into(), 0, 0, 0, 0]),
        "uevents" => call(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 15, 0, 0]),
        "routes" => call(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), 0, 0, 0]),
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
        "signal" => call(libc::SYS_kill, [value.parse().unwrap(), 0, 0, 0, 0]),
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
        "device" => {
            let path = CString::new("/tmp/kmsg").unwrap();
            let number = libc::makedev(1, 11);
            call(
                libc::SYS_mknodat,
                [
                    libc::AT_FDCWD.into(),
                    path.as_ptr() as i64,
                    (libc::S_IFCHR | 0o666).into(),
                    i64::try_from(number).unwrap(),
                    0,
                ],
            )
        }
        other => panic!("no attack is called {other}"),
    }
}

fn call(number: i64, arguments: [i64; 5]) -> io::Result<()> {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: pointers among the arguments are to memory that lives across the call, and of the size the call reads or
    // writes; numbers are checked by the kernel.
    match unsafe { libc::syscall(number, first, second, third, fourth, fifth) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn clone_user() -> io::Result<()> {
    let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork; this program has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
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
