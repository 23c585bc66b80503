//! The kernel: the only place with `unsafe`. Safe functions over owned types; knows nothing of dynos.
#![expect(unsafe_code, reason = "the one place where system calls are wrapped")]

pub mod caps;
pub mod cgroup;
pub mod confine;
pub mod fd;
pub mod image;
pub mod inherit;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod netfilter;
pub mod netlink;
pub mod open_files;
pub mod process;
pub mod quota;
pub mod seccomp;
pub mod shm;
pub mod syscalls;
pub mod tree;
pub mod trial;
pub mod tty;
pub mod unprivileged;
pub mod userns;
