//! Everything that a program can see of the walls around it, a line each: the same bundle run by another OCI runtime has
//! to give the same lines.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Options of file systems that name places on the host, or come from its size.
const OF_THE_HOST: [&str; 6] = ["lowerdir", "lowerdir+", "upperdir", "workdir", "inode64", "nr_inodes"];

/// `paths` are looked at one by one.
pub(crate) fn view(paths: &str) {
    status();
    for file in ["uid_map", "gid_map", "setgroups", "cgroup", "oom_score_adj", "personality", "timerslack_ns"] {
        say(file, &text(&format!("/proc/self/{file}")));
    }
    for entry in names("/proc/self/ns") {
        let link = fs::read_link(format!("/proc/self/ns/{entry}")).map(|link| link.display().to_string());
        say(&format!("namespace {entry}"), &link.unwrap_or_default());
    }
    mounts();
    limits();
    for place in ["/", "/dev", "/sys", "/etc", "/proc/self/fd"] {
        say(&format!("list {place}"), &names(place).join(" "));
    }
    for name in names("/dev") {
        file(Path::new(&format!("/dev/{name}")));
    }
    for path in paths.split(',') {
        say(&format!("path {path}"), &path_seen(Path::new(path)));
    }
    for name in ["kernel/hostname", "kernel/domainname", "user/max_user_namespaces", "kernel/core_pattern"] {
        say(&format!("parameter {name}"), &text(&format!("/proc/sys/{name}")));
    }
    for name in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        say(&format!("text {name}"), &text(name));
    }
    process();
}

fn say(key: &str, value: &str) {
    let value: Vec<&str> = value.split_whitespace().collect();
    println!("{}: {}", key.replace(':', ";"), value.join(" "));
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn status() {
    const WANTED: [&str; 10] =
        ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask", "SigBlk", "SigIgn", "Threads"];
    for line in text("/proc/self/status").lines() {
        let (key, value) = line.split_once(':').unwrap();
        if key.starts_with("Cap") || WANTED.contains(&key) {
            say(key, value);
        }
    }
}

/// By its place: kind, what the mount forbids, what its file system was told.
fn mounts() {
    for line in text("/proc/self/mountinfo").lines() {
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        let options = [sorted(mount[5]), file_system[0].to_owned(), sorted(file_system[2])];
        say(&format!("mount {}", mount[4]), &options.join(" "));
    }
}

fn sorted(options: &str) -> String {
    let mut options: Vec<&str> = options.split(',').collect();
    options.retain(|option| !OF_THE_HOST.contains(&option.split('=').next().unwrap()));
    options.sort_unstable();
    options.join(",")
}

fn limits() {
    for line in text("/proc/self/limits").lines().skip(1) {
        let (name, rest) = line.split_at(26.min(line.len()));
        say(&format!("limit {}", name.trim()), rest);
    }
}

fn file(path: &Path) {
    let status = fs::symlink_metadata(path).unwrap();
    let link = fs::read_link(path).map(|to| format!("to {}", to.display())).unwrap_or_default();
    say(&format!("file {}", path.display()), &format!("{:o} {} {link}", status.mode(), status.rdev()));
    say(&format!("owner {}", path.display()), &format!("{} {}", status.uid(), status.gid()));
}

/// What is there, and whether it could be written if modes let it.
fn path_seen(path: &Path) -> String {
    let Ok(status) = fs::metadata(path) else { return "none".to_owned() };
    let kind = match status.file_type() {
        kind if kind.is_dir() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) => {
            "empty directory"
        }
        kind if kind.is_dir() => "directory",
        kind if kind.is_char_device() => "device",
        _ => "file",
    };
    let name = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name lives across the call.
    let writable = unsafe { libc::access(name.as_ptr(), libc::W_OK) } == 0;
    let read_only = !writable && io::Error::last_os_error().raw_os_error() == Some(libc::EROFS);
    format!("{kind} {} {}", status.rdev(), if read_only { "read-only" } else { "" })
}

fn process() {
    say("program", &std::env::args().next().unwrap());
    say("directory", &std::env::current_dir().unwrap().display().to_string());
    say("environment", &std::env::vars().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
    say("process", &std::process::id().to_string());
    let links = text("/proc/net/dev");
    let links = links.lines().skip(2).map(|line| line.split(':').next().unwrap().trim());
    say("links", &links.collect::<Vec<_>>().join(" "));
    let loopback =
        std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", socket.local_addr()?));
    say("loopback", if loopback.is_ok() { "up" } else { "down" });
    let process = std::process::id();
    // SAFETY: asks for a number.
    let session = unsafe { libc::getsid(0) };
    say("leads its session", &(session.cast_unsigned() == process).to_string());
    // SAFETY: asks for a number.
    say("dumpable", &unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }.to_string());
    // SAFETY: asks for a number.
    say("nice", &unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }.to_string());
}
